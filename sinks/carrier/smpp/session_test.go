package smpp_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/pdu"
)

// TestAnswers: the result for each answer.
func TestAnswers(t *testing.T) {
	bubble(t, smpp.Config{Codes: []string{"answer,0x0401,rejected,NO_CREDITS"}}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		for _, tc := range []struct {
			status pdu.Status
			id     string
			want   carrier.Result
		}{
			{pdu.OK, "a1", carrier.Result{Outcome: carrier.Accepted, Ref: "a1"}},
			{pdu.Throttled, "", carrier.Result{Outcome: carrier.Throttled, Code: "0x00000058", Sub: schemas.CodeThrottled}},
			{pdu.QueueFull, "", carrier.Result{Outcome: carrier.Throttled, Code: "0x00000014", Sub: schemas.CodeThrottled}},
			{pdu.SystemError, "", carrier.Result{Outcome: carrier.Retryable, Code: "0x00000008", Sub: schemas.CodeProviderError}},
			{pdu.InvalidDest, "", carrier.Result{Outcome: carrier.Rejected, Code: "0x0000000B", Sub: schemas.CodeInvalidNumber}},
			{0x0401, "", carrier.Result{Outcome: carrier.Rejected, Code: "0x00000401", Sub: schemas.CodeNoCredits}},
		} {
			r := newResults()
			send(t, c, r.done, message(t, 1, "hello"))
			h, _ := s.submitted()
			s.answer(h, tc.status, tc.id)
			if got := r.next(); got.Outcome != tc.want.Outcome || got.Ref != tc.want.Ref || got.Code != tc.want.Code || got.Sub != tc.want.Sub {
				t.Errorf("%v: got %+v, want %+v", tc.status, got, tc.want)
			}
		}
		// A generic_nack also answers a hand-over.
		r := newResults()
		send(t, c, r.done, message(t, 1, "hello"))
		h, _ := s.submitted()
		s.write(pdu.Header{Command: pdu.GenericNack, Status: pdu.InvalidCommand, Sequence: h.Sequence}.Append(nil))
		if got := r.next(); got.Outcome != carrier.Rejected {
			t.Errorf("generic_nack: got %+v, want rejected", got)
		}
	})
}

// TestConnectionLost: a unit that was not written completely was not accepted. A unit that was may have been accepted
// (P3).
func TestConnectionLost(t *testing.T) {
	bubble(t, smpp.Config{Window: 10}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		written, stuck, queued := newResults(), newResults(), newResults()
		send(t, c, written.done, message(t, 1, "hello"))
		s.submitted()
		// A pipe has no buffer: this unit is in the system call when the connection breaks, and the last one waits
		// behind it.
		send(t, c, stuck.done, message(t, 2, "hello"))
		synctest.Wait()
		send(t, c, queued.done, message(t, 3, "hello"))
		synctest.Wait()
		if got := c.Health(); got.InFlight != 3 {
			t.Errorf("got %d in flight, want 3", got.InFlight)
		}
		_ = s.conn.Close()
		if got := written.next(); got.Outcome != carrier.Unknown || got.Code != "connection lost" {
			t.Errorf("written: got %+v, want unknown", got)
		}
		for name, r := range map[string]*results{"stuck": stuck, "queued": queued} {
			if got := r.next(); got.Outcome != carrier.Retryable || got.Code != "not connected" || got.RetryAfter == 0 {
				t.Errorf("%s: got %+v, want retryable, not connected", name, got)
			}
		}
		if got := c.Health(); got.Ready || got.InFlight != 0 || got.Sessions != 0 || got.LastError == nil {
			t.Errorf("got %+v, want not ready, nothing in flight, an error", got)
		}
	})
}

