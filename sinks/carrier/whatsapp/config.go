package whatsapp

import (
	"crypto/x509"
	_ "embed"
	"regexp"
	"strings"
	"time"

	"fanfare/sinks/carrier/codes"
	"fanfare/sinks/carrier/settings"
)

// Config is one business account on WhatsApp's Cloud API. Its JSON is the configuration of a route; [Parse] reads it.
type Config struct {
	// PhoneNumberID is the number that sends: the id that Meta gives it, not the number. If the sender of a message is
	// such an id, that number sends it.
	PhoneNumberID string `json:"phoneNumberId"`
	// AccessToken is the token of a system user with whatsapp_business_messaging.
	AccessToken settings.Secret `json:"accessToken"`
	// AppSecret is the secret of the app, with which Meta signs webhooks. VerifyToken is a word of your choice that
	// Meta sends when the webhook is registered; if it is empty, the webhook cannot be registered.
	AppSecret   settings.Secret `json:"appSecret"`
	VerifyToken settings.Secret `json:"verifyToken,omitempty"`
	// BaseURL and Version of the Graph API; empty: https://graph.facebook.com and v23.0.
	BaseURL string `json:"baseUrl,omitempty"`
	Version string `json:"version,omitempty"`
	// Window is how many hand-overs may wait for their answers, 1..2000; 0: 64. AnswerTimeout is how long the connector
	// waits for an answer, after which the hand-over is in doubt; 0: 10 s.
	Window        int               `json:"window,omitempty"`
	AnswerTimeout settings.Duration `json:"answerTimeout,omitempty"`
	// CA is a list of certificates in PEM that may sign the server's certificate; empty: those of the system.
	CA string `json:"ca,omitempty"`
	// Codes are lines in the format of codes.csv with the meanings of WhatsApp's codes. They are read after codes.csv.
	Codes []string `json:"codes,omitempty"`
}

// Parse reads a configuration. A field that it does not know is an error, as is what Validate refuses.
func Parse(raw []byte) (Config, error) {
	f := &settings.Faults{}
	var c Config
	f.Note("configuration", settings.Read(raw, &c))
	if err := f.Err("whatsapp"); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// Validate returns all errors of the configuration. Each line names the field and says what to do.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

// standardCodes are Meta's.
//
//go:embed codes.csv
var standardCodes string

const (
	defaultBaseURL       = "https://graph.facebook.com"
	defaultVersion       = "v23.0"
	defaultWindow        = 64
	maxWindow            = 2000
	defaultAnswerTimeout = 10 * time.Second
)

// account is a Config with its defaults, in the form that the connector uses.
type account struct {
	Config

	base    string // address and version
	window  int
	timeout time.Duration
	roots   *x509.CertPool
	codes   *codes.Table
}

var (
	numberID = regexp.MustCompile(`^[0-9]{5,20}$`)
	version  = regexp.MustCompile(`^v[0-9]{1,3}\.[0-9]$`)
)

func (c *Config) resolve() (*account, error) {
	f := &settings.Faults{}
	a := &account{Config: *c}
	if f.Required("phoneNumberId", c.PhoneNumberID, "the id of the number that sends"); c.PhoneNumberID != "" && !numberID.MatchString(c.PhoneNumberID) {
		f.Add("phoneNumberId %q: want the id that Meta gives the number, such as 106540352242922", c.PhoneNumberID)
	}
	f.Required("accessToken", string(c.AccessToken), "the token of a system user")
	f.Required("appSecret", string(c.AppSecret), "the app's secret, with which webhooks are signed")
	if a.Version == "" {
		a.Version = defaultVersion
	}
	if !version.MatchString(a.Version) {
		f.Add("version %q: want one such as %s", a.Version, defaultVersion)
	}
	a.base = strings.TrimSuffix(f.Address("baseUrl", c.BaseURL, defaultBaseURL), "/") + "/" + a.Version
	a.window, a.timeout, a.roots = f.Window(c.Window, defaultWindow, maxWindow), f.Timeout(c.AnswerTimeout, defaultAnswerTimeout), f.Roots(c.CA)
	var err error
	a.codes, err = codes.New(standardCodes, c.Codes)
	f.Note("codes", err)
	return a, f.Err("whatsapp")
}
