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

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestSelfCheck tears two transactions by hand: of one only the cursor is there, of the other only the chunk. The first is made
// again to the letter, the second is taken for dealt.
func TestSelfCheck(t *testing.T) {
	p := newPlant(t)
	const total = 4000
	p.carrier.setMute(true)
	pr := p.run()
	p.plane.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.carrier.submissions() > plantRate })
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
	next := uint32(p.carrier.submissions())
	torn, unnamed := p.dealAt(next, cur.GetDeals()+1), p.dealAt((next/plantBlob+1)*plantBlob, cur.GetDeals()+2)
	torn.campaign.remember(torn)
	cur.Deals, cur.Recent = torn.number, torn.campaign.recent
	record, err := s.cursorRecord(torn.campaign.key(), testTenant, time.Now(), cur)
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := s.chunkRecord(unnamed)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client().ProduceSync(t.Context(), record, chunk).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.carrier.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
	again := p.chunksOnce()[torn.number]
	if again == nil {
		t.Fatalf("deal %d was not made again", torn.number)
	}
	if again.GetFirstSeq() != torn.first || again.GetEndSeq() != torn.end {
		t.Errorf("deal %d was made again with [%d, %d), want [%d, %d)", torn.number, again.GetFirstSeq(), again.GetEndSeq(), torn.first, torn.end)
	}
}

// TestSelfCheckWithNothingNamed tears the first deal after the sets were written: only its chunk is there, and no cursor names any
// deal. It is taken for dealt all the same, and its number is not given again.
func TestSelfCheckWithNothingNamed(t *testing.T) {
	p := newPlant(t)
	const total = 4000
	p.carrier.setMute(true)
	pr := p.run()
	p.plane.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.carrier.submissions() > plantRate })
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
	unnamed := p.dealAt(uint32(p.carrier.submissions()), cur.GetDeals()+1)
	chunk, err := s.chunkRecord(unnamed)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client().ProduceSync(t.Context(), chunk).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.carrier.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
	p.chunksOnce()
}

// dealAt is a deal of the rest of a blob, from first.
func (p *plant) dealAt(first uint32, number uint64) *deal {
	return &deal{
		campaign: &campaign{number: 10001, tenant: testTenant, id: "camp_10001"}, record: p.plane.campaign(10001), number: number, try: 1, leg: 1,
		blob: first / plantBlob, first: first, end: (first/plantBlob + 1) * plantBlob, notAfter: ms(time.Now().Add(time.Hour)), dealt: ms(time.Now()),
	}
}

// chunksOnce returns the chunks by deal, each of which must be there once.
func (p *plant) chunksOnce() map[uint64]*fanfarev1.Chunk {
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

// TestHeldTorn: a single send that was taken out of held by its deal, and of whose deal nothing is seen, is dealt again. One that
// somebody else took out is not.
func TestHeldTorn(t *testing.T) {
	p := newPlant(t)
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	p.plane.confirm(10009, 0, func(r *fanfarev1.Campaign) {
		r.Hidden, r.State, r.Total, r.Legs = true, fanfarev1.State_STATE_SENDING, 1000, nil
	})
	var records []*kgo.Record
	for seq := range uint32(2) {
		h := &held{key: schemas.DeliveryKey(testTenant, p.keys.Message(10009, seq)), tenant: testTenant}
		r, err := schemas.Event{Topic: s.names.Held(), Key: h.key, Tenant: testTenant, Type: schemas.TypeHeld, Source: "api", ID: h.key, Time: time.Now(), Value: &fanfarev1.Held{
			DueMs:   ms(time.Now()),
			Message: &fanfarev1.Message{Tenant: testTenant, CampaignId: "camp_10009", CampaignNumber: 10009, Seq: seq, Leg: 1, Route: "sim", To: "+393401234567"},
		}}.Record()
		if err != nil {
			t.Fatal(err)
		}
		tomb := s.tombstone(h, time.Now())
		if seq == 1 {
			tomb = schemas.Event{Topic: s.names.Held(), Key: h.key, Tenant: testTenant, Type: schemas.TypeHeld, Source: "api", ID: h.key, Time: time.Now()}.Raw(nil)
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
			var e event
			if err := decodeMessage(r.Value, &e); err != nil {
				t.Error(err)
			}
			got = append(got, e.seq)
		})
		return len(got) > 0
	})
	if len(got) != 1 || got[0] != 0 {
		t.Errorf("dealt %v, want 0 alone", got)
	}
}

// TestCursorsGone: with no cursor left, what stands in chunks is what was dealt.
func TestCursorsGone(t *testing.T) {
	p := newPlant(t)
	const total = 4000
	p.carrier.setMute(true)
	pr := p.run(p.hasty, func(c *Config) { c.SetsEvery = time.Hour })
	p.plane.confirm(10001, total, nil)
	p.eventually("full", func() bool { return p.carrier.submissions() > plantRate })
	p.still()
	pr.cut.set(true)
	cl := p.client()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}
	time.Sleep(100 * time.Millisecond)
	key := schemas.CampaignKey(testTenant, "camp_10001")
	r, err := s.cursorRecord(key, testTenant, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.carrier.setMute(false)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
}

const brokerEnv = "FANFARE_TEST_BROKER"

// TestMain runs the broker of TestBrokerKilled when it is asked to.
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
	for name, value := range map[string]string{
		"test.parallel": "4",  // tests with a broker wait more than they work
		"rapid.checks":  "50", // enough for every day
	} {
		if given[name] {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// child is an embedded broker in a process of its own, to be killed.
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

// TestTornEnd kills the embedded broker while a transaction of somebody else is open: what is read to the end when the scheduler
// begins ends in records that do not count, and nothing is written behind them.
func TestTornEnd(t *testing.T) {
	b := newChild(t)
	p := newPlantOn(t, []string{b.addr}, nil)
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
	p.plane.confirm(10001, 100, func(r *fanfarev1.Campaign) { // sending already: its chunks are looked for
		r.State, r.FreezeId, r.Total = fanfarev1.State_STATE_SENDING, "freeze10001", 100
	})
	p.run(func(c *Config) { c.SessionTimeout = 600 * time.Millisecond })
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 100})
}

// TestBrokerKilled kills the embedded broker in the middle of transactions, which it then shows in part: nobody is dealt twice,
// nobody is forgotten.
func TestBrokerKilled(t *testing.T) {
	b := newChild(t)
	p := newPlantOn(t, []string{b.addr}, nil)
	p.run(func(c *Config) { c.SessionTimeout = 600 * time.Millisecond })
	const total = 5000
	p.plane.confirm(10001, total, nil)
	kills := 0
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for at := 0; kills < 5 && p.carrier.submissions() < total; at = p.carrier.submissions() {
		want := min(at+500+rng.IntN(1000), total)
		p.eventually("sending", func() bool { return p.carrier.submissions() >= want })
		b.kill()
		kills++
		b.start()
	}
	p.eventually("settled", p.settled(10001))
	t.Logf("%d kills", kills)
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
}
