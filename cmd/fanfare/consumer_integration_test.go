package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier/sim"
)

// X21: the consumer in schemas/examples/python is written as a downstream user would write it. These tests check that it
// counts the same as the product.

const (
	pythonExample = "../../schemas/examples/python"
	protoRoot     = "../../schemas"
)

// bucketCounts says how many recipients are in each bucket.
type bucketCounts map[string]int

// pythonAccount is what account.py prints.
type pythonAccount struct {
	Campaign, State string
	Settled         bool
	Total           int
	Pending         int
	Ambiguous       int
	NotSent         int
	Skipped         int
	Sent            int
	Awaiting        int
	Undelivered     int
	Delivered       int
	Codes           map[string]map[string]int
}

func (a pythonAccount) buckets() bucketCounts {
	return bucketCounts{
		"pending": a.Pending, "ambiguous": a.Ambiguous, "notSent": a.NotSent, "skipped": a.Skipped,
		"awaiting": a.Awaiting, "undelivered": a.Undelivered, "delivered": a.Delivered,
	}
}

// accountOf counts states as package schemas does.
func accountOf(total int, joined map[uint32]schemas.Precedence) (bucketCounts, map[string]map[string]int) {
	n, codes := bucketCounts{}, map[string]map[string]int{}
	for b := range schemas.BucketFact {
		n[b.String()] = 0
	}
	known := 0
	for _, p := range joined {
		if p == 0 {
			continue
		}
		known++
		b := p.Bucket().String()
		n[b]++
		if codes[b] == nil {
			codes[b] = map[string]int{}
		}
		codes[b][strings.TrimPrefix(p.Code().String(), "CODE_")]++
	}
	n["pending"] += total - known
	return n, codes
}

