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
	"fanfare/sinks/carrier"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) // a Monday

// plain is a control plane held in maps.
type plain struct {
	campaigns map[string]*fanfarev1.Campaign
	tenants   map[string]*fanfarev1.Tenant
	optedOut  map[string]bool
}

func (p *plain) Campaign(id string) *fanfarev1.Campaign { return p.campaigns[id] }
func (p *plain) Tenant(id string) *fanfarev1.Tenant     { return p.tenants[id] }
func (p *plain) OptedOut(tenant, to string) bool        { return p.optedOut[tenant+to] }

// question is everything that judge asks about, with answers that let the message pass.
type question struct {
	dir      *plain
	campaign *fanfarev1.Campaign
	tenant   *fanfarev1.Tenant
	subject  subject
	outlook  outlook
}

func passing() *question {
	q := &question{
		campaign: &fanfarev1.Campaign{
			Tenant: "tn_a", Id: "camp_10001", Number: 10001, Version: 7, State: fanfarev1.State_STATE_SENDING,
			CallingHours: &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"},
		},
		tenant: &fanfarev1.Tenant{Id: "tn_a", Enabled: true},
	}
	q.dir = &plain{map[string]*fanfarev1.Campaign{"camp_10001": q.campaign}, map[string]*fanfarev1.Tenant{"tn_a": q.tenant}, map[string]bool{}}
	q.subject = subject{
		msg: &fanfarev1.Message{
			Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10001, CampaignVersion: 7, Seq: 3, Try: 1, Leg: 1, To: "+393331234567", Route: "sim",
			NotBeforeMs: noon.Add(-time.Hour).UnixMilli(), NotAfterMs: noon.Add(time.Hour).UnixMilli(),
		},
		guard: noon.Add(8 * time.Second), released: noon.Add(-10 * time.Millisecond),
	}
	q.outlook = outlook{now: noon, fresh: noon.Add(time.Second), dir: q.dir}
	return q
}

