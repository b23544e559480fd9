package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestSelfCheck tears two transactions by hand: of the first only the cursor exists, of the second only the chunk. The
// leader makes the first deal again, identical, and counts the recipients of the second as dealt.
func TestSelfCheck(t *testing.T) {
	p := newKafkaEnv(t)
	const total = 4000
	p.sender.setMute(true)
	pr := p.run()
	p.control.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.sender.submissions() > carrierRate })
	p.still()
	if err := pr.stop(); err != nil {
		t.Fatal(err)
	}
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	sc, err := s.readCursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cur := sc.cursors[schemas.CampaignKey(testTenant, "camp_10001")]
	next := uint32(p.sender.submissions())
	torn, unlisted := p.dealAt(next, cur.GetDeals()+1), p.dealAt((next/blobSize+1)*blobSize, cur.GetDeals()+2)
	cur.Deals, cur.Recent = torn.GetDeal(), []*fanfarev1.Deal{torn}
	record, err := s.cursorRecord(schemas.CampaignKey(testTenant, "camp_10001"), testTenant, time.Now(), cur)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client().ProduceSync(t.Context(), record, p.chunkOf(unlisted)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.sender.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
	again := p.chunksOnce()[torn.GetDeal()]
	if again == nil {
		t.Fatalf("deal %d was not made again", torn.GetDeal())
	}
	if again.GetFirstSeq() != torn.GetFirstSeq() || again.GetEndSeq() != torn.GetEndSeq() {
		t.Errorf("deal %d was made again with [%d, %d), want [%d, %d)", torn.GetDeal(), again.GetFirstSeq(), again.GetEndSeq(), torn.GetFirstSeq(), torn.GetEndSeq())
	}
}

// TestSelfCheckWithNothingListed tears the first deal after the sets were written: only its chunk exists, and no cursor
// lists any deal. The leader still counts its recipients as dealt, and does not use its number again.
func TestSelfCheckWithNothingListed(t *testing.T) {
	p := newKafkaEnv(t)
	const total = 4000
	p.sender.setMute(true)
	pr := p.run()
	p.control.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.sender.submissions() > carrierRate })
	p.still()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	var cur *fanfarev1.Cursor
	p.eventually("sets that hold every deal", func() bool {
		sc, err := s.readCursors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cur = sc.cursors[schemas.CampaignKey(testTenant, "camp_10001")]
		return cur.GetDeals() > 0 && len(cur.GetRecent()) == 0
	})
	if err := pr.stop(); err != nil {
		t.Fatal(err)
	}
	unlisted := p.dealAt(uint32(p.sender.submissions()), cur.GetDeals()+1)
	if err := p.client().ProduceSync(t.Context(), p.chunkOf(unlisted)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.sender.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
	p.chunksOnce()
}

// dealAt returns a deal of the recipients of a blob from first on, as a cursor lists it.
func (p *kafkaEnv) dealAt(first uint32, number uint64) *fanfarev1.Deal {
	return &fanfarev1.Deal{
		Deal: number, Try: 1, Leg: 1, Blob: first / blobSize, FirstSeq: first, EndSeq: (first/blobSize + 1) * blobSize,
		NotAfterMs: ms(time.Now().Add(time.Hour)), DealtMs: ms(time.Now()),
	}
}

// chunkOf is the chunk of a deal of campaign 10001.
func (p *kafkaEnv) chunkOf(d *fanfarev1.Deal) *kgo.Record {
	p.t.Helper()
	r := p.control.campaign(10001)
	key := schemas.CampaignKey(testTenant, r.GetId()) + "#" + fmt.Sprint(d.GetBlob())
	record, err := schemas.Event{
		Topic: p.cluster.Names.Chunks(), Key: key, Tenant: testTenant, Type: schemas.TypeChunk, Source: source, ID: key, Time: time.UnixMilli(d.GetDealtMs()),
		Value: &fanfarev1.Chunk{
			Tenant: testTenant, CampaignId: r.GetId(), CampaignNumber: r.GetNumber(), CampaignVersion: r.GetVersion(), Deal: d.GetDeal(),
			Purpose: schemas.PurposeDeal, Try: d.GetTry(), Leg: d.GetLeg(), FreezeId: r.GetFreezeId(), Blob: d.GetBlob(),
			FirstSeq: d.GetFirstSeq(), EndSeq: d.GetEndSeq(), NotAfterMs: d.GetNotAfterMs(),
		},
	}.Record()
	if err != nil {
		p.t.Fatal(err)
	}
	return record
}

// chunksOnce returns the chunks by deal, and fails the test if a deal has more than one chunk.
func (p *kafkaEnv) chunksOnce() map[uint64]*fanfarev1.Chunk {
	p.t.Helper()
	found := map[uint64]*fanfarev1.Chunk{}
	p.readAll(p.cluster.Names.Chunks(), func(r *kgo.Record) {
		ch := &fanfarev1.Chunk{}
		if err := proto.Unmarshal(r.Value, ch); err != nil {
			p.t.Fatal(err)
		}
		if found[ch.GetDeal()] != nil {
			p.t.Errorf("deal %d is in chunks more than once", ch.GetDeal())
		}
		found[ch.GetDeal()] = ch
	})
	return found
}

