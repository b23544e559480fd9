package httpsms

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// errNoCallbacks is returned by a connector whose spec has no callbacks.
var errNoCallbacks = errors.New("httpsms: the spec has no callbacks")

// CallbackURL returns the address at which the provider reaches our endpoint; empty if it is not known.
func (c *Connector) CallbackURL() string { return c.cfg.callback }

// Verify implements [carrier.Webhook].
func (c *Connector) Verify(cb *carrier.Callback) error {
	if c.cfg.verify == nil {
		return errNoCallbacks
	}
	return c.cfg.verify(cb, time.Now())
}

// Parse implements [carrier.Webhook]. It returns an error if it cannot read the body at all. It omits entries that name
// no message and have no text.
func (c *Connector) Parse(cb *carrier.Callback) (receipts []carrier.Receipt, inbound []carrier.Inbound, err error) {
	spec := c.cfg.spec.Callback
	if spec == nil {
		return nil, nil, errNoCallbacks
	}
	d, err := newDocument(cb)
	if err != nil {
		return nil, nil, err
	}
	if spec.Items == "" {
		receipts, inbound = c.entry(d, receipts, inbound)
		return receipts, inbound, nil
	}
	found, ok := d.look(spec.Items)
	list, isList := found.([]any)
	if !ok || !isList {
		return nil, nil, fmt.Errorf("httpsms: the callback has no list at %s", spec.Items)
	}
	for _, e := range list {
		d.item = e
		receipts, inbound = c.entry(d, receipts, inbound)
	}
	return receipts, inbound, nil
}

// document is a callback in which paths name values.
type document struct {
	cb    *carrier.Callback
	query map[string]any
	body  any
	item  any
}

// maxBody is the size of the largest callback.
const maxBody = 4 << 20

func newDocument(cb *carrier.Callback) (*document, error) {
	u, err := url.Parse(cb.URL)
	if err != nil {
		return nil, errors.New("httpsms: the callback's address cannot be read")
	}
	d := &document{cb: cb, query: flat(u.Query())}
	if len(cb.Body) == 0 || cb.Method == http.MethodGet {
		return d, nil
	}
	if len(cb.Body) > maxBody {
		return nil, fmt.Errorf("httpsms: the callback has %d octets, at most %d are read", len(cb.Body), maxBody)
	}
	kind, _, _ := mime.ParseMediaType(cb.Header.Get("Content-Type"))
	if kind == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(cb.Body))
		if err != nil {
			return nil, errors.New("httpsms: the callback's form cannot be read")
		}
		d.body = flat(form)
		return d, nil
	}
	if d.body, err = decode(cb.Body); err != nil {
		return nil, errors.New("httpsms: the callback's body is neither a form nor JSON")
	}
	return d, nil
}

// flat returns form fields in the form of decoded JSON.
func flat(v url.Values) map[string]any {
	m := make(map[string]any, len(v))
	for name, values := range v {
		if len(values) > 0 {
			m[name] = values[0]
		}
	}
	return m
}

// look returns the value that a path names.
func (d *document) look(path string) (any, bool) {
	root, rest, _ := strings.Cut(path, ".")
	switch root {
	case "query":
		// The names of parameters may have dots.
		v, ok := d.query[rest]
		return v, ok
	case "body":
		return look(d.body, rest)
	case "item":
		return look(d.item, rest)
	case "any":
		if v, ok := d.query[rest]; ok {
			return v, true
		}
		return look(d.body, rest)
	default:
		return nil, false
	}
}

func (d *document) text(path string) string {
	if path == "" {
		return ""
	}
	v, _ := d.look(path)
	return lookText(map[string]any{"x": v}, "x")
}

// raw returns the original data of one entry: the entry, otherwise the body, otherwise the parameters of the address.
func (d *document) raw() []byte {
	if d.item != nil {
		if raw, err := json.Marshal(d.item); err == nil {
			return raw
		}
	}
	if len(d.cb.Body) > 0 {
		return d.cb.Body
	}
	if u, err := url.Parse(d.cb.URL); err == nil {
		return []byte(u.RawQuery)
	}
	return nil
}

// entry reads one receipt or one message of a recipient.
func (c *Connector) entry(d *document, receipts []carrier.Receipt, inbound []carrier.Inbound) ([]carrier.Receipt, []carrier.Inbound) {
	spec := c.cfg.spec.Callback
	var stat []string
	for _, p := range spec.Status {
		if s := d.text(p); s != "" {
			stat = append(stat, s)
		}
	}
	if len(stat) == 0 {
		if in := spec.Inbound; in != nil {
			if _, ok := d.look(in.Text); ok {
				return receipts, append(inbound, carrier.Inbound{
					Account: c.account, Channel: schemas.ChannelSMS, Ref: d.text(in.ID), From: number(d.text(in.From)), To: number(d.text(in.To)), Text: d.text(in.Text), At: parseTime(d.text(in.At)),
					Raw: d.raw(),
				})
			}
		}
		return receipts, inbound
	}
	r := carrier.Receipt{
		Account: c.account, Ref: d.text(spec.ID), To: number(d.text(spec.To)), Code: cmp.Or(d.text(spec.Err), strings.Join(stat, ":")), At: parseTime(d.text(spec.At)),
		Raw: d.raw(),
	}
	if text := d.text(spec.Key); text != "" {
		if key, err := schemas.ParseID(text); err == nil && key.Try() > 0 {
			r.Key = key
		}
	}
	if r.Ref == "" && r.Key.IsZero() {
		return receipts, inbound // it names none of our messages
	}
	r.Part, r.Parts = small(d.text(spec.Part)), small(d.text(spec.Parts))
	var known bool
	if r.Status, r.Sub, known = c.cfg.codes.Receipt(strings.Join(stat, ":"), d.text(spec.Err)); !known {
		r.Status = schemas.ReceiptStatusUnknown
	}
	return append(receipts, r), inbound
}

func small(s string) uint8 {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0
	}
	return uint8(n)
}

// number returns a phone number as E.164, and anything else, such as a short code or a name, unchanged.
func number(s string) string {
	digits := strings.TrimPrefix(strings.TrimSpace(s), "+")
	if len(digits) < 7 || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" || digits[0] == '0' {
		return s
	}
	return "+" + digits
}

// layouts are the formats of times in callbacks.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999-0700", "2006-01-02 15:04:05", time.RFC1123Z, time.RFC1123}

// parseTime parses a time, or seconds or milliseconds since 1970; zero if it is none of these.
func parseTime(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > 1e11 {
			return time.UnixMilli(n)
		}
		return time.Unix(n, 0)
	}
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return t
		}
	}
	return time.Time{}
}
