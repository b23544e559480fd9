package sender

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/wire"
	"fanfare/sinks/carrier"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) // a Monday

// mapDirectory is a control plane held in maps.
type mapDirectory struct {
	campaigns map[string]*fanfarev1.Campaign
	tenants   map[string]*fanfarev1.Tenant
	optedOut  map[string]bool
}

func (p *mapDirectory) Campaign(id string) *fanfarev1.Campaign { return p.campaigns[id] }
func (p *mapDirectory) Tenant(id string) *fanfarev1.Tenant     { return p.tenants[id] }
func (p *mapDirectory) OptedOut(tenant, to string, channel schemas.Channel) bool {
	return p.optedOut[tenant+to] || p.optedOut[fmt.Sprint(tenant, to, channel)]
}

// judgeCase is the whole input of judge, with values that let the message pass.
type judgeCase struct {
	dir           *mapDirectory
	campaign      *fanfarev1.Campaign
	tenant        *fanfarev1.Tenant
	candidate     candidate
	policyContext policyContext
}

func passing() *judgeCase {
	q := &judgeCase{
		campaign: &fanfarev1.Campaign{
			Tenant: "tn_a", Id: "camp_10001", Number: 10001, Version: 7, State: schemas.StateSending,
			CallingHours: &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"},
		},
		tenant: &fanfarev1.Tenant{Id: "tn_a", Enabled: true},
	}
	q.dir = &mapDirectory{map[string]*fanfarev1.Campaign{"camp_10001": q.campaign}, map[string]*fanfarev1.Tenant{"tn_a": q.tenant}, map[string]bool{}}
	q.candidate = candidate{
		msg: &fanfarev1.Message{
			Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10001, CampaignVersion: 7, Seq: 3, Try: 1, Leg: 1, To: "+393331234567", Route: "sim",
			NotBeforeMs: noon.Add(-time.Hour).UnixMilli(), NotAfterMs: noon.Add(time.Hour).UnixMilli(),
		},
		guard: noon.Add(8 * time.Second), released: noon.Add(-10 * time.Millisecond),
	}
	q.policyContext = policyContext{now: noon, fresh: noon.Add(time.Second), dir: q.dir}
	return q
}

