package rcs

import (
	"crypto/hmac"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// ErrUnverified is returned for a callback that is not from the platform, or that cannot be verified.
var ErrUnverified = errors.New("rcs: the callback is not the platform's")

func unverified(why string) error { return fmt.Errorf("%w: %s", ErrUnverified, why) }

// Handshake implements [carrier.Handshaker]: when the webhook is registered, the platform calls it with our token and a
// secret, and expects the secret as the answer.
func (c *Connector) Handshake(cb *carrier.Callback) (answer string, ok bool, err error) {
	var doc struct {
		Token  string `json:"clientToken"`
		Secret string `json:"secret"`
	}
	if isHandshake := json.Unmarshal(cb.Body, &doc) == nil && cb.Method == http.MethodPost && doc.Token+doc.Secret != ""; !isHandshake {
		return "", false, nil
	}
	if doc.Secret == "" || subtle.ConstantTimeCompare([]byte(doc.Token), []byte(c.cfg.ClientToken)) != 1 {
		return "", true, unverified("clientToken")
	}
	return doc.Secret, true, nil
}

// Verify implements [carrier.Webhook]. It checks X-Goog-Signature, which signs the event in the body.
func (c *Connector) Verify(cb *carrier.Callback) error {
	event, err := eventOf(cb.Body)
	if err != nil {
		return unverified("no event")
	}
	got, err := base64.StdEncoding.DecodeString(cb.Header.Get("X-Goog-Signature"))
	if err != nil || !hmac.Equal(got, signature(string(c.cfg.ClientToken), event)) {
		return unverified("X-Goog-Signature")
	}
	return nil
}

func signature(token string, event []byte) []byte {
	m := hmac.New(sha512.New, []byte(token))
	m.Write(event)
	return m.Sum(nil)
}

// eventOf returns the event in a body.
func eventOf(body []byte) ([]byte, error) {
	var doc struct {
		Message struct {
			Data []byte `json:"data"` // base64
		} `json:"message"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("rcs: the callback is no JSON of a webhook: %w", err)
	}
	if len(doc.Message.Data) == 0 {
		return nil, errors.New("rcs: the callback holds no event")
	}
	return doc.Message.Data, nil
}

// Parse implements [carrier.Webhook]. It omits an event of a message whose id cannot be ours. If another program sends
// with the same agent and uses UUIDs, the tracker refuses its receipts.
func (c *Connector) Parse(cb *carrier.Callback) (receipts []carrier.Receipt, inbound []carrier.Inbound, err error) {
	raw, err := eventOf(cb.Body)
	if err != nil {
		return nil, nil, err
	}
	var e struct {
		Sender     string `json:"senderPhoneNumber"` // in an event that a recipient causes
		Phone      string `json:"phoneNumber"`       // in an event that the platform causes
		Type       string `json:"eventType"`
		MessageID  string `json:"messageId"`
		AgentID    string `json:"agentId"`
		Sent       string `json:"sendTime"`
		Text       string `json:"text"`
		Suggestion *struct {
			Text     string `json:"text"`
			Postback string `json:"postbackData"`
		} `json:"suggestionResponse"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, nil, fmt.Errorf("rcs: event: %w", err)
	}
	at, _ := time.Parse(time.RFC3339Nano, e.Sent) // zero if the event has no time
	number := e.Sender + e.Phone
	if !strings.HasPrefix(number, "+") {
		number = ""
	}
	said := carrier.Inbound{Account: c.name, Channel: schemas.ChannelRCS, Ref: e.MessageID, From: number, To: e.AgentID, Text: e.Text, At: at, Raw: raw}
	switch {
	case e.Type == "UNSUBSCRIBE": // the button in the phone's messaging app
		said.Text = "STOP"
	case e.Type == "SUBSCRIBE":
		said.Text = "START"
	case e.Type == "" && e.Suggestion != nil:
		said.Text = e.Suggestion.Text
		if said.Text == "" {
			said.Text = e.Suggestion.Postback
		}
	case e.Type == "" && e.MessageID != "": // a text, a file or a location
	default:
		key, ok := keyOf(e.MessageID)
		status, sub, known := c.cfg.codes.Receipt(e.Type, "")
		if !ok || !known {
			return nil, nil, nil // another program's event, or a kind such as IS_TYPING
		}
		r := carrier.Receipt{Account: c.name, Ref: e.MessageID, Key: key, To: number, Status: status, Code: e.Type, Sub: sub, At: at, Raw: raw}
		if status == schemas.ReceiptStatusUnspecified {
			r.Status = schemas.ReceiptStatusUnknown
		}
		return []carrier.Receipt{r}, nil, nil
	}
	return nil, []carrier.Inbound{said}, nil
}