// newTopics returns names with a prefix that only this test uses, and creates the public topics if asked to.
func newTopics(t *testing.T, kafka string, create bool) schemas.Names {
	t.Helper()
	names, err := schemas.NewNames("downstream" + strings.ToLower(rand.Text()[:8]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	if !create {
		return names
	}
	cl := newKafkaClient(t, kafka)
	for _, topic := range names.Fixed() {
		if topic.Public {
			configs := map[string]*string{}
			for k, v := range topic.Configs() {
				configs[k] = &v
			}
			if r, err := kadm.NewClient(cl).CreateTopic(t.Context(), topic.Partitions, 1, configs, topic.Name); err != nil || r.Err != nil {
				t.Fatal(err, r.Err)
			}
		}
	}
	return names
}

func newKafkaClient(t *testing.T, kafka string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(kafka), kgo.ProducerLinger(0), kgo.MetadataMinAge(100 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// abort writes records in a transaction and aborts it, so that no reader may count them.
func abort(t *testing.T, kafka string, records []*kgo.Record) {
	t.Helper()
	cl := newKafkaClient(t, kafka, kgo.TransactionalID("downstream-"+rand.Text()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

func recordOf(t *testing.T, e schemas.Event) *kgo.Record {
	t.Helper()
	r, err := e.Record()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestIntegrationPythonConsumerModel gives the consumer every kind, try and code there is: shuffled, doubled,
// compressed with every codec, among aborted transactions and records of a later version. It compares the counts of the
// consumer with those of package schemas.
func TestIntegrationPythonConsumerModel(t *testing.T) {
	kafka := testinfra.Need(t, testinfra.Kafka)[testinfra.Kafka]
	names := newTopics(t, kafka, true)
	c := newConsumer(t, kafka, names.Prefix())
	keys, err := schemas.NewKeys([]byte("sixteen bytes at least"))
	if err != nil {
		t.Fatal(err)
	}
	const (
		number, other = 4711, 4712
		total         = 3000
	)
	rng := mrand.New(mrand.NewPCG(3, 5))
	event := func(campaign uint64, seq uint32, kind schemas.Kind, try uint32, code schemas.Code) *kgo.Record {
		m, s := keys.Message(campaign, seq), keys.Submission(campaign, seq, uint8(try))
		return recordOf(t, schemas.DeliveryEvent(names.Deliveries(), "sender", &fanfarev1.Delivery{
			Tenant: "tn_a", CampaignId: schemas.CampaignID(campaign), CampaignNumber: campaign, Seq: seq, Try: try, Leg: 1, Kind: kind, Code: code,
			TimeMs: time.Now().UnixMilli(), MessageId: m[:], SubmissionId: s[:],
		}, ""))
	}
	joined := map[uint32]schemas.Precedence{}
	var records, never []*kgo.Record
	for seq := range uint32(total * 9 / 10) { // the last tenth has no events
		for range 1 + rng.IntN(4) {
			kind := schemas.Kinds[rng.IntN(len(schemas.Kinds))].Kind
			try, code := uint32(1+rng.IntN(3)), schemas.Codes[rng.IntN(len(schemas.Codes))].Code
			if rng.IntN(50) == 0 {
				try = 255
			}
			if rng.IntN(20) == 0 {
				code = 65_000 // of a later version
			}
			if rng.IntN(30) == 0 {
				records = append(records, event(number, seq, 99, try, code)) // a kind of a later version
			}
			records = append(records, event(number, seq, kind, try, code))
			joined[seq] = schemas.Join(joined[seq], schemas.PrecedenceOf(kind, try, code))
		}
		never = append(never, event(number, seq, schemas.KindRead, 1, schemas.CodeRead))
		if seq%7 == 0 {
			records = append(records, event(other, seq, schemas.KindDelivered, 1, schemas.CodeDelivered))
		}
	}
	later := event(number, total-1, schemas.KindDelivered, 1, schemas.CodeDelivered)
	for i := range later.Headers {
		if later.Headers[i].Key == "ce_type" {
			later.Headers[i].Value = []byte("fanfare.delivery.v9") // its meaning is unknown to this version
		}
	}
	records = append(records, later)
	for _, i := range rng.Perm(len(records))[:len(records)/3] { // as a producer that retries writes them
		again := *records[i]
		records = append(records, &again)
	}
	rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	codecs := []kgo.CompressionCodec{kgo.ZstdCompression(), kgo.Lz4Compression(), kgo.SnappyCompression(), kgo.GzipCompression(), kgo.NoCompression()}
	for i, codec := range codecs {
		cl := newKafkaClient(t, kafka, kgo.ProducerBatchCompression(codec))
		part := records[i*len(records)/len(codecs) : (i+1)*len(records)/len(codecs)]
		if err := cl.ProduceSync(t.Context(), part...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			abort(t, kafka, cloneRecords(never))
		}
	}
	campaign := func(version uint64, settled bool) *kgo.Record {
		key := schemas.CampaignKey("tn_a", schemas.CampaignID(number))
		return recordOf(t, schemas.Event{Topic: names.Campaigns(), Key: key, Tenant: "tn_a", Type: schemas.TypeCampaign, Source: "relay", ID: fmt.Sprint(key, "@", version), Value: &fanfarev1.Campaign{
			Tenant: "tn_a", Id: schemas.CampaignID(number), Number: number, Version: version, State: schemas.StateCompleted, Settled: settled, Total: total,
		}})
	}
	cl := newKafkaClient(t, kafka)
	gone := recordOf(t, schemas.Event{Topic: names.Campaigns(), Key: "tn_a/camp_1", Tenant: "tn_a", Type: schemas.TypeCampaign, Value: &fanfarev1.Campaign{}})
	gone.Value = nil
	// As two relays write them when their leadership overlaps for a moment
	if err := cl.ProduceSync(t.Context(), gone, campaign(3, false), campaign(5, true), campaign(4, false)).FirstErr(); err != nil {
		t.Fatal(err)
	}

	got := c.untilSettled(t, schemas.CampaignID(number), time.Minute)
	want, codes := accountOf(total, joined)
	if d := cmp.Diff(want, got.buckets()); d != "" {
		t.Errorf("account (-want +got):\n%s", d)
	}
	if d := cmp.Diff(codes, got.Codes); d != "" {
		t.Errorf("sub-statuses (-want +got):\n%s", d)
	}
	if sum := want["awaiting"] + want["undelivered"] + want["delivered"]; got.Total != total || got.Sent != sum || !got.Settled || got.State != "completed" {
		t.Errorf("got total %d, sent %d, state %s, settled %v, want %d, %d, completed, true", got.Total, got.Sent, got.State, got.Settled, total, sum)
	}
	t.Logf("%d records, and %d in aborted transactions: %v", len(records), 3*len(never), want)

	// The consumer must fail if events were deleted before it read them.
	parts := kadm.Offsets{}
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), names.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	more := event(other, 1, schemas.KindDelivered, 1, schemas.CodeDelivered)
	if err := cl.ProduceSync(t.Context(), more, cloneRecords([]*kgo.Record{more})[0]).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Partition == more.Partition {
			parts.AddOffset(o.Topic, o.Partition, o.Offset+1, -1)
		}
	})
	if r, err := kadm.NewClient(cl).DeleteRecords(t.Context(), parts); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	lost := c.start(t)
	select {
	case <-lost.done:
	case <-time.After(30 * time.Second):
		t.Fatal("account.py continues although events are missing")
	}
	said, _ := os.ReadFile(lost.log.Name())
	if lost.cmd.ProcessState.ExitCode() == 0 || !bytes.Contains(said, []byte("was deleted before it was read")) {
		t.Errorf("got exit code %d and %q, want a failure that says what is missing", lost.cmd.ProcessState.ExitCode(), said)
	}
}

func cloneRecords(records []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	return out
}

// TestIntegrationPythonConsumer sends a campaign of 500 on real services, with every behaviour of the simulated carrier
// that ends soon; all other receipts come within the receipt window, so the counts must equal the record of the
// carrier. The consumer is killed and stopped in the middle, and events come twice and in aborted transactions. It
// reads only the two public topics and must count the same as /stats and as the record of the carrier. Every record
// must be as AsyncAPI describes it.
func TestIntegrationPythonConsumer(t *testing.T) {
	addr := testinfra.Need(t, testinfra.All...)
	kafka := addr[testinfra.Kafka]
	names := newTopics(t, kafka, false)
	python := newConsumer(t, kafka, names.Prefix()) // first, because it may skip the test

	dir, at := t.TempDir(), freeAddr(t)
	services := []string{"--data", dir, "--kafka", kafka, "--redis", addr[testinfra.Redis], "--clickhouse", addr[testinfra.ClickHouse], "--store", addr[testinfra.Postgres], "--prefix", names.Prefix()}
	runBinary(t, append([]string{"tenants", "create", "Downstream", "--region", "IT", "--timezone", "Europe/Rome"}, services...)...)
	api := &client{base: "http://" + at, key: runBinary(t, append([]string{"keys", "create", "--tenant", "Downstream"}, services...)...)}
	product := startProcess(t, "fanfare", fanfareBinary(t), append([]string{"serve", "--http", at, "--sim-rate", "100", "--sim-profile", "fast", "--receipt-window", "10s", "--log-level", "warn"}, services...)...)
	api.waitReady(t)

	first := python.start(t)
	public := newFollower(t, kafka, names)
	crowd := makeAudience(t, 500)
	var list struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "everybody"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(crowd.csv), nil, "text/csv")
	for _, n := range crowd.optedOut {
		api.must(t, http.MethodPost, "/api/suppressions", map[string]any{"phoneNumber": n}, nil, "")
	}
	var campaign struct{ ID string }
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "Downstream", "channel": "sms", "message": "Ciao {{first_name}}!", "contactList": list.ID, "sendImmediately": true, "maxRetries": 2, "retryDelay": 1,
	}, &campaign, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")

	// Kill and stop the consumer after it has read some events; more events come in between.
	waitOutput(t, first)
	first.kill()
	public.read(t, 80)
	number, err := schemas.CampaignNumber(campaign.ID)
	if err != nil {
		t.Fatal(err)
	}
	var never []*kgo.Record
	for seq := range uint32(len(crowd.everybody)) {
		never = append(never, recordOf(t, schemas.DeliveryEvent(names.Deliveries(), "sender", &fanfarev1.Delivery{
			Tenant: "tn_nobody", CampaignId: campaign.ID, CampaignNumber: number, Seq: seq, Try: 1, Kind: schemas.KindRead, MessageId: make([]byte, 16),
		}, "")))
	}
	abort(t, kafka, never)
	if err := newKafkaClient(t, kafka).ProduceSync(t.Context(), cloneRecords(public.deliveries[:50])...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	second := python.start(t)
	waitOutput(t, second)
	if took, code := second.stop(); code != 0 || took > 15*time.Second {
		t.Errorf("account.py stopped with exit code %d after %s, want 0 within 15 s", code, took)
	}
	got := python.untilSettled(t, campaign.ID, 2*time.Minute)
	// A new consumer without state
	again := newConsumer(t, kafka, names.Prefix()).untilSettled(t, campaign.ID, time.Minute)
	if d := cmp.Diff(got, again); d != "" {
		t.Errorf("a consumer that was killed and stopped (-) differs from a new one (+):\n%s", d)
	}
	if !got.Settled || got.Total != len(crowd.everybody) {
		t.Errorf("got %d recipients, settled %v, want %d and true", got.Total, got.Settled, len(crowd.everybody))
	}

	// The carrier's own record.
	if d := cmp.Diff(crowd.account(t, filepath.Join(dir, "carrier-sim.ndjson")), got.buckets()); d != "" {
		t.Errorf("account (-carrier +consumer):\n%s", d)
	}
	// Our statistics, which are a moment behind the topic.
	var stats statsAnswer
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		api.must(t, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &stats, "")
		say := bucketCounts{"pending": stats.Pending, "ambiguous": stats.Ambiguous, "notSent": stats.NotSent, "skipped": stats.Skipped, "awaiting": stats.Awaiting, "undelivered": stats.Undelivered, "delivered": stats.Delivered}
		d := cmp.Diff(say, got.buckets())
		if d == "" && stats.TotalMessages == got.Total && stats.Sent == got.Sent {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("total %d against %d, sent %d against %d; account (-stats +consumer):\n%s", stats.TotalMessages, got.Total, stats.Sent, got.Sent, d)
			break
		}
	}
	t.Logf("%+v", got)

	public.read(t, len(crowd.everybody))
	for last := -1; len(public.deliveries) > last; { // read to the end
		last = len(public.deliveries)
		public.poll(t, 2*time.Second)
	}
	checkAsyncAPI(t, "campaign", public.campaigns)
	checkAsyncAPI(t, "delivery", public.deliveries)
	if took, code := product.stop(); code != 0 || took > 15*time.Second {
		t.Errorf("fanfare stopped with exit code %d after %s, want 0 within 15 s", code, took)
	}
}

// audience of the test, and the outcome that each recipient must have.
type testAudience struct {
	csv       []byte
	everybody []string
	optedOut  []string
	invalid   map[string]bool
}

// makeAudience returns n people: realistic numbers, some that do not exist, some who have opted out, and the magic
// numbers of the simulator, except those that are tried for hours.
func makeAudience(t *testing.T, n int) testAudience {
	t.Helper()
	crowd := makePeople(t, n, 17)
	a := testAudience{invalid: map[string]bool{}, optedOut: crowd.reachable[:12]}
	a.everybody = slices.Concat(crowd.reachable, crowd.unreachable)
	for _, number := range crowd.unreachable {
		a.invalid[number] = true
	}
	for _, m := range sim.Magic {
		// The carrier refuses two of them as long as the campaign may send; the receipt of a third comes after the
		// receipt window.
		if m.NN != 41 && m.NN != 43 && m.NN != 1 {
			a.everybody = append(a.everybody, m.Number())
		}
	}
	var b bytes.Buffer
	b.WriteString("phone,first_name\n")
	for i, number := range a.everybody {
		fmt.Fprintf(&b, "%s,Name%d\n", number, i)
	}
	a.csv = b.Bytes()
	return a
}

// account counts all recipients by the record of the carrier.
func (a testAudience) account(t *testing.T, truth string) bucketCounts {
	t.Helper()
	type fate struct{ took, refused, delivered, failed, unanswered bool }
	fates := map[string]fate{}
	if err := sim.NewTail(truth).Poll(func(e sim.Entry) error {
		f := fates[e.To]
		switch e.Outcome {
		case sim.Accepted:
			f.took = true
			final := e.Final()
			f.delivered = f.delivered || final.Bucket() == schemas.BucketDelivered
			f.failed = f.failed || final.Bucket() == schemas.BucketUndelivered
			f.unanswered = f.unanswered || e.Unanswered && len(e.Receipts) == 0
		case sim.Dropped:
			f.unanswered = true
		default:
			f.refused = true
		}
		fates[e.To] = f
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	n, _ := accountOf(0, nil)
	for _, number := range a.everybody {
		f, seen := fates[number]
		switch {
		case !seen && slices.Contains(a.optedOut, number):
			n["skipped"]++
		case !seen && a.invalid[number]:
			n["notSent"]++
		case !seen:
			n["never seen"]++
		case f.delivered:
			n["delivered"]++
		case f.failed:
			n["undelivered"]++
		case f.unanswered:
			n["ambiguous"]++
		case f.took:
			n["awaiting"]++
		default:
			n["notSent"]++
		}
	}
	return n
}

// follower keeps the records of the public topics.
type follower struct {
	names                 schemas.Names
	cl                    *kgo.Client
	campaigns, deliveries []*kgo.Record
}

func newFollower(t *testing.T, kafka string, names schemas.Names) *follower {
	t.Helper()
	return &follower{names: names, cl: newKafkaClient(t, kafka, kgo.ConsumeTopics(names.Campaigns(), names.Deliveries()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))}
}

// poll reads the records that have arrived; it waits for them no longer than wait.
func (f *follower) poll(t *testing.T, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	f.cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
		if r.Topic == f.names.Campaigns() {
			f.campaigns = append(f.campaigns, r)
		} else {
			f.deliveries = append(f.deliveries, r)
		}
	})
}

// read polls until it has at least this many deliveries.
func (f *follower) read(t *testing.T, deliveries int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(f.deliveries) < deliveries; {
		if time.Now().After(deadline) {
			t.Fatalf("got %d delivery events within a minute, want %d", len(f.deliveries), deliveries)
		}
		f.poll(t, time.Second)
	}
}
