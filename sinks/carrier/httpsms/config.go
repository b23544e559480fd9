package httpsms

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/sinks/carrier/codes"
	"fanfare/sinks/carrier/settings"
)

// Config is one account at one provider. Its JSON is the configuration of a route; [Parse] reads it.
type Config struct {
	// Preset names a known provider; see [Presets]. Spec describes another one. Exactly one of the two must be set.
	Preset string `json:"preset,omitempty"`
	Spec   *Spec  `json:"spec,omitempty"`
	// Values are the values that the spec requires, such as account and key.
	Values map[string]Secret `json:"values,omitempty"`
	// CallbackURL is the address at which the provider reaches our endpoint, such as
	// https://edge.example.org/api/callback/twilio; empty: the connector asks for no receipts.
	CallbackURL string `json:"callbackUrl,omitempty"`
	// Window is how many hand-overs may wait for their answers, 1..2000; 0: 64. AnswerTimeout is how long the connector
	// waits for an answer, after which the hand-over is in doubt; 0: 10 s.
	Window        int      `json:"window,omitempty"`
	AnswerTimeout Duration `json:"answerTimeout,omitempty"`
	// CA is a list of certificates in PEM that may sign the provider's certificate; empty: those of the system.
	CA string `json:"ca,omitempty"`
	// Codes are further lines in the format of package codes with the provider's codes. They are read after those of
	// the spec.
	Codes []string `json:"codes,omitempty"`
}

// Secret is a text that is never printed, logged or written as JSON.
type Secret = settings.Secret

// Duration is a time.Duration that JSON writes as text, such as `10s`.
type Duration = settings.Duration

// Parse reads a configuration. A field that it does not know is an error, as is what Validate refuses.
func Parse(raw []byte) (Config, error) {
	var c Config
	if err := settings.Read(raw, &c); err != nil {
		return Config{}, fmt.Errorf("httpsms: %w", err)
	}
	return c, c.Validate()
}

// Validate returns all errors of the configuration. Each line names the field and says what to do.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

const (
	defaultWindow        = 64
	maxWindow            = 2000
	defaultAnswerTimeout = 10 * time.Second
)

// account is a Config in the form that the connector uses.
type account struct {
	spec     Spec
	values   map[string]string
	callback string
	window   int
	timeout  time.Duration
	roots    *x509.CertPool
	codes    *codes.Table

	method   string
	url      text
	headers  []pair
	basic    []text
	form     []pair
	query    []pair
	json     node
	receipts text
	verify   verifier
}

// pair is a name with a text.
type pair struct {
	name     string
	optional bool
	text     text
}

// resolve combines the spec with the account's values.
func (c *Config) resolve() (*account, error) {
	s := &account{callback: c.CallbackURL}
	f := &settings.Faults{}
	switch {
	case c.Spec != nil && c.Preset != "":
		f.Add("preset and spec: want one of them")
	case c.Spec != nil:
		s.spec = *c.Spec
	default:
		var err error
		s.spec, err = Preset(c.Preset)
		f.Note("preset", err)
	}
	if err := f.Err("httpsms"); err != nil {
		return nil, err
	}
	s.resolveValues(f, c.Values)
	s.window = f.Window(c.Window, defaultWindow, maxWindow)
	s.timeout = f.Timeout(c.AnswerTimeout, defaultAnswerTimeout)
	if s.callback != "" {
		s.callback = f.Address("callbackUrl", s.callback, "")
	}
	s.roots = f.Roots(c.CA)
	s.resolveRequest(f)
	var err error
	s.codes, err = codes.New(standardCodes+strings.Join(s.spec.Codes, "\n"), c.Codes)
	f.Note("codes", err)
	if s.spec.Callback != nil && f.Err("") == nil {
		s.verify, err = newVerifier(&s.spec.Callback.Verify, s.fill)
		f.Note("callback.verify", err)
	}
	if err := f.Err("httpsms"); err != nil {
		return nil, err
	}
	return s, nil
}

