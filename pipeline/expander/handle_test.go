package expander

import (
	"errors"
	"maps"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

func TestMessage(t *testing.T) {
	w := newEnv(t, people(4))
	w.change(func(c *fanfarev1.Campaign) { c.Test, c.Version = true, 9 })
	r := record(t, chunk(seqs(2)))
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: []byte("00-aa-bb-01")})
	got := handle(t, w.handler(t), r)
	if len(got.records) != 1 || len(got.messages) != 1 {
		t.Fatalf("got %d records, want 1 message", len(got.records))
	}
	want := &fanfarev1.Message{
		Tenant: tenant, CampaignId: campaign, CampaignNumber: number, CampaignVersion: 7, Seq: 2, Try: 1, Leg: 1,
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", To: "+393400000002",
		Body:     &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "Ciao Ada2!", Encoding: schemas.EncodingGSM7}},
		Segments: 1, PriceMicros: 50_000, Currency: "EUR", NotAfterMs: dealt.Add(time.Hour).UnixMilli(), Test: true, Country: "IT", Zone: "Europe/Rome", ContactId: 102,
	}
	if d := cmp.Diff(want, got.messages[0], protocmp.Transform()); d != "" {
		t.Errorf("message (-want +got):\n%s", d)
	}

	id := w.keys.Submission(number, 2, 1).String()
	whole, err := schemas.Event{
		Topic: "fanfare.messages.sim.bulk", Key: schemas.MessageKey(tenant, "+393400000002"), Tenant: tenant, Type: schemas.TypeMessage,
		Source: "expander", ID: id, Time: dealt, Traceparent: "00-aa-bb-01", Value: want,
	}.Record()
	if err != nil {
		t.Fatal(err)
	}
	whole.Headers = append(whole.Headers, kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: []byte(id)})
	rec := got.records[0]
	if rec.Topic != whole.Topic || string(rec.Key) != string(whole.Key) {
		t.Errorf("got topic %s key %s, want %s %s", rec.Topic, rec.Key, whole.Topic, whole.Key)
	}
	if d := cmp.Diff(whole.Headers, rec.Headers); d != "" {
		t.Errorf("headers (-want +got):\n%s", d)
	}
}

