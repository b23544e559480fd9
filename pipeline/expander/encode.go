package expander

import (
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
	"fanfare/schemas/wire"
)

// submissionTextLen is the length of `sub_…`.
const submissionTextLen = 30

// messageParts encode a Message. Most fields are the same for all messages of a chunk and are encoded once, which takes
// half as long as the generated code: a few milliseconds for 5,000 messages.
type messageParts struct {
	// The current message: the text of an SMS and its variant, or the field of another channel.
	body    []byte
	variant int
	oneof   []byte

	head, middle, tail []byte
}

// encode encodes what the messages of a chunk have in common.
func (p *messageParts) encode(c *fanfarev1.Chunk, campaign *fanfarev1.Campaign, leg *fanfarev1.Leg, route string) {
	b := wire.AppendText(nil, wire.MessageTenant, c.GetTenant())
	b = wire.AppendText(b, wire.MessageCampaignID, c.GetCampaignId())
	b = wire.AppendNumber(b, wire.MessageCampaignNumber, c.GetCampaignNumber())
	// The version of the chunk, not of the view, so that a later expansion gives the same bytes. The sender waits for
	// at least this version.
	p.head = wire.AppendNumber(b, wire.MessageCampaignVersion, c.GetCampaignVersion())

	b = wire.AppendNumber(nil, wire.MessageTry, uint64(c.GetTry()))
	b = wire.AppendNumber(b, wire.MessageLeg, uint64(c.GetLeg()))
	b = wire.AppendNumber(b, wire.MessageChannel, uint64(leg.GetChannel()))
	b = wire.AppendText(b, wire.MessageRoute, route)
	p.middle = wire.AppendText(b, wire.MessageSender, leg.GetSender())

	b = wire.AppendText(nil, wire.MessageCurrency, campaign.GetCurrency())
	b = wire.AppendNumber(b, wire.MessageNotAfterMs, uint64(c.GetNotAfterMs()))
	p.tail = wire.AppendBool(b, wire.MessageTest, campaign.GetTest())
}

// room is the most bytes that a message takes.
func (p *messageParts) room(e *audience.Entry) int {
	// Seq, segments, encoding, contact, price, variant; to, body, its text, country, zone
	const numbers, lengths = 6 * 12, 7 * 7
	return len(p.head) + len(p.middle) + len(p.tail) + len(p.oneof) + len(p.body) + len(e.To) + len(e.Country) + len(e.Zone) + numbers + lengths
}

// append appends the message of one recipient.
func (p *messageParts) append(b []byte, seq uint32, e *audience.Entry, size text.Size, price uint64) []byte {
	b = append(b, p.head...)
	b = wire.AppendNumber(b, wire.MessageSeq, uint64(seq))
	b = append(b, p.middle...)
	b = wire.AppendText(b, wire.MessageTo, e.To)
	if p.oneof != nil {
		b = append(b, p.oneof...)
	} else {
		b = wire.AppendMessageText(b, p.body, size.Encoding)
	}
	b = wire.AppendNumber(b, wire.MessageSegments, uint64(size.Segments))
	b = wire.AppendNumber(b, wire.MessagePriceMicros, price)
	b = append(b, p.tail...)
	b = wire.AppendNumber(b, wire.MessageVariant, uint64(p.variant))
	b = wire.AppendText(b, wire.MessageCountry, e.Country)
	b = wire.AppendText(b, wire.MessageZone, e.Zone)
	return wire.AppendNumber(b, wire.MessageContactID, e.ContactID)
}
