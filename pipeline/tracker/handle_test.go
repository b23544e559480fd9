package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"fanfare/pipeline/dlrindex"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func TestEvent(t *testing.T) {
	w := newEnv(t)
	w.change(func(c *fanfarev1.Campaign) { c.Test = true })
	r := w.record(t, w.echoed(7, statusDelivered, func(r *fanfarev1.Receipt) { r.ProviderId, r.RawCode = "abc-1", "DELIVRD" }))
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: []byte("00-aa-bb-01")})
	got := handle(t, w.handler(t), r)
	message, submission := w.keys.Message(number, 7), w.keys.Submission(number, 7, 1)
	want := &fanfarev1.Delivery{
		Tenant: tenant, CampaignId: "camp_10001", CampaignNumber: number, Seq: 7, Try: 1, Leg: 2,
		Kind: schemas.KindDelivered, Code: schemas.CodeDelivered, RawCode: "DELIVRD", TimeMs: came.Add(-time.Second).UnixMilli(),
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", To: to, ProviderId: "abc-1",
		MessageId: message[:], SubmissionId: submission[:], Test: true,
	}
	if len(got.events) != 1 || len(got.dead) != 0 {
		t.Fatalf("got %s", got.say())
	}
	if d := cmp.Diff(want, got.events[0], protocmp.Transform()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	whole, err := schemas.DeliveryEvent("fanfare.deliveries", "tracker", want, "").Record()
	if err != nil {
		t.Fatal(err)
	}
	whole.Headers = append(whole.Headers, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: []byte("00-aa-bb-01")})
	if d := cmp.Diff(whole, got.records[0], cmp.Comparer(func(a, b kgo.Record) bool {
		return a.Topic == b.Topic && string(a.Key) == string(b.Key) && cmp.Equal(a.Headers, b.Headers)
	})); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
}