// stuckConn is a connection whose writes go out but return only when it is closed, as if the process were not scheduled
// in between.
type stuckConn struct {
	net.Conn
	stuck  atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *stuckConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.stuck.Load() {
		<-c.closed
	}
	return n, err
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestWrittenWhileItEnds (P3): a unit that was written while another goroutine ended the session may have been
// accepted.
func TestWrittenWhileItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mc := newCentre(t)
		var conn *stuckConn
		bound := make(chan *script, 1)
		go func() { bound <- mc.bind() }()
		c, err := smpp.Dial(t.Context(), smpp.Config{Host: "127.0.0.1", SystemID: "fanfare"}, smpp.Deps{Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			inner, err := mc.dialer(ctx, addr)
			conn = &stuckConn{Conn: inner, closed: make(chan struct{})}
			return conn, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := <-bound
		conn.stuck.Store(true)
		r := newResults()
		send(t, c, r.done, message(t, 1, "hello"))
		s.submitted()
		_ = s.conn.Close()
		if got := r.next(); got.Outcome != carrier.Unknown {
			t.Errorf("got %+v, want unknown: the message centre has it", got)
		}
		drain(t, c, 0)
	})
}

// TestReconnect: the connector binds again after a session has broken, with growing pauses. Hand-overs wait for a
// second meanwhile.
func TestReconnect(t *testing.T) {
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, mc *centre, s *script) {
		// After a session that has lasted long, the next attempt comes at once.
		time.Sleep(20 * time.Second)
		_ = s.conn.Close()
		synctest.Wait()
		r := newResults()
		out := message(t, 1, "hello")
		go func() {
			if err := c.Send(t.Context(), []carrier.Outbound{out}, r.done); err != nil {
				t.Errorf("send: %v", err)
			}
		}()
		began := time.Now()
		s = mc.bind()
		if took := time.Since(began); took > time.Second {
			t.Errorf("bound again after %v, want at once", took)
		}
		h, _ := s.submitted()
		s.answer(h, pdu.OK, "1")
		if got := r.next(); got.Outcome != carrier.Accepted {
			t.Errorf("handed over between two sessions: got %+v, want accepted", got)
		}
		// After refused binds the pauses grow from half a second to a minute.
		_ = s.conn.Close()
		var pauses []time.Duration
		for range 9 {
			began := time.Now()
			s := mc.accept()
			pauses = append(pauses, time.Since(began))
			h, _ := s.expect(pdu.BindTransceiver)
			s.answer(h, pdu.BindFailed, "")
		}
		if first, last := pauses[0], pauses[8]; first < 500*time.Millisecond || first > time.Second || last < 30*time.Second || last > time.Minute {
			t.Errorf("got pauses %v, want them to grow from 0.5-1 s to 30-60 s", pauses)
		}
		send(t, c, r.done, message(t, 2, "hello"))
		if got := r.next(); got.Outcome != carrier.Retryable || got.Code != "not connected" {
			t.Errorf("without a session: got %+v, want retryable", got)
		}
		if h := c.Health(); h.Ready || h.LastError == nil || !strings.Contains(h.LastError.Error(), "ESME_RBINDFAIL") {
			t.Errorf("got %+v, want the reason", h)
		}
	})
}

// TestDeadlineAtTheWrite: a message that waits behind a blocked write is not written after its deadline. The blocked
// write ends at its own deadline; a unit that was not written completely was not accepted.
func TestDeadlineAtTheWrite(t *testing.T) {
	bubble(t, smpp.Config{Window: 10}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		// The message centre does not read.
		stuck, behind := newResults(), newResults()
		first, second := message(t, 1, "hello"), message(t, 2, "hello")
		first.Deadline, second.Deadline = time.Now().Add(500*time.Millisecond), time.Now().Add(300*time.Millisecond)
		send(t, c, stuck.done, first)
		synctest.Wait()
		send(t, c, behind.done, second)
		began := time.Now()
		for name, r := range map[string]*results{"at the system call": stuck, "behind": behind} {
			if got := r.next(); got.Outcome != carrier.Retryable || got.Code != carrier.CodeDeadline {
				t.Errorf("%s: got %+v, want retryable, deadline", name, got)
			}
		}
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("answered after %v, want at the deadline", took)
		}
		if got := c.Health(); got.Sessions != 0 || got.InFlight != 0 {
			t.Errorf("got %+v, want the session ended: half a unit is on the wire", got)
		}
		_ = s
	})
}

