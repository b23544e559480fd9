package rcs

import (
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"fanfare/sinks/carrier/codes"
	"fanfare/sinks/carrier/settings"
)

// Config is one partner account at RCS for Business. Its JSON is the configuration of a route; [Parse] reads it.
type Config struct {
	// AgentID is the agent that sends. If the sender of a message is the id of another agent, that agent sends it.
	AgentID string `json:"agentId"`
	// Region that serves the agents: `europe`, `us`, `asia`, or empty, which is the global address.
	Region string `json:"region,omitempty"`
	// TrafficType is the type of all messages: `promotion`, `transaction`, `authentication`, `servicerequest`; empty:
	// the only type of the agent.
	TrafficType string `json:"trafficType,omitempty"`
	// ServiceAccount is the key file of the account that sends. ClientToken is the key with which the platform signs
	// callbacks.
	ServiceAccount ServiceAccount  `json:"serviceAccount"`
	ClientToken    settings.Secret `json:"clientToken"`
	// Capabilities makes the connector query which recipients have RCS before it hands over. It remembers the answers
	// for CapabilitiesFor; 0: 24 h.
	Capabilities    bool              `json:"capabilities,omitempty"`
	CapabilitiesFor settings.Duration `json:"capabilitiesFor,omitempty"`
	// BaseURL is the address of the API, and TokenURL the address that gives access tokens; empty: Google's, and the
	// one in the service account.
	BaseURL  string `json:"baseUrl,omitempty"`
	TokenURL string `json:"tokenUrl,omitempty"`
	// Window is how many hand-overs may wait for their answers, 1..2000; 0: 64. AnswerTimeout is how long the connector
	// waits for an answer, after which the hand-over is in doubt; 0: 10 s.
	Window        int               `json:"window,omitempty"`
	AnswerTimeout settings.Duration `json:"answerTimeout,omitempty"`
	// CA is a list of certificates in PEM that may sign the server's certificate; empty: those of the system.
	CA string `json:"ca,omitempty"`
	// Codes are lines in the format of codes.csv with the meanings of the platform's words. They are read after
	// codes.csv.
	Codes []string `json:"codes,omitempty"`
}

// ServiceAccount has the needed fields of Google's key file. In JSON it is the file, as an object or as text.
type ServiceAccount struct {
	Email    string          `json:"client_email"`
	Key      settings.Secret `json:"private_key"`
	KeyID    string          `json:"private_key_id"`
	TokenURL string          `json:"token_uri"`
}

// UnmarshalJSON implements json.Unmarshaler. Fields that are not needed are skipped.
func (a *ServiceAccount) UnmarshalJSON(raw []byte) error {
	var text string
	if string(raw) == "null" {
		return nil
	}
	if json.Unmarshal(raw, &text) == nil {
		raw = []byte(text)
	}
	type plain ServiceAccount
	if json.Unmarshal(raw, (*plain)(a)) != nil {
		return errors.New("serviceAccount: want the key file of a service account, which is a JSON object")
	}
	return nil
}

// Parse reads a configuration. A field that it does not know is an error, as is what Validate refuses.
func Parse(raw []byte) (Config, error) {
	f := &settings.Faults{}
	var c Config
	f.Note("configuration", settings.Read(raw, &c))
	if err := f.Err("rcs"); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// Validate returns all errors of the configuration. Each line names the field and says what to do.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

// standardCodes are Google's.
//
//go:embed codes.csv
var standardCodes string

const (
	defaultBaseURL       = "https://rcsbusinessmessaging.googleapis.com"
	defaultTokenURL      = "https://oauth2.googleapis.com/token" //nolint:gosec // an address, not a credential
	defaultWindow        = 64
	maxWindow            = 2000
	defaultAnswerTimeout = 10 * time.Second
	defaultKnownFor      = 24 * time.Hour
)

// account is a Config with its defaults, in the form that the connector uses.
type account struct {
	Config

	base     string
	window   int
	timeout  time.Duration
	knownFor time.Duration
	roots    *x509.CertPool
	codes    *codes.Table
}

var (
	agent        = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,128}$`)
	regions      = []string{"", "europe", "us", "asia"}
	trafficTypes = []string{"", "promotion", "transaction", "authentication", "servicerequest", "acknowledgement"}
)

func (c *Config) resolve() (*account, error) {
	f := &settings.Faults{}
	a := &account{Config: *c}
	if f.Required("agentId", c.AgentID, "the agent that sends"); c.AgentID != "" && !agent.MatchString(c.AgentID) {
		f.Add("agentId %q: want the id of an agent, such as acme_retail_x7z_agent", c.AgentID)
	}
	if !slices.Contains(regions, c.Region) {
		f.Add("region %q: want europe, us, asia, or none", c.Region)
	}
	if !slices.Contains(trafficTypes, c.TrafficType) {
		f.Add("trafficType %q: want one of%s", c.TrafficType, strings.Join(trafficTypes, " "))
	}
	f.Required("clientToken", string(c.ClientToken), "the token of the webhook, with which callbacks are signed")
	f.Required("serviceAccount", c.ServiceAccount.Email, "the key file of the service account, with client_email and private_key")
	if c.ServiceAccount.Email != "" {
		f.Note("serviceAccount.private_key", checkKey(string(c.ServiceAccount.Key)))
	}
	usual := defaultBaseURL
	if c.Region != "" {
		usual = strings.Replace(usual, "rcsbusinessmessaging", c.Region+"-rcsbusinessmessaging", 1)
	}
	a.base = strings.TrimSuffix(f.Address("baseUrl", c.BaseURL, usual), "/") + "/v1"
	if usual = c.ServiceAccount.TokenURL; usual == "" {
		usual = defaultTokenURL
	}
	a.TokenURL = f.Address("tokenUrl", c.TokenURL, usual)
	if a.knownFor = time.Duration(c.CapabilitiesFor); a.knownFor == 0 {
		a.knownFor = defaultKnownFor
	}
	if a.knownFor < time.Second || a.knownFor > 31*24*time.Hour {
		f.Add("capabilitiesFor: want 1s to 744h0m0s, got %v", a.knownFor)
	}
	a.window, a.timeout, a.roots = f.Window(c.Window, defaultWindow, maxWindow), f.Timeout(c.AnswerTimeout, defaultAnswerTimeout), f.Roots(c.CA)
	var err error
	a.codes, err = codes.New(standardCodes, c.Codes)
	f.Note("codes", err)
	return a, f.Err("rcs")
}

// checkKey returns what is wrong with a private key. The error contains nothing of the key.
func checkKey(text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("want an RSA key as PEM, which begins with -----BEGIN PRIVATE KEY-----")
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return errors.New("the PEM holds no private key")
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		return fmt.Errorf("got a key of type %T, want RSA", key)
	}
	return nil
}
