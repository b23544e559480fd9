package httpsms

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"fanfare/sinks/carrier/settings"
)

// Spec is what a provider wants, as data. The texts in it may have placeholders; see the package comment.
type Spec struct {
	// Note names the source of the facts, and the facts that were never tried.
	Note string `json:"note,omitempty"`
	// Values are the names that an account gives, such as its key, and what each is, for people. A name that ends in ?
	// may be left out.
	Values map[string]string `json:"values,omitempty"`
	// Defaults are the values of those that are left out.
	Defaults map[string]string `json:"defaults,omitempty"`
	Request  Request           `json:"request"`
	Response Response          `json:"response"`
	// Receipts is the address that the provider is to call, made of {{callback}} (the address of our endpoint) and
	// placeholders.
	Receipts string    `json:"receipts,omitempty"`
	Callback *Callback `json:"callback,omitempty"`
	// Encodings are the values of {{encoding}} for a text in GSM-7 and in UCS-2.
	Encodings struct {
		GSM7 string `json:"gsm7"`
		UCS2 string `json:"ucs2"`
	} `json:"encodings,omitzero"`
	// Codes are the lines of package codes: `answer` of codes in an answer, or of its HTTP status as `http:429`; `stat`
	// and `err` of callbacks.
	Codes []string `json:"codes,omitempty"`
}

// Request is how messages are handed over. One of Form, JSON and Query has the message.
type Request struct {
	// Method is POST unless it says GET.
	Method string `json:"method,omitempty"`
	URL    string `json:"url"`
	// Headers, and Basic: user and password of basic authentication.
	Headers map[string]string `json:"headers,omitempty"`
	Basic   []string          `json:"basic,omitempty"`
	// Form is a body of fields, JSON a body of any shape, Query fields in the address.
	Form  map[string]string `json:"form,omitempty"`
	JSON  any               `json:"json,omitempty"`
	Query map[string]string `json:"query,omitempty"`
	// Max is the most messages of one request; 0: one. More than one need a list with {"$each": …} in JSON.
	Max int `json:"max,omitempty"`
	// MinValidity and MaxValidity are the bounds of the validity, in seconds, that the provider takes; 0: none.
	MinValidity int `json:"minValidity,omitempty"`
	MaxValidity int `json:"maxValidity,omitempty"`
	// Idempotency is a header that has our submission id. Honoured says that the provider promises to answer a
	// repetition as the first.
	Idempotency string `json:"idempotency,omitempty"`
	Honoured    bool   `json:"honoured,omitempty"`
}

// Response is what an answer means. Paths go into JSON: names and numbers with dots between them.
type Response struct {
	// Text: the answer is no JSON. Then there are no paths, and the whole of it is the code.
	Text bool `json:"text,omitempty"`
	// Items is the list with an entry for each message; empty: the answer is about the one message. Key is our
	// submission id in an entry; without it entries are in the order of the messages.
	Items string `json:"items,omitempty"`
	Key   string `json:"key,omitempty"`
	// ID is the provider's id in an entry; empty: it gives none.
	ID string `json:"id,omitempty"`
	// Status is a field of an entry and Accepted are its values by which the message was taken; empty: an answer of 2xx
	// takes it.
	Status   string   `json:"status,omitempty"`
	Accepted []string `json:"accepted,omitempty"`
	// Code are the places of the code in an entry that was not accepted, ErrorCode those in an answer that is not 2xx.
	// The first that is there counts.
	Code      []string `json:"code,omitempty"`
	ErrorCode []string `json:"errorCode,omitempty"`
	// Parts is how many parts the provider counted.
	Parts string `json:"parts,omitempty"`
}

// Callback is how a provider sends receipts. A path begins with `body.`, which is JSON or form fields,
// `query.`, or `any.` for both. With Items the paths that begin with `item.` go into each of its entries.
type Callback struct {
	Verify Verify `json:"verify"`
	Items  string `json:"items,omitempty"`
	ID     string `json:"id,omitempty"`
	// Key is our submission id.
	Key string `json:"key,omitempty"`
	// Status are the places of the state; those that are there are joined with `:`. Codes says what it means.
	Status []string `json:"status,omitempty"`
	// Err is the code of an error, At when it happened, To the recipient, Part and Parts which part of a long text.
	Err   string `json:"err,omitempty"`
	At    string `json:"at,omitempty"`
	To    string `json:"to,omitempty"`
	Part  string `json:"part,omitempty"`
	Parts string `json:"parts,omitempty"`
	// Inbound is a message that a recipient wrote: a callback, or an entry, that has this text and no status.
	Inbound *Inbound `json:"inbound,omitempty"`
}

// Inbound are the places of a message that a recipient wrote.
type Inbound struct {
	Text string `json:"text"`
	From string `json:"from"`
	To   string `json:"to,omitempty"`
	ID   string `json:"id,omitempty"`
	At   string `json:"at,omitempty"`
}

// Verify is how the connector checks that the provider made a callback.
type Verify struct {
	// Scheme is basic, hmac-sha256, twilio-sha1, jwt-hs256, ip-allow, secret-in-url or none.
	Scheme string `json:"scheme"`
	// User and Secret may have values.NAME.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
	// Header has the signature of hmac-sha256, behind Prefix; it is hexadecimal unless Base64.
	Header string `json:"header,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Base64 bool   `json:"base64,omitempty"`
	// Param of the address has the secret of secret-in-url.
	Param string `json:"param,omitempty"`
	// Addresses of ip-allow, each one address or a network such as 192.0.2.0/24, separated by blanks or commas.
	Addresses string `json:"addresses,omitempty"`
}

//go:embed presets/*.json
var presetFiles embed.FS

// Presets are the names of the providers that are known.
func Presets() []string {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		return nil // never: the folder is part of the binary
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

// Preset returns the spec of a provider that is known.
func Preset(name string) (Spec, error) {
	if !slices.Contains(Presets(), name) {
		return Spec{}, fmt.Errorf("preset %q: want one of %s", name, strings.Join(Presets(), ", "))
	}
	raw, err := presetFiles.ReadFile("presets/" + name + ".json")
	if err != nil {
		return Spec{}, err
	}
	var s Spec
	if err := settings.Read(raw, &s); err != nil {
		return Spec{}, fmt.Errorf("preset %s: %w", name, err)
	}
	return s, nil
}
