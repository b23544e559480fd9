package wire

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// MessageBuf is memory for one message with a text, so that a batch of messages can be one allocation.
type MessageBuf struct {
	message fanfarev1.Message
	body    fanfarev1.Message_Text
	text    fanfarev1.Text
}

// Read reads a fanfare.v1.Message. A message with a text is stored in m and takes one allocation: a copy of the record,
// of which all its strings are parts. The generated code reads all other records (another kind of body, a field of a
// newer version). Read may be called once for each MessageBuf.
func (m *MessageBuf) Read(record []byte) (*fanfarev1.Message, error) {
	if m.read(record) {
		return &m.message, nil
	}
	other := &fanfarev1.Message{}
	if err := proto.Unmarshal(record, other); err != nil {
		return nil, err
	}
	return other, nil
}

// read reads a message with a text; false when the record is anything else.
func (m *MessageBuf) read(record []byte) bool {
	var f, t Fields
	if f.Read(record, MessageLayout) != nil || f.unknown || f.repeated || f.has(MessageTemplate) || f.has(MessageRich) || f.has(MessageCall) {
		return false
	}
	copied := string(record)
	d := &m.message
	d.Tenant = f.in(copied, MessageTenant)
	d.CampaignId = f.in(copied, MessageCampaignID)
	d.CampaignNumber = f.Number(MessageCampaignNumber)
	d.CampaignVersion = f.Number(MessageCampaignVersion)
	d.Seq = uint32(f.Number(MessageSeq))
	d.Try = uint32(f.Number(MessageTry))
	d.Leg = uint32(f.Number(MessageLeg))
	d.Channel = fanfarev1.Channel(f.Number(MessageChannel) & math.MaxUint32)
	d.Route = f.in(copied, MessageRoute)
	d.Sender = f.in(copied, MessageSender)
	d.To = f.in(copied, MessageTo)
	d.Segments = uint32(f.Number(MessageSegments))
	d.PriceMicros = f.Number(MessagePriceMicros)
	d.Currency = f.in(copied, MessageCurrency)
	d.Variant = uint32(f.Number(MessageVariant))
	d.NotBeforeMs = int64(f.Number(MessageNotBeforeMs))
	d.NotAfterMs = int64(f.Number(MessageNotAfterMs))
	d.Test = f.Number(MessageTest) != 0
	d.Country = f.in(copied, MessageCountry)
	d.Zone = f.in(copied, MessageZone)
	d.ContactId = f.Number(MessageContactID)
	d.CustomerRef = f.in(copied, MessageCustomerRef)
	d.ConfirmsOptOut = f.Number(MessageConfirmsOptOut) != 0
	if f.has(MessageText) {
		if t.Read(f.Bytes(MessageText), TextLayout) != nil || t.unknown {
			return false
		}
		m.text.Body = t.in(f.in(copied, MessageText), TextBody)
		m.text.Encoding = fanfarev1.Encoding(t.Number(TextEncoding) & math.MaxUint32)
		m.body.Text = &m.text
		d.Body = &m.body
	}
	for _, s := range [...]string{d.Tenant, d.CampaignId, d.Route, d.Sender, d.To, d.Currency, d.Country, d.Zone, d.CustomerRef, m.text.Body} {
		if !utf8.ValidString(s) {
			return false // the generated code returns the error
		}
	}
	return true
}

// AppendMessageText appends the body of a fanfare.v1.Message that is a text. It must be valid UTF-8.
func AppendMessageText(b, text []byte, encoding fanfarev1.Encoding) []byte {
	size := SizeBytes(TextBody, len(text)) + SizeNumber(TextEncoding, uint64(encoding))
	b = append(b, MessageText<<3|typeBytes)
	b = protowire.AppendVarint(b, uint64(size))
	if len(text) > 0 {
		b = append(b, TextBody<<3|typeBytes)
		b = protowire.AppendBytes(b, text)
	}
	return AppendNumber(b, TextEncoding, uint64(encoding))
}