// TestRecipients checks what each kind of recipient becomes (requirements §4, C14).
func TestRecipients(t *testing.T) {
	flag := func(f audience.Flag) audience.Entry {
		e := person(1)
		e.Flag = f
		return e
	}
	long := func(n int) audience.Entry {
		e := person(1)
		e.Attrs = []audience.Attr{{Name: "first_name", Value: strings.Repeat("a", n-len("Ciao !"))}}
		return e
	}
	odd := func(to string) audience.Entry {
		e := person(1)
		e.To = to
		return e
	}
	nameless := audience.Entry{To: "+393400000001"}
	empty := audience.Entry{To: "+393400000001", Attrs: []audience.Attr{{Name: "first_name"}}}
	policy := func(p schemas.MissingPolicy) func(*fanfarev1.Campaign) {
		return func(c *fanfarev1.Campaign) { c.Content.Missing = p }
	}
	body := func(s string) func(*fanfarev1.Campaign) {
		return func(c *fanfarev1.Campaign) { c.Content.Body = s }
	}
	for _, tc := range []struct {
		name   string
		entry  audience.Entry
		change func(*fanfarev1.Campaign)
		want   string
	}{
		{"sendable", person(1), nil, "message"},
		{"invalid", flag(audience.Invalid), nil, "not_sent/INVALID_NUMBER"},
		{"invalid and no number at all", audience.Entry{To: "\xff12", Flag: audience.Invalid}, nil, "not_sent/INVALID_NUMBER"},
		{"duplicate", flag(audience.Duplicate), nil, "skipped/DUPLICATE_RECIPIENT"},
		{"opted out", flag(audience.OptedOut), nil, "skipped/OPTED_OUT"},
		{"capped", flag(audience.Capped), nil, "skipped/FREQUENCY_CAP"},
		{"a flag of a newer version", flag(99), nil, "not_sent/INVALID_NUMBER"},
		{"no E.164 number", odd("3401234567"), nil, "not_sent/INVALID_NUMBER"},
		{"letters in the number", odd("+39340ABC"), nil, "not_sent/INVALID_NUMBER"},
		{"two segments", long(306), nil, "message"},
		{"three segments", long(307), nil, "not_sent/TOO_LONG"},
		{"three segments, no bound given", long(459), func(c *fanfarev1.Campaign) { c.MaxSegments = 0 }, "message"},
		{"four segments, no bound given", long(460), func(c *fanfarev1.Campaign) { c.MaxSegments = 0 }, "not_sent/TOO_LONG"},
		{"missing", nameless, nil, "not_sent/RENDER_ERROR"},
		{"missing but empty", empty, nil, "not_sent/RENDER_ERROR"},
		{"nothing that a phone would show", nameless, func(c *fanfarev1.Campaign) {
			c.Content.Body, c.Content.Missing = "\u200b {{city}} ", schemas.MissingPolicyEmpty
		}, "not_sent/RENDER_ERROR"},
		{"missing, policy empty", nameless, policy(schemas.MissingPolicyEmpty), "message"},
		{"nothing left to send", nameless, func(c *fanfarev1.Campaign) {
			c.Content.Body, c.Content.Missing = "{{first_name}}", schemas.MissingPolicyEmpty
		}, "not_sent/RENDER_ERROR"},
		{"a value that is no text", audience.Entry{To: "+393400000001", Attrs: []audience.Attr{{Name: "first_name", Value: "\xff"}}}, nil, "not_sent/RENDER_ERROR"},
		{"its own number", person(1), body("{{phone}}"), "message"},
		{"paused: the sender gives it back", person(1), func(c *fanfarev1.Campaign) { c.State = schemas.StatePaused }, "message"},
		{"aborted", person(1), func(c *fanfarev1.Campaign) { c.State = schemas.StateAborted }, "skipped/CANCELLED"},
		{"aborted, whatever the entry", flag(audience.Invalid), func(c *fanfarev1.Campaign) { c.State = schemas.StateAborted }, "skipped/CANCELLED"},
		{"cancelled", person(1), func(c *fanfarev1.Campaign) { c.State = schemas.StateCancelled }, "skipped/CANCELLED"},
		{"stopped after it was completed", person(1), func(c *fanfarev1.Campaign) { c.State, c.Stopped = schemas.StateCompleted, true }, "skipped/CANCELLED"},
		{"completed: a try after a bounce", person(1), func(c *fanfarev1.Campaign) { c.State = schemas.StateCompleted }, "message"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newEnv(t, []audience.Entry{tc.entry})
			if tc.change != nil {
				w.change(tc.change)
			}
			got := handle(t, w.handler(t), record(t, chunk(seqs(0))))
			if d := cmp.Diff(map[uint32]string{0: tc.want}, got.states()); d != "" || len(got.dead) > 0 {
				t.Errorf("(-want +got):\n%s dead: %v", d, got.dead)
			}
		})
	}
}

// TestDamagedBlobIsReadAnew: the cache does not keep a blob that was damaged in transit.
func TestDamagedBlobIsReadAnew(t *testing.T) {
	w := newEnv(t, people(4))
	h := w.handler(t)
	good := w.blobs[blobKey{frozen, 1}]
	w.cut(t, 1)
	if got := handle(t, h, record(t, chunk())); len(got.dead) != 1 {
		t.Fatalf("got %v, want a dead letter", got.states())
	}
	w.blobs[blobKey{frozen, 1}] = good
	if got := handle(t, h, record(t, chunk())); len(got.messages) != 4 {
		t.Errorf("got %v, want messages", got.states())
	}
}

// TestLaterTry: a later try of the same message is another submission.
func TestLaterTry(t *testing.T) {
	w := newEnv(t, people(4))
	got := handle(t, w.handler(t), record(t, chunk(seqs(3), func(c *fanfarev1.Chunk) { c.Try = 200 })))
	if id, want := string(schemas.Header(got.records[0], schemas.HeaderSubmission)), w.keys.Submission(number, 3, 200).String(); id != want || got.messages[0].GetTry() != 200 {
		t.Errorf("got submission %s at try %d, want %s at try 200", id, got.messages[0].GetTry(), want)
	}
}

