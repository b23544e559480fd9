package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/feed"
)

// moment is the moment of an insert at which a fault happens.
type moment int

const (
	atHello  moment = iota // the client connects
	atQuery                // before the server takes the rows
	inBlock                // within the rows
	atRows                 // the server has the rows but does not store them
	atStored               // the server has stored them, but does not answer
)

// fault is what goes wrong: an exception with a code, no answer, or a connection reset.
type fault struct {
	at     moment
	code   proto.Error
	silent bool
}

// faultyServer implements the part of the native protocol that inserts need. It stores blocks as ClickHouse does: it
// accepts a block with a known token, but does not store it again.
type faultyServer struct {
	addr string

	mu     sync.Mutex
	fault  *fault
	mended chan struct{}
	hits   int
	tokens map[string]string // token → offsets of its rows
	rows   []place           // of table events
	again  int               // blocks whose token was known
	wrong  []string          // tokens that came again with other rows
}

type place struct {
	partition int32
	offset    int64
}

func newFaultyServer(t *testing.T) *faultyServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &faultyServer{addr: l.Addr().String(), tokens: map[string]string{}}
	t.Cleanup(func() { _ = l.Close(); s.mend() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if err := s.serve(conn.(*net.TCPConn)); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errStruck) {
					t.Log("faulty server:", err)
				}
			}()
		}
	}()
	return s
}

func (s *faultyServer) fail(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.hits, s.mended = &f, 0, make(chan struct{})
}

func (s *faultyServer) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		s.fault = nil
		close(s.mended)
	}
}

func (s *faultyServer) struck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

var errStruck = errors.New("a fault struck")

// strike causes the fault if it is time for it. An error ends the connection.
func (s *faultyServer) strike(conn *net.TCPConn, at moment) error {
	s.mu.Lock()
	f, mended := s.fault, s.mended
	if f == nil || f.at != at {
		s.mu.Unlock()
		return nil
	}
	s.hits++
	s.mu.Unlock()
	switch {
	case f.silent:
		<-mended
	case f.code != 0:
		var b proto.Buffer
		proto.ServerCodeException.Encode(&b)
		(&proto.Exception{Code: f.code, Name: "DB::Exception", Message: "as the test wants"}).EncodeAware(&b, revision)
		_, _ = conn.Write(b.Buf)
	default:
		_ = conn.SetLinger(0)
	}
	return errStruck
}

func (s *faultyServer) serve(conn *net.TCPConn) error {
	r := proto.NewReader(conn)
	send := func(encode func(*proto.Buffer)) error {
		var b proto.Buffer
		encode(&b)
		_, err := conn.Write(b.Buf)
		return err
	}
	if _, err := r.UVarInt(); err != nil {
		return err
	}
	var hello proto.ClientHello
	if err := hello.Decode(r); err != nil {
		return err
	}
	if err := s.strike(conn, atHello); err != nil {
		return err
	}
	err := send(func(b *proto.Buffer) {
		(&proto.ServerHello{Name: "ClickHouse", Major: 25, Minor: 3, Revision: revision, Timezone: "UTC", DisplayName: "test"}).EncodeAware(b, revision)
	})
	for err == nil {
		err = s.insert(conn, r, send)
	}
	return err
}

// insert answers one insert.
func (s *faultyServer) insert(conn *net.TCPConn, r *proto.Reader, send func(func(*proto.Buffer)) error) error {
	if _, err := r.UVarInt(); err != nil {
		return err
	}
	var q proto.Query
	if err := q.DecodeAware(r, revision); err != nil {
		return err
	}
	token := ""
	for _, setting := range q.Settings {
		if setting.Key == "insert_deduplication_token" {
			token = setting.Value
		}
	}
	if _, _, err := s.block(r); err != nil { // external tables
		return err
	}
	if err := s.strike(conn, atQuery); err != nil {
		return err
	}
	// The server names the columns that it expects. The client ignores them.
	if err := send(header); err != nil {
		return err
	}
	if s.now(inBlock) {
		if _, err := io.ReadFull(r, make([]byte, 64)); err != nil {
			return err
		}
		return s.strike(conn, inBlock)
	}
	var rows []place
	for {
		got, n, err := s.block(r)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		rows = append(rows, got...)
	}
	if err := s.strike(conn, atRows); err != nil {
		return err
	}
	s.store(token, rows)
	if err := s.strike(conn, atStored); err != nil {
		return err
	}
	return send(func(b *proto.Buffer) { proto.ServerCodeEndOfStream.Encode(b) })
}