// TestOrderOfQuestions breaks every pair of conditions: the one that is asked first must answer. A test of each condition
// alone, and of a message that passes, is in it too.
func TestOrderOfQuestions(t *testing.T) {
	conditions := []struct {
		name  string
		spoil func(*question)
		want  verdict
	}{
		{"uncertain", func(q *question) { q.subject.uncertain = true }, ambiguous(fanfarev1.Code_CODE_CRASH, "")},
		{"guard", func(q *question) { q.subject.guard = noon }, verdict{action: wait}},
		{"view too old", func(q *question) { q.outlook.fresh = noon }, verdict{action: wait}},
		{"version not here", func(q *question) {
			q.subject.msg.CampaignVersion, q.subject.released = 8, noon.Add(-behindLimit)
		}, returned(fanfarev1.Code_CODE_CONTROL_BEHIND, noon.Add(time.Second))},
		{"paused", func(q *question) { q.campaign.State = fanfarev1.State_STATE_PAUSED }, returned(fanfarev1.Code_CODE_PAUSED, time.Time{})},
		{"tenant disabled", func(q *question) { q.tenant.Enabled = false }, returned(fanfarev1.Code_CODE_SUSPENDED, time.Time{})},
		{"opted out", func(q *question) { q.dir.optedOut["tn_a+393331234567"] = true }, skipped(fanfarev1.Code_CODE_OPTED_OUT)},
		{"hours closed", func(q *question) { q.campaign.CallingHours.StartMinute = 14 * 60 }, returned(fanfarev1.Code_CODE_WINDOW, noon.Add(time.Hour))},
		{"validity over", func(q *question) { q.subject.msg.NotAfterMs = noon.UnixMilli() }, notSent(fanfarev1.Code_CODE_VALIDITY_EXPIRED, "")},
		{"too early", func(q *question) { q.subject.msg.NotBeforeMs = noon.Add(2 * time.Second).UnixMilli() }, returned(fanfarev1.Code_CODE_WINDOW, noon.Add(2*time.Second))},
	}
	check := func(name string, q *question, want verdict) {
		t.Helper()
		if got := judge(&q.outlook, &q.subject); !cmp.Equal(got, want, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	check("nothing against it", passing(), verdict{action: submit})
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
	q.subject.msg, q.subject.guard, q.outlook.fresh = nil, noon, noon
	want := verdict{action: answer, kind: fanfarev1.Kind_KIND_NOT_SENT, code: fanfarev1.Code_CODE_RENDER_ERROR, raw: "poison", poison: true}
	if got := judge(&q.outlook, &q.subject); !cmp.Equal(got, want, cmp.AllowUnexported(verdict{})) {
		t.Errorf("poison: got %+v, want %+v", got, want)
	}
	q.subject.uncertain = true
	if got := judge(&q.outlook, &q.subject); got.kind != fanfarev1.Kind_KIND_AMBIGUOUS {
		t.Errorf("uncertain poison: got %+v, want ambiguous", got)
	}
	q = passing()
	q.campaign.Tenant = "tn_b"
	q.campaign.State = fanfarev1.State_STATE_PAUSED
	if got := judge(&q.outlook, &q.subject); !got.poison {
		t.Errorf("campaign of another tenant: got %+v, want poison", got)
	}
}

func TestEveryState(t *testing.T) {
	cancelled, suspended := skipped(fanfarev1.Code_CODE_CANCELLED), returned(fanfarev1.Code_CODE_SUSPENDED, time.Time{})
	want := map[fanfarev1.State]verdict{
		fanfarev1.State_STATE_UNSPECIFIED:     suspended,
		fanfarev1.State_STATE_DRAFT:           suspended,
		fanfarev1.State_STATE_CONFIGURED:      suspended,
		fanfarev1.State_STATE_COST_CALCULATED: suspended,
		fanfarev1.State_STATE_READY:           suspended,
		fanfarev1.State_STATE_SCHEDULED:       suspended,
		fanfarev1.State_STATE_PREPARING:       {action: submit},
		fanfarev1.State_STATE_SENDING:         {action: submit},
		fanfarev1.State_STATE_PAUSED:          returned(fanfarev1.Code_CODE_PAUSED, time.Time{}),
		fanfarev1.State_STATE_SUSPENDED:       suspended,
		fanfarev1.State_STATE_COMPLETED:       {action: submit},
		fanfarev1.State_STATE_CANCELLED:       cancelled,
		fanfarev1.State_STATE_ABORTED:         cancelled,
		fanfarev1.State_STATE_REJECTED:        cancelled,
		fanfarev1.State_STATE_FAILED:          cancelled,
	}
	for n := range fanfarev1.State_name {
		state := fanfarev1.State(n)
		q := passing()
		q.campaign.State = state
		w, ok := want[state]
		if !ok {
			t.Errorf("%s: a state that nobody has thought about", state)
			continue
		}
		if got := judge(&q.outlook, &q.subject); !cmp.Equal(got, w, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", state, got, w)
		}
	}
	q := passing()
	q.campaign.State, q.campaign.Stopped = fanfarev1.State_STATE_COMPLETED, true
	if got := judge(&q.outlook, &q.subject); !cmp.Equal(got, cancelled, cmp.AllowUnexported(verdict{})) {
		t.Errorf("completed, then stopped: got %+v, want %+v", got, cancelled)
	}
}

// What may still come is waited for, within bounds.
func TestWaits(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*question)
		want action
		code fanfarev1.Code
	}{
		{"version on its way", func(q *question) { q.subject.msg.CampaignVersion = 8 }, wait, 0},
		{"campaign unknown", func(q *question) { delete(q.dir.campaigns, "camp_10001") }, wait, 0},
		{"campaign unknown for 2 s", func(q *question) {
			delete(q.dir.campaigns, "camp_10001")
			q.subject.released = noon.Add(-2 * time.Second)
		}, answer, fanfarev1.Code_CODE_CONTROL_BEHIND},
		{"behind and paused: the newer version may have resumed it", func(q *question) {
			q.subject.msg.CampaignVersion, q.campaign.State = 8, fanfarev1.State_STATE_PAUSED
		}, wait, 0},
		{"tenant unknown", func(q *question) { delete(q.dir.tenants, "tn_a") }, wait, 0},
		{"tenant unknown for 2 s", func(q *question) {
			delete(q.dir.tenants, "tn_a")
			q.subject.released = noon.Add(-2 * time.Second)
		}, answer, fanfarev1.Code_CODE_CONTROL_BEHIND},
		{"newer view than the message", func(q *question) { q.campaign.Version = 9 }, submit, 0},
		{"not before half a second from now", func(q *question) { q.subject.msg.NotBeforeMs = noon.UnixMilli() + 500 }, wait, 0},
		{"no hours at all", func(q *question) { q.campaign.CallingHours = nil }, submit, 0},
		{"hours that do not read", func(q *question) { q.campaign.CallingHours.Timezone = "Mars/Olympus" }, answer, fanfarev1.Code_CODE_WINDOW},
		{"no validity", func(q *question) { q.subject.msg.NotAfterMs, q.subject.msg.NotBeforeMs = 0, 0 }, submit, 0},
		{"the last millisecond of validity", func(q *question) { q.subject.msg.NotAfterMs = noon.UnixMilli() + 1 }, submit, 0},
		{"another tenant opted out", func(q *question) { q.dir.optedOut["tn_b+393331234567"] = true }, submit, 0},
	} {
		q := passing()
		tc.set(q)
		if got := judge(&q.outlook, &q.subject); got.action != tc.want || got.code != tc.code {
			t.Errorf("%s: got %+v, want action %d, code %s", tc.name, got, tc.want, tc.code)
		}
	}
}