// TestOrderOfQuestions violates every pair of conditions: the check that runs first must decide. It also violates each
// condition alone, and tests a message that passes.
func TestOrderOfQuestions(t *testing.T) {
	conditions := []struct {
		name  string
		spoil func(*judgeCase)
		want  verdict
	}{
		{"uncertain", func(q *judgeCase) { q.candidate.uncertain = true }, ambiguous(schemas.CodeCrash, "")},
		{"guard", func(q *judgeCase) { q.candidate.guard = noon }, verdict{action: wait}},
		{"view too old", func(q *judgeCase) { q.policyContext.fresh = noon }, verdict{action: wait}},
		{"version not here", func(q *judgeCase) {
			q.candidate.msg.CampaignVersion, q.candidate.released = 8, noon.Add(-behindLimit)
		}, returned(schemas.CodeControlBehind, noon.Add(time.Second))},
		{"paused", func(q *judgeCase) { q.campaign.State = schemas.StatePaused }, returned(schemas.CodePaused, time.Time{})},
		{"tenant disabled", func(q *judgeCase) { q.tenant.Enabled = false }, returned(schemas.CodeSuspended, time.Time{})},
		{"opted out", func(q *judgeCase) { q.dir.optedOut["tn_a+393331234567"] = true }, skipped(schemas.CodeOptedOut)},
		{"opted out of the channel", func(q *judgeCase) {
			q.candidate.msg.Channel = schemas.ChannelSMS
			q.dir.optedOut[fmt.Sprint("tn_a", "+393331234567", schemas.ChannelSMS)] = true
		}, skipped(schemas.CodeOptedOut)},
		{"hours closed", func(q *judgeCase) { q.campaign.CallingHours.StartMinute = 14 * 60 }, returned(schemas.CodeWindow, noon.Add(time.Hour))},
		{"validity over", func(q *judgeCase) { q.candidate.msg.NotAfterMs = noon.UnixMilli() }, notSent(schemas.CodeValidityExpired, "")},
		{"too early", func(q *judgeCase) { q.candidate.msg.NotBeforeMs = noon.Add(2 * time.Second).UnixMilli() }, returned(schemas.CodeWindow, noon.Add(2*time.Second))},
	}
	check := func(name string, q *judgeCase, want verdict) {
		t.Helper()
		if got := judge(&q.policyContext, &q.candidate); !cmp.Equal(got, want, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	// When the view is too old
	check("nothing against it", passing(), verdict{action: submit, until: noon.Add(time.Second)})
	for i, first := range conditions {
		q := passing()
		first.spoil(q)
		check(first.name, q, first.want)
		for _, second := range conditions[i+1:] {
			q := passing()
			second.spoil(q)
			first.spoil(q)
			check(first.name+" and "+second.name, q, first.want)
		}
	}
}

func TestPoisonIsJudgedFirstButForTheUncertain(t *testing.T) {
	q := passing()
	q.candidate.msg, q.candidate.guard, q.policyContext.fresh = nil, noon, noon
	want := verdict{action: answer, kind: schemas.KindNotSent, code: schemas.CodeRenderError, raw: "poison", poison: true}
	if got := judge(&q.policyContext, &q.candidate); !cmp.Equal(got, want, cmp.AllowUnexported(verdict{})) {
		t.Errorf("poison: got %+v, want %+v", got, want)
	}
	q.candidate.uncertain = true
	if got := judge(&q.policyContext, &q.candidate); got.kind != schemas.KindAmbiguous {
		t.Errorf("uncertain poison: got %+v, want ambiguous", got)
	}
	q = passing()
	q.campaign.Tenant = "tn_b"
	q.campaign.State = schemas.StatePaused
	if got := judge(&q.policyContext, &q.candidate); !got.poison {
		t.Errorf("campaign of another tenant: got %+v, want poison", got)
	}
}

func TestEveryState(t *testing.T) {
	cancelled, suspended := skipped(schemas.CodeCancelled), returned(schemas.CodeSuspended, time.Time{})
	want := map[schemas.State]verdict{
		schemas.StateUnspecified:    suspended,
		schemas.StateDraft:          suspended,
		schemas.StateConfigured:     suspended,
		schemas.StateCostCalculated: suspended,
		schemas.StateReady:          suspended,
		schemas.StateScheduled:      suspended,
		schemas.StatePreparing:      {action: submit},
		schemas.StateSending:        {action: submit},
		schemas.StatePaused:         returned(schemas.CodePaused, time.Time{}),
		schemas.StateSuspended:      suspended,
		schemas.StateCompleted:      {action: submit},
		schemas.StateCancelled:      cancelled,
		schemas.StateAborted:        cancelled,
		schemas.StateRejected:       cancelled,
		schemas.StateFailed:         cancelled,
	}
	for n := range fanfarev1.State_name {
		state := schemas.State(n)
		q := passing()
		q.campaign.State = state
		w, ok := want[state]
		if !ok {
			t.Errorf("%s: judge has no rule for this state", state)
			continue
		}
		got := judge(&q.policyContext, &q.candidate)
		got.until = time.Time{}
		if !cmp.Equal(got, w, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", state, got, w)
		}
	}
	q := passing()
	q.campaign.State, q.campaign.Stopped = schemas.StateCompleted, true
	if got := judge(&q.policyContext, &q.candidate); !cmp.Equal(got, cancelled, cmp.AllowUnexported(verdict{})) {
		t.Errorf("completed, then stopped: got %+v, want %+v", got, cancelled)
	}
}

// A submission is allowed until the first time-dependent check would fail: the connector must not write it later.
func TestAllowedUntil(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*judgeCase)
		want time.Time
	}{
		{"the view becomes too old", func(*judgeCase) {}, noon.Add(time.Second)},
		{"the guard expires", func(q *judgeCase) { q.candidate.guard = noon.Add(300 * time.Millisecond) }, noon.Add(300 * time.Millisecond)},
		{"the validity ends", func(q *judgeCase) { q.candidate.msg.NotAfterMs = noon.UnixMilli() + 200 }, noon.Add(200 * time.Millisecond)},
		{"the calling hours close", func(q *judgeCase) {
			q.campaign.CallingHours.EndMinute = 13 * 60 // Rome is an hour ahead
			q.policyContext.now, q.policyContext.fresh = noon.Add(-100*time.Millisecond), noon.Add(time.Second)
		}, noon},
		{"the calling hours close later than a message may wait", func(q *judgeCase) {
			q.campaign.CallingHours.EndMinute = 13 * 60
			q.policyContext.now = noon.Add(-time.Second)
		}, noon.Add(time.Second)},
	} {
		q := passing()
		tc.set(q)
		if got := judge(&q.policyContext, &q.candidate); got.action != submit || !got.until.Equal(tc.want) {
			t.Errorf("%s: got action %d until %s, want a submission until %s", tc.name, got.action, got.until, tc.want)
		}
	}
}