// TestOtherRoute: the chunk names the route of its messages, if it is not the one of the leg. Outcomes name it, too.
func TestOtherRoute(t *testing.T) {
	w := newEnv(t, append(people(2), audience.Entry{Flag: audience.OptedOut}))
	got := handle(t, w.handler(t), record(t, chunk(seqs(0, 2), func(c *fanfarev1.Chunk) { c.Route = "second" })))
	if len(got.records) != 2 || got.records[0].Topic != "fanfare.messages.second.bulk" || got.messages[0].GetRoute() != "second" || got.outcomes[0].GetRoute() != "second" {
		t.Errorf("got %v %v, want a message and an event of route second", got.messages, got.outcomes)
	}
}

// TestOutcome: an outcome names the recipient, and its key puts all events of a message into one partition.
func TestOutcome(t *testing.T) {
	e := person(3)
	e.Flag = audience.Duplicate
	w := newEnv(t, []audience.Entry{person(0), e})
	got := handle(t, w.handler(t), record(t, chunk(seqs(1), func(c *fanfarev1.Chunk) { c.Try, c.Leg = 2, 2 })))
	message, submission := w.keys.Message(number, 1), w.keys.Submission(number, 1, 2)
	want := &fanfarev1.Delivery{
		Tenant: tenant, CampaignId: campaign, CampaignNumber: number, Seq: 1, Try: 2, Leg: 2,
		Kind: schemas.KindSkipped, Code: schemas.CodeDuplicateRecipient, TimeMs: dealt.UnixMilli(),
		Channel: schemas.ChannelRCS, Route: "rbm", Sender: "agent", To: "+393400000003", Country: "IT", ContactId: 103,
		MessageId: message[:], SubmissionId: submission[:],
	}
	if len(got.outcomes) != 1 || len(got.messages) != 0 {
		t.Fatalf("got %v, want one outcome", got.states())
	}
	if d := cmp.Diff(want, got.outcomes[0], protocmp.Transform()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if r := got.records[0]; r.Topic != "fanfare.deliveries" || string(r.Key) != schemas.DeliveryKey(tenant, message) {
		t.Errorf("got topic %s key %s, want deliveries and %s", r.Topic, r.Key, schemas.DeliveryKey(tenant, message))
	}
}

func TestTooLongSaysHowLong(t *testing.T) {
	e := person(0)
	e.Attrs = []audience.Attr{{Name: "first_name", Value: strings.Repeat("ж", 400)}}
	w := newEnv(t, []audience.Entry{e})
	got := handle(t, w.handler(t), record(t, chunk(seqs(0))))
	if len(got.outcomes) != 1 || got.outcomes[0].GetSegments() != 7 {
		t.Errorf("got %v, want 7 segments", got.outcomes)
	}
	// 32 fields of a thousand letters are more than an event has room for. The outcome must still reach the statistics.
	e.Attrs = []audience.Attr{{Name: "first_name", Value: strings.Repeat("a", 1000) + "ж"}}
	w = newEnv(t, []audience.Entry{e})
	w.change(func(c *fanfarev1.Campaign) { c.Content.Body = strings.Repeat("{{first_name}}", 32) })
	got = handle(t, w.handler(t), record(t, chunk(seqs(0))))
	if len(got.outcomes) != 1 || got.outcomes[0].GetCode() != schemas.CodeTooLong || got.outcomes[0].GetSegments() != 3 {
		t.Errorf("got %v, want TOO_LONG of more than the 2 segments of the campaign: rendering stops there", got.outcomes)
	}
	w.change(func(c *fanfarev1.Campaign) { c.MaxSegments = 1000 })
	got = handle(t, w.handler(t), record(t, chunk(seqs(0))))
	if len(got.outcomes) != 1 || got.outcomes[0].GetCode() != schemas.CodeTooLong {
		t.Errorf("got %v, want TOO_LONG: no event could say what was sent", got.outcomes)
	}
}

// TestCancel: a chunk of purpose cancel names the outcome for every recipient in it; a recipient that may not get a
// message keeps its own reason, unless the campaign was stopped or the blob cannot be read.
func TestCancel(t *testing.T) {
	invalid := person(1)
	invalid.Flag = audience.Invalid
	cancel := func(c *fanfarev1.Chunk) {
		c.Purpose, c.EndSeq = schemas.PurposeCancel, 2
		c.Outcome, c.Code = schemas.KindUndelivered, schemas.CodeAbsentSubscriber
	}
	const said, invalidNumber = "undelivered/ABSENT_SUBSCRIBER", "not_sent/INVALID_NUMBER"
	for _, tc := range []struct {
		name    string
		harm    func(*env, *fanfarev1.Chunk)
		to      string
		flagged string
	}{
		{"all well", func(*env, *fanfarev1.Chunk) {}, "+393400000000", invalidNumber},
		{"the undealt have no try", func(_ *env, c *fanfarev1.Chunk) { c.Try, c.Leg = 0, 0 }, "+393400000000", invalidNumber},
		{"a later try", func(_ *env, c *fanfarev1.Chunk) { c.Try = 2 }, "+393400000000", said},
		{"the campaign is stopped", func(w *env, _ *fanfarev1.Chunk) {
			w.change(func(c *fanfarev1.Campaign) { c.State = schemas.StateAborted })
		}, "+393400000000", said},
		{"the blob is gone", func(w *env, _ *fanfarev1.Chunk) { clear(w.blobs) }, "", said},
		{"the blob is damaged", func(w *env, _ *fanfarev1.Chunk) { w.blobs[blobKey{frozen, 1}] = []byte{1, 2, 3} }, "", said},
		{"the blob ends too early", func(w *env, _ *fanfarev1.Chunk) { w.cut(t, 1) }, "", said},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newEnv(t, []audience.Entry{person(0), invalid})
			c := chunk(cancel)
			tc.harm(w, c)
			got := handle(t, w.handler(t), record(t, c))
			want := map[uint32]string{0: said, 1: tc.flagged}
			if d := cmp.Diff(want, got.states()); d != "" || len(got.dead) > 0 {
				t.Fatalf("(-want +got):\n%s dead: %v", d, got.dead)
			}
			if to := got.outcomes[0].GetTo(); to != tc.to {
				t.Errorf("got number %q, want %q", to, tc.to)
			}
			if has := len(got.outcomes[0].GetSubmissionId()) > 0; has != (c.GetTry() > 0) {
				t.Errorf("try %d: submission id: got %v", c.GetTry(), has)
			}
		})
	}
}

