// Package settings has the common parts of connectors' configurations: secrets that are never shown, durations as text,
// strict JSON, and a list of all mistakes.
package settings

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Secret is a text that is never printed, logged or written as JSON. The store keeps the configuration as the operator
// gave it, not this value.
type Secret string

// String returns nothing of the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString returns nothing of the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText implements encoding.TextMarshaler with nothing of the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(b)
	return nil
}

// Duration is a time.Duration that JSON writes as text, such as `10s`.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 10s", b)
	}
	*d = Duration(v)
	return nil
}

// Read decodes JSON, and returns an error for unknown fields.
func Read(raw []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows the configuration")
	}
	return nil
}

// Faults collects the errors of a configuration. Each names the field and says what to do.
type Faults struct{ list []error }

// Add adds an error.
func (f *Faults) Add(format string, args ...any) {
	f.list = append(f.list, fmt.Errorf(format, args...))
}

// Note adds an error of a field, if err is not nil.
func (f *Faults) Note(field string, err error) {
	if err != nil {
		f.list = append(f.list, fmt.Errorf("%s: %w", field, err))
	}
}

// Err returns all errors with the name of the connector; nil if there are none.
func (f *Faults) Err(connector string) error {
	if len(f.list) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", connector, errors.Join(f.list...))
}

// Required adds an error if a field is empty.
func (f *Faults) Required(field, value, what string) {
	if value == "" {
		f.Add("%s is missing: %s", field, what)
	}
}

// Window returns how many hand-overs may wait for their answers: 1..most; if n is 0, usual.
func (f *Faults) Window(n, usual, most int) int {
	if n = cmp.Or(n, usual); n < 1 || n > most {
		f.Add("window: want 1 to %d, got %d", most, n)
	}
	return n
}

// Timeout returns how long a connector waits for an answer: 100 ms to 5 min; if d is 0, usual.
func (f *Faults) Timeout(d Duration, usual time.Duration) time.Duration {
	t := cmp.Or(time.Duration(d), usual)
	if t < 100*time.Millisecond || t > 5*time.Minute {
		f.Add("answerTimeout: want 100ms to 5m0s, got %v", t)
	}
	return t
}

// Roots returns the certificates that may sign the carrier's certificate; nil, which means those of the system, if pem
// is empty.
func (f *Faults) Roots(pem string) *x509.CertPool {
	if pem == "" {
		return nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(pem)) {
		f.Add("ca: want certificates as PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	return roots
}

// Address checks an HTTP address, which must have no query, and returns it; if it is empty, usual.
func (f *Faults) Address(field, address, usual string) string {
	address = cmp.Or(address, usual)
	if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
		f.Add("%s: want an address such as https://api.example.org, without a query", field)
	}
	return address
}
