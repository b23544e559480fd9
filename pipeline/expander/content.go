package expander

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
	"fanfare/schemas/wire"
)

// contentOf returns what a leg sends: its own content, else the campaign's.
func contentOf(c *fanfarev1.Campaign, leg *fanfarev1.Leg) *fanfarev1.Content {
	if own := leg.GetContent(); own != nil {
		return own
	}
	return c.GetContent()
}

// maxParam is the most characters of one parameter of a template (WhatsApp: a body has at most 1,024).
const maxParam = 1024

// errBlankParam is the error for an empty parameter: providers refuse a template that has one.
var errBlankParam = errors.New("a parameter of the template is empty")

// body renders the part of a message that differs from recipient to recipient: a field of the record's oneof, ready to
// be appended. The text of an SMS is rendered elsewhere, because it must also be measured.
type body struct {
	field    protowire.Number // of the message
	head     []byte           // the same for all recipients: name and language
	params   []*text.Template
	numbered bool      // the record has the parameters one by one
	json     []literal // JSON into which the parameters are inserted; empty: none
	jsonAt   protowire.Number
	spoken   *text.Template // of a call
	tail     []byte

	values [][]byte
	memory []byte
	made   []byte
}

// literal is a piece of JSON, and the parameter that follows it; -1 for none.
type literal struct {
	text  []byte
	param int
}

// placeholder matches a placeholder of a parameter within a string of the JSON.
var placeholder = regexp.MustCompile(`\{\{([0-9]+)\}\}`)

// newBody returns the body of a leg whose messages are not SMS.
func newBody(ch schemas.Channel, c *fanfarev1.Content) (*body, error) {
	b := &body{}
	params, doc := c.GetParams(), c.GetJson()
	if ch == schemas.ChannelRCS && len(doc) == 0 && c.GetBody() != "" { // a text without a template
		params, doc = []string{c.GetBody()}, []byte(`{"text":"{{1}}"}`)
	}
	for _, expression := range params {
		t, err := text.Parse(expression)
		if err != nil {
			return nil, err
		}
		b.params = append(b.params, t)
	}
	b.values = make([][]byte, len(b.params))
	switch ch {
	case schemas.ChannelWhatsApp:
		b.field, b.numbered, b.jsonAt = wire.MessageTemplate, true, wire.TemplateComponents
		if c.GetTemplateName() == "" {
			return nil, errors.New("the content of WhatsApp names no template")
		}
		b.head = wire.AppendText(b.head, wire.TemplateName, c.GetTemplateName())
		b.head = wire.AppendText(b.head, wire.TemplateLanguage, c.GetLanguage())
	case schemas.ChannelRCS:
		b.field, b.jsonAt = wire.MessageRich, wire.RichJson
		if len(doc) == 0 {
			return nil, errors.New("the content of RCS has no message")
		}
	case schemas.ChannelVoice:
		v := c.GetVoice()
		if v == nil {
			return nil, fmt.Errorf("channel %s: a campaign has no content for it", schemas.ChannelName(ch))
		}
		b.field = wire.MessageCall
		b.head = wire.AppendText(b.head, wire.CallQueue, v.GetQueue())
		b.head = wire.AppendText(b.head, wire.CallMachineAction, v.GetMachineAction())
		b.head = wire.AppendText(b.head, wire.CallMedia, v.GetMedia())
		b.tail = wire.AppendText(b.tail, wire.CallLanguage, v.GetLanguage())
		b.tail = wire.AppendNumber(b.tail, wire.CallRingSeconds, uint64(v.GetRingSeconds()))
		if v.GetMedia() == "" {
			var err error
			if b.spoken, err = text.Parse(v.GetText()); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("channel %s: a campaign has no content for it", schemas.ChannelName(ch))
	}
	return b, b.cut(doc)
}

// cut splits the JSON at its placeholders.
func (b *body) cut(raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	if !utf8.Valid(raw) {
		return errors.New("the content is not valid UTF-8")
	}
	at := 0
	for _, m := range placeholder.FindAllSubmatchIndex(raw, -1) {
		n, err := strconv.Atoi(string(raw[m[2]:m[3]]))
		if err != nil || n < 1 || n > len(b.params) {
			return fmt.Errorf("the content has parameter %s, and values for %d", raw[m[0]:m[1]], len(b.params))
		}
		b.json = append(b.json, literal{raw[at:m[0]], n - 1})
		at = m[1]
	}
	b.json = append(b.json, literal{raw[at:], -1})
	return nil
}

// render returns the field for one recipient; it is valid until the next call.
func (b *body) render(value func(string) (string, bool), c *fanfarev1.Content) ([]byte, error) {
	b.memory = b.memory[:0]
	inner := append([]byte(nil), b.head...)
	for i, t := range b.params {
		start := len(b.memory)
		out, err := t.Append(b.memory, text.MaxCharactersBytes(maxParam), value, c.GetMissing(), c.GetMissingDefault())
		if err != nil {
			return nil, err
		}
		b.memory = out
		b.values[i] = out[start:len(out):len(out)]
		if text.BlankBytes(b.values[i]) {
			return nil, errBlankParam
		}
		if !utf8.Valid(b.values[i]) {
			return nil, text.ErrTemplate
		}
		if utf8.RuneCount(b.values[i]) > maxParam {
			return nil, text.ErrTooLong
		}
	}
	if b.numbered {
		for _, v := range b.values {
			inner = wire.AppendTextAlways(inner, wire.TemplateParams, string(v))
		}
	}
	if b.spoken != nil {
		start := len(b.memory)
		out, err := b.spoken.Append(b.memory, text.MaxCharactersBytes(maxCharacters), value, c.GetMissing(), c.GetMissingDefault())
		if err != nil {
			return nil, err
		}
		if b.memory = out; text.BlankBytes(out[start:]) || !utf8.Valid(out[start:]) {
			return nil, errBlankParam
		}
		inner = wire.AppendBytes(inner, wire.CallText, out[start:])
	}
	if len(b.json) > 0 {
		var doc bytes.Buffer
		for _, l := range b.json {
			doc.Write(l.text)
			if l.param >= 0 {
				appendJSONString(&doc, b.values[l.param])
			}
		}
		inner = wire.AppendBytes(inner, b.jsonAt, doc.Bytes())
	}
	inner = append(inner, b.tail...)
	b.made = wire.AppendHeader(b.made[:0], b.field, len(inner))
	b.made = append(b.made, inner...)
	return b.made, nil
}

// appendJSONString writes valid UTF-8 as the inside of a JSON string (RFC 8259, section 7).
func appendJSONString(out *bytes.Buffer, s []byte) {
	const hex = "0123456789abcdef"
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\t':
			out.WriteString(`\t`)
		case c == '\r':
			out.WriteString(`\r`)
		case c < 0x20:
			out.WriteString(`\u00`)
			out.WriteByte(hex[c>>4])
			out.WriteByte(hex[c&15])
		default:
			out.WriteByte(c)
		}
	}
}