// A message waits, within bounds, for a version or a time that may still come.
func TestWaits(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*judgeCase)
		want action
		code schemas.Code
	}{
		{"version on its way", func(q *judgeCase) { q.candidate.msg.CampaignVersion = 8 }, wait, 0},
		{"campaign unknown", func(q *judgeCase) { delete(q.dir.campaigns, "camp_10001") }, wait, 0},
		{"campaign unknown for 2 s", func(q *judgeCase) {
			delete(q.dir.campaigns, "camp_10001")
			q.candidate.released = noon.Add(-2 * time.Second)
		}, answer, schemas.CodeControlBehind},
		{"behind and paused: the newer version may have resumed it", func(q *judgeCase) {
			q.candidate.msg.CampaignVersion, q.campaign.State = 8, schemas.StatePaused
		}, wait, 0},
		{"tenant unknown", func(q *judgeCase) { delete(q.dir.tenants, "tn_a") }, wait, 0},
		{"tenant unknown for 2 s", func(q *judgeCase) {
			delete(q.dir.tenants, "tn_a")
			q.candidate.released = noon.Add(-2 * time.Second)
		}, answer, schemas.CodeControlBehind},
		{"newer view than the message", func(q *judgeCase) { q.campaign.Version = 9 }, submit, 0},
		{"not before half a second from now", func(q *judgeCase) { q.candidate.msg.NotBeforeMs = noon.UnixMilli() + 500 }, wait, 0},
		{"no hours at all", func(q *judgeCase) { q.campaign.CallingHours = nil }, submit, 0},
		{"hours that do not read", func(q *judgeCase) { q.campaign.CallingHours.Timezone = "Mars/Olympus" }, answer, schemas.CodeWindow},
		{"no validity", func(q *judgeCase) { q.candidate.msg.NotAfterMs, q.candidate.msg.NotBeforeMs = 0, 0 }, submit, 0},
		{"the last millisecond of validity", func(q *judgeCase) { q.candidate.msg.NotAfterMs = noon.UnixMilli() + 1 }, submit, 0},
		{"another tenant opted out", func(q *judgeCase) { q.dir.optedOut["tn_b+393331234567"] = true }, submit, 0},
	} {
		q := passing()
		tc.set(q)
		if got := judge(&q.policyContext, &q.candidate); got.action != tc.want || got.code != tc.code {
			t.Errorf("%s: got %+v, want action %d, code %s", tc.name, got, tc.want, tc.code)
		}
	}
}