// TestOutcome: the event of a receipt, by its status, its code and what the campaign may still try.
func TestOutcome(t *testing.T) {
	type change = func(*fanfarev1.Campaign)
	single := func(handovers uint32) change {
		return func(c *fanfarev1.Campaign) {
			c.Legs = []*fanfarev1.Leg{{Channel: schemas.ChannelSMS, Route: "sim", MaxHandovers: handovers}}
		}
	}
	code := func(c schemas.Code) func(*fanfarev1.Receipt) { return func(r *fanfarev1.Receipt) { r.Code = c } }
	raw := func(s string) func(*fanfarev1.Receipt) { return func(r *fanfarev1.Receipt) { r.RawCode = s } }
	onRBM := func(c schemas.Code) func(*fanfarev1.Receipt) {
		return func(r *fanfarev1.Receipt) { r.Code, r.Route = c, "rbm" }
	}
	const (
		absent  = schemas.CodeAbsentSubscriber
		gone    = schemas.CodeUnknownSubscriber
		black   = schemas.CodeOperatorBlacklist
		expired = schemas.CodeExpired
	)
	for _, tc := range []struct {
		name     string
		status   schemas.ReceiptStatus
		receipt  func(*fanfarev1.Receipt)
		campaign change
		want     string
	}{
		{"buffered", statusBuffered, nil, nil, "buffered/ENROUTE"},
		{"buffered, whatever its code", statusBuffered, code(absent), nil, "buffered/ENROUTE"},
		{"delivered", statusDelivered, nil, nil, "delivered/DELIVERED"},
		{"delivered with a code of failure", statusDelivered, code(absent), nil, "delivered/DELIVERED"},
		{"answered", statusDelivered, code(schemas.CodeAnswered), nil, "delivered/ANSWERED"},
		{"voicemail", statusDelivered, code(schemas.CodeVoicemailLeft), nil, "delivered/VOICEMAIL_LEFT"},
		{"read", statusRead, nil, nil, "read/READ"},
		{"unknown stays awaiting", statusUnknown, nil, nil, "nothing"},

		{"worth a retry, and there is one", statusFailed, code(absent), nil, "bounced/ABSENT_SUBSCRIBER"},
		{"worth a retry, one hand-over only", statusFailed, code(absent), single(1), "undelivered/ABSENT_SUBSCRIBER"},
		{"worth a retry, single leg", statusFailed, code(expired), single(2), "bounced/EXPIRED"},
		{"not worth a retry", statusFailed, code(gone), single(3), "undelivered/UNKNOWN_SUBSCRIBER"},
		{"not worth a retry, last leg", statusFailed, code(gone), nil, "undelivered/UNKNOWN_SUBSCRIBER"},
		{"not worth a retry, but another leg follows", statusFailed, onRBM(gone), nil, "bounced/UNKNOWN_SUBSCRIBER"},
		{"no fallback from it", statusFailed, onRBM(black), nil, "undelivered/OPERATOR_BLACKLIST"},
		{"one hand-over, but another leg follows", statusFailed, onRBM(absent), nil, "bounced/ABSENT_SUBSCRIBER"},
		{"two legs on one route: either may have been", statusFailed, code(gone), func(c *fanfarev1.Campaign) { c.Legs[0].Route = "sim" }, "bounced/UNKNOWN_SUBSCRIBER"},
		{"a route that no leg has", statusFailed, code(absent), func(c *fanfarev1.Campaign) { c.Legs[1].Route = "other" }, "bounced/ABSENT_SUBSCRIBER"},
		{"a single send", statusFailed, code(absent), func(c *fanfarev1.Campaign) { c.Hidden = true }, "undelivered/ABSENT_SUBSCRIBER"},
		{"settled", statusFailed, code(absent), func(c *fanfarev1.Campaign) { c.Settled = true }, "undelivered/ABSENT_SUBSCRIBER"},
		{"paused", statusFailed, code(absent), func(c *fanfarev1.Campaign) { c.State = schemas.StatePaused }, "bounced/ABSENT_SUBSCRIBER"},
		{"aborted: the scheduler ends it", statusFailed, code(absent), func(c *fanfarev1.Campaign) { c.State = schemas.StateAborted }, "bounced/ABSENT_SUBSCRIBER"},

		{"no code", statusFailed, nil, single(3), "undelivered/UNDELIVERED_OTHER"},
		{"no code, another leg follows", statusFailed, onRBM(0), nil, "bounced/UNDELIVERED_OTHER"},
		{"a word that carriers share", statusFailed, raw(" absent-sub "), nil, "bounced/ABSENT_SUBSCRIBER"},
		{"a number of this connector", statusFailed, raw("005"), nil, "undelivered/UNKNOWN_SUBSCRIBER"},
		{"a number of another connector", statusFailed, raw("451"), nil, "undelivered/UNDELIVERED_OTHER"},
		{"a refusal that came as a receipt", statusFailed, raw("OPT-OUT"), nil, "undelivered/OPTED_OUT"},
		{"the connector's word wins over the table", statusFailed, func(r *fanfarev1.Receipt) { r.Code, r.RawCode = gone, "ABSENT-SUB" }, nil, "undelivered/UNKNOWN_SUBSCRIBER"},
		{"a code of a newer version", statusFailed, code(9999), nil, "undelivered/UNDELIVERED_OTHER"},
		{"a code that is no failure", statusFailed, code(schemas.CodeRead), nil, "undelivered/UNDELIVERED_OTHER"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newEnv(t)
			if tc.campaign != nil {
				w.change(tc.campaign)
			}
			r := w.echoed(1, tc.status)
			if tc.receipt != nil {
				tc.receipt(r)
			}
			got := handle(t, w.handler(t), w.record(t, r))
			if got.say() != tc.want {
				t.Errorf("got %s, want %s", got.say(), tc.want)
			}
			if len(got.events) == 1 && got.events[0].GetRawCode() != r.GetRawCode() {
				t.Errorf("raw code: got %q, want %q", got.events[0].GetRawCode(), r.GetRawCode())
			}
		})
	}
}