func (s *faultyServer) now(at moment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault != nil && s.fault.at == at
}

// header is a block without rows, compressed.
func header(b *proto.Buffer) {
	in := session{compress: compress.NewWriter(compress.LevelZero, compress.LZ4)}
	proto.ServerCodeData.Encode(&in.buf)
	in.buf.PutString("")
	start := len(in.buf.Buf)
	_ = proto.Block{Info: proto.BlockInfo{BucketNum: -1}}.EncodeBlock(&in.buf, revision, nil)
	_ = in.compress.Compress(in.buf.Buf[start:])
	b.Buf = append(in.buf.Buf[:start], in.compress.Data...)
}

// block reads a block. If its rows are events, it returns the offsets that they have in the topic.
func (s *faultyServer) block(r *proto.Reader) (places []place, rows int, err error) {
	if _, err := r.UVarInt(); err != nil { // the code of data
		return nil, 0, err
	}
	if _, err := r.Str(); err != nil {
		return nil, 0, err
	}
	r.EnableCompression()
	defer r.DisableCompression()
	var b proto.Block
	var columns proto.Results
	if err := b.DecodeBlock(r, revision, columns.Auto()); err != nil {
		return nil, 0, err
	}
	var partitions proto.ColUInt16
	var offsets proto.ColUInt64
	for _, c := range columns {
		data := c.Data
		if auto, ok := data.(*proto.ColAuto); ok {
			data = auto.Data
		}
		switch c.Name {
		case "src_partition":
			partitions = *data.(*proto.ColUInt16)
		case "src_offset":
			offsets = *data.(*proto.ColUInt64)
		}
	}
	for i := range offsets {
		places = append(places, place{int32(partitions[i]), int64(offsets[i])})
	}
	return places, b.Rows, nil
}

// store stores a block unless its token is known.
func (s *faultyServer) store(token string, rows []place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content := fmt.Sprint(rows)
	if known, ok := s.tokens[token]; ok && token != "" {
		if s.again++; known != content {
			s.wrong = append(s.wrong, token)
		}
		return
	}
	s.tokens[token] = content
	s.rows = append(s.rows, rows...)
}

// missing returns the places that are not stored, and the places that are stored twice.
func (s *faultyServer) missing(want []place) (missing, twice []place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := map[place]int{}
	for _, p := range s.rows {
		if times[p]++; times[p] == 2 {
			twice = append(twice, p)
		}
	}
	for _, p := range want {
		if times[p] == 0 {
			missing = append(missing, p)
		}
	}
	return missing, twice
}

// oneCampaign is a control plane with one campaign.
type oneCampaign struct{ c *fanfarev1.Campaign }

func (v oneCampaign) Campaign(id string) *fanfarev1.Campaign {
	if id == v.c.Id {
		return v.c
	}
	return nil
}
func (oneCampaign) Age() time.Duration       { return 0 }
func (oneCampaign) Changed() <-chan struct{} { return nil }