// TestPoison: a chunk that can never be expanded becomes a dead letter, and its recipients get outcomes if they are
// known. It does not affect the other chunks of the batch.
func TestPoison(t *testing.T) {
	lost := map[uint32]string{0: "not_sent/RENDER_ERROR", 1: "not_sent/RENDER_ERROR", 2: "not_sent/RENDER_ERROR", 3: "not_sent/RENDER_ERROR"}
	none := map[uint32]string{}
	for _, tc := range []struct {
		name  string
		chunk func(*fanfarev1.Chunk)
		env   func(*env)
		want  map[uint32]string
		cause string
	}{
		{"try 0", func(c *fanfarev1.Chunk) { c.Try = 0 }, nil, lost, "try 0"},
		{"try 256", func(c *fanfarev1.Chunk) { c.Try = 256 }, nil, lost, "try 256"},
		{"leg 0", func(c *fanfarev1.Chunk) { c.Leg = 0 }, nil, lost, "leg 0"},
		{"leg 3 of 2", func(c *fanfarev1.Chunk) { c.Leg = 3 }, nil, lost, "leg 3"},
		{"no purpose", func(c *fanfarev1.Chunk) { c.Purpose = 0 }, nil, lost, "purpose 0"},
		{"a cancel without outcome", func(c *fanfarev1.Chunk) { c.Purpose = schemas.PurposeCancel }, nil, lost, "outcome"},
		{"no such blob", func(c *fanfarev1.Chunk) { c.Blob = 9 }, nil, lost, "no blob 9"},
		{"the blob's recipients are others", func(c *fanfarev1.Chunk) { c.Blob = 2 }, nil, lost, "blob 2 has"},
		{"blob gone", nil, func(w *env) { delete(w.blobs, blobKey{frozen, 1}) }, lost, "not found"},
		{"audience gone", nil, func(w *env) { delete(w.indexes, frozen) }, lost, "not found"},
		{"blob of no known version", nil, func(w *env) { w.blobs[blobKey{frozen, 1}] = []byte{9} }, lost, "damaged"},
		{"blob shorter than its index", nil, func(w *env) { w.blobs[blobKey{frozen, 1}] = w.blobs[blobKey{frozen, 2}] }, lost, "want 4"},
		{"blob that ends too early", nil, func(w *env) { w.cut(t, 1) }, lost, "damaged"},
		{"text that does not parse", nil, func(w *env) { w.change(func(c *fanfarev1.Campaign) { c.Content.Body = "{{" }) }, lost, "not closed"},
		{"channel without content", nil, func(w *env) {
			w.change(func(c *fanfarev1.Campaign) { c.Legs[0].Channel = schemas.ChannelVoice })
		}, lost, "voice"},
		{"route that is no topic", nil, func(w *env) { w.change(func(c *fanfarev1.Campaign) { c.Legs[0].Route = "A/B" }) }, lost, "route"},
		{"campaign gone", nil, func(w *env) { clear(w.campaigns) }, lost, "no such campaign"},
		{"recipients beyond the audience", func(c *fanfarev1.Chunk) { c.Blob, c.FirstSeq, c.EndSeq = 2, 4, 9 }, nil, map[uint32]string{4: "not_sent/RENDER_ERROR", 5: "not_sent/RENDER_ERROR"}, "blob 2 has"},
		{"no recipients", func(c *fanfarev1.Chunk) { c.EndSeq = 0 }, nil, none, "recipients 0 to 0"},
		{"more than a blob", func(c *fanfarev1.Chunk) { c.EndSeq = 5001 }, nil, none, "recipients 0 to 5001"},
		{"a set that does not read", func(c *fanfarev1.Chunk) { c.Seqs = []byte{1, 2, 3} }, nil, none, "set of recipients"},
		{"another audience", func(c *fanfarev1.Chunk) { c.FreezeId = "fz_0" }, nil, none, "dealt from audience"},
		{"another tenant's campaign", func(c *fanfarev1.Chunk) { c.Tenant = "tn_b" }, nil, none, "another tenant's"},
		{"an id that is not the number's", func(c *fanfarev1.Chunk) { c.CampaignId = "camp_1" }, nil, none, "does not have number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newEnv(t, people(6))
			// A good chunk of another campaign precedes and follows the poison chunk.
			good, _ := proto.Clone(w.Campaign(campaign)).(*fanfarev1.Campaign)
			good.Id, good.Number, good.FreezeId = "camp_10002", 10002, "fz_2"
			w.freeze("fz_2", people(4), 4)
			if tc.env != nil {
				tc.env(w)
			}
			w.put(good)
			other := func(c *fanfarev1.Chunk) { c.CampaignId, c.CampaignNumber, c.FreezeId = "camp_10002", 10002, "fz_2" }
			bad := chunk()
			if tc.chunk != nil {
				tc.chunk(bad)
			}
			got := handle(t, w.handler(t), record(t, chunk(other, seqs(0))), record(t, bad), record(t, chunk(other, seqs(1))))
			if len(got.dead) != 1 || !errors.Is(got.dead[0], errPoison) || !strings.Contains(got.dead[0].Error(), tc.cause) {
				t.Errorf("got dead letters %v, want one about %q", got.dead, tc.cause)
			}
			if len(got.messages) != 2 || got.messages[0].GetCampaignNumber() != 10002 {
				t.Errorf("the others: got %d messages, want 2", len(got.messages))
			}
			got.messages = nil
			if d := cmp.Diff(tc.want, got.states()); d != "" {
				t.Errorf("outcomes (-want +got):\n%s", d)
			}
		})
	}
}