func TestClassify(t *testing.T) {
	chain := &fanfarev1.Campaign{Legs: []*fanfarev1.Leg{{Channel: schemas.ChannelRCS}, {Channel: schemas.ChannelSMS}}}
	rcs := &fanfarev1.Message{Leg: 1, Channel: schemas.ChannelRCS}
	sms := &fanfarev1.Message{Leg: 2, Channel: schemas.ChannelSMS}
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	raw := func(v verdict, code string) verdict { v.raw = code; return v }
	for _, tc := range []struct {
		name string
		r    carrier.Result
		m    *fanfarev1.Message
		want verdict
	}{
		{
			"accepted",
			carrier.Result{Outcome: carrier.Accepted, Ref: "p1", Code: "0"},
			sms,
			verdict{action: answer, kind: schemas.KindSent, code: schemas.CodeAwaitingDLR, raw: "0", ref: "p1"},
		},
		{"rejected with a reason", carrier.Result{Outcome: carrier.Rejected, Code: "11", Sub: schemas.CodeSenderInvalid}, sms, notSent(schemas.CodeSenderInvalid, "11")},
		{"rejected by a code that falls back, another leg follows", carrier.Result{Outcome: carrier.Rejected, Code: "404", Sub: schemas.CodeTemplateNotFound}, rcs, raw(returned(schemas.CodeTemplateNotFound, noon), "404")},
		{"rejected on the last leg, by a code that falls back", carrier.Result{Outcome: carrier.Rejected, Code: "404", Sub: schemas.CodeTemplateNotFound}, sms, notSent(schemas.CodeTemplateNotFound, "404")},
		{"rejected without one", carrier.Result{Outcome: carrier.Rejected, Code: "99"}, sms, notSent(schemas.CodeNotSentOther, "99")},
		{"throttled", carrier.Result{Outcome: carrier.Throttled, Code: "58"}, sms, raw(returned(schemas.CodeThrottled, in(time.Second)), "58")},
		{"throttled for 7 s", carrier.Result{Outcome: carrier.Throttled, RetryAfter: 7 * time.Second}, sms, returned(schemas.CodeThrottled, in(7*time.Second))},
		{"retryable", carrier.Result{Outcome: carrier.Retryable}, sms, returned(schemas.CodeProviderError, in(2*time.Second))},
		{
			"retryable with a reason and a time",
			carrier.Result{Outcome: carrier.Retryable, Sub: schemas.CodeNetworkError, RetryAfter: time.Minute},
			sms,
			returned(schemas.CodeNetworkError, in(time.Minute)),
		},
		{"unknown", carrier.Result{Outcome: carrier.Unknown, Code: "x"}, sms, ambiguous(schemas.CodeTimeout, "x")},
		{"an outcome of a later version", carrier.Result{Outcome: 99}, sms, ambiguous(schemas.CodeTimeout, "")},
		{"no outcome", carrier.Result{}, sms, ambiguous(schemas.CodeTimeout, "")},
		{"unsupported, another channel follows", carrier.Result{Outcome: carrier.Unsupported, Code: "404"}, rcs, raw(returned(schemas.CodeUnsupported, noon), "404")},
		{"unsupported, end of the chain", carrier.Result{Outcome: carrier.Unsupported, Code: "404"}, sms, notSent(schemas.CodeNotSentOther, "404")},
	} {
		if got := classify(tc.r, tc.m, chain, noon); !cmp.Equal(got, tc.want, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
	if got := classify(carrier.Result{Outcome: carrier.Unsupported}, rcs, nil, noon); got.code != schemas.CodeRCSNotCapable {
		t.Errorf("unsupported and the campaign is gone: got %+v, want not_sent/RCS_NOT_CAPABLE", got)
	}
}

func TestWindowSize(t *testing.T) {
	for _, tc := range []struct {
		rate    uint32
		p99     int64
		senders int
		want    int
	}{
		{1_000, 600, 1, 850}, {1_000, 600, 2, 425}, {1, 600, 1, 1}, {1, 600, 10, 1}, {1_000, 0, 1, 750}, {1_000_000, 600, 1, 2_000}, {100_000, 100, 1, 2_000}, {2_000, 1, 1, 502},
	} {
		if got := windowSize(&fanfarev1.Route{Rate: tc.rate, P99Ms: tc.p99}, tc.senders); got != tc.want {
			t.Errorf("%d/s, p99 %d ms, %d senders: got %d, want %d", tc.rate, tc.p99, tc.senders, got, tc.want)
		}
	}
	for p99, want := range map[int64]time.Duration{0: 2 * time.Second, 500: 2 * time.Second, 600: 2 * time.Second, 1_000: 3 * time.Second} {
		if got := answerLimit(&fanfarev1.Route{P99Ms: p99}); got != want {
			t.Errorf("p99 %d ms: got %s to answer, want %s", p99, got, want)
		}
	}
}

func TestOutbound(t *testing.T) {
	id := schemas.ID{1, 9: 1}
	m := &fanfarev1.Message{
		To: "+39333", Sender: "ACME", Channel: schemas.ChannelSMS, Segments: 2, PriceMicros: 50_000, NotAfterMs: noon.UnixMilli(),
		Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "hi", Encoding: schemas.EncodingGSM7}},
	}
	got := outbound(m, id, noon)
	want := carrier.Outbound{
		Key: id, Channel: schemas.ChannelSMS, To: "+39333", From: "ACME", Deadline: noon, NotAfter: time.UnixMilli(noon.UnixMilli()), Cost: 100_000,
		Body: carrier.Body{Text: carrier.Text{Body: "hi", Encoding: schemas.EncodingGSM7, Segments: 2}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	for _, tc := range []struct {
		body interface{ set(*fanfarev1.Message) }
		want carrier.Body
	}{
		{tmpl{&fanfarev1.Template{Name: "n", Language: "it", Params: []string{"a"}}}, carrier.Body{Template: &carrier.Template{Name: "n", Language: "it", Params: []string{"a"}}}},
		{rich{&fanfarev1.Rich{Json: []byte("{}")}}, carrier.Body{Rich: &carrier.Rich{JSON: []byte("{}")}}},
		{call{&fanfarev1.Call{Queue: "q", MachineAction: "hangup", Media: "m"}}, carrier.Body{Call: &carrier.Call{Queue: "q", MachineAction: "hangup", Media: "m"}}},
	} {
		m := &fanfarev1.Message{}
		tc.body.set(m)
		if diff := cmp.Diff(tc.want, outbound(m, id, noon).Body); diff != "" {
			t.Errorf("%T (-want +got):\n%s", tc.body, diff)
		}
	}
}

type (
	tmpl struct{ *fanfarev1.Template }
	rich struct{ *fanfarev1.Rich }
	call struct{ *fanfarev1.Call }
)

func (b tmpl) set(m *fanfarev1.Message) { m.Body = &fanfarev1.Message_Template{Template: b.Template} }
func (b rich) set(m *fanfarev1.Message) { m.Body = &fanfarev1.Message_Rich{Rich: b.Rich} }
func (b call) set(m *fanfarev1.Message) { m.Body = &fanfarev1.Message_Call{Call: b.Call} }

func TestDecode(t *testing.T) {
	keys := testKeys(t)
	good := testMessage(10001, 5, 2)
	r := messageRecord(t, keys, good)
	read := func(r *kgo.Record) (*fanfarev1.Message, schemas.ID, error) {
		id, err := identify(keys, r)
		if err != nil {
			return nil, id, err
		}
		m, err := decode(id, "sim", r, &wire.MessageBuf{})
		return m, id, err
	}
	m, id, err := read(r)
	if err != nil || !proto.Equal(m, good) || id != keys.Submission(10001, 5, 2) {
		t.Fatalf("got %v, %s, %v, want the message and its submission", m, id, err)
	}
	forged := keys.Submission(10001, 5, 2)
	forged[15] ^= 1
	for name, text := range map[string]string{
		"no header": "", "a forged id": forged.String(), "an id of a message": keys.Message(10001, 5).String(), "no id": "sub_1",
	} {
		r.Headers = nil
		if text != "" {
			r.Headers = []kgo.RecordHeader{header(schemas.HeaderSubmission, text)}
		}
		if m, id, err := read(r); err == nil || m != nil || !id.IsZero() {
			t.Errorf("%s: got %v, %s, %v, want an error and no id", name, m, id, err)
		}
	}
	for name, spoil := range map[string]func(*fanfarev1.Message){
		"no tenant":       func(m *fanfarev1.Message) { m.Tenant = "" },
		"no recipient":    func(m *fanfarev1.Message) { m.To = "" },
		"try 0":           func(m *fanfarev1.Message) { m.Try = 0 },
		"try 256":         func(m *fanfarev1.Message) { m.Try = 256 },
		"seq of 25 bits":  func(m *fanfarev1.Message) { m.Seq = 1 << 24 },
		"another id":      func(m *fanfarev1.Message) { m.CampaignId = "camp_10002" },
		"another route":   func(m *fanfarev1.Message) { m.Route = "other" },
		"no body":         func(m *fanfarev1.Message) { m.Body = nil },
		"another message": func(m *fanfarev1.Message) { m.Seq = 6 },
	} {
		m, _ := proto.Clone(good).(*fanfarev1.Message)
		r := messageRecord(t, keys, m)
		spoil(m)
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Value = value
		got, id, err := read(r)
		if err == nil || got != nil {
			t.Errorf("%s: got %v, want poison", name, got)
		}
		if id != keys.Submission(10001, 5, 2) {
			t.Errorf("%s: got %s, want the submission that the header names", name, id)
		}
	}
	r.Value = []byte("\xff\xff")
	if _, _, err := read(r); err == nil {
		t.Error("bytes that are no message: got no error")
	}
}

func TestOutcomeRecord(t *testing.T) {
	keys := testKeys(t)
	m := testMessage(10001, 5, 2)
	id := keys.Submission(10001, 5, 2)
	r := messageRecord(t, keys, m)
	r.Headers = append(r.Headers, header(schemas.HeaderTraceparent, "00-aa-bb-01"))
	v := verdict{action: answer, kind: schemas.KindReturned, code: schemas.CodeThrottled, raw: "58\xff", again: noon.Add(time.Second)}
	got := &kgo.Record{}
	newOutcomeEncoder(testNames(t), keys).outcome(got, nil, r, m, id, &v, noon)
	message := keys.Message(10001, 5)
	want := &fanfarev1.Delivery{
		Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10001, Seq: 5, Try: 2, Leg: 1, Kind: v.kind, Code: v.code, RawCode: "58\uFFFD",
		TimeMs: noon.UnixMilli(), Channel: m.Channel, Route: "sim", Sender: "ACME", To: m.To, Country: "IT", Variant: 1, Segments: 2, PriceMicros: 50_000,
		Currency: "EUR", CustomerRef: "ref", ContactId: 77, AgainAtMs: noon.UnixMilli() + 1_000, MessageId: message[:], SubmissionId: id[:],
	}
	d := &fanfarev1.Delivery{}
	if err := proto.Unmarshal(got.Value, d); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(d, want) {
		t.Errorf("got %v, want %v", d, want)
	}
	reference, err := schemas.DeliveryEvent("t.deliveries", "sender", want, "").Record()
	if err != nil {
		t.Fatal(err)
	}
	reference.Headers = append(reference.Headers, header(schemas.HeaderTraceparent, "00-aa-bb-01"))
	if string(got.Key) != string(reference.Key) || got.Topic != reference.Topic {
		t.Errorf("got topic %s, key %s, want %s, %s", got.Topic, got.Key, reference.Topic, reference.Key)
	}
	if diff := cmp.Diff(reference.Headers, got.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestReceiptRecord(t *testing.T) {
	key := testKeys(t).Submission(10001, 5, 2)
	r := (&carrier.Receipt{
		Ref: "p\xff1", AltRefs: []string{"1A"}, Key: key, To: "+39333", Status: schemas.ReceiptStatusDelivered,
		Code: "DELIVRD", Sub: schemas.CodeDelivered, At: noon, Part: 1, Parts: 2, Raw: []byte("raw"),
	}).Record("sim", noon.Add(time.Second))
	want := &fanfarev1.Receipt{
		Route: "sim", ProviderId: "p\uFFFD1", AltProviderIds: []string{"1A"}, SubmissionId: key[:], To: "+39333",
		Status: schemas.ReceiptStatusDelivered, Code: schemas.CodeDelivered, RawCode: "DELIVRD", TimeMs: noon.UnixMilli(),
		Part: 1, Parts: 2, Raw: []byte("raw"), ReceivedMs: noon.UnixMilli() + 1_000,
	}
	if !proto.Equal(r, want) {
		t.Errorf("got %v, want %v", r, want)
	}
	a, err := schemas.ReceiptEvent(testNames(t).Receipts(), source, r).Record()
	if err != nil {
		t.Fatal(err)
	}
	b, err := schemas.ReceiptEvent(testNames(t).Receipts(), source, r).Record()
	if err != nil {
		t.Fatal(err)
	}
	if a.Topic != "t.receipts" || string(a.Key) != "sim/p\uFFFD1" {
		t.Errorf("got topic %s, key %s", a.Topic, a.Key)
	}
	if id := string(schemas.Header(a, "ce_id")); id == "" || id != string(schemas.Header(b, "ce_id")) {
		t.Errorf("the same receipt twice: got ids %q and %q, want one", id, schemas.Header(b, "ce_id"))
	}
	if zero := (&carrier.Receipt{Ref: "x"}).Record("sim", noon); zero.SubmissionId != nil || zero.TimeMs != 0 {
		t.Errorf("no key and no time: got %v", zero)
	}
}

// X11: calling hours on the clocks of each recipient: they must be open in every zone that the number may be in. A
// number without a zone uses the campaign's zone.
func TestRecipientZones(t *testing.T) {
	at := func(hour, minute int) time.Time { return time.Date(2026, 3, 2, hour, minute, 0, 0, time.UTC) }
	gap := time.Date(2026, 3, 29, 0, 59, 59, 0, time.UTC)      // 01:59:59 in Rome; 03:00 follows
	overlap := time.Date(2026, 10, 25, 0, 29, 59, 0, time.UTC) // 02:29:59 in Rome, for the first time
	for _, tc := range []struct {
		name, zone string
		start, end uint32
		now        time.Time
		open       time.Time // when the message may be handed over; now: at once
	}{
		{"Tokyo at night", "Asia/Tokyo", 9 * 60, 20 * 60, at(12, 0), at(24, 0)}, // 21:00 there
		{"Tokyo in the morning", "Asia/Tokyo", 9 * 60, 20 * 60, at(1, 0), at(1, 0)},
		{"Rome", "Europe/Rome", 9 * 60, 20 * 60, at(8, 0), at(8, 0)},
		{"Rome, too late", "Europe/Rome", 9 * 60, 20 * 60, at(19, 0), at(24+8, 0)},
		{"the east of America alone", "America/New_York", 9 * 60, 20 * 60, at(14, 0), at(14, 0)},
		{"all of America waits for the west", "America/Chicago,America/Los_Angeles,America/New_York", 9 * 60, 20 * 60, at(14, 0), at(17, 0)},
		{"all of America ends with the east", "America/Chicago,America/Los_Angeles,America/New_York", 9 * 60, 20 * 60, at(24+1, 0), at(24+17, 0)},
		{"a number of no zone", "", 9 * 60, 20 * 60, at(5, 0), at(8, 0)}, // Rome is the campaign's
		{"zones that share no minute", "America/New_York,Pacific/Auckland", 9 * 60, 10 * 60, at(14, 0), time.Time{}},
		{"the gap", "Europe/Rome", 150, 300, gap, gap.Add(time.Second)},
		{"the overlap", "Europe/Rome", 150, 300, overlap, overlap.Add(time.Second)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := passing()
			q.campaign.CallingHours = &fanfarev1.CallingHours{StartMinute: tc.start, EndMinute: tc.end, Timezone: "Europe/Rome", RecipientZone: true}
			q.candidate.msg.Zone, q.candidate.msg.NotBeforeMs, q.candidate.msg.NotAfterMs = tc.zone, 0, 0
			ask := func(now time.Time) verdict {
				q.policyContext.now, q.policyContext.fresh, q.candidate.guard = now, now.Add(time.Second), now.Add(8*time.Second)
				return judge(&q.policyContext, &q.candidate)
			}
			got := ask(tc.now)
			if tc.open.Equal(tc.now) {
				if got.action != submit {
					t.Fatalf("got %+v, want a submission", got)
				}
				return
			}
			if got.code != schemas.CodeWindow || got.kind != schemas.KindReturned || !got.again.Equal(tc.open) {
				t.Fatalf("got %+v, want WINDOW until %s", got, tc.open)
			}
			if tc.open.IsZero() {
				return
			}
			if got := ask(tc.open.Add(-time.Second)); got.code != schemas.CodeWindow {
				t.Errorf("a second before: got %+v, want WINDOW", got)
			}
			if got := ask(tc.open); got.action != submit {
				t.Errorf("then: got %+v, want a submission", got)
			}
		})
	}
	q := passing() // a campaign that does not use the recipients' clocks
	q.candidate.msg.Zone = "Asia/Tokyo"
	if got := judge(&q.policyContext, &q.candidate); got.action != submit {
		t.Errorf("the campaign's own hours: got %+v, want a submission: it is noon in Rome", got)
	}
}