// TestLateInTheQueue: messages in the queue that are expired or withdrawn are removed. The messages before and behind
// them are sent unchanged.
func TestLateInTheQueue(t *testing.T) {
	bubble(t, smpp.Config{Window: 10}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		all := newResults()
		send(t, c, all.done, message(t, 1, "one"))
		synctest.Wait() // it is in the system call
		late := message(t, 2, "two")
		late.Deadline = time.Now().Add(100 * time.Millisecond)
		var withdrawn atomic.Bool
		taken := message(t, 4, "four")
		taken.Withdrawn = &withdrawn
		send(t, c, all.done, late, message(t, 3, "three"), taken)
		time.Sleep(200 * time.Millisecond)
		withdrawn.Store(true)
		var got []string
		for range 2 {
			h, m := s.submitted()
			got = append(got, m.Text())
			s.answer(h, pdu.OK, m.Text())
		}
		outcomes := map[carrier.Outcome]int{}
		for range 4 {
			outcomes[all.next().Outcome]++
		}
		if strings.Join(got, " ") != "one three" || outcomes[carrier.Accepted] != 2 || outcomes[carrier.Retryable] != 2 {
			t.Errorf("the message centre got %q, answers %v, want one and three, and two kept back", got, outcomes)
		}
	})
}

// TestNoAnswer: a hand-over without an answer in time is unknown. A late answer ends the doubt: the connector makes a
// receipt with our id of it.
func TestNoAnswer(t *testing.T) {
	bubble(t, smpp.Config{AnswerTimeout: smpp.Duration(2 * time.Second)}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		rec := receipts(t, c)
		r := newResults()
		taken, refused := message(t, 1, "hello"), message(t, 2, "hello")
		send(t, c, r.done, taken, refused)
		h1, _ := s.submitted()
		h2, _ := s.submitted()
		began := time.Now()
		for range 2 {
			if got := r.next(); got.Outcome != carrier.Unknown || got.Code != "no answer" {
				t.Errorf("got %+v, want unknown", got)
			}
		}
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("unknown after %v, want 2 s", took)
		}
		if got := c.Health(); got.InFlight != 0 {
			t.Errorf("got %d in flight, want the places back", got.InFlight)
		}
		s.answer(h1, pdu.OK, "a1")
		s.answer(h2, pdu.InvalidDest, "")
		if got := <-rec; got.Key != taken.Key || got.Ref != "a1" || got.Status != schemas.ReceiptStatusBuffered || got.To != taken.To {
			t.Errorf("late answer: got %+v, want buffered with our id", got)
		}
		if got := <-rec; got.Key != refused.Key || got.Status != schemas.ReceiptStatusFailed || got.Sub != schemas.CodeInvalidNumber {
			t.Errorf("late refusal: got %+v, want failed with our id", got)
		}
		// The receipt of the message must have our id, too, because the index does not have the message centre's id.
		s.deliver(9, pdu.Message{ESMClass: pdu.ESMReceipt, Short: "id:a1 stat:DELIVRD err:000", Source: pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"}})
		if got := <-rec; got.Key != taken.Key || got.Status != schemas.ReceiptStatusDelivered {
			t.Errorf("its receipt: got %+v, want delivered with our id", got)
		}
		s.expect(pdu.DeliverSMResp)
	})
}