func TestPoisonThatDoesNotDecode(t *testing.T) {
	w := newEnv(t, people(4))
	got := handle(t, w.handler(t), &kgo.Record{Topic: "fanfare.chunks", Value: []byte{0xff}, Timestamp: dealt}, record(t, chunk()))
	if len(got.dead) != 1 || len(got.messages) != 4 {
		t.Errorf("got %v and %d messages, want a dead letter and 4", got.dead, len(got.messages))
	}
}

// TestPanicIsPoison: a chunk that causes a panic does not end the process, even if making its outcomes panics too.
func TestPanicIsPoison(t *testing.T) {
	w := newEnv(t, people(4))
	h := w.handler(t)
	h.keys = &schemas.Keys{} // none
	got := handle(t, h, record(t, chunk()))
	if len(got.dead) != 1 || !strings.Contains(got.dead[0].Error(), "panic: ") || len(got.records) != 0 {
		t.Errorf("got dead letters %v and %d records, want one that says panic", got.dead, len(got.records))
	}
}

// TestWaits: while the view or the store is behind, the whole batch waits and nothing of it is published. When they
// have caught up, the stage continues with that batch.
func TestWaits(t *testing.T) {
	t.Run("store away", func(t *testing.T) {
		w := newEnv(t, people(4))
		w.away = errAway
		h := w.handler(t)
		for range 3 {
			if res, err := h.Handle(t.Context(), []*kgo.Record{record(t, chunk())}); !errors.Is(err, errAway) || res.Publish != nil || res.Dead != nil {
				t.Fatalf("got %v %v, want the store's error and nothing published", res, err)
			}
		}
		w.away = nil
		if got := handle(t, h, record(t, chunk())); len(got.messages) != 4 {
			t.Errorf("got %d messages, want 4", len(got.messages))
		}
	})
	t.Run("version has not arrived", func(t *testing.T) {
		w := newEnv(t, people(4))
		h := w.handler(t)
		late := chunk(func(c *fanfarev1.Chunk) { c.CampaignVersion = 8 })
		if res, err := h.Handle(t.Context(), []*kgo.Record{record(t, chunk(seqs(0))), record(t, late)}); err == nil {
			t.Fatalf("got %v, want an error", res)
		}
		w.change(func(c *fanfarev1.Campaign) { c.Version = 8 })
		if got := handle(t, h, record(t, late)); len(got.messages) != 4 {
			t.Errorf("got %d messages, want 4", len(got.messages))
		}
	})
	t.Run("campaign unknown to a view that is not fresh", func(t *testing.T) {
		w := newEnv(t, people(4))
		clear(w.campaigns)
		w.age = time.Minute // the view was last complete when the chunk was dealt, not later
		if res, err := w.handler(t).Handle(t.Context(), []*kgo.Record{record(t, chunk())}); err == nil {
			t.Fatalf("got %v, want an error", res)
		}
	})
	t.Run("arrives while it waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newEnv(t, people(4))
			h := w.handler(t)
			h.cfg.Patience = time.Hour
			go func() {
				time.Sleep(time.Minute)
				w.change(func(c *fanfarev1.Campaign) { c.Version = 8 })
			}()
			began := time.Now()
			got := handle(t, h, record(t, chunk(func(c *fanfarev1.Chunk) { c.CampaignVersion = 8 })))
			if waited := time.Since(began); waited != time.Minute || len(got.messages) != 4 {
				t.Errorf("got %d messages after %v, want 4 after %v", len(got.messages), waited, time.Minute)
			}
		})
	})
}

