package sim

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"

	"github.com/nyaruka/phonenumbers"
)

// TestMagicNumbersAreMobile: magic numbers pass an import and every other check before the carrier.
func TestMagicNumbersAreMobile(t *testing.T) {
	seen := map[uint8]bool{}
	for _, m := range Magic {
		n, err := phonenumbers.Parse(m.Number(), "")
		if err != nil {
			t.Errorf("%s: %v", m.Number(), err)
			continue
		}
		if !phonenumbers.IsValidNumber(n) || phonenumbers.GetNumberType(n) != phonenumbers.MOBILE || phonenumbers.Format(n, phonenumbers.E164) != m.Number() {
			t.Errorf("%s is no valid mobile number in E.164", m.Number())
		}
		if seen[m.NN] {
			t.Errorf("%s is in the table twice", m.Number())
		}
		seen[m.NN] = true
		if got := magic(m.Number()); got == nil || got.NN != m.NN {
			t.Errorf("%s: the table does not find it", m.Number())
		}
		if m.Kind == schemas.KindUnspecified || m.Does == "" {
			t.Errorf("%s: it does not say what happens to it", m.Number())
		}
	}
	for _, to := range []string{"+393990000099", "+3939900000", "+393990000100", "+3939900000999", "+39399000001x", "+393470000010", ""} {
		if m := magic(to); m != nil {
			t.Errorf("%q is magic %d, want none", to, m.NN)
		}
	}
}

// TestMagic runs a campaign with three hand-overs to each magic number, with a good carrier and with the worst one, and
// checks the final state of the recipient.
func TestMagic(t *testing.T) {
	for _, profile := range []Profile{Default(), Chaos()} {
		profile.Disconnect = 0 // a break would concern the whole batch
		for _, m := range Magic {
			t.Run(profile.Name+"/"+m.Number(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					path := truthPath(t)
					c, stop := startStop(t, Config{Profile: profile, Seed: 7, Truth: path})
					defer stop()
					state := playCampaign(t, c, m.Number(), 3)
					if state.Kind() != m.Kind || m.Code != 0 && state.Code() != m.Code {
						t.Errorf("got %v %v, want %v %v", state.Kind(), state.Code(), m.Kind, m.Code)
					}
					truth := readTruth(t, path)
					if got := truth.Entries[0]; got.Outcome != m.Outcome {
						t.Errorf("got outcome %s, want %s", got.Outcome, m.Outcome)
					}
					if d := truth.Doubles(); len(d) != 0 {
						t.Errorf("got %d doubles", len(d))
					}
				})
			})
		}
	}
}

// playCampaign hands a message over until no other try is needed, as sender, tracker and scheduler would, and returns
// the final state of the recipient.
func playCampaign(t *testing.T, c *Carrier, to string, handovers int) schemas.Precedence {
	l := newLog()
	n := c.Connector(Options{})
	defer l.listen(t, n)()
	var state schemas.Precedence
	for try := 1; try <= handovers; try++ {
		batch := messages(t, 1, 1, uint8(try))
		batch[0].To = to
		key := batch[0].Key
		l.send(t, n, batch)
		pass(time.Minute) // all receipts have come by then

		kind, code := schemas.KindAmbiguous, schemas.CodeTimeout
		again := false
		if len(l.answers[key]) != 1 {
			t.Fatalf("try %d: got %d answers, want 1", try, len(l.answers[key]))
		}
		switch r := l.answers[key][0]; r.Outcome {
		case carrier.Accepted:
			kind, code = schemas.KindSent, 0
		case carrier.Rejected:
			kind, code = schemas.KindNotSent, r.Sub
		case carrier.Throttled, carrier.Retryable, carrier.Unsupported:
			kind, code, again = schemas.KindReturned, r.Sub, true
		default:
		}
		state = schemas.Join(state, schemas.PrecedenceOf(kind, uint32(try), code))
		for _, r := range l.byKey()[key] {
			var kind schemas.Kind
			switch r.Status {
			case delivered:
				kind = schemas.KindDelivered
			case read:
				kind = schemas.KindRead
			case buffered:
				kind = schemas.KindBuffered
			case failed:
				kind = schemas.KindBounced
				if info, _ := schemas.LookupCode(r.Sub); info.Retry == schemas.RetryNo || try == handovers {
					kind = schemas.KindUndelivered
				}
			default:
				continue
			}
			state = schemas.Join(state, schemas.PrecedenceOf(kind, uint32(try), r.Sub))
			again = again || kind == schemas.KindBounced
		}
		if !again || state.Class() >= schemas.ClassNegative {
			break
		}
	}
	switch state.Class() {
	case schemas.ClassLeft: // the receipt window is over
		return schemas.PrecedenceOf(schemas.KindUnconfirmed, 0, schemas.CodeNoDLR)
	case schemas.ClassOpen:
		if state.Kind() == schemas.KindReturned {
			return schemas.PrecedenceOf(schemas.KindNotSent, 0, schemas.CodeTriesSpent)
		}
	default:
	}
	return state
}

// TestMagicTiming: some numbers differ only in the time of their answers and receipts.
func TestMagicTiming(t *testing.T) {
	for _, c := range []struct {
		nn       uint8
		says     string
		receipts int
		check    func(answer time.Duration, order []string) bool
	}{
		{61, "three receipts", 3, func(time.Duration, []string) bool { return true }},
		{62, "the receipt before the answer", 1, func(_ time.Duration, o []string) bool { return o[0] == "receipt" }},
		{54, "an answer after 5 s", 1, func(a time.Duration, _ []string) bool { return a >= 5*time.Second && a < 6*time.Second }},
		{53, "Unknown at once", 1, func(a time.Duration, _ []string) bool { return a < time.Second }},
		{51, "Unknown when the connector gives up", 1, func(a time.Duration, _ []string) bool { return a >= DefaultAnswerTimeout }},
		{52, "Unknown when the connector gives up", 0, func(a time.Duration, _ []string) bool { return a >= DefaultAnswerTimeout }},
	} {
		synctest.Test(t, func(t *testing.T) {
			sim, stop := startStop(t, Config{Profile: Default(), Seed: 1})
			defer stop()
			n, l := sim.Connector(Options{}), newLog()
			defer l.listen(t, n)()
			batch := messages(t, 1, 1, 1)
			batch[0].To = magicTable[c.nn].Number()
			began := time.Now()
			var took time.Duration
			err := n.Send(t.Context(), batch, func(int, carrier.Result) {
				took = time.Since(began)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.order = append(l.order, "answer")
			})
			if err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			if got := l.received(); got != c.receipts {
				t.Errorf("%d: got %d receipts, want %d", c.nn, got, c.receipts)
			}
			if !slices.Contains(l.order, "answer") || !c.check(took, l.order) {
				t.Errorf("%d: got an answer after %v in %v, want %s", c.nn, took, l.order, c.says)
			}
		})
	}
}