// TestEnquireLink: after a silence the connector sends enquire_link. If nothing comes, it ends the session.
func TestEnquireLink(t *testing.T) {
	cfg := smpp.Config{EnquireLink: smpp.Duration(30 * time.Second), AnswerTimeout: smpp.Duration(10 * time.Second)}
	bubble(t, cfg, func(t *testing.T, c *smpp.Connector, mc *centre, s *script) {
		began := time.Now()
		for range 2 {
			h, _ := s.expect(pdu.EnquireLink)
			s.answer(h, pdu.OK, "")
		}
		if took := time.Since(began); took < time.Minute || took > 65*time.Second {
			t.Errorf("asked twice within %v, want a minute", took)
		}
		// The connector also answers an enquire_link of the message centre.
		s.write(pdu.Header{Command: pdu.EnquireLink, Sequence: 77}.Append(nil))
		if h, _ := s.expect(pdu.EnquireLinkResp); h.Sequence != 77 {
			t.Errorf("got sequence %d, want 77", h.Sequence)
		}
		// The connection is half open: the message centre reads but sends nothing.
		began = time.Now()
		s.expect(pdu.EnquireLink)
		if _, _, err := s.r.Next(); err == nil {
			t.Error("something came, want the end")
		}
		if took := time.Since(began); took < 40*time.Second || took > 45*time.Second {
			t.Errorf("given up after %v, want 40 s", took)
		}
		mc.bind()
		synctest.Wait()
		if got := c.Health(); !got.Ready || got.Sessions != 1 {
			t.Errorf("got %+v, want ready again", got)
		}
	})
}

// TestThrottled: the window is halved when the message centre throttles, and grows again afterwards.
func TestThrottled(t *testing.T) {
	bubble(t, smpp.Config{Window: 16}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		say := func(status pdu.Status, times int) {
			for range times {
				r := newResults()
				send(t, c, r.done, message(t, 1, "hello"))
				h, _ := s.submitted()
				s.answer(h, status, "1")
				r.next()
			}
		}
		want := func(what string, least, most int) {
			t.Helper()
			if got := c.Health().Window; got < least || got > most {
				t.Errorf("%s: got a window of %d, want %d to %d", what, got, least, most)
			}
		}
		want("at rest", 16, 16)
		say(pdu.Throttled, 3)
		want("throttled within one round trip", 8, 8)
		time.Sleep(time.Second)
		say(pdu.QueueFull, 1)
		want("once more", 4, 4)
		if got := c.Health().Throttled; got < 0.03 || got > 0.05 {
			t.Errorf("got a share of %v throttled, want about 0.04", got)
		}
		say(pdu.OK, 5)
		want("a window of answers later", 5, 5)
		say(pdu.OK, 200)
		want("in the end", 16, 16)
		// With SMPP 5.0, the message centre reports congestion before it refuses.
		time.Sleep(time.Second)
		r := newResults()
		send(t, c, r.done, message(t, 1, "hello"))
		h, _ := s.submitted()
		unit, err := (&pdu.MessageResp{ID: "1", TLVs: "\x04\x28\x00\x01\x5a"}).Append(nil, pdu.Header{Command: pdu.SubmitSMResp, Sequence: h.Sequence})
		if err != nil {
			t.Fatal(err)
		}
		s.write(unit)
		if got := r.next(); got.Outcome != carrier.Accepted {
			t.Errorf("congested: got %+v, want accepted", got)
		}
		want("congested", 8, 8)
	})
}

// TestThroughput holds hand-overs to a rate.
func TestThroughput(t *testing.T) {
	bubble(t, smpp.Config{Throughput: 100, Window: 200}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		r := newResults()
		go func() {
			for n := range 15 {
				batch := make([]carrier.Outbound, 20)
				for i := range batch {
					batch[i] = message(t, uint32(20*n+i), "hello")
				}
				if c.Send(t.Context(), batch, r.done) != nil {
					return
				}
			}
		}()
		began := time.Now()
		for range 300 {
			h, _ := s.submitted()
			s.answer(h, pdu.OK, "1")
		}
		if took := time.Since(began); took < 2800*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("300 hand-overs at 100 a second took %v, want 2.9 s: a burst of 10 goes first", took)
		}
	})
}