// TestLeg: the leg is the one on the receipt's route. If the receipt does not tell which leg it is, the field stays
// empty.
func TestLeg(t *testing.T) {
	for _, tc := range []struct {
		name     string
		campaign func(*fanfarev1.Campaign)
		leg      uint32
		channel  schemas.Channel
	}{
		{"second leg", func(*fanfarev1.Campaign) {}, 2, schemas.ChannelSMS},
		{"both legs on one route", func(c *fanfarev1.Campaign) { c.Legs[0].Route = "sim" }, 0, 0},
		{"no leg of that route", func(c *fanfarev1.Campaign) { c.Legs[1].Route = "other" }, 0, 0},
		{"a route that carries the second leg", func(c *fanfarev1.Campaign) { c.Legs[1].Route, c.Legs[1].OtherRoutes = "other", []string{"sim"} }, 2, schemas.ChannelSMS},
		{"a route that carries both legs", func(c *fanfarev1.Campaign) { c.Legs[0].OtherRoutes = []string{"sim"} }, 0, 0},
		{"a single send", func(c *fanfarev1.Campaign) { c.Hidden, c.Legs = true, nil }, 1, 0},
	} {
		w := newEnv(t)
		w.change(tc.campaign)
		got := handle(t, w.handler(t), w.record(t, w.echoed(1, statusDelivered))).events[0]
		if got.GetLeg() != tc.leg || got.GetChannel() != tc.channel {
			t.Errorf("%s: got leg %d %v, want %d %v", tc.name, got.GetLeg(), got.GetChannel(), tc.leg, tc.channel)
		}
	}
}

func TestTimeIsClamped(t *testing.T) {
	ms := func(at time.Time) int64 { return at.UnixMilli() }
	for _, tc := range []struct {
		name           string
		time, received int64
		confirmed      time.Time
		want           time.Time
	}{
		{"as the carrier says", ms(came.Add(-time.Minute)), ms(came), confirmed, came.Add(-time.Minute)},
		{"before the campaign was confirmed", 1000, ms(came), confirmed, confirmed},
		{"before it was created, of a hidden one", 1000, ms(came), time.UnixMilli(0), confirmed.Add(-time.Hour)},
		{"a clock a little ahead", ms(came.Add(time.Second)), ms(came), confirmed, came},
		{"a clock hours ahead", ms(came.Add(2 * time.Hour)), ms(came), confirmed, came},
		{"a clock hours behind", ms(came.Add(-2 * time.Hour)), ms(came), came.Add(-3 * time.Hour), came.Add(-2 * time.Hour)},
		{"no time", 0, ms(came), confirmed, came},
		{"no time, and no time of arrival", 0, 0, confirmed, came},
	} {
		w := newEnv(t)
		w.change(func(c *fanfarev1.Campaign) { c.ConfirmedMs = ms(tc.confirmed) })
		got := handle(t, w.handler(t), w.record(t, w.echoed(1, statusDelivered, func(r *fanfarev1.Receipt) { r.TimeMs, r.ReceivedMs = tc.time, tc.received })))
		if at := got.events[0].GetTimeMs(); at != ms(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, time.UnixMilli(at).UTC(), tc.want.UTC())
		}
	}
}

