package smpp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// TestSubmit: the fields of a message for the options of an account.
func TestSubmit(t *testing.T) {
	zero, ucs2 := byte(0), byte(0x18)
	international := pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"}
	now := time.Now()
	plain := pdu.Message{Source: pdu.Address{TON: 5, Addr: "FANFARE"}, Dest: international, Registered: 1, Short: "hello"}
	for _, tc := range []struct {
		name   string
		cfg    smpp.Config
		change func(*carrier.Outbound)
		want   func(*pdu.Message)
	}{
		{name: "nothing special"},
		{name: "sender: a number", change: func(o *carrier.Outbound) { o.From = "+393331234567" }, want: func(m *pdu.Message) { m.Source = pdu.Address{TON: 1, NPI: 1, Addr: "393331234567"} }},
		{name: "sender: a short code", change: func(o *carrier.Outbound) { o.From = "48333" }, want: func(m *pdu.Message) { m.Source = pdu.Address{TON: 3, Addr: "48333"} }},
		{name: "sender: the account's", change: func(o *carrier.Outbound) { o.From = "" }, want: func(m *pdu.Message) { m.Source = pdu.Address{} }},
		{
			name: "types and plans of the account",
			cfg:  smpp.Config{Numbering: smpp.Numbering{Alphanumeric: &smpp.TONNPI{TON: 5, NPI: 1}, Recipient: &smpp.TONNPI{}, Plus: true}},
			want: func(m *pdu.Message) { m.Source.NPI, m.Dest = 1, pdu.Address{Addr: "+393470000001"} },
		},
		{name: "no receipts", cfg: smpp.Config{RegisteredDelivery: &zero}, want: func(m *pdu.Message) { m.Registered = 0 }},
		{name: "a service", cfg: smpp.Config{ServiceType: "CMT"}, want: func(m *pdu.Message) { m.ServiceType = "CMT" }},
		{
			name: "validity, relative", change: func(o *carrier.Outbound) {
				o.NotAfter = now.Add(49*time.Hour + 2*time.Minute + 3*time.Second + time.Millisecond)
			},
			want: func(m *pdu.Message) { m.Validity = "000002010203000R" },
		},
		{
			name: "validity, absolute", cfg: smpp.Config{Validity: "absolute"}, change: func(o *carrier.Outbound) { o.NotAfter = time.Date(2026, 11, 22, 10, 0, 5, 0, time.UTC) },
			want: func(m *pdu.Message) { m.Validity = "261122100005000+" },
		},
		{name: "validity, none", cfg: smpp.Config{Validity: "none"}, change: func(o *carrier.Outbound) { o.NotAfter = now.Add(time.Hour) }},
		{
			name: "UCS-2", change: func(o *carrier.Outbound) { o.Body.Text = carrier.Text{Body: "ж", Encoding: schemas.EncodingUCS2} },
			want: func(m *pdu.Message) { m.Coding, m.Short = pdu.CodingUCS2, "\x04\x36" },
		},
		{
			name: "UCS-2 with the account's data_coding", cfg: smpp.Config{DataCodingUCS2: &ucs2}, change: func(o *carrier.Outbound) { o.Body.Text = carrier.Text{Body: "ж", Encoding: schemas.EncodingUCS2} },
			want: func(m *pdu.Message) { m.Coding, m.Short = 0x18, "\x04\x36" },
		},
		{name: "packed", cfg: smpp.Config{Alphabet: "gsm7-packed", DataCodingGSM: 0xF1}, want: func(m *pdu.Message) { m.Coding, m.Short = 0xF1, "\xe8\x32\x9b\xfd\x06" }},
		{name: "Latin-1", cfg: smpp.Config{Alphabet: "latin1"}, change: func(o *carrier.Outbound) { o.Body.Text.Body = "è" }, want: func(m *pdu.Message) { m.Coding, m.Short = 3, "\xe8" }},
		{
			name: "our id in a parameter, and one that the message brings", cfg: smpp.Config{ReferenceTLV: 0x1403},
			change: func(o *carrier.Outbound) { o.Meta = map[string]string{"tlv:1400": "110100", "other": "x"} },
			want: func(m *pdu.Message) {
				key := message(t, 1, "").Key
				m.TLVs = pdu.TLVs("\x14\x03\x00\x10" + string(key[:]) + "\x14\x00\x00\x06110100")
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, tc.cfg, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
				out, want, r := message(t, 1, "hello"), plain, newResults()
				shift := time.Since(now) // fake time starts at another date
				if tc.change != nil {
					tc.change(&out)
				}
				if !out.NotAfter.IsZero() && tc.cfg.Validity == "" {
					out.NotAfter = out.NotAfter.Add(shift)
				}
				if tc.want != nil {
					tc.want(&want)
				}
				send(t, c, r.done, out)
				h, got := s.submitted()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("submit_sm (-want +got):\n%s", diff)
				}
				s.answer(h, pdu.OK, "1")
				r.next()
			})
		})
	}
}