// A6: the feed waits while ClickHouse has a fault that passes by itself, at whatever moment of an insert it happens,
// and stores each event once.
func TestFeedWaitsOutConditionsOfClickHouse(t *testing.T) {
	t.Parallel()
	server := newFaultyServer(t)
	store := &Store{insert: newInserter(&chgo.Options{Addr: []string{server.addr}, DialTimeout: time.Second, ReadTimeout: 300 * time.Millisecond})}
	t.Cleanup(func() { _ = store.insert.close() })
	names, err := schemas.NewNames("conditions.")
	if err != nil {
		t.Fatal(err)
	}
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	var log lockedBuffer
	cluster := stream.Cluster{Brokers: kafka.ListenAddrs(), Names: names, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registry: prometheus.NewRegistry()}
	cl, err := cluster.Client(kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	topics := slices.DeleteFunc(names.Fixed(), func(topic schemas.Topic) bool {
		return !strings.HasPrefix(topic.Name, names.Deliveries()) && !strings.HasPrefix(topic.Name, names.Chunks())
	})
	if err := stream.EnsureTopics(t.Context(), kadm.NewClient(cl), 1, topics); err != nil {
		t.Fatal(err)
	}
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	campaign := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	number, _ := schemas.CampaignNumber(campaign.ID)
	view := oneCampaign{&fanfarev1.Campaign{Tenant: campaign.Tenant, Id: campaign.ID, Number: number, ConfirmedMs: campaign.Month.AddDate(0, 0, 9).UnixMilli()}}
	f, err := feed.New(feed.Config{Cluster: cluster, Store: store, Campaigns: view, Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	streamRun(t, f.Run)

	seq := uint32(0)
	// produce writes events and returns where they are in the topic.
	produce := func() (places []place) {
		for range 50 {
			seq++
			message, submission := keys.Message(number, seq), keys.Submission(number, seq, 1)
			r, err := schemas.DeliveryEvent(names.Deliveries(), "test", &fanfarev1.Delivery{
				Tenant: campaign.Tenant, CampaignId: campaign.ID, CampaignNumber: number, Seq: seq, Try: 1, Leg: 1, Kind: schemas.KindSent,
				TimeMs: time.Now().UnixMilli(), Channel: schemas.ChannelSMS, MessageId: message[:], SubmissionId: submission[:],
			}, "").Record()
			if err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			places = append(places, place{r.Partition, r.Offset})
		}
		return places
	}
	await := func(t *testing.T, want []place) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			missing, twice := server.missing(want)
			if len(twice) > 0 {
				t.Fatalf("stored twice: %v", twice)
			}
			if len(missing) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d events are not stored", len(missing), len(want))
			}
		}
	}
	all := produce()
	await(t, all)
	for _, c := range []struct {
		name  string
		fault fault
	}{
		{"starting up", fault{at: atHello, code: 236}},
		{"a proxy without a backend", fault{at: atHello}},
		{"no answer to a new connection", fault{at: atHello, silent: true}},
		{"too many queries at once", fault{at: atQuery, code: 202}},
		{"too many parts", fault{at: atQuery, code: 252}},
		{"read-only table", fault{at: atQuery, code: 242}},
		{"no memory, before the rows", fault{at: atQuery, code: 241}},
		{"no threads", fault{at: atQuery, code: 439}},
		{"no memory, within the rows", fault{at: inBlock, code: 241}},
		{"reset within the rows", fault{at: inBlock}},
		{"no memory, after the rows", fault{at: atRows, code: 241}},
		{"too many parts, after the rows", fault{at: atRows, code: 252}},
		{"disk full", fault{at: atRows, code: 243}},
		{"no Keeper", fault{at: atRows, code: 999}},
		{"too few live replicas", fault{at: atRows, code: 285}},
		{"silence after the rows", fault{at: atRows, silent: true}},
		{"reset after the rows", fault{at: atRows}},
		{"time-out though stored", fault{at: atStored, code: 159}},
		{"network error though stored", fault{at: atStored, code: 210}},
		{"network time-out though stored", fault{at: atStored, code: 209}},
		{"no Keeper though stored", fault{at: atStored, code: 999}},
		{"status of the insert not known", fault{at: atStored, code: 319}},
		{"silence though stored", fault{at: atStored, silent: true}},
		{"reset though stored", fault{at: atStored}},
	} {
		t.Run(c.name, func(t *testing.T) {
			most := 2
			if c.fault.at == atHello { // makes the client connect again
				most = 4 // an insert may succeed between the two faults
				server.fail(fault{at: atQuery})
			} else {
				server.fail(c.fault)
			}
			want := produce()
			all = append(all, want...)
			for deadline := time.Now().Add(time.Minute); server.struck() < 3; time.Sleep(time.Millisecond) {
				if c.fault.at == atHello && server.struck() == 1 {
					server.mend()
					server.fail(c.fault)
					c.fault.at = atQuery // only once
				}
				if time.Now().After(deadline) {
					t.Fatalf("the fault struck %d times, want 3: the feed has given up", server.struck())
				}
			}
			if missing, _ := server.missing(want); c.fault.at < atStored && len(missing) == 0 {
				t.Error("got all events stored, want none while the condition lasts")
			}
			struck := server.struck()
			server.mend()
			await(t, all)
			lines := 0 // the last one comes after the store's answer
			for deadline := time.Now().Add(time.Minute); lines < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				lines += strings.Count(log.taken(), "task=append")
			}
			if lines < 2 || lines > most {
				t.Errorf("got %d lines about the appends after %d failures, want one when they begin to fail and one when they succeed again", lines, struck)
			}
		})
	}
	if server.again == 0 || len(server.wrong) > 0 {
		t.Errorf("got %d blocks repeated, and other rows under the tokens %v; want some, and none", server.again, server.wrong)
	}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// taken returns what was written since the last call.
func (b *lockedBuffer) taken() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

// streamRun runs a stage until the test ends.
func streamRun(t *testing.T, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}
