package sim

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Outcomes of a submission as the truth file calls them.
const (
	Accepted    = "accepted"
	Refused     = "refused"     // for good
	Throttled   = "throttled"   // too fast
	Busy        = "busy"        // a passing error
	Unsupported = "unsupported" // the channel cannot reach the recipient
	Dropped     = "dropped"     // never taken, never answered
	Duplicate   = "duplicate"   // taken before under the same id; answered as then
)

// maxReceipts of one submission: the number of a receipt within its submission has 6 bits.
const maxReceipts = 64

// planned is a receipt that a submission owes, times in Unix milliseconds.
type planned struct {
	at     int64 // when it is said to have happened
	due    int64 // when it is sent
	status schemas.ReceiptStatus
	sub    schemas.Code
	part   uint8
	parts  uint8
}

// fate is everything that happens to one submission.
type fate struct {
	outcome    carrier.Outcome // Unknown: the carrier never took it
	word       string          // for the truth file
	sub        schemas.Code
	code       string
	retryAfter time.Duration
	latency    time.Duration // of the answer
	silent     bool          // the answer never comes
	broken     bool          // silent, because the connection breaks
	early      bool          // the first receipt comes before the answer
	ref        uint64
	first, end int // receipts within work.plan
}

// dice are the random numbers of one submission. They follow from the seed and the submission id alone.
type dice struct {
	pcg  *rand.PCG
	rand *rand.Rand
}

func newDice() dice {
	pcg := rand.NewPCG(0, 0)
	return dice{pcg, rand.New(pcg)}
}

// throwFor begins the numbers of one submission.
func (d dice) throwFor(seed uint64, key carrier.Key) {
	d.pcg.Seed(seed^binary.BigEndian.Uint64(key[:8]), binary.BigEndian.Uint64(key[8:]))
}

// hit returns true with probability share. It draws one number for every share, so that a change of one share does not
// change the other draws.
func (d dice) hit(share float64) bool { return d.rand.Float64() < share }

// refusalOf decides whether the carrier refuses a submission because of its number or by chance; ok is false if it does
// not refuse it.
func (p *Profile) refusalOf(d dice, m *MagicNumber, out *carrier.Outbound) (f fate, ok bool) {
	if m != nil {
		if m.refuse == 0 || m.tries > 0 && out.Key.Try() > m.tries {
			return fate{}, false
		}
		f = refusal(m.refuse, m.sub)
		f.silent = m.silent
		return f, true
	}
	x := d.rand.Float64()
	if !validNumber(out.To) {
		return refusal(carrier.Rejected, schemas.CodeInvalidNumber), true
	}
	for _, r := range p.Refused {
		if x -= r.Share; x < 0 {
			return refusal(carrier.Rejected, r.Sub), true
		}
	}
	if x -= p.Throttled; x < 0 {
		return refusal(carrier.Throttled, schemas.CodeThrottled), true
	}
	if x -= p.Busy; x < 0 {
		return refusal(carrier.Retryable, schemas.CodeProviderError), true
	}
	if x -= p.Dropped; x < 0 {
		return refusal(carrier.Unknown, schemas.CodeUnspecified), true
	}
	return fate{}, false
}

// refusal is the fate of a submission that the carrier does not accept.
func refusal(o carrier.Outcome, sub schemas.Code) fate {
	f := fate{outcome: o, sub: sub, code: answerCode(sub)}
	switch o {
	case carrier.Rejected:
		f.word = Refused
	case carrier.Throttled:
		f.word, f.retryAfter = Throttled, time.Second
	case carrier.Retryable:
		f.word, f.retryAfter = Busy, time.Second
	case carrier.Unsupported:
		f.word = Unsupported
	default:
		f.word, f.silent, f.sub = Dropped, true, 0
	}
	return f
}

