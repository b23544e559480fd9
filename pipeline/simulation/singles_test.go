package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// hiddenCampaign is the number of the campaign that holds the single sends.
const hiddenCampaign = 9001

// singles are single sends that clients request at once, in one request.
type singles struct {
	at time.Duration
	n  int
	// due is how long after the request they are to be sent; 0: at once.
	due time.Duration
}

// ackWithin is how long the API waits for Kafka.
const ackWithin = 10 * time.Second

// send makes the single sends as the API does: it writes them to the transactional lane of the route, or to topic held
// if they are scheduled, and promises those that Kafka has acknowledged.
func (w *world) send(s singles) {
	w.mu.Lock()
	first := uint32(len(w.acked))
	w.acked = append(w.acked, make([]bool, s.n)...)
	w.mu.Unlock()
	now := time.Now()
	to := make([]audience.Entry, s.n)
	for i := range to {
		to[i] = audience.Entry{To: fmt.Sprintf("+39350%07d", int(first)+i), Zone: "UTC", Country: "IT", Class: audience.Mobile}
	}
	version := w.plane.addSingles(to)
	w.tracef("%d single sends from seq %d are requested, due in %s", s.n, first, s.due)
	ctx, cancel := context.WithTimeout(context.Background(), ackWithin)
	w.onClose(cancel)
	for i := range to {
		seq := first + uint32(i)
		r, err := w.single(seq, version, to[i].To, now, s.due)
		if err != nil {
			w.t.Fatal(err)
		}
		w.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			w.mu.Lock()
			w.acked[seq] = err == nil
			w.mu.Unlock()
			if err != nil {
				w.tracef("single send %d is not acknowledged: %v", seq, err)
			}
		})
	}
}

// single returns the record of a single send.
func (w *world) single(seq uint32, version uint64, to string, now time.Time, due time.Duration) (*kgo.Record, error) {
	names := w.cluster.Names
	m := &fanfarev1.Message{
		Tenant: tenant, CampaignId: schemas.CampaignID(hiddenCampaign), CampaignNumber: hiddenCampaign, CampaignVersion: version, Seq: seq,
		Try: 1, Leg: 1, Channel: schemas.ChannelSMS, Route: route, Sender: "FANFARE", To: to, Country: "IT", Zone: "UTC",
		Body:     &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "Your code is 1234", Encoding: schemas.EncodingGSM7}},
		Segments: 1, PriceMicros: 50_000, Currency: "EUR", NotAfterMs: now.Add(due + validity).UnixMilli(),
	}
	e := schemas.Event{
		Topic: names.Messages(route, schemas.LaneTxn), Key: schemas.MessageKey(tenant, to), Tenant: tenant, Type: schemas.TypeMessage, Source: "api",
		ID: w.keys.Submission(hiddenCampaign, seq, 1).String(), Time: now, Value: m,
	}
	if due > 0 {
		message := w.keys.Message(hiddenCampaign, seq)
		m.Try, m.NotBeforeMs = 0, now.Add(due).UnixMilli()
		e.Topic, e.Type, e.Key, e.ID = names.Held(), schemas.TypeHeld, schemas.DeliveryKey(tenant, message), message.String()
		e.Value = &fanfarev1.Held{Message: m, DueMs: m.GetNotBeforeMs()}
	}
	r, err := e.Record()
	if err != nil {
		return nil, err
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: []byte(e.ID)})
	return r, nil
}

// promised reports whether Kafka has acknowledged a single send.
func (w *world) promised(seq uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(seq) < len(w.acked) && w.acked[seq]
}

// singlesOpen returns how many single sends are promised and have no outcome yet.
func (w *world) singlesOpen() (open int) {
	state := map[uint32]schemas.Precedence{}
	for _, d := range w.observed.all() {
		if d.GetCampaignNumber() == hiddenCampaign {
			state[d.GetSeq()] = schemas.Join(state[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
		}
	}
	for seq := range uint32(len(w.plane.audienceOf(hiddenCampaign))) {
		if w.promised(seq) && (state[seq] == 0 || state[seq].Bucket() == schemas.BucketPending) {
			open++
		}
	}
	return open
}

// lastSingle returns when the last single send was handed over.
func (w *world) lastSingle() time.Time {
	last := int64(0)
	for _, d := range w.observed.all() {
		if d.GetCampaignNumber() == hiddenCampaign && d.GetKind() != schemas.KindDelivered {
			last = max(last, d.GetTimeMs())
		}
	}
	return time.UnixMilli(last)
}