// TestRefusedHere: a message that cannot be sent is refused before it is written.
func TestRefusedHere(t *testing.T) {
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, _ *centre, _ *script) {
		for _, tc := range []struct {
			name    string
			change  func(*carrier.Outbound)
			outcome carrier.Outcome
			sub     schemas.Code
		}{
			{"a template", func(o *carrier.Outbound) { o.Body.Template = &carrier.Template{Name: "x"} }, carrier.Unsupported, 0},
			{"not a number", func(o *carrier.Outbound) { o.To = "393470000001" }, carrier.Rejected, schemas.CodeInvalidNumber},
			{"a sender that is too long", func(o *carrier.Outbound) { o.From = strings.Repeat("x", 21) }, carrier.Rejected, schemas.CodeSenderInvalid},
			{"validity is over", func(o *carrier.Outbound) { o.NotAfter = time.Now().Add(-time.Second) }, carrier.Rejected, schemas.CodeValidityExpired},
			{"a text beyond its alphabet", func(o *carrier.Outbound) { o.Body.Text.Body = "ж" }, carrier.Rejected, schemas.CodeRenderError},
			{"256 parts", func(o *carrier.Outbound) { o.Body.Text.Body = strings.Repeat("a", 153*255+1) }, carrier.Rejected, schemas.CodeTooLong},
		} {
			out, r := message(t, 1, "hello"), newResults()
			tc.change(&out)
			send(t, c, r.done, out)
			if got := r.next(); got.Outcome != tc.outcome || got.Sub != tc.sub {
				t.Errorf("%s: got %+v, want %v, %v", tc.name, got, tc.outcome, tc.sub)
			}
		}
	})
}

// TestLong: the parts of a text are sent together, and the result has the ids of all parts.
func TestLong(t *testing.T) {
	text := strings.Repeat("a", 400)
	for _, long := range []string{"udh8", "udh16", "sar", "payload"} {
		bubble(t, smpp.Config{Long: long, Window: 10}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
			r := newResults()
			send(t, c, r.done, message(t, 1, text))
			parts := 3
			if long == "payload" {
				parts = 1
			}
			var whole strings.Builder
			var headers []pdu.Header
			for n := range parts {
				h, m := s.submitted()
				headers = append(headers, h)
				got, concat, _ := sms.Decode(&m, sms.GSM7)
				if parts > 1 && (concat.Number != n+1 || concat.Total != parts) {
					t.Errorf("%s: part %d is %+v", long, n+1, concat)
				}
				whole.WriteString(got)
			}
			if whole.String() != text {
				t.Errorf("%s: got %q", long, whole.String())
			}
			for n, h := range headers {
				s.answer(h, pdu.OK, string(rune('a'+n)))
			}
			got := r.next()
			want := carrier.Result{Outcome: carrier.Accepted, Ref: "a"}
			if parts > 1 {
				want.Parts, want.PartRefs = 3, []string{"a", "b", "c"}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", long, diff)
			}
		})
	}
}

// TestLongInASmallWindow: if a text has more parts than the window has places, the parts are sent as places become
// free.
func TestLongInASmallWindow(t *testing.T) {
	bubble(t, smpp.Config{Window: 2}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		r := newResults()
		out := message(t, 1, strings.Repeat("a", 153*5))
		go func() {
			if err := c.Send(t.Context(), []carrier.Outbound{out}, r.done); err != nil {
				t.Errorf("send: %v", err)
			}
		}()
		for range 5 {
			synctest.Wait()
			if got := c.Health().InFlight; got > 2 {
				t.Errorf("got %d in flight, want at most 2", got)
			}
			h, _ := s.submitted()
			s.answer(h, pdu.OK, "1")
		}
		if got := r.next(); got.Outcome != carrier.Accepted || len(got.PartRefs) != 5 {
			t.Errorf("got %+v, want accepted in 5 parts", got)
		}
	})
}