func TestClassify(t *testing.T) {
	chain := &fanfarev1.Campaign{Legs: []*fanfarev1.Leg{{Channel: fanfarev1.Channel_CHANNEL_RCS}, {Channel: fanfarev1.Channel_CHANNEL_SMS}}}
	rcs := &fanfarev1.Message{Leg: 1, Channel: fanfarev1.Channel_CHANNEL_RCS}
	sms := &fanfarev1.Message{Leg: 2, Channel: fanfarev1.Channel_CHANNEL_SMS}
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
			verdict{action: answer, kind: fanfarev1.Kind_KIND_SENT, code: fanfarev1.Code_CODE_AWAITING_DLR, raw: "0", ref: "p1"},
		},
		{"rejected with a reason", carrier.Result{Outcome: carrier.Rejected, Code: "11", Sub: fanfarev1.Code_CODE_SENDER_INVALID}, sms, notSent(fanfarev1.Code_CODE_SENDER_INVALID, "11")},
		{"rejected without one", carrier.Result{Outcome: carrier.Rejected, Code: "99"}, sms, notSent(fanfarev1.Code_CODE_NOT_SENT_OTHER, "99")},
		{"throttled", carrier.Result{Outcome: carrier.Throttled, Code: "58"}, sms, raw(returned(fanfarev1.Code_CODE_THROTTLED, in(time.Second)), "58")},
		{"throttled for 7 s", carrier.Result{Outcome: carrier.Throttled, RetryAfter: 7 * time.Second}, sms, returned(fanfarev1.Code_CODE_THROTTLED, in(7*time.Second))},
		{"retryable", carrier.Result{Outcome: carrier.Retryable}, sms, returned(fanfarev1.Code_CODE_PROVIDER_ERROR, in(2*time.Second))},
		{
			"retryable with a reason and a time",
			carrier.Result{Outcome: carrier.Retryable, Sub: fanfarev1.Code_CODE_NETWORK_ERROR, RetryAfter: time.Minute},
			sms,
			returned(fanfarev1.Code_CODE_NETWORK_ERROR, in(time.Minute)),
		},
		{"unknown", carrier.Result{Outcome: carrier.Unknown, Code: "x"}, sms, ambiguous(fanfarev1.Code_CODE_TIMEOUT, "x")},
		{"an outcome of a later version", carrier.Result{Outcome: 99}, sms, ambiguous(fanfarev1.Code_CODE_TIMEOUT, "")},
		{"no outcome", carrier.Result{}, sms, ambiguous(fanfarev1.Code_CODE_TIMEOUT, "")},
		{"unsupported, another channel follows", carrier.Result{Outcome: carrier.Unsupported, Code: "404"}, rcs, raw(returned(fanfarev1.Code_CODE_UNSUPPORTED, noon), "404")},
		{"unsupported, end of the chain", carrier.Result{Outcome: carrier.Unsupported, Code: "404"}, sms, notSent(fanfarev1.Code_CODE_NOT_SENT_OTHER, "404")},
	} {
		if got := classify(tc.r, tc.m, chain, noon); !cmp.Equal(got, tc.want, cmp.AllowUnexported(verdict{})) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
	if got := classify(carrier.Result{Outcome: carrier.Unsupported}, rcs, nil, noon); got.code != fanfarev1.Code_CODE_RCS_NOT_CAPABLE {
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
		To: "+39333", Sender: "ACME", Channel: fanfarev1.Channel_CHANNEL_SMS, Segments: 2, PriceMicros: 50_000, NotAfterMs: noon.UnixMilli(),
		Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "hi", Encoding: fanfarev1.Encoding_ENCODING_GSM7}},
	}
	got := outbound(m, id, noon)
	want := carrier.Outbound{
		Key: id, Channel: fanfarev1.Channel_CHANNEL_SMS, To: "+39333", From: "ACME", Deadline: noon, NotAfter: time.UnixMilli(noon.UnixMilli()), Cost: 100_000,
		Body: carrier.Body{Text: carrier.Text{Body: "hi", Encoding: fanfarev1.Encoding_ENCODING_GSM7, Segments: 2}},
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
	m, id, err := decode(keys, "sim", r, &sheet{})
	if err != nil || !proto.Equal(m, good) || id != keys.Submission(10001, 5, 2) {
		t.Fatalf("got %v, %s, %v, want the message and its submission", m, id, err)
	}
	r.Headers = nil
	if _, id, err = decode(keys, "sim", r, &sheet{}); err != nil || id != keys.Submission(10001, 5, 2) {
		t.Errorf("without its header: got %s, %v, want the same submission", id, err)
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
		got, id, err := decode(keys, "sim", r, &sheet{})
		if err == nil || got != nil {
			t.Errorf("%s: got %v, want poison", name, got)
		}
		if id != keys.Submission(10001, 5, 2) {
			t.Errorf("%s: got %s, want the submission that the header names", name, id)
		}
	}
	r.Value = []byte("\xff\xff")
	if _, _, err := decode(keys, "sim", r, &sheet{}); err == nil {
		t.Error("bytes that are no message: got no error")
	}
}