// plan appends the receipts of a submission that the carrier accepted at now (Unix milliseconds).
func (p *Profile) plan(d dice, m *MagicNumber, out *carrier.Outbound, now int64, f *fate, to []planned) []planned {
	first := len(to)
	if m != nil {
		to = m.plan(out, now, to)
	} else {
		to = p.planByChance(d, out, now, f, to)
	}
	if p.Parts && out.Body.Text.Segments > 1 {
		to = p.splitParts(d, out.Body.Text.Segments, first, to)
	}
	return to[:min(len(to), first+maxReceipts)]
}

func (m *MagicNumber) plan(out *carrier.Outbound, now int64, to []planned) []planned {
	if m.tries > 0 && out.Key.Try() > m.tries {
		at := now + soon.Milliseconds()
		return append(to, planned{at: at, due: at, status: delivered, sub: schemas.CodeDelivered})
	}
	for _, s := range m.receipts {
		at := now + s.after.Milliseconds()
		to = append(to, planned{at: at, due: at, status: s.status, sub: s.sub})
	}
	return to
}

func (p *Profile) planByChance(d dice, out *carrier.Outbound, now int64, f *fate, to []planned) []planned {
	first := len(to)
	// Every number is drawn, even if it is not used: see hit.
	status, sub := p.fateOf(d.rand.Float64())
	quick := p.Receipt.draw(d.rand)
	offline := min(d.rand.ExpFloat64(), 5)
	isOffline, lost, flip := d.hit(p.Offline), d.hit(p.Lost), d.hit(p.Flip)
	enroute, enrouteLate, isRead := d.hit(p.Enroute), d.hit(p.EnrouteLate), d.hit(p.Read)
	duplicate, reordered := d.hit(p.Duplicate), d.hit(p.Reordered)
	readAfter := time.Duration(d.rand.Float64() * float64(20*time.Second))

	if f.silent && status == unknown {
		status, sub = delivered, schemas.CodeDelivered
	}
	if lost && !f.silent {
		return to
	}
	if isOffline {
		quick = time.Duration(offline * float64(p.OfflineMean))
	}
	at := now + quick.Milliseconds()
	if expires := out.NotAfter.UnixMilli(); !out.NotAfter.IsZero() && at > expires {
		// Its validity ended before the carrier reached the handset.
		at, status, sub, flip = max(now, expires), failed, schemas.CodeExpired, false
	}
	if f.early {
		at = now
	}
	if enroute && !f.early {
		to = append(to, planned{at: now, due: now + (at-now)/4, status: buffered, sub: schemas.CodeEnroute})
	}
	if flip && status == delivered {
		to = append(to, planned{at: at, due: at, status: failed, sub: schemas.CodeExpired})
		at += time.Second.Milliseconds()
	}
	to = append(to, planned{at: at, due: at, status: status, sub: sub})
	if isRead && status == delivered && out.Channel != schemas.ChannelSMS {
		readAt := at + readAfter.Milliseconds()
		to = append(to, planned{at: readAt, due: readAt, status: read, sub: schemas.CodeRead})
	}
	if enrouteLate {
		to = append(to, planned{at: now, due: at + 200, status: buffered, sub: schemas.CodeEnroute})
	}
	if duplicate {
		for _, r := range to[first:len(to):len(to)] {
			r.due += 50
			to = append(to, r)
		}
	}
	if reordered && p.ReorderedBy > 0 {
		for i := first; i < len(to); i++ {
			to[i].due += d.rand.Int64N(p.ReorderedBy.Milliseconds() + 1)
		}
	}
	return to
}

// fateOf returns the fate at x, where x is 0..1 of the sum of all weights.
func (p *Profile) fateOf(x float64) (schemas.ReceiptStatus, schemas.Code) {
	var sum float64
	for i := range p.Fates {
		sum += p.Fates[i].Weight
	}
	x *= sum
	for i := range p.Fates {
		if x -= p.Fates[i].Weight; x < 0 {
			return p.Fates[i].Status, p.Fates[i].Sub
		}
	}
	return delivered, schemas.CodeDelivered
}