// TestPoison: a record that cannot be a receipt of ours becomes a dead letter that says why and has no phone number in
// it. The other records are handled.
func TestPoison(t *testing.T) {
	other, err := schemas.NewKeys([]byte("another secret!!"))
	if err != nil {
		t.Fatal(err)
	}
	w := newEnv(t)
	forged, message := other.Submission(number, 1, 1), w.keys.Message(number, 1)
	id := func(b []byte) func(*fanfarev1.Receipt) { return func(r *fanfarev1.Receipt) { r.SubmissionId = b } }
	for _, tc := range []struct {
		name   string
		change func(*fanfarev1.Receipt)
		cause  string
	}{
		{"forged", id(forged[:]), "forged"},
		{"not an id", id([]byte("12345")), "want 16 bytes"},
		{"the id of a message", id(message[:]), "that of a message"},
		{"no status", func(r *fanfarev1.Receipt) { r.Status = 0 }, "status 0"},
		{"a status of a newer version", func(r *fanfarev1.Receipt) { r.Status = 99 }, "status 99"},
		{"a status below zero", func(r *fanfarev1.Receipt) { r.Status = -1 }, "status -1"},
		{"no route", func(r *fanfarev1.Receipt) { r.Route = "" }, "route"},
		{"an invalid route", func(r *fanfarev1.Receipt) { r.Route = "a/b" }, "route"},
		{"names no submission", id(nil), "names no submission"},
		{"part 3 of 2", func(r *fanfarev1.Receipt) { r.Part, r.Parts = 3, 2 }, "part 3 of 2"},
		{"a part of none", func(r *fanfarev1.Receipt) { r.Part = 1 }, "part 1 of 0"},
		{"parts without end", func(r *fanfarev1.Receipt) { r.Part, r.Parts = 1, 256 }, "part 1 of 256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := handle(t, w.handler(t), w.record(t, w.echoed(2, statusDelivered)), w.record(t, w.echoed(1, statusFailed, tc.change)), w.record(t, w.echoed(3, statusDelivered)))
			if len(got.dead) != 1 || !strings.Contains(got.dead[0].Error(), tc.cause) || strings.Contains(got.dead[0].Error(), to) {
				t.Errorf("got dead letters %v, want one about %q", got.dead, tc.cause)
			}
			if len(got.events) != 2 {
				t.Errorf("the others: got %d events, want 2", len(got.events))
			}
		})
	}
	if got := handle(t, w.handler(t), &kgo.Record{Value: []byte{0xff}}); len(got.dead) != 1 || !strings.Contains(got.dead[0].Error(), "decode receipt") {
		t.Errorf("malformed bytes: got %s", got.say())
	}
}

// TestUnknownCampaign: a receipt waits for its campaign while the view may be behind, then becomes a dead letter.
func TestUnknownCampaign(t *testing.T) {
	w := newEnv(t)
	clear(w.campaigns)
	r := w.record(t, w.echoed(1, statusDelivered))
	h := w.handler(t)
	w.age = time.Minute // the view was last complete when the receipt arrived
	for range 2 {
		if res, err := h.Handle(t.Context(), []*kgo.Record{r}); err == nil {
			t.Fatalf("got %v, want an error: the view is behind", res)
		}
	}
	w.age = 0 // complete a minute later
	if got := handle(t, h, r).say(); got != "dead: campaign 10001 is not known" {
		t.Errorf("got %s, want a dead letter", got)
	}
}

// TestByProviderID: with a carrier that does not echo our id, a receipt finds its submission, or is parked until it is
// known.
func TestByProviderID(t *testing.T) {
	w := newEnv(t)
	h := w.handler(t)
	w.put(t, "1a", 5, 2)
	// the carrier's answer has the id in hexadecimal, the receipt in decimal
	got := handle(t, h, w.record(t, bare("26", statusDelivered)))
	if got.say() != "delivered/DELIVERED" || got.events[0].GetSeq() != 5 || got.events[0].GetTry() != 2 || got.events[0].GetProviderId() != "26" {
		t.Fatalf("got %s %v, want delivered of 5 at try 2", got.say(), got.events)
	}
	if got := handle(t, h, w.record(t, &fanfarev1.Receipt{Route: "sim", ProviderId: "x9", AltProviderIds: []string{"1a"}, To: to, Status: statusRead})).say(); got != "read/READ" {
		t.Errorf("by another spelling that the receipt names: got %s", got)
	}

	early := bare("77", statusFailed)
	early.RawCode = "ABSENT-SUB"
	if got := handle(t, h, w.record(t, early)).say(); got != "nothing" {
		t.Fatalf("early: got %s, want it parked", got)
	}
	parked := w.put(t, "77", 6, 1)
	if len(parked) != 1 {
		t.Fatalf("got %d receipts parked, want 1", len(parked))
	}
	if got := handle(t, h, w.record(t, parked[0])); got.say() != "bounced/ABSENT_SUBSCRIBER" || got.events[0].GetSeq() != 6 {
		t.Errorf("published again: got %s %v", got.say(), got.events)
	}

	w.redis.HSet(w.names.DLRIndexKeys("sim", "666")[0], to, strings.Repeat("x", 16))
	if got := handle(t, h, w.record(t, bare("666", statusDelivered))).say(); !strings.Contains(got, "forged") {
		t.Errorf("a forged entry in Redis: got %s, want a dead letter", got)
	}
}

