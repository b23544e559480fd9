package httpsms

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/once"
)

// message gives placeholders the values of an outbound message.
type message struct {
	cfg *account
	out *carrier.Outbound
	now time.Time
}

// value implements vars.
func (m *message) value(name string) (string, error) {
	switch name {
	case "to":
		return m.out.To, nil
	case "toDigits":
		return strings.TrimPrefix(m.out.To, "+"), nil
	case "from":
		return m.out.From, nil
	case "text":
		return m.out.Body.Text.Body, nil
	case "key":
		return m.out.Key.String(), nil
	case "encoding":
		if m.out.Body.Text.Encoding == schemas.EncodingUCS2 {
			return m.cfg.spec.Encodings.UCS2, nil
		}
		return m.cfg.spec.Encodings.GSM7, nil
	case "segments":
		return strconv.Itoa(max(1, m.out.Body.Text.Segments)), nil
	case "validitySeconds":
		return m.validity(time.Second), nil
	case "validityMinutes":
		return m.validity(time.Minute), nil
	case "validityMillis":
		return m.validity(time.Millisecond), nil
	case "notAfter":
		if m.out.NotAfter.IsZero() {
			return "", nil
		}
		return m.out.NotAfter.UTC().Format(time.RFC3339), nil
	case "callback":
		return m.cfg.callback, nil
	case "receipts":
		if m.cfg.callback == "" {
			return "", nil
		}
		address, err := m.cfg.receipts.append(nil, m, appendQuery)
		return string(address), err
	}
	if n, ok := strings.CutPrefix(name, "values."); ok {
		return m.cfg.values[n], nil
	}
	if n, ok := strings.CutPrefix(name, "meta."); ok {
		return m.out.Meta[n], nil
	}
	return "", fmt.Errorf("{{%s}} has no value", name)
}

// validity returns the rest of the message's validity in units, within the provider's bounds; empty if it has none.
func (m *message) validity(unit time.Duration) string {
	if m.out.NotAfter.IsZero() {
		return ""
	}
	left := max(m.out.NotAfter.Sub(m.now), time.Duration(max(1, m.cfg.spec.Request.MinValidity))*time.Second)
	if most := m.cfg.spec.Request.MaxValidity; most > 0 {
		left = min(left, time.Duration(most)*time.Second)
	}
	return strconv.FormatInt(max(1, int64(left/unit)), 10)
}

// refusal returns the result for a message that cannot be handed over at all.
func (m *message) refusal() (carrier.Result, bool) {
	b := &m.out.Body
	switch {
	case b.Template != nil || b.Rich != nil || b.Call != nil:
		return carrier.Result{Outcome: carrier.Unsupported, Code: "not a text"}, true
	case len(m.out.To) < 7 || m.out.To[0] != '+':
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeInvalidNumber, Code: "not E.164"}, true
	case !m.out.NotAfter.IsZero() && !m.now.Before(m.out.NotAfter):
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeValidityExpired, Code: "validity is over"}, true
	default:
		return carrier.Result{}, false
	}
}

// request makes the request for at least one message. Its body cannot be rewound, so net/http never sends it twice.
func (s *account) request(ctx context.Context, all []vars) (*http.Request, error) {
	first := all[0]
	address, err := s.url.append(nil, first, appendPath)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(string(address))
	if err != nil {
		return nil, fmt.Errorf("request.url: %w", err)
	}
	if len(s.query) > 0 {
		q, err := fields(s.query, first)
		if err != nil {
			return nil, err
		}
		if u.RawQuery != "" {
			q = u.RawQuery + "&" + q
		}
		u.RawQuery = q
	}
	var body []byte
	kind := ""
	switch {
	case s.spec.Request.JSON != nil:
		kind = "application/json"
		if body, err = s.json.append(nil, first, all); err != nil {
			return nil, err
		}
	case s.spec.Request.Form != nil:
		kind = "application/x-www-form-urlencoded"
		form, err := fields(s.form, first)
		if err != nil {
			return nil, err
		}
		body = []byte(form)
	}
	req, err := once.Request(ctx, s.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := range s.headers {
		v, err := s.headers[i].text.string(first)
		if err != nil {
			return nil, err
		}
		if v != "" || !s.headers[i].optional {
			req.Header.Set(s.headers[i].name, v)
		}
	}
	if h := s.spec.Request.Idempotency; h != "" && len(all) == 1 {
		key, err := first.value("key")
		if err != nil {
			return nil, err
		}
		req.Header.Set(h, key)
	}
	if len(s.basic) == 2 {
		user, err := s.basic[0].string(first)
		if err != nil {
			return nil, err
		}
		password, err := s.basic[1].string(first)
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(user, password)
	}
	return req, nil
}

// fields returns encoded form fields.
func fields(list []pair, v vars) (string, error) {
	q := url.Values{}
	for i := range list {
		s, err := list[i].text.string(v)
		if err != nil {
			return "", err
		}
		if s != "" || !list[i].optional {
			q.Set(list[i].name, s)
		}
	}
	return q.Encode(), nil
}

// appendQuery appends a value to the parameters of an address. A value at the beginning of an address is the address
// itself, and is not escaped.
func appendQuery(b []byte, s string) []byte {
	if len(b) == 0 {
		return append(b, s...)
	}
	return append(b, url.QueryEscape(s)...)
}

// appendPath appends a value to an address. A value that is an address itself is not escaped.
func appendPath(b []byte, s string) []byte {
	if len(b) == 0 {
		return append(b, s...)
	}
	return append(b, url.PathEscape(s)...)
}
