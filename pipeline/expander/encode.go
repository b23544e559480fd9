package expander

import (
	"google.golang.org/protobuf/encoding/protowire"

	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// submissionTextLen is the length of `sub_…`.
const submissionTextLen = 30

// Numbers of the fields of fanfare.v1.Message and of what is in it. A test reads what is written here with the generated code
// and compares, so a field that is added there and forgotten here is found.
const (
	fieldTenant          protowire.Number = 1
	fieldCampaignID      protowire.Number = 2
	fieldCampaignNumber  protowire.Number = 3
	fieldCampaignVersion protowire.Number = 4
	fieldSeq             protowire.Number = 5
	fieldTry             protowire.Number = 6
	fieldLeg             protowire.Number = 7
	fieldChannel         protowire.Number = 8
	fieldRoute           protowire.Number = 9
	fieldSender          protowire.Number = 10
	fieldTo              protowire.Number = 11
	fieldText            protowire.Number = 12
	fieldTemplate        protowire.Number = 13
	fieldSegments        protowire.Number = 16
	fieldPrice           protowire.Number = 17
	fieldCurrency        protowire.Number = 18
	fieldNotAfter        protowire.Number = 21
	fieldTest            protowire.Number = 22
	fieldCountry         protowire.Number = 23
	fieldZone            protowire.Number = 24
	fieldContactID       protowire.Number = 25

	fieldTextBody     protowire.Number = 1
	fieldTextEncoding protowire.Number = 2
	fieldTemplateName protowire.Number = 1
)

// messageParts encode a Message. Most of it is the same for all messages of a chunk and is encoded once: at 5,000 messages
// a few milliseconds, this is half of what the generated code takes.
type messageParts struct {
	template string // of a channel of templates
	body     []byte // of the message at hand

	head, middle, tail []byte
}

// encode makes what the messages of a chunk have in common.
func (p *messageParts) encode(c *fanfarev1.Chunk, campaign *fanfarev1.Campaign, leg *fanfarev1.Leg) {
	b := appendText(nil, fieldTenant, c.GetTenant())
	b = appendText(b, fieldCampaignID, c.GetCampaignId())
	b = appendNumber(b, fieldCampaignNumber, c.GetCampaignNumber())
	// The chunk's, not the view's: expanded again later, the bytes are the same. The sender waits for this version at least.
	p.head = appendNumber(b, fieldCampaignVersion, c.GetCampaignVersion())

	b = appendNumber(nil, fieldTry, uint64(c.GetTry()))
	b = appendNumber(b, fieldLeg, uint64(c.GetLeg()))
	b = appendNumber(b, fieldChannel, uint64(leg.GetChannel()))
	b = appendText(b, fieldRoute, leg.GetRoute())
	p.middle = appendText(b, fieldSender, leg.GetSender())

	b = appendNumber(nil, fieldPrice, leg.GetPriceMicros())
	b = appendText(b, fieldCurrency, campaign.GetCurrency())
	b = appendNumber(b, fieldNotAfter, uint64(c.GetNotAfterMs()))
	p.tail = appendNumber(b, fieldTest, protowire.EncodeBool(campaign.GetTest()))
}

// room is what a message takes at most.
func (p *messageParts) room(e *audience.Entry) int {
	const numbers, lengths = 4 * 12, 7 * 7 // seq, segments, encoding, contact; to, body, its text, country, zone
	return len(p.head) + len(p.middle) + len(p.tail) + len(p.template) + len(p.body) + len(e.To) + len(e.Country) + len(e.Zone) + numbers + lengths
}

// append appends the message of one recipient.
func (p *messageParts) append(b []byte, seq uint32, e *audience.Entry, size text.Size) []byte {
	b = append(b, p.head...)
	b = appendNumber(b, fieldSeq, uint64(seq))
	b = append(b, p.middle...)
	b = appendText(b, fieldTo, e.To)
	if p.template != "" {
		b = protowire.AppendTag(b, fieldTemplate, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(protowire.SizeTag(fieldTemplateName)+protowire.SizeBytes(len(p.template))))
		b = appendText(b, fieldTemplateName, p.template)
	} else {
		n := protowire.SizeTag(fieldTextBody) + protowire.SizeBytes(len(p.body))
		if size.Encoding != 0 {
			n += protowire.SizeTag(fieldTextEncoding) + protowire.SizeVarint(uint64(size.Encoding))
		}
		b = protowire.AppendTag(b, fieldText, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(n))
		b = protowire.AppendTag(b, fieldTextBody, protowire.BytesType)
		b = protowire.AppendBytes(b, p.body)
		b = appendNumber(b, fieldTextEncoding, uint64(size.Encoding))
	}
	b = appendNumber(b, fieldSegments, uint64(size.Segments))
	b = append(b, p.tail...)
	b = appendText(b, fieldCountry, e.Country)
	b = appendText(b, fieldZone, e.Zone)
	return appendNumber(b, fieldContactID, e.ContactID)
}

// appendNumber appends a field unless it is 0, which is not written.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendText appends a field unless it is empty.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}