// TestSameBytes: a chunk that is expanded again gives the same records, even by another process, after the campaign has
// changed, and with other chunks in the batch.
func TestSameBytes(t *testing.T) {
	entries := people(8)
	entries[1].Flag = audience.Duplicate
	w := newEnv(t, entries)
	r := record(t, chunk())
	first := handle(t, w.handler(t), r)
	w.change(func(c *fanfarev1.Campaign) {
		c.Version, c.State, c.Name = 12, schemas.StatePaused, "renamed"
	})
	h := w.handler(t)
	h.cfg.Now = func() time.Time { return dealt.Add(time.Hour) }
	handle(t, h, record(t, chunk(func(c *fanfarev1.Chunk) { c.Blob, c.FirstSeq, c.EndSeq = 2, 4, 8 })))
	again := handle(t, h, record(t, chunk(func(c *fanfarev1.Chunk) { c.Blob, c.FirstSeq, c.EndSeq = 2, 5, 7 })), r)
	if d := cmp.Diff(first.records, again.records[2:], cmp.Comparer(func(a, b kgo.Record) bool {
		return a.Topic == b.Topic && string(a.Key) == string(b.Key) && string(a.Value) == string(b.Value) && cmp.Equal(a.Headers, b.Headers)
	})); d != "" {
		t.Errorf("(-first +again):\n%s", d)
	}
}

// TestBlobsAreKept: small chunks of one blob cause only one read of it.
func TestBlobsAreKept(t *testing.T) {
	w := newEnv(t, people(8))
	h := w.handler(t)
	for _, seq := range []uint32{3, 0, 2, 1} {
		handle(t, h, record(t, chunk(seqs(seq))))
	}
	if w.reads != 1 {
		t.Errorf("got %d reads of the store, want 1", w.reads)
	}
	h.blobs.blobs.room = 0
	h.blobs.blobs.remove(blobKey{frozen, 1})
	handle(t, h, record(t, chunk(seqs(0))))
	handle(t, h, record(t, chunk(seqs(0))))
	if w.reads != 3 {
		t.Errorf("without room: got %d reads, want 3", w.reads)
	}
}