// TestRedis: receipts that need the index wait while Redis is down or has lost it. Receipts with our id do not.
func TestRedis(t *testing.T) {
	w := newEnv(t)
	h := w.handler(t)
	w.put(t, "1", 1, 1)
	needs := []*kgo.Record{w.record(t, bare("1", statusDelivered))}
	part := []*kgo.Record{w.record(t, w.echoed(1, statusDelivered, func(r *fanfarev1.Receipt) { r.Part, r.Parts = 1, 2 }))}
	echo := w.record(t, w.echoed(2, statusDelivered))

	w.redis.SetError("LOADING")
	for _, batch := range [][]*kgo.Record{needs, part} {
		if res, err := h.Handle(t.Context(), batch); err == nil {
			t.Errorf("down: got %v, want an error", res)
		}
	}
	if got := handle(t, h, echo).say(); got != "delivered/DELIVERED" {
		t.Errorf("down, with our id: got %s", got)
	}
	w.redis.SetError("")
	w.redis.FlushAll()
	for _, batch := range [][]*kgo.Record{needs, part} {
		if res, err := h.Handle(t.Context(), batch); !errors.Is(err, errIndexLost) {
			t.Errorf("lost: got %v %v, want errIndexLost", res, err)
		}
	}
	if keys := w.redis.Keys(); len(keys) != 0 {
		t.Errorf("lost: got %v in Redis, want nothing touched", keys)
	}
	select {
	case <-h.lost:
	default:
		t.Error("the rebuilder was not woken")
	}
	if got := handle(t, h, echo).say(); got != "delivered/DELIVERED" {
		t.Errorf("lost, with our id: got %s", got)
	}
	w.ready(t)
	w.put(t, "1", 1, 1)
	if got := handle(t, h, needs...).say(); got != "delivered/DELIVERED" {
		t.Errorf("back: got %s", got)
	}
}

// TestForget: an entry is forgotten once the event of its last receipt is known to be published, and not before: a
// receipt that is handled again must find its entry.
func TestForget(t *testing.T) {
	w := newEnv(t)
	h := w.handler(t)
	entry := func(id string) bool { return w.redis.TTL(w.names.DLRIndexKeys("sim", id)[0]) > afterLast }
	w.put(t, "a-1", 1, 1)
	w.put(t, "a-2", 2, 1)
	w.put(t, "a-3", 3, 1)
	first, second := w.record(t, bare("a-1", statusDelivered)), w.record(t, bare("a-2", statusFailed))
	third, later := w.record(t, bare("a-3", statusDelivered)), w.record(t, w.echoed(9, statusDelivered))

	for range 2 { // the batch was not published or not committed, so it comes again
		if got := handle(t, h, first, second); len(got.events) != 2 {
			t.Fatalf("got %d events, want 2", len(got.events))
		}
		if !entry("a-1") {
			t.Fatal("forgotten before the event was published")
		}
	}
	elsewhere := w.record(t, w.echoed(8, statusDelivered))
	elsewhere.Partition = 3
	handle(t, h, elsewhere) // another partition
	handle(t, h, first)     // half of the batch
	if !entry("a-1") {
		t.Fatal("forgotten before a later record of the partition came")
	}
	handle(t, h, third)
	if entry("a-1") {
		t.Error("not forgotten after it was published")
	}
	if !entry("a-2") {
		t.Error("forgotten after a negative receipt, which a positive one may follow")
	}
	handle(t, h, later)
	if entry("a-3") {
		t.Error("not forgotten after it was published")
	}

	// Some carriers give all parts of a message one id.
	w.put(t, "a-4", 4, 1)
	part := func(n uint32) *kgo.Record {
		r := bare("a-4", statusDelivered)
		r.Part, r.Parts = n, 2
		return w.record(t, r)
	}
	handle(t, h, part(1))
	handle(t, h, w.record(t, w.echoed(9, statusDelivered)))
	if !entry("a-4") {
		t.Error("forgotten though a part is awaited")
	}
	handle(t, h, part(2))
	handle(t, h, w.record(t, w.echoed(9, statusDelivered)))
	if entry("a-4") {
		t.Error("not forgotten after all parts have come")
	}
}

