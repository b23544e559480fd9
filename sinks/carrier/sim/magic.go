package sim

import (
	"strconv"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// MagicPrefix begins the numbers whose fate is fixed: +39 399 000 00NN. They are valid Italian mobile numbers, so they
// pass every check on the way.
const MagicPrefix = "+393990000"

// magicLen is the length of a magic number: the prefix and three digits, of which the first is 0.
const magicLen = len(MagicPrefix) + 3

// MagicNumber is a number with a fixed fate. The profile only decides how long the carrier takes to answer.
type MagicNumber struct {
	// NN are the last two digits.
	NN uint8
	// Does describes in words what happens.
	Does string
	// Outcome is the truth file's word for the submission of the first try.
	Outcome string
	// Kind and Code are the recipient's final state when the campaign's policy allows three hand-overs and its receipt
	// window is over. CODE_UNSPECIFIED: that depends on the policy.
	Kind schemas.Kind
	Code schemas.Code

	refuse   carrier.Outcome // the answer if the message is refused
	sub      schemas.Code
	tries    uint8 // the refusal or the receipts are for tries up to this one, later ones are delivered; 0: for all
	silent   bool
	broken   bool          // the connection breaks instead of an answer
	answer   time.Duration // the answer takes this long
	receipts []says
}

// says is a receipt for a magic number.
type says struct {
	after  time.Duration
	status schemas.ReceiptStatus
	sub    schemas.Code
}

// Number returns the number in E.164.
func (m MagicNumber) Number() string {
	nn := strconv.Itoa(int(m.NN))
	return MagicPrefix + "000"[:3-len(nn)] + nn
}

const (
	soon  = 300 * time.Millisecond
	later = time.Second
)

// Magic is the table of magic numbers, by number. A number of the block that is not in it behaves like any other.
var Magic = func() []MagicNumber {
	deliver := says{soon, delivered, schemas.CodeDelivered}
	negative := func(nn uint8, does string, code schemas.Code) MagicNumber {
		return MagicNumber{
			NN: nn, Does: does, Outcome: Accepted, Kind: schemas.KindUndelivered, Code: code,
			receipts: []says{{soon, failed, code}},
		}
	}
	refused := func(nn uint8, does string, code schemas.Code) MagicNumber {
		return MagicNumber{
			NN: nn, Does: does, Outcome: Refused, Kind: schemas.KindNotSent, Code: code,
			refuse: carrier.Rejected, sub: code,
		}
	}
	ends := func(m MagicNumber, outcome string, kind schemas.Kind, code schemas.Code) MagicNumber {
		m.Outcome, m.Kind, m.Code = outcome, kind, code
		return m
	}
	toDelivered := func(m MagicNumber) MagicNumber {
		return ends(m, Accepted, schemas.KindDelivered, schemas.CodeDelivered)
	}
	return []MagicNumber{
		toDelivered(MagicNumber{NN: 0, Does: "delivered at once", receipts: []says{deliver}}),
		toDelivered(MagicNumber{NN: 1, Does: "delivered after 20 s", receipts: []says{{20 * time.Second, delivered, schemas.CodeDelivered}}}),
		toDelivered(MagicNumber{NN: 2, Does: "on its way, then delivered", receipts: []says{{soon, buffered, schemas.CodeEnroute}, {2 * later, delivered, schemas.CodeDelivered}}}),
		ends(MagicNumber{NN: 3, Does: "taken, then silence: no receipt ever"}, Accepted, schemas.KindUnconfirmed, schemas.CodeNoDLR),
		ends(MagicNumber{NN: 4, Does: "delivered, then read", receipts: []says{deliver, {2 * later, read, schemas.CodeRead}}}, Accepted, schemas.KindRead, schemas.CodeRead),
		ends(MagicNumber{NN: 5, Does: "read, and no receipt ever says delivered", receipts: []says{{later, read, schemas.CodeRead}}}, Accepted, schemas.KindRead, schemas.CodeRead),
		ends(MagicNumber{NN: 6, Does: "the receipt says that the carrier does not know", receipts: []says{{soon, unknown, schemas.CodeUnspecified}}}, Accepted, schemas.KindUnconfirmed, schemas.CodeNoDLR),

		negative(10, "out of reach, at every try", schemas.CodeAbsentSubscriber),
		negative(11, "switched off, at every try", schemas.CodeHandsetOff),
		negative(12, "busy, at every try", schemas.CodeHandsetBusy),
		negative(13, "memory full, at every try", schemas.CodeMemoryFull),
		negative(14, "network error, at every try", schemas.CodeNetworkError),
		negative(15, "operator failed, at every try", schemas.CodeRoamingOrOperatorFail),
		negative(16, "provider error, at every try", schemas.CodeProviderError),
		negative(17, "expired, at every try", schemas.CodeExpired),
		negative(18, "number not in use", schemas.CodeUnknownSubscriber),
		negative(19, "barred by the operator", schemas.CodeBarred),
		negative(20, "number range blocked by the operator", schemas.CodeOperatorSeriesBlock),
		negative(21, "on the operator's blacklist", schemas.CodeOperatorBlacklist),
		negative(22, "refused by the handset", schemas.CodeHandsetError),
		negative(23, "failed for a reason that only the carrier's code names", schemas.CodeUndeliveredOther),

		refused(30, "refused: invalid number", schemas.CodeInvalidNumber),
		refused(31, "refused: sender id not allowed", schemas.CodeSenderInvalid),
		refused(32, "refused: classed as spam", schemas.CodeSpamContent),
		refused(33, "refused: no credit with the carrier", schemas.CodeNoCredits),
		refused(34, "refused: country not enabled", schemas.CodeCountryNotEnabled),
		refused(35, "refused: number range blocked", schemas.CodeSeriesBlocked),
		refused(36, "refused: identity check missing", schemas.CodeKYC),
		refused(37, "refused for a reason that only the carrier's code names", schemas.CodeNotSentOther),
		ends(MagicNumber{NN: 39, Does: "this channel cannot reach it", refuse: carrier.Unsupported, sub: schemas.CodeUnsupported}, Unsupported, schemas.KindNotSent, schemas.CodeUnspecified),

		ends(MagicNumber{NN: 40, Does: "throttled at the first try, then delivered", refuse: carrier.Throttled, sub: schemas.CodeThrottled, tries: 1}, Throttled, schemas.KindDelivered, schemas.CodeDelivered),
		ends(MagicNumber{NN: 41, Does: "throttled at every try", refuse: carrier.Throttled, sub: schemas.CodeThrottled}, Throttled, schemas.KindNotSent, schemas.CodeUnspecified),
		ends(MagicNumber{NN: 42, Does: "a passing error at the first try, then delivered", refuse: carrier.Retryable, sub: schemas.CodeProviderError, tries: 1}, Busy, schemas.KindDelivered, schemas.CodeDelivered),
		ends(MagicNumber{NN: 43, Does: "a passing error at every try", refuse: carrier.Retryable, sub: schemas.CodeProviderError}, Busy, schemas.KindNotSent, schemas.CodeUnspecified),
		toDelivered(MagicNumber{NN: 44, Does: "out of reach at the first try, then delivered", tries: 1, receipts: []says{{soon, failed, schemas.CodeAbsentSubscriber}}}),
		toDelivered(MagicNumber{NN: 45, Does: "switched off at the first two tries, then delivered", tries: 2, receipts: []says{{soon, failed, schemas.CodeHandsetOff}}}),

		ends(MagicNumber{NN: 50, Does: "taken, but neither answer nor receipt ever comes: it stays ambiguous", silent: true}, Accepted, schemas.KindAmbiguous, schemas.CodeTimeout),
		toDelivered(MagicNumber{NN: 51, Does: "the answer never comes, but the receipt does", silent: true, receipts: []says{{5 * time.Second, delivered, schemas.CodeDelivered}}}),
		ends(MagicNumber{NN: 52, Does: "lost before the carrier took it: it stays ambiguous, and was never sent", silent: true, refuse: carrier.Unknown}, Dropped, schemas.KindAmbiguous, schemas.CodeTimeout),
		toDelivered(MagicNumber{NN: 53, Does: "the connection breaks right after it was taken; the receipt comes", silent: true, broken: true, receipts: []says{{2 * later, delivered, schemas.CodeDelivered}}}),
		toDelivered(MagicNumber{NN: 54, Does: "answered only after 5 s", answer: 5 * time.Second, receipts: []says{{6 * time.Second, delivered, schemas.CodeDelivered}}}),

		toDelivered(MagicNumber{NN: 60, Does: "expired, and delivered after all 2 s later", receipts: []says{{soon, failed, schemas.CodeExpired}, {soon + 2*later, delivered, schemas.CodeDelivered}}}),
		toDelivered(MagicNumber{NN: 61, Does: "the receipt comes three times", receipts: []says{deliver, deliver, {soon + later, delivered, schemas.CodeDelivered}}}),
		toDelivered(MagicNumber{NN: 62, Does: "the receipt comes before the answer", answer: later, receipts: []says{{0, delivered, schemas.CodeDelivered}}}),
		toDelivered(MagicNumber{NN: 63, Does: "on its way, said after it was delivered", receipts: []says{deliver, {soon + later, buffered, schemas.CodeEnroute}}}),
		toDelivered(MagicNumber{NN: 64, Does: "delivered, then said to have failed", receipts: []says{deliver, {soon + later, failed, schemas.CodeAbsentSubscriber}}}),
		ends(MagicNumber{NN: 65, Does: "barred, then said to be not in use", receipts: []says{{soon, failed, schemas.CodeBarred}, {soon + later, failed, schemas.CodeUnknownSubscriber}}}, Accepted, schemas.KindUndelivered, schemas.CodeUnknownSubscriber),
	}
}()

// magicTable finds a magic number by its last two digits.
var magicTable = func() (t [100]*MagicNumber) {
	for i := range Magic {
		t[Magic[i].NN] = &Magic[i]
	}
	return t
}()

// magic returns the row of a number, nil if the number is not magic.
func magic(to string) *MagicNumber {
	if len(to) != magicLen || to[:len(MagicPrefix)] != MagicPrefix || to[len(MagicPrefix)] != '0' {
		return nil
	}
	tens, ones := to[magicLen-2]-'0', to[magicLen-1]-'0'
	if tens > 9 || ones > 9 {
		return nil
	}
	return magicTable[tens*10+ones]
}