func TestShelfForgetsTheOldest(t *testing.T) {
	l := lru[string, int]{room: 10}
	l.put("a", 1, 4)
	l.put("b", 2, 4)
	l.get("a")
	l.put("c", 3, 4)
	if _, ok := l.get("b"); ok {
		t.Error("b is kept, though it was not used for longest")
	}
	for key, want := range map[string]int{"a": 1, "c": 3} {
		if got, ok := l.get(key); !ok || got != want {
			t.Errorf("%s: got %d %v, want %d", key, got, ok, want)
		}
	}
	l.put("d", 4, 11)
	if _, ok := l.get("d"); ok || l.used != 8 {
		t.Errorf("what has no room: got kept %v, %d used, want 8", ok, l.used)
	}
	l.put("a", 5, 2)
	if v, _ := l.get("a"); v != 5 || l.used != 6 {
		t.Errorf("put again: got %d, %d used, want 5 and 6", v, l.used)
	}
}

// TestLinks (R39, X10): for each link each recipient gets its own address, and its own opt-out link; both identify the
// recipient. Each variant has its own links. The text is measured with the addresses as they are sent.
func TestLinks(t *testing.T) {
	const shop, news = "https://shop.example/sale?id=1", "https://news.example/"
	w := newEnv(t, people(4))
	w.change(func(c *fanfarev1.Campaign) {
		c.Content.Body = "{{first_name}}: {{link:" + shop + "}} {{link:" + news + "}} {{opt_out}}" + strings.Repeat(".", 82)
		c.Links = &fanfarev1.LinkTable{Base: "https://go.example/", Links: []*fanfarev1.Link{{Number: 1, Id: "lnk_1", Url: shop}, {Number: 7, Id: "lnk_2", Url: news}}}
	})
	got := handle(t, w.handler(t), record(t, chunk()))
	if len(got.messages) != 4 {
		t.Fatalf("got %v", got.states())
	}
	form := regexp.MustCompile(`^Ada\d: https://go\.example/(\w{16}) https://go\.example/(\w{16}) https://go\.example/(\w{16})\.+$`)
	for _, m := range got.messages {
		tokens := form.FindStringSubmatch(m.GetText().GetBody())
		if tokens == nil {
			t.Fatalf("got %q", m.GetText().GetBody())
		}
		if want := text.Measure(m.GetText().GetBody()); m.GetSegments() != uint32(want.Segments) || want.Segments != 2 {
			t.Errorf("got %d segments, want %d", m.GetSegments(), want.Segments)
		}
		for i, which := range []uint8{1, 7, schemas.LinkOptOut} {
			if l, err := w.keys.ParseLink(tokens[i+1]); err != nil || l != (schemas.Link{Campaign: number, Seq: m.GetSeq(), Number: which}) {
				t.Errorf("seq %d: token %d is %+v, %v", m.GetSeq(), i, l, err)
			}
		}
	}
	w.change(func(c *fanfarev1.Campaign) {
		c.Content.Variants = []*fanfarev1.Variant{{Name: "A", Body: "A {{link:" + shop + "}}"}, {Name: "B", Body: "B {{link:" + shop + "}}"}}
		c.Weights = []*fanfarev1.Weights{{Of: []uint32{1, 1}}}
		c.Links.Links = []*fanfarev1.Link{{Number: 1, Url: shop, Variant: 1}, {Number: 2, Url: shop, Variant: 2}}
	})
	for _, m := range handle(t, w.handler(t), record(t, chunk())).messages {
		_, token, _ := strings.Cut(m.GetText().GetBody(), "https://go.example/")
		if l, err := w.keys.ParseLink(token); err != nil || uint32(l.Number) != m.GetVariant() {
			t.Errorf("variant %d: %q is %+v, %v", m.GetVariant(), m.GetText().GetBody(), l, err)
		}
	}
	// If the table lacks the link, the campaign is broken: no recipient gets a text without its link.
	w.change(func(c *fanfarev1.Campaign) { c.Links.Links = c.Links.Links[:1] })
	if got := handle(t, w.handler(t), record(t, chunk())); len(got.messages) != 0 || len(got.dead) != 1 {
		t.Errorf("got %d messages and %d dead letters, want 0 and 1", len(got.messages), len(got.dead))
	}
}