// TestLongInPart: if some parts are accepted and others throttled, the throttled ones are written again. A part that is
// never accepted gets a receipt that says failed. If all parts are refused, the message is refused.
func TestLongInPart(t *testing.T) {
	long := strings.Repeat("a", 400)
	bubble(t, smpp.Config{Window: 100}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		rec := receipts(t, c)
		r := newResults()
		out := message(t, 1, long)
		out.Deadline = time.Now().Add(100 * time.Millisecond)
		answer := func(statuses ...pdu.Status) {
			t.Helper()
			for n, status := range statuses {
				h, _ := s.submitted()
				s.answer(h, status, string(rune('a'+n)))
			}
		}
		send(t, c, r.done, out)
		answer(pdu.OK, pdu.Throttled, pdu.OK)
		// It is written even after the deadline, because the message has begun.
		h, m := s.submitted()
		if _, concat, _ := sms.Decode(&m, sms.GSM7); concat.Number != 2 {
			t.Errorf("got part %d again, want 2", concat.Number)
		}
		s.answer(h, pdu.OK, "b")
		if got := r.next(); got.Outcome != carrier.Accepted || strings.Join(got.PartRefs, "") != "abc" {
			t.Errorf("written again: got %+v, want accepted", got)
		}

		send(t, c, r.done, message(t, 2, long))
		answer(pdu.Throttled, pdu.Throttled, pdu.Throttled)
		if got := r.next(); got.Outcome != carrier.Throttled {
			t.Errorf("all throttled: got %+v, want throttled", got)
		}
		send(t, c, r.done, message(t, 3, long))
		answer(pdu.InvalidDest, pdu.Throttled, pdu.InvalidDest)
		if got := r.next(); got.Outcome != carrier.Rejected {
			t.Errorf("all refused: got %+v, want rejected", got)
		}

		out = message(t, 4, long)
		send(t, c, r.done, out)
		answer(pdu.OK, pdu.OK, pdu.SubmitFailed)
		if got := r.next(); got.Outcome != carrier.Accepted || strings.Join(got.PartRefs, ",") != "a,b," {
			t.Errorf("one part refused: got %+v, want accepted without that part", got)
		}
		if got := <-rec; got.Key != out.Key || got.Part != 3 || got.Parts != 3 || got.Status != schemas.ReceiptStatusFailed {
			t.Errorf("one part refused: got receipt %+v, want part 3 of 3 failed", got)
		}

		// A part that is always throttled is repeated for five seconds.
		began := time.Now()
		send(t, c, r.done, message(t, 5, long))
		answer(pdu.OK, pdu.Throttled, pdu.OK)
		for len(r.more) == 0 {
			synctest.Wait()
			_ = s.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			h, _, err := s.r.Next()
			if err != nil {
				break
			}
			s.answer(h, pdu.Throttled, "")
		}
		if got := r.next(); got.Outcome != carrier.Accepted || got.PartRefs[1] != "" {
			t.Errorf("throttled for ever: got %+v, want accepted without part 2", got)
		}
		if took := time.Since(began); took < 4*time.Second || took > 9*time.Second {
			t.Errorf("given up after %v, want 5 s", took)
		}
		if got := <-rec; got.Part != 2 || got.Status != schemas.ReceiptStatusFailed {
			t.Errorf("throttled for ever: got receipt %+v, want part 2 failed", got)
		}
	})
}

// TestLongConnectionLost: if a part of a text may have been accepted, the result is unknown.
func TestLongConnectionLost(t *testing.T) {
	bubble(t, smpp.Config{Window: 10}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		r := newResults()
		send(t, c, r.done, message(t, 1, strings.Repeat("a", 400)))
		h, _ := s.submitted()
		s.answer(h, pdu.OK, "a")
		synctest.Wait()
		_ = s.conn.Close()
		if got := r.next(); got.Outcome != carrier.Unknown {
			t.Errorf("got %+v, want unknown", got)
		}
	})
}

var errNotDurable = errors.New("not durable")

