package voice

import (
	"cmp"
	"crypto/x509"
	_ "embed"
	"net/url"
	"regexp"
	"strings"
	"time"

	"fanfare/sinks/carrier/codes"
	"fanfare/sinks/carrier/settings"
)

// Config is one account at an Asterisk. Its JSON is the configuration of a route; [Parse] reads it.
type Config struct {
	// BaseURL is the address of the REST interface, such as http://127.0.0.1:8088/ari. Username and Password are those
	// in ari.conf.
	BaseURL  string          `json:"baseUrl"`
	Username string          `json:"username"`
	Password settings.Secret `json:"password"`
	// App is the Stasis application of this account. The ids of its channels begin with it. Two accounts at one
	// Asterisk need different ones. Empty: fanfare.
	App string `json:"app,omitempty"`
	// Endpoint is what Asterisk dials, such as PJSIP/{number}@trunk. {number} is replaced by the recipient's number
	// with its plus, {digits} by the number without.
	Endpoint string `json:"endpoint"`
	// CallerID is the caller of messages that name none.
	CallerID string `json:"callerId,omitempty"`
	// MaxConcurrent is how many calls may exist at the same time, 1..10000. There is no default, because only the
	// contract for the trunk says it.
	MaxConcurrent int `json:"maxConcurrent"`
	// Ring is how long the phone rings if the message does not say it, 1 s to 2 min; 0: 30 s.
	Ring settings.Duration `json:"ring,omitempty"`
	// MachineContext is the context of the dialplan that runs AMD() and returns the call; if it is empty, answering
	// machines cannot be detected. Unsure says what a call counts as when AMD() is not sure: `human` (the default) or
	// `machine`.
	MachineContext string `json:"machineContext,omitempty"`
	Unsure         string `json:"unsure,omitempty"`
	// QueueContext is the context of the dialplan that takes a call after its message, with the name of the queue as
	// extension; if it is empty, there are no queues.
	QueueContext string `json:"queueContext,omitempty"`
	// TextToSpeech is an address that answers with audio, such as
	// https://tts.example.org/say?lang={language}&text={text}; if it is empty, texts cannot be spoken. Language is the
	// language of messages that name none; empty: en.
	TextToSpeech string `json:"textToSpeech,omitempty"`
	Language     string `json:"language,omitempty"`
	// Hold is how long a call is kept up, after its message is over, until its receipt is durable, 10 ms to 1 min; 0: 5
	// s.
	Hold settings.Duration `json:"hold,omitempty"`
	// AnswerTimeout is how long the connector waits for the answer to a hand-over. After it, the hand-over is in doubt.
	// 0: 10 s.
	AnswerTimeout settings.Duration `json:"answerTimeout,omitempty"`
	// CA is a list of certificates in PEM that may sign Asterisk's certificate; empty: those of the system.
	CA string `json:"ca,omitempty"`
	// Codes are lines in the format of codes.csv, which say what answers and ends of calls mean. They are read after
	// codes.csv.
	Codes []string `json:"codes,omitempty"`
}

// Parse reads a configuration. A field that it does not know, or that Validate refuses, is an error.
func Parse(raw []byte) (Config, error) {
	f := &settings.Faults{}
	var c Config
	f.Note("configuration", settings.Read(raw, &c))
	if err := f.Err("voice"); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// Validate returns all errors of the configuration. Each line names the field and says what to do.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

// standardCodes are the codes of Q.850 and of this package.
//
//go:embed codes.csv
var standardCodes string

const (
	defaultApp           = "fanfare"
	defaultLanguage      = "en"
	defaultRing          = 30 * time.Second
	defaultHold          = 5 * time.Second
	defaultAnswerTimeout = 10 * time.Second
	maxConcurrent        = 10_000
)

// account is a Config with its defaults, in the form that the connector uses.
type account struct {
	Config

	base, events  string
	prefix        string // beginning of the ids of our channels
	ring, hold    time.Duration
	timeout       time.Duration
	unsureMachine bool
	roots         *x509.CertPool
	codes         *codes.Table
}

var (
	appName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)
	// word matches a plain name that the dialplan can have as a context, an extension or a queue. It excludes patterns.
	word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$`)
)

func (c *Config) resolve() (*account, error) {
	f := &settings.Faults{}
	a := &account{Config: *c}
	if f.Required("baseUrl", c.BaseURL, "the address of the REST interface, such as http://127.0.0.1:8088/ari"); c.BaseURL != "" {
		a.base = strings.TrimSuffix(f.Address("baseUrl", c.BaseURL, ""), "/")
		a.events = "ws" + strings.TrimPrefix(a.base, "http") + "/events"
	}
	f.Required("username", c.Username, "a user of ari.conf")
	f.Required("password", string(c.Password), "the password of the user of ari.conf")
	if a.App = cmp.Or(c.App, defaultApp); !appName.MatchString(a.App) {
		f.Add("app %q: want up to 40 letters, digits, _ and -", c.App)
	}
	a.prefix = a.App + "-"
	switch f.Required("endpoint", c.Endpoint, "what is dialled, such as PJSIP/{number}@trunk"); {
	case c.Endpoint == "":
	case !strings.Contains(c.Endpoint, "{number}") && !strings.Contains(c.Endpoint, "{digits}"):
		f.Add("endpoint %q: want {number} or {digits} in it", c.Endpoint)
	case !strings.Contains(c.Endpoint, "/"):
		f.Add("endpoint %q: want a technology and a resource, such as PJSIP/{number}@trunk", c.Endpoint)
	}
	if c.MaxConcurrent < 1 || c.MaxConcurrent > maxConcurrent {
		f.Add("maxConcurrent: want 1 to %d calls at once, got %d", maxConcurrent, c.MaxConcurrent)
	}
	if a.ring = cmp.Or(time.Duration(c.Ring), defaultRing); a.ring < time.Second || a.ring > 2*time.Minute {
		f.Add("ring: want 1s to 2m0s, got %v", a.ring)
	}
	for field, context := range map[string]string{"machineContext": c.MachineContext, "queueContext": c.QueueContext} {
		if context != "" && !word.MatchString(context) {
			f.Add("%s %q: want the name of a context of the dialplan", field, context)
		}
	}
	if a.unsureMachine = c.Unsure == "machine"; c.Unsure != "" && c.Unsure != "human" && !a.unsureMachine {
		f.Add("unsure %q: want human or machine", c.Unsure)
	}
	if c.TextToSpeech != "" {
		u, err := url.Parse(strings.NewReplacer("{text}", "x", "{language}", "x").Replace(c.TextToSpeech))
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || !strings.Contains(c.TextToSpeech, "{text}") {
			f.Add("textToSpeech: want an address with {text} in it, such as https://tts.example.org/say?lang={language}&text={text}")
		}
	}
	a.Language = cmp.Or(c.Language, defaultLanguage)
	if a.hold = cmp.Or(time.Duration(c.Hold), defaultHold); a.hold < 10*time.Millisecond || a.hold > time.Minute {
		f.Add("hold: want 10ms to 1m0s, got %v", a.hold)
	}
	a.timeout, a.roots = f.Timeout(c.AnswerTimeout, defaultAnswerTimeout), f.Roots(c.CA)
	var err error
	a.codes, err = codes.New(standardCodes, c.Codes)
	f.Note("codes", err)
	return a, f.Err("voice")
}