// TestDomains (R39, R40): each recipient's links are on one domain of its block, the same when the chunk is expanded
// again and at another try; the counts of a block are exact, and a recipient that may not get a message takes no place
// on a domain.
func TestDomains(t *testing.T) {
	const shop = "https://shop.example/"
	entries := people(40)
	for _, i := range []int{0, 7, 39} {
		entries[i].Flag = audience.OptedOut
	}
	w := newEnv(t, entries)
	w.freeze("fz_2", entries, len(entries))
	w.change(func(c *fanfarev1.Campaign) {
		c.FreezeId, c.Content.Body = "fz_2", "{{link:"+shop+"}} {{opt_out}}"
		c.Links = &fanfarev1.LinkTable{ShortDomains: true, OptOutDomains: true, Links: []*fanfarev1.Link{{Number: 1, Id: "lnk_1", Url: shop}}}
	})
	share := func(host string, count uint32) *fanfarev1.DomainBlock_Share {
		return &fanfarev1.DomainBlock_Share{Host: host, Count: count}
	}
	blocks := []*fanfarev1.DomainBlock{
		{FirstSeq: 0, EndSeq: 12, Recipients: 10, Short: []*fanfarev1.DomainBlock_Share{share("a.example", 3), share("b.example", 7)}, OptOut: []*fanfarev1.DomainBlock_Share{share("o.example", 10)}},
		{FirstSeq: 12, EndSeq: 40, Recipients: 27, Short: []*fanfarev1.DomainBlock_Share{share("c.example", 27)}, OptOut: []*fanfarev1.DomainBlock_Share{share("o.example", 13), share("p.example", 14)}},
	}
	form := regexp.MustCompile(`^https://([a-c]\.example)/\w{16} https://([op]\.example)/\w{16}$`)
	of := func(ch *fanfarev1.Chunk) map[uint32]string {
		t.Helper()
		ch.Domains = blocks
		out := map[uint32]string{}
		for _, m := range handle(t, w.handler(t), record(t, ch)).messages {
			hosts := form.FindStringSubmatch(m.GetText().GetBody())
			if hosts == nil {
				t.Fatalf("got %q", m.GetText().GetBody())
			}
			out[m.GetSeq()] = hosts[1] + " " + hosts[2]
		}
		return out
	}
	whole := chunk(func(c *fanfarev1.Chunk) { c.FreezeId, c.FirstSeq, c.EndSeq = "fz_2", 0, 40 })
	first := of(whole)
	counts := map[string]int{}
	for _, hosts := range first {
		for host := range strings.FieldsSeq(hosts) {
			counts[host]++
		}
	}
	if want := map[string]int{"a.example": 3, "b.example": 7, "c.example": 27, "o.example": 23, "p.example": 14}; !maps.Equal(counts, want) {
		t.Errorf("got %v, want %v", counts, want)
	}
	if again := of(whole); !maps.Equal(again, first) {
		t.Errorf("expanded again: got %v, want %v", again, first)
	}
	part := chunk(seqs(5, 11, 13, 38), func(c *fanfarev1.Chunk) { c.FreezeId, c.Try = "fz_2", 2 })
	for seq, hosts := range of(part) {
		if hosts != first[seq] {
			t.Errorf("seq %d at try 2: got %s, want %s", seq, hosts, first[seq])
		}
	}
	for name, broken := range map[string][]*fanfarev1.DomainBlock{
		"none": nil, "not of all recipients": blocks[:1], "beyond the blob": {{FirstSeq: 0, EndSeq: 41, Recipients: 37, Short: blocks[1].GetShort(), OptOut: blocks[1].GetOptOut()}},
		"too few": {{FirstSeq: 0, EndSeq: 40, Recipients: 37, Short: blocks[1].GetShort()[:0], OptOut: blocks[1].GetOptOut()}},
	} {
		whole.Domains = broken
		if got := handle(t, w.handler(t), record(t, whole)); len(got.messages) != 0 || len(got.dead) != 1 {
			t.Errorf("%s: got %d messages and %d dead letters, want 0 and 1", name, len(got.messages), len(got.dead))
		}
	}
}
