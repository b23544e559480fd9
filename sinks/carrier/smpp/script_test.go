package smpp_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/pdu"
)

// centre is a message centre that the test controls completely. Connections are pipes, so that time can be fake: in a
// bubble of synctest no result depends on the speed of the machine.
type centre struct {
	t     *testing.T
	conns chan net.Conn
}

func newCentre(t *testing.T) *centre { return &centre{t, make(chan net.Conn, 16)} }

// dialer connects the connector to the centre.
func (c *centre) dialer(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case c.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// script is the message centre's side of one connection.
type script struct {
	t    *testing.T
	conn net.Conn
	r    *pdu.Reader
}

// accept waits for the next connection.
func (c *centre) accept() *script {
	c.t.Helper()
	conn := <-c.conns
	c.t.Cleanup(func() { _ = conn.Close() })
	return &script{c.t, conn, pdu.NewReader(conn)}
}

// bind accepts the next connection and the bind on it.
func (c *centre) bind() *script {
	c.t.Helper()
	s := c.accept()
	h, _ := s.expect(pdu.BindTransceiver)
	s.answer(h, pdu.OK, "smsc")
	return s
}

// read reads the next unit.
func (s *script) read() (pdu.Header, string) {
	s.t.Helper()
	h, body, err := s.r.Next()
	if err != nil {
		s.t.Fatalf("message centre: %v", err)
	}
	return h, string(body)
}

// expect reads the next unit, which must have this command.
func (s *script) expect(want pdu.Command) (pdu.Header, string) {
	s.t.Helper()
	h, body := s.read()
	if h.Command != want {
		s.t.Fatalf("message centre: got %v, want %v", h.Command, want)
	}
	return h, body
}

// submitted reads a submit_sm.
func (s *script) submitted() (pdu.Header, pdu.Message) {
	s.t.Helper()
	h, body := s.expect(pdu.SubmitSM)
	m, err := pdu.DecodeMessage(h.Command, body)
	if err != nil {
		s.t.Fatalf("message centre: %v", err)
	}
	return h, m
}

func (s *script) write(unit []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(unit); err != nil {
		s.t.Fatalf("message centre: %v", err)
	}
}

// answer answers a unit with an id.
func (s *script) answer(h pdu.Header, status pdu.Status, id string) {
	s.t.Helper()
	unit, err := (&pdu.MessageResp{ID: id}).Append(nil, pdu.Header{Command: h.Command.Response(), Status: status, Sequence: h.Sequence})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(unit)
}

// deliver sends a deliver_sm.
func (s *script) deliver(sequence uint32, m pdu.Message) {
	s.t.Helper()
	unit, err := m.Append(nil, pdu.Header{Command: pdu.DeliverSM, Sequence: sequence})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(unit)
}

// testKeys are the keys of the messages in this package's tests.
func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// message returns one message.
func message(t testing.TB, seq uint32, body string) carrier.Outbound {
	t.Helper()
	return carrier.Outbound{
		Key: testKeys(t).Submission(10001, seq, 1), Channel: schemas.ChannelSMS, To: "+393470000001", From: "FANFARE",
		Body: carrier.Body{Text: carrier.Text{Body: body, Encoding: schemas.EncodingGSM7}},
	}
}

// results collects the results of hand-overs.
type results struct {
	mu   sync.Mutex
	list []carrier.Result
	more chan struct{}
}

func newResults() *results { return &results{more: make(chan struct{}, 1000)} }

func (r *results) done(_ int, x carrier.Result) {
	r.mu.Lock()
	r.list = append(r.list, x)
	r.mu.Unlock()
	r.more <- struct{}{}
}

// next waits for the next result.
func (r *results) next() carrier.Result {
	<-r.more
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.list[0]
	r.list = r.list[1:]
	return x
}

// bubble runs a test in fake time, with a connector that is bound to a scripted message centre.
func bubble(t *testing.T, cfg smpp.Config, f func(t *testing.T, c *smpp.Connector, mc *centre, s *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mc := newCentre(t)
		cfg.Host, cfg.SystemID = "127.0.0.1", "fanfare"
		bound := make(chan *script, 1)
		go func() { bound <- mc.bind() }()
		c, err := smpp.Dial(t.Context(), cfg, smpp.Deps{Dial: mc.dialer, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		f(t, c, mc, <-bound)
		drain(t, c, 0)
	})
}

func drain(t testing.TB, c *smpp.Connector, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}

// send hands messages over, and fails the test if the connector returns an error.
func send(t testing.TB, c *smpp.Connector, done func(int, carrier.Result), batch ...carrier.Outbound) {
	t.Helper()
	if err := c.Send(t.Context(), batch, done); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// receipts takes receipts until the test ends, and sends them to the channel.
func receipts(t *testing.T, c *smpp.Connector) <-chan carrier.Receipt {
	t.Helper()
	out := make(chan carrier.Receipt, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Receipts(ctx, func(list []carrier.Receipt) error {
			for _, r := range list {
				out <- r
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("receipts: %v", err)
		}
	})
	return out
}