// TestParts: delivered when all parts are, undelivered/PARTIAL when one has failed for good.
func TestParts(t *testing.T) {
	w := newEnv(t)
	h := w.handler(t)
	part := func(seq uint32, part uint32, status schemas.ReceiptStatus) string {
		t.Helper()
		return handle(t, h, w.record(t, w.echoed(seq, status, func(r *fanfarev1.Receipt) { r.Part, r.Parts = part, 3 }))).say()
	}
	steps := []struct {
		seq, part uint32
		status    schemas.ReceiptStatus
		want      string
	}{
		{1, 2, statusDelivered, "nothing"},
		{1, 2, statusDelivered, "nothing"}, // a duplicate does not count twice
		{1, 1, statusBuffered, "buffered/ENROUTE"},
		{1, 1, statusDelivered, "nothing"},
		{2, 3, statusDelivered, "nothing"}, // another message
		{1, 3, statusDelivered, "delivered/DELIVERED"},
		{1, 3, statusRead, "read/READ"},
		{2, 1, statusFailed, "undelivered/PARTIAL"},
		{2, 2, statusDelivered, "nothing"},
		{2, 1, statusUnknown, "nothing"},
		// A positive receipt outranks a negative one, as for a whole message
		{2, 1, statusDelivered, "delivered/DELIVERED"},
		{2, 1, statusFailed, "undelivered/PARTIAL"}, // the receipt before outranks it
	}
	for i, s := range steps {
		if got := part(s.seq, s.part, s.status); got != s.want {
			t.Errorf("step %d: got %s, want %s", i, got, s.want)
		}
	}
	whole := w.echoed(4, statusDelivered, func(r *fanfarev1.Receipt) { r.Part, r.Parts = 1, 1 })
	if got := handle(t, h, w.record(t, whole)).say(); got != "delivered/DELIVERED" {
		t.Errorf("the only part: got %s", got)
	}
}

// TestPartsByProviderID: each part of a long text has a provider id of its own, as over SMPP, and its receipt has
// nothing but that id.
func TestPartsByProviderID(t *testing.T) {
	w := newEnv(t)
	h := w.handler(t)
	early := bare("p2", statusDelivered)
	if got := handle(t, h, w.record(t, early)).say(); got != "nothing" {
		t.Fatalf("early: got %s, want it parked", got)
	}
	entries := dlrindex.Entry{Route: "sim", ProviderID: "p1", To: to, Submission: w.keys.Submission(number, 5, 1), Life: time.Hour}.WithParts(nil, []string{"p1", "p2", "p3"})
	parked, err := w.index.Put(t.Context(), entries)
	if err != nil || len(parked[1]) != 1 {
		t.Fatalf("got %v parked, %v, want the early one", parked, err)
	}
	for _, s := range []struct {
		receipt *fanfarev1.Receipt
		want    string
	}{
		{parked[1][0], "nothing"},
		{bare("p1", statusDelivered), "nothing"},
		{bare("p1", statusDelivered), "nothing"},
		{bare("p3", statusDelivered), "delivered/DELIVERED"},
	} {
		if got := handle(t, h, w.record(t, s.receipt)).say(); got != s.want {
			t.Errorf("%s: got %s, want %s", s.receipt.GetProviderId(), got, s.want)
		}
	}
	if got := handle(t, h, w.record(t, bare("p2", statusFailed))).say(); got != "undelivered/PARTIAL" {
		t.Errorf("a part that failed: got %s", got)
	}
}