// TestInbound: the message centre keeps messages of recipients until they are durable here. Texts of several parts are
// joined.
func TestInbound(t *testing.T) {
	from, to := pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"}, pdu.Address{TON: 3, Addr: "48333"}
	text := func(class byte, s string) pdu.Message {
		return pdu.Message{Source: from, Dest: to, ESMClass: class, Short: s}
	}
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		want := func(what string, sequence uint32, status pdu.Status) {
			t.Helper()
			if h, _ := s.expect(pdu.DeliverSMResp); h.Status != status || h.Sequence != sequence {
				t.Errorf("%s: got %v for %d, want %v for %d", what, h.Status, h.Sequence, status, sequence)
			}
		}
		s.deliver(1, text(0, "STOP"))
		want("no caller of Inbound", 1, pdu.TemporaryAppError)

		got := make(chan carrier.Inbound, 10)
		refuse := true
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- c.Inbound(ctx, func(list []carrier.Inbound) error {
				if refuse {
					refuse = false
					return errNotDurable
				}
				for _, m := range list {
					got <- m
				}
				return nil
			})
		}()
		synctest.Wait()
		s.deliver(2, text(0, "STOP"))
		want("not durable", 2, pdu.TemporaryAppError)
		s.deliver(3, text(0, "STOP"))
		want("durable", 3, pdu.OK)
		if m := <-got; m.From != "+393470000001" || m.To != "48333" || m.Text != "STOP" || m.Account != "fanfare" || m.Parts != 0 || len(m.Raw) == 0 || m.At.IsZero() {
			t.Errorf("got %+v", m)
		}
		// The second part comes first. Neither is answered before both have come.
		s.deliver(4, text(pdu.ESMUDHI, "\x05\x00\x03\x07\x02\x02lo"))
		s.deliver(5, text(pdu.ESMUDHI, "\x05\x00\x03\x07\x02\x01hel"))
		want("parts", 4, pdu.OK)
		want("parts", 5, pdu.OK)
		if m := <-got; m.Text != "hello" || m.Parts != 0 {
			t.Errorf("got %+v, want the whole text", m)
		}
		// This message centre waits for the answer to the first part.
		began := time.Now()
		s.deliver(6, text(pdu.ESMUDHI, "\x05\x00\x03\x08\x02\x01hel"))
		want("a part alone", 6, pdu.OK)
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("a part alone was answered after %v, want 5 s", took)
		}
		if m := <-got; m.Text != "hel" || m.Part != 1 || m.Parts != 2 {
			t.Errorf("got %+v, want part 1 of 2", m)
		}
		// When the caller of Inbound stops, the message centre must send waiting parts again.
		s.deliver(7, text(pdu.ESMUDHI, "\x05\x00\x03\x09\x02\x01hel"))
		synctest.Wait()
		cancel()
		want("the taker has gone", 7, pdu.TemporaryAppError)
		if err := <-ended; err != nil {
			t.Errorf("inbound: %v", err)
		}
	})
}

// TestReceiptsAreKept: receipts that come before the first call of Receipts wait. After the caller of Receipts has
// stopped, the message centre keeps further ones.
func TestReceiptsAreKept(t *testing.T) {
	dlr := pdu.Message{ESMClass: pdu.ESMReceipt, Short: "id:1 stat:UNDELIV err:005 done date:2611221001", Source: pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"}}
	bubble(t, smpp.Config{}, func(t *testing.T, c *smpp.Connector, _ *centre, s *script) {
		s.deliver(1, dlr)
		time.Sleep(time.Minute / 4) // the sender needs this long to start
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var got []carrier.Receipt
		go func() {
			ended <- c.Receipts(ctx, func(list []carrier.Receipt) error {
				got = append(got, list...)
				return nil
			})
		}()
		if h, _ := s.expect(pdu.DeliverSMResp); h.Status != pdu.OK {
			t.Errorf("got %v, want it taken", h.Status)
		}
		want := carrier.Receipt{
			Account: "fanfare", Ref: "1", AltRefs: []string{}, To: "+393470000001", Status: schemas.ReceiptStatusFailed, Code: "005", Sub: schemas.CodeUnknownSubscriber,
			At: time.Date(2026, 11, 22, 10, 1, 0, 0, time.UTC), Raw: []byte(dlr.Short),
		}
		if diff := cmp.Diff([]carrier.Receipt{want}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := c.Receipts(ctx, nil); err == nil {
			t.Error("a second taker: got no error")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("receipts: %v", err)
		}
		s.deliver(2, dlr)
		if h, _ := s.expect(pdu.DeliverSMResp); h.Status != pdu.TemporaryAppError {
			t.Errorf("after the caller of Inbound has gone: got %v, want to have it again", h.Status)
		}
	})
}
