package httpsms

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"fanfare/sinks/carrier/settings"
)

// Spec describes a provider as data. Its texts may have placeholders; see the package comment.
type Spec struct {
	// Note names the source of the facts, and the facts that were never tested.
	Note string `json:"note,omitempty"`
	// Values are the names of the values that an account must give, such as its key, with a description for people. A
	// value is optional if its name ends in ?.
	Values map[string]string `json:"values,omitempty"`
	// Defaults are the values of optional values that an account omits.
	Defaults map[string]string `json:"defaults,omitempty"`
	Request  Request           `json:"request"`
	Response Response          `json:"response"`
	// Receipts is the address that the provider must call, made of {{callback}} (the address of our endpoint) and
	// placeholders.
	Receipts string    `json:"receipts,omitempty"`
	Callback *Callback `json:"callback,omitempty"`
	// Encodings are the values of {{encoding}} for a text in GSM-7 and in UCS-2.
	Encodings struct {
		GSM7 string `json:"gsm7"`
		UCS2 string `json:"ucs2"`
	} `json:"encodings,omitzero"`
	// Codes are lines in the format of package codes: `answer` for codes in an answer, or for its HTTP status as
	// `http:429`; `stat` and `err` for callbacks.
	Codes []string `json:"codes,omitempty"`
}

// Request says how to hand messages over. One of Form, JSON and Query has the message.
type Request struct {
	// Method is GET or POST; empty: POST.
	Method string `json:"method,omitempty"`
	URL    string `json:"url"`
	// Headers of the request. Basic has user and password of basic authentication.
	Headers map[string]string `json:"headers,omitempty"`
	Basic   []string          `json:"basic,omitempty"`
	// Form is a body of form fields, JSON a body of any structure, and Query are parameters in the address.
	Form  map[string]string `json:"form,omitempty"`
	JSON  any               `json:"json,omitempty"`
	Query map[string]string `json:"query,omitempty"`
	// Max is how many messages one request may have; 0: one. More than one need a list with {"$each": …} in JSON.
	Max int `json:"max,omitempty"`
	// MinValidity and MaxValidity are the bounds of the validity that the provider accepts, in seconds; 0: none.
	MinValidity int `json:"minValidity,omitempty"`
	MaxValidity int `json:"maxValidity,omitempty"`
	// Idempotency is the header for our submission id. Honoured says that the provider promises to answer a repetition
	// like the first request.
	Idempotency string `json:"idempotency,omitempty"`
	Honoured    bool   `json:"honoured,omitempty"`
}

// Response says what an answer means. Paths name values in JSON: names and numbers with dots in between.
type Response struct {
	// Text says that the answer is not JSON. Then there are no paths, and the whole answer is the code.
	Text bool `json:"text,omitempty"`
	// Items is the list with an entry for each message; empty: the answer is about the only message. Key is our
	// submission id in an entry; without it, the entries are in the order of the messages.
	Items string `json:"items,omitempty"`
	Key   string `json:"key,omitempty"`
	// ID is the provider's id in an entry; empty: there is none.
	ID string `json:"id,omitempty"`
	// Status is a field of an entry, and Accepted are its values for an accepted message; empty: every answer of 2xx
	// means accepted.
	Status   string   `json:"status,omitempty"`
	Accepted []string `json:"accepted,omitempty"`
	// Code are the paths of the code in an entry that was not accepted, and ErrorCode in an answer that is not 2xx. The
	// first path that exists counts.
	Code      []string `json:"code,omitempty"`
	ErrorCode []string `json:"errorCode,omitempty"`
	// Parts is the path of the number of parts that the provider counted.
	Parts string `json:"parts,omitempty"`
}

// Callback says how the provider sends receipts. A path begins with `body.`, which is JSON or form fields, with
// `query.`, or with `any.` for both. With Items, a path that begins with `item.` is in each entry.
type Callback struct {
	Verify Verify `json:"verify"`
	Items  string `json:"items,omitempty"`
	ID     string `json:"id,omitempty"`
	// Key is the path of our submission id.
	Key string `json:"key,omitempty"`
	// Status are the paths of the state; the values that exist are joined with `:`. Codes has their meanings.
	Status []string `json:"status,omitempty"`
	// Err is the path of the error code, At of the time, To of the recipient, Part and Parts of which part of a long
	// text it is.
	Err   string `json:"err,omitempty"`
	At    string `json:"at,omitempty"`
	To    string `json:"to,omitempty"`
	Part  string `json:"part,omitempty"`
	Parts string `json:"parts,omitempty"`
	// Inbound is for messages of recipients: a callback or an entry that has this text and no status.
	Inbound *Inbound `json:"inbound,omitempty"`
}

// Inbound has the paths of a recipient's message.
type Inbound struct {
	Text string `json:"text"`
	From string `json:"from"`
	To   string `json:"to,omitempty"`
	ID   string `json:"id,omitempty"`
	At   string `json:"at,omitempty"`
}

// Verify says how the connector checks that a callback is from the provider.
type Verify struct {
	// Scheme is basic, hmac-sha256, twilio-sha1, jwt-hs256, ip-allow, secret-in-url or none.
	Scheme string `json:"scheme"`
	// User and Secret may contain values.NAME.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
	// Header is the header with the signature of hmac-sha256, after Prefix. It is hexadecimal unless Base64 is set.
	Header string `json:"header,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Base64 bool   `json:"base64,omitempty"`
	// Param is the parameter in the address with the secret of secret-in-url.
	Param string `json:"param,omitempty"`
	// Addresses are the addresses of ip-allow, separated by blanks or commas. Each is one address or a network such as
	// 192.0.2.0/24.
	Addresses string `json:"addresses,omitempty"`
}

//go:embed presets/*.json
var presetFiles embed.FS

// Presets returns the names of the known providers.
func Presets() []string {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		return nil // cannot happen: the folder is in the binary
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

// Preset returns the spec of a known provider.
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