// TestShuffledReceipts: late, repeated and reordered receipts lead to the same state of every recipient, with our id or
// the carrier's.
func TestShuffledReceipts(t *testing.T) {
	w := newEnv(t)
	rapid.Check(t, func(rt *rapid.T) {
		var receipts []*fanfarev1.Receipt
		for seq := range uint32(4) {
			inParts := rapid.Bool().Draw(rt, "in parts")
			for range rapid.IntRange(1, 4).Draw(rt, "receipts") {
				r := bare(fmt.Sprintf("id-%d", seq), schemas.ReceiptStatus(rapid.IntRange(1, 5).Draw(rt, "status")))
				if seq%2 == 0 {
					r = w.echoed(seq, r.GetStatus())
				}
				r.Code = rapid.SampledFrom([]schemas.Code{0, 300, 301, 325, 415}).Draw(rt, "code")
				if inParts {
					r.Part, r.Parts = rapid.Uint32Range(1, 2).Draw(rt, "part"), 2
				}
				receipts = append(receipts, r)
			}
		}
		var want map[uint32]schemas.Precedence
		for round := range 2 {
			w.redis.FlushAll()
			w.ready(t)
			order := rapid.Permutation(slices.Concat(receipts, receipts)).Draw(rt, "order")
			if round == 0 {
				order = receipts
			}
			// The carrier's answers to the sender arrive at some point in between.
			answer := rapid.IntRange(0, len(order)).Draw(rt, "answer")
			h := w.handler(t)
			var events []*fanfarev1.Delivery
			feed := func(rs []*fanfarev1.Receipt) {
				for len(rs) > 0 {
					n := rapid.IntRange(1, len(rs)).Draw(rt, "batch")
					var batch []*kgo.Record
					for _, r := range rs[:n] {
						batch = append(batch, w.record(t, r))
					}
					got := handle(t, h, batch...)
					if len(got.dead) > 0 {
						rt.Fatalf("got dead letters %v", got.dead)
					}
					events = append(events, got.events...)
					rs = rs[n:]
				}
			}
			feed(order[:answer])
			for seq := uint32(1); seq < 4; seq += 2 {
				feed(w.put(t, fmt.Sprintf("id-%d", seq), seq, 1))
			}
			feed(order[answer:])
			if got := states(events); round == 0 {
				want = got
			} else if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("in another order (-want +got):\n%s", d)
			}
		}
	})
}

// TestSameReceiptSameEvent: the event is the same byte for byte, so that consumers recognise it.
func TestSameReceiptSameEvent(t *testing.T) {
	w := newEnv(t)
	r := w.record(t, w.echoed(1, statusFailed, func(r *fanfarev1.Receipt) { r.RawCode, r.TimeMs = "EXPIRED", came.Add(time.Hour).UnixMilli() }))
	first := handle(t, w.handler(t), r).records[0]
	w.change(func(c *fanfarev1.Campaign) { c.Version, c.State = 99, schemas.StateCompleted })
	h := w.handler(t)
	h.cfg.Now = func() time.Time { return came.Add(100 * time.Hour) }
	again := handle(t, h, r).records[0]
	if string(first.Value) != string(again.Value) || !cmp.Equal(first.Headers, again.Headers) {
		t.Errorf("got\n%s\n%v\nwant\n%s\n%v", again.Value, again.Headers, first.Value, first.Headers)
	}
}

func FuzzReceipt(f *testing.F) {
	w := newEnv(f)
	for _, r := range []*fanfarev1.Receipt{w.echoed(1, statusDelivered), bare("1a", statusFailed), {Part: 1, Parts: 2}} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		h := w.handler(t)
		res, err := h.Handle(context.WithoutCancel(t.Context()), []*kgo.Record{{Value: value, Timestamp: confirmed}})
		if err != nil {
			t.Fatalf("got %v: a record blocks its partition", err)
		}
		if len(res.Publish) > 1 || len(res.Publish)+len(res.Dead) > 1 {
			t.Fatalf("got %d events and %d dead letters of one receipt", len(res.Publish), len(res.Dead))
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	w := newEnv(b)
	h := w.handler(b)
	var batch []*kgo.Record
	for seq := range uint32(2000) {
		batch = append(batch, w.record(b, w.echoed(seq, statusDelivered, func(r *fanfarev1.Receipt) { r.ProviderId, r.RawCode = fmt.Sprint(seq), "DELIVRD" })))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += len(handleOnly(b, h, batch))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/receipt")
}

func handleOnly(b *testing.B, h *handler, batch []*kgo.Record) []*kgo.Record {
	b.Helper()
	res, err := h.Handle(b.Context(), batch)
	if err != nil || len(res.Publish) != len(batch) {
		b.Fatalf("got %d events, %v", len(res.Publish), err)
	}
	return res.Publish
}
