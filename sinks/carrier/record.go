package carrier

import (
	"strings"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Record returns a receipt as a record of topic `receipts`. The receipt came in on the account of route at received.
func (r *Receipt) Record(route string, received time.Time) *fanfarev1.Receipt {
	out := &fanfarev1.Receipt{
		Route: route, ProviderId: valid(r.Ref), To: valid(r.To), Status: r.Status, Code: r.Sub, RawCode: valid(r.Code),
		Part: uint32(r.Part), Parts: uint32(r.Parts), Raw: r.Raw, ReceivedMs: received.UnixMilli(),
	}
	for _, ref := range r.AltRefs {
		out.AltProviderIds = append(out.AltProviderIds, valid(ref))
	}
	if !r.Key.IsZero() {
		key := r.Key
		out.SubmissionId = key[:]
	}
	if !r.At.IsZero() {
		out.TimeMs = r.At.UnixMilli()
	}
	return out
}

// valid replaces invalid UTF-8, which protobuf refuses.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Event describes the record of topic `inbound` for a message of a recipient. The message came in on route at received.
func (m *Inbound) Event(topic, source, route string, received time.Time) schemas.Event {
	at := m.At
	if at.IsZero() {
		at = received
	}
	return schemas.MessageIn(topic, source, &fanfarev1.Inbound{
		Route: route, Channel: m.Channel, From: valid(m.From), To: valid(m.To), Text: valid(m.Text), ProviderId: valid(m.Ref), ReceivedMs: received.UnixMilli(),
	}, at)
}