func TestOutcomeRecord(t *testing.T) {
	keys := testKeys(t)
	m := testMessage(10001, 5, 2)
	id := keys.Submission(10001, 5, 2)
	r := messageRecord(t, keys, m)
	r.Headers = append(r.Headers, header(schemas.HeaderTraceparent, "00-aa-bb-01"))
	v := verdict{action: answer, kind: fanfarev1.Kind_KIND_RETURNED, code: fanfarev1.Code_CODE_THROTTLED, raw: "58\xff", again: noon.Add(time.Second)}
	got := &kgo.Record{}
	newScribe(testNames(t), keys).outcome(got, nil, r, m, id, &v, noon)
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
	r := receipt("sim", &carrier.Receipt{
		Ref: "p\xff1", AltRefs: []string{"1A"}, Key: key, To: "+39333", Status: fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED,
		Code: "DELIVRD", Sub: fanfarev1.Code_CODE_DELIVERED, At: noon, Part: 1, Parts: 2, Raw: []byte("raw"),
	}, noon.Add(time.Second))
	want := &fanfarev1.Receipt{
		Route: "sim", ProviderId: "p\uFFFD1", AltProviderIds: []string{"1A"}, SubmissionId: key[:], To: "+39333",
		Status: fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED, Code: fanfarev1.Code_CODE_DELIVERED, RawCode: "DELIVRD", TimeMs: noon.UnixMilli(),
		Part: 1, Parts: 2, Raw: []byte("raw"), ReceivedMs: noon.UnixMilli() + 1_000,
	}
	if !proto.Equal(r, want) {
		t.Errorf("got %v, want %v", r, want)
	}
	a, err := receiptRecord(testNames(t), r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := receiptRecord(testNames(t), r)
	if err != nil {
		t.Fatal(err)
	}
	if a.Topic != "t.receipts" || string(a.Key) != "sim/p\uFFFD1" {
		t.Errorf("got topic %s, key %s", a.Topic, a.Key)
	}
	if id := string(schemas.Header(a, "ce_id")); id == "" || id != string(schemas.Header(b, "ce_id")) {
		t.Errorf("the same receipt twice: got ids %q and %q, want one", id, schemas.Header(b, "ce_id"))
	}
	if zero := receipt("sim", &carrier.Receipt{Ref: "x"}, noon); zero.SubmissionId != nil || zero.TimeMs != 0 {
		t.Errorf("no key and no time: got %v", zero)
	}
}

func ExampleIdentity() {
	_, err := Identity(messageRecordWithout())
	fmt.Println(err)
	// Output: not an id of this installation: no header submission
}