// TestHeldTorn: a single send whose tombstone in held was written by the scheduler, and whose deal is missing, is dealt
// again. One whose tombstone another stage wrote is not dealt again.
func TestHeldTorn(t *testing.T) {
	p := newKafkaEnv(t)
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	p.control.confirm(10009, 0, func(r *fanfarev1.Campaign) {
		r.Hidden, r.State, r.Total, r.Legs = true, schemas.StateSending, 1000, nil
	})
	var records []*kgo.Record
	for seq := range uint32(2) {
		h := &plan.Held{Key: schemas.DeliveryKey(testTenant, p.keys.Message(10009, seq)), Tenant: testTenant}
		r, err := schemas.Event{Topic: s.names.Held(), Key: h.Key, Tenant: testTenant, Type: schemas.TypeHeld, Source: "api", ID: h.Key, Time: time.Now(), Value: &fanfarev1.Held{
			DueMs:   ms(time.Now()),
			Message: &fanfarev1.Message{Tenant: testTenant, CampaignId: "camp_10009", CampaignNumber: 10009, Seq: seq, Leg: 1, Route: "sim", To: "+393401234567"},
		}}.Record()
		if err != nil {
			t.Fatal(err)
		}
		tomb := s.heldTombstone(h, time.Now())
		if seq == 1 {
			tomb = schemas.Event{Topic: s.names.Held(), Key: h.Key, Tenant: testTenant, Type: schemas.TypeHeld, Source: "api", ID: h.Key, Time: time.Now()}.Raw(nil)
		}
		records = append(records, r, tomb)
	}
	if err := p.client().ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	var got []uint32
	p.eventually("dealt again", func() bool {
		got = nil
		p.readAll(s.names.Messages("sim", schemas.LaneTxn), func(r *kgo.Record) {
			var e plan.Event
			if err := plan.DecodeMessage(r.Value, &e); err != nil {
				t.Error(err)
			}
			got = append(got, e.Seq)
		})
		return len(got) > 0
	})
	if len(got) != 1 || got[0] != 0 {
		t.Errorf("dealt %v, want 0 alone", got)
	}
}

// TestCursorsGone: with no cursor left, the recipients of all chunks count as dealt.
func TestCursorsGone(t *testing.T) {
	p := newKafkaEnv(t)
	const total = 4000
	p.sender.setMute(true)
	pr := p.run(p.hasty, func(c *Config) { c.SetsEvery = time.Hour })
	p.control.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.sender.submissions() > carrierRate })
	p.still()
	pr.cut.set(true)
	cl := p.client()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	time.Sleep(100 * time.Millisecond) // the leader that was cut off ends; the tombstone below must be the last record
	key := schemas.CampaignKey(testTenant, "camp_10001")
	r, err := s.cursorRecord(key, testTenant, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.sender.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
}

const brokerEnv = "FANFARE_TEST_BROKER"

// TestMain runs the embedded broker of TestBrokerKilled when the test starts this binary as its child process.
func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerEnv); dir != "" {
		port, err := strconv.Atoi(os.Getenv(brokerEnv + "_PORT"))
		if err == nil {
			_, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(100*time.Millisecond))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {} // until it is killed
	}
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["test.parallel"] { // tests with a broker wait more than they work
		if err := flag.Set("test.parallel", "4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// child is an embedded broker in a process of its own, which a test can kill.
type child struct {
	t               *testing.T
	dir, addr, port string
	cmd             *exec.Cmd
}

func newChild(t *testing.T) *child {
	t.Helper()
	if os.Getenv("FANFARE_TEST_KAFKA") != "" {
		t.Skip("a real broker's transactions are atomic, and it is not ours to kill")
	}
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	_, c.port, _ = net.SplitHostPort(c.addr)
	_ = l.Close()
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *child) start() {
	c.t.Helper()
	c.cmd = exec.Command(os.Args[0])
	c.cmd.Env = append(os.Environ(), brokerEnv+"="+c.dir, brokerEnv+"_PORT="+c.port)
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var d net.Dialer
		conn, err := d.DialContext(c.t.Context(), "tcp", c.addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the broker does not start")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// TestTornEnd kills the embedded broker while another producer's transaction is open: the topics that the scheduler
// reads to their ends end in aborted records, and no record is written behind them.
func TestTornEnd(t *testing.T) {
	b := newChild(t)
	p := newKafkaEnvOn(t, []string{b.addr}, nil)
	names := p.cluster.Names
	cl := p.client(kgo.TransactionalID("somebody"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for topic, partitions := range map[string]int32{names.Cursors(): 1, names.Deliveries(): 6, names.Chunks(): 24, names.Held(): 3} {
		for n := range partitions {
			records = append(records, &kgo.Record{Topic: topic, Partition: n, Key: []byte("x"), Value: []byte("y")})
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.kill()
	b.start()
	p.control.confirm(10001, 100, func(r *fanfarev1.Campaign) { // sending already, so the leader looks for chunks
		r.State, r.FreezeId, r.Total = schemas.StateSending, "freeze10001", 100
	})
	p.run(func(c *Config) { c.SessionTimeout = 600 * time.Millisecond })
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 100})
}

// TestBrokerKilled kills the embedded broker in the middle of transactions, which it then shows in part: no recipient
// is dealt twice, none is lost.
func TestBrokerKilled(t *testing.T) {
	b := newChild(t)
	p := newKafkaEnvOn(t, []string{b.addr}, nil)
	p.run(func(c *Config) { c.SessionTimeout = 600 * time.Millisecond })
	const total = 5000
	p.control.confirm(10001, total, nil)
	kills := 0
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for at := 0; kills < 5 && p.sender.submissions() < total; at = p.sender.submissions() {
		want := min(at+500+rng.IntN(1000), total)
		p.eventually("sending", func() bool { return p.sender.submissions() >= want })
		b.kill()
		kills++
		b.start()
	}
	p.eventually("settled", p.settled(10001))
	t.Logf("%d kills", kills)
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
}