// splitParts turns each receipt from first on into one per part.
func (p *Profile) splitParts(d dice, parts, first int, to []planned) []planned {
	parts = min(parts, 255)
	fails, which := d.hit(p.PartFails), d.rand.IntN(parts)
	whole := to[first:len(to):len(to)]
	out := to[:first:first]
	for _, r := range whole {
		for i := range parts {
			r := r
			r.part, r.parts = uint8(i+1), uint8(parts)
			if fails && i == which && r.status == delivered {
				r.status, r.sub = failed, schemas.CodeNetworkError
			}
			out = append(out, r)
		}
	}
	return out
}

// validNumber reports whether s is E.164: a plus and 6 to 15 digits.
func validNumber(s string) bool {
	_, ok := parseNumber(s)
	return ok
}

// parseNumber reads E.164 as a number: 15 digits fit. Leading zeros are not E.164.
func parseNumber(s string) (n uint64, ok bool) {
	if len(s) < 7 || len(s) > 16 || s[0] != '+' || s[1] == '0' {
		return 0, false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// answerCode is how this carrier spells a refusal: the command status of SMPP 3.4, section 5.1.3, or a vendor's own
// from 0x400 on.
func answerCode(sub schemas.Code) string {
	switch sub {
	case schemas.CodeInvalidNumber:
		return "0x0000000B" // ESME_RINVDSTADR
	case schemas.CodeSenderInvalid:
		return "0x0000000A" // ESME_RINVSRCADR
	case schemas.CodeThrottled:
		return "0x00000058" // ESME_RTHROTTLED
	case schemas.CodeProviderError:
		return "0x00000008" // ESME_RSYSERR
	case schemas.CodeNoCredits:
		return "0x00000401"
	case schemas.CodeSpamContent:
		return "0x00000402"
	case schemas.CodeCountryNotEnabled:
		return "0x00000403"
	case schemas.CodeSeriesBlocked:
		return "0x00000404"
	case schemas.CodeKYC:
		return "0x00000405"
	case schemas.CodeUnsupported:
		return "0x00000406"
	case schemas.CodeUnspecified:
		return ""
	default:
		return "0x000004FF"
	}
}

// receiptCode is how this carrier spells a sub-status: the three digits of `err:`.
func receiptCode(sub schemas.Code) string {
	switch sub {
	case schemas.CodeDelivered, schemas.CodeRead, schemas.CodeEnroute:
		return "000"
	case schemas.CodeAbsentSubscriber:
		return "001"
	case schemas.CodeMemoryFull:
		return "002"
	case schemas.CodeHandsetOff:
		return "003"
	case schemas.CodeHandsetError:
		return "004"
	case schemas.CodeUnknownSubscriber:
		return "005"
	case schemas.CodeOperatorBlacklist:
		return "006"
	case schemas.CodeOperatorSeriesBlock:
		return "008"
	case schemas.CodeBarred:
		return "009"
	case schemas.CodeHandsetBusy:
		return "011"
	case schemas.CodeNetworkError:
		return "012"
	case schemas.CodeRoamingOrOperatorFail:
		return "013"
	case schemas.CodeProviderError:
		return "014"
	case schemas.CodeExpired:
		return "027"
	default:
		return "099"
	}
}

// receiptStat is the word of `stat:` (SMPP 3.4, appendix B).
func receiptStat(status schemas.ReceiptStatus, sub schemas.Code) string {
	switch status {
	case delivered:
		return "DELIVRD"
	case read:
		return "READ" // no state of SMPP; platforms that know it are not SMSCs
	case buffered:
		return "ENROUTE"
	case failed:
		if sub == schemas.CodeExpired {
			return "EXPIRED"
		}
		return "UNDELIV"
	default:
		return "UNKNOWN"
	}
}
