package whatsapp

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// ErrUnverified is returned for a callback that is not from WhatsApp, or that cannot be verified.
var ErrUnverified = errors.New("whatsapp: the callback is not WhatsApp's")

func unverified(why string) error { return fmt.Errorf("%w: %s", ErrUnverified, why) }

// Handshake implements [carrier.Handshaker]: Meta calls the webhook with our verify token and a challenge, and expects
// the challenge as the answer.
func (c *Connector) Handshake(cb *carrier.Callback) (answer string, ok bool, err error) {
	if cb.Method != http.MethodGet {
		return "", false, nil
	}
	u, err := url.Parse(cb.URL)
	if err != nil {
		return "", true, unverified("address")
	}
	q := u.Query()
	switch challenge := q.Get("hub.challenge"); {
	case q.Get("hub.mode") != "subscribe":
		return "", true, unverified("hub.mode")
	case c.cfg.VerifyToken == "":
		return "", true, unverified("the route has no verifyToken")
	case subtle.ConstantTimeCompare([]byte(q.Get("hub.verify_token")), []byte(c.cfg.VerifyToken)) != 1:
		return "", true, unverified("hub.verify_token")
	case challenge == "":
		return "", true, unverified("hub.challenge")
	default:
		return challenge, true, nil
	}
}

// Verify implements [carrier.Webhook]. It checks X-Hub-Signature-256.
func (c *Connector) Verify(cb *carrier.Callback) error {
	got, ok := strings.CutPrefix(cb.Header.Get("X-Hub-Signature-256"), "sha256=")
	if !ok {
		return unverified("no X-Hub-Signature-256")
	}
	sum, err := hex.DecodeString(got)
	if err != nil || !hmac.Equal(sum, signature(string(c.cfg.AppSecret), cb.Body)) {
		return unverified("X-Hub-Signature-256")
	}
	return nil
}

func signature(secret string, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(body)
	return m.Sum(nil)
}

// webhook is the body of a callback.
type webhook struct {
	Entry []struct {
		ID      string `json:"id"`
		Changes []struct {
			Field string          `json:"field"`
			Value json.RawMessage `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

// messages is the value of the field `messages`.
type messages struct {
	Metadata struct {
		Display string `json:"display_phone_number"`
	} `json:"metadata"`
	Statuses []json.RawMessage `json:"statuses"`
	Messages []json.RawMessage `json:"messages"`
}

// Parse implements [carrier.Webhook]. It omits statuses without our submission id: another program sent these messages
// from the same number.
func (c *Connector) Parse(cb *carrier.Callback) (receipts []carrier.Receipt, inbound []carrier.Inbound, err error) {
	var doc webhook
	if err := json.Unmarshal(cb.Body, &doc); err != nil {
		return nil, nil, fmt.Errorf("whatsapp: the callback is no JSON of a webhook: %w", err)
	}
	for _, e := range doc.Entry {
		for _, change := range e.Changes {
			if change.Field != "messages" {
				continue
			}
			var v messages
			if err := json.Unmarshal(change.Value, &v); err != nil {
				return nil, nil, fmt.Errorf("whatsapp: messages: %w", err)
			}
			for _, raw := range v.Statuses {
				r, ok, err := c.receipt(raw)
				if err != nil {
					return nil, nil, err
				}
				if ok {
					receipts = append(receipts, r)
				}
			}
			for _, raw := range v.Messages {
				m, err := c.inbound(raw, v.Metadata.Display)
				if err != nil {
					return nil, nil, err
				}
				inbound = append(inbound, m)
			}
		}
	}
	return receipts, inbound, nil
}

// receipt reads one status; ok is false if it is not about our message.
func (c *Connector) receipt(raw []byte) (r carrier.Receipt, ok bool, err error) {
	var s struct {
		ID        string `json:"id"`
		Status    string `json:"status"`
		Timestamp string `json:"timestamp"`
		Recipient string `json:"recipient_id"`
		Opaque    string `json:"biz_opaque_callback_data"`
		Errors    []struct {
			Code json.Number `json:"code"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return r, false, fmt.Errorf("whatsapp: status: %w", err)
	}
	key, err := schemas.ParseID(s.Opaque)
	if ours := err == nil && key.Try() > 0; !ours {
		return r, false, nil
	}
	r = carrier.Receipt{Account: c.name, Ref: s.ID, Key: key, To: number(s.Recipient), Code: s.Status, At: seconds(s.Timestamp), Raw: raw}
	var why string
	if len(s.Errors) > 0 {
		why = s.Errors[0].Code.String()
	}
	var known bool
	if r.Status, r.Sub, known = c.cfg.codes.Receipt(s.Status, why); !known {
		r.Status = schemas.ReceiptStatusUnknown
	}
	if why != "" {
		r.Code = why
	}
	return r, true, nil
}

// inbound reads a recipient's message: a text, one of our buttons, or a choice from a list.
func (c *Connector) inbound(raw []byte, to string) (carrier.Inbound, error) {
	var m struct {
		ID        string `json:"id"`
		From      string `json:"from"`
		Timestamp string `json:"timestamp"`
		Type      string `json:"type"`
		Text      struct {
			Body string `json:"body"`
		} `json:"text"`
		Button struct {
			Text string `json:"text"`
		} `json:"button"`
		Interactive struct {
			Button struct {
				Title string `json:"title"`
			} `json:"button_reply"`
			List struct {
				Title string `json:"title"`
			} `json:"list_reply"`
		} `json:"interactive"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return carrier.Inbound{}, fmt.Errorf("whatsapp: message: %w", err)
	}
	said := m.Text.Body + m.Button.Text + m.Interactive.Button.Title + m.Interactive.List.Title // only one of them is set
	return carrier.Inbound{Account: c.name, Channel: schemas.ChannelWhatsApp, Ref: m.ID, From: number(m.From), To: number(to), Text: said, At: seconds(m.Timestamp), Raw: raw}, nil
}

// number returns a WhatsApp id as E.164; empty if it is not a number, such as the id of a user without a number.
func number(s string) string {
	s = strings.TrimPrefix(s, "+")
	if len(s) < 7 || len(s) > 15 || strings.Trim(s, "0123456789") != "" || s[0] == '0' {
		return ""
	}
	return "+" + s
}

func seconds(s string) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}