// TestUnbound: a message centre that has sent unbind gets no more hand-overs, but may still answer earlier ones.
func TestUnbound(t *testing.T) {
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, mc *centre, s *script) {
		answered, open := newResults(), newResults()
		send(t, c, answered.done, message(t, 1, "hello"))
		h1, _ := s.submitted()
		send(t, c, open.done, message(t, 2, "hello"))
		s.submitted()
		s.write(pdu.Header{Command: pdu.Unbind, Sequence: 5}.Append(nil))
		s.expect(pdu.UnbindResp)
		s.answer(h1, pdu.OK, "1")
		if got := answered.next(); got.Outcome != carrier.Accepted {
			t.Errorf("answered after the unbind: got %+v, want accepted", got)
		}
		if got := open.next(); got.Outcome != carrier.Unknown {
			t.Errorf("never answered: got %+v, want unknown", got)
		}
		s = mc.bind()
		send(t, c, answered.done, message(t, 3, "hello"))
		h3, _ := s.submitted()
		s.answer(h3, pdu.OK, "3")
		if got := answered.next(); got.Ref != "3" {
			t.Errorf("on the next session: got %+v, want accepted", got)
		}
	})
}

// TestDrainUnbinds: Drain sends unbind when no hand-over waits, and does not wait for a message centre that does not
// answer.
func TestDrainUnbinds(t *testing.T) {
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		over := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			drain(t, c, 10*time.Second)
			over <- time.Since(began)
		}()
		s.expect(pdu.Unbind)
		if took := <-over; took > time.Second {
			t.Errorf("drain took %v without an answer to unbind, want half a second", took)
		}
	})
}

// TestMalformed: a unit that cannot be read ends the session or is refused, and has no other effect.
func TestMalformed(t *testing.T) {
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, mc *centre, s *script) {
		s.write(pdu.Header{Command: 0x42, Sequence: 3}.Append(nil))
		if h, _ := s.expect(pdu.GenericNack); h.Status != pdu.InvalidCommand || h.Sequence != 3 {
			t.Errorf("unknown command: got %+v, want generic_nack", h)
		}
		s.write(append(pdu.Header{Command: 0x80000042, Sequence: 3}.Append(nil), pdu.Header{Command: pdu.DeliverSM, Sequence: 4}.Append(nil)...))
		if h, _ := s.expect(pdu.DeliverSMResp); h.Status != pdu.InvalidMsgLength || h.Sequence != 4 {
			t.Errorf("deliver_sm without a body: got %+v, want a refusal", h)
		}
		s.write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		s2 := mc.bind()
		r := newResults()
		send(t, c, r.done, message(t, 1, "hello"))
		h, _ := s2.submitted()
		s2.answer(h, pdu.OK, "1")
		if got := r.next(); got.Outcome != carrier.Accepted {
			t.Errorf("on the next session: got %+v, want accepted", got)
		}
	})
}

// TestDialFails: the error of a refused bind names the reason and its usual cause, and does not contain the password.
func TestDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mc := newCentre(t)
		go func() {
			s := mc.accept()
			h, _ := s.expect(pdu.BindTransceiver)
			s.answer(h, pdu.InvalidPassword, "")
		}()
		_, err := smpp.Dial(t.Context(), smpp.Config{Host: "smsc.example", SystemID: "fanfare", Password: "hunter2"}, smpp.Deps{Dial: mc.dialer})
		if err == nil || !strings.Contains(err.Error(), "smsc.example:2775") || !strings.Contains(err.Error(), "wrong password") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want an error with the address and the reason, without the password", err)
		}
		// This message centre never answers.
		go mc.accept()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := smpp.Dial(ctx, smpp.Config{Host: "smsc.example", SystemID: "fanfare"}, smpp.Deps{Dial: mc.dialer}); err == nil || time.Since(began) > 4*time.Second {
			t.Errorf("got %v after %v, want an error after 3 s", err, time.Since(began))
		}
	})
}