// resolveValues sets a value for every name in the spec. The value of an optional name may be empty.
func (s *account) resolveValues(f *settings.Faults, given map[string]Secret) {
	s.values = map[string]string{}
	for declared, what := range s.spec.Values {
		name := strings.TrimSuffix(declared, "?")
		v := string(given[name])
		if v == "" {
			v = s.spec.Defaults[name]
		}
		if v == "" && name == declared {
			f.Add("values.%s is missing: %s", name, what)
		}
		s.values[name] = v
	}
	for name := range given {
		if _, ok := s.values[name]; !ok {
			f.Add("values.%s is not known: want %s", name, strings.Join(s.valueNames(), ", "))
		}
	}
}

func (s *account) valueNames() []string {
	names := make([]string, 0, len(s.spec.Values))
	for n := range s.spec.Values {
		names = append(names, strings.TrimSuffix(n, "?"))
	}
	slices.Sort(names)
	return names
}

// fill replaces the placeholders of a text that has only values.
func (s *account) fill(t string) (string, error) {
	parsed, err := parseText(t, s.values)
	if err != nil {
		return "", err
	}
	return parsed.string(valuesOnly(s.values))
}

type valuesOnly map[string]string

func (v valuesOnly) value(name string) (string, error) {
	if n, ok := strings.CutPrefix(name, "values."); ok {
		return v[n], nil
	}
	return "", fmt.Errorf("{{%s}} has no value here", name)
}

// resolveRequest compiles the texts of the request.
func (s *account) resolveRequest(f *settings.Faults) {
	r := &s.spec.Request
	read := func(where, t string) text {
		parsed, err := parseText(t, s.values)
		f.Note(where, err)
		return parsed
	}
	pairs := func(where string, m map[string]string) []pair {
		list := make([]pair, 0, len(m))
		for name, t := range m {
			list = append(list, pair{strings.TrimSuffix(name, "?"), strings.HasSuffix(name, "?"), read(where+"."+name, t)})
		}
		slices.SortFunc(list, func(a, b pair) int { return strings.Compare(a.name, b.name) })
		return list
	}
	switch s.method = strings.ToUpper(r.Method); s.method {
	case "":
		s.method = http.MethodPost
	case http.MethodPost, http.MethodGet, http.MethodPut:
	default:
		f.Add("request.method %q: want POST, PUT or GET", r.Method)
	}
	s.url, s.receipts = read("request.url", r.URL), read("receipts", s.spec.Receipts)
	s.headers, s.form, s.query = pairs("request.headers", r.Headers), pairs("request.form", r.Form), pairs("request.query", r.Query)
	if n := len(r.Basic); n != 0 && n != 2 {
		f.Add("request.basic: want user and password, got %d texts", n)
	}
	for _, t := range r.Basic {
		s.basic = append(s.basic, read("request.basic", t))
	}
	if r.JSON != nil {
		if r.Form != nil {
			f.Add("request.json and request.form: want one of them")
		}
		var err error
		s.json, err = parseNode(r.JSON, s.values)
		f.Note("request.json", err)
	}
	if r.Max == 0 {
		r.Max = 1
	}
	if r.Max < 1 || r.Max > 10_000 {
		f.Add("request.max: want 1 to 10000, got %d", r.Max)
	}
	if r.Max > 1 && (s.spec.Response.Items == "" || !s.json.hasEach()) {
		f.Add(`request.max: more than one message wants a list with {"$each": …} in request.json, and response.items`)
	}
}

// hasEach reports whether the node contains a list with an entry for each message.
func (n *node) hasEach() bool {
	if n.kind == nodeEach {
		return true
	}
	for i := range n.fields {
		if n.fields[i].node.hasEach() {
			return true
		}
	}
	for i := range n.list {
		if n.list[i].hasEach() {
			return true
		}
	}
	return false
}

// standardCodes are the meanings of HTTP statuses if the spec does not say otherwise. The package comment has the other
// statuses.
const standardCodes = `answer,http:401,retryable,PROVIDER_ERROR
answer,http:402,retryable,NO_CREDITS
answer,http:403,retryable,PROVIDER_ERROR
answer,http:404,retryable,PROVIDER_ERROR
answer,http:405,retryable,PROVIDER_ERROR
answer,http:407,retryable,PROVIDER_ERROR
answer,http:408,retryable,PROVIDER_ERROR
answer,http:425,retryable,PROVIDER_ERROR
answer,http:429,throttled,THROTTLED
`
