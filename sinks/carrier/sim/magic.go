package sim

import (
	"strconv"
	"time"

	"fanfare/sinks/carrier"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// MagicPrefix begins the numbers whose fate is fixed: +39 399 000 00NN. They are valid Italian mobile numbers, so they pass every check on the way.
const MagicPrefix = "+393990000"

// magicLen is the length of a magic number: the prefix and three digits, of which the first is 0.
const magicLen = len(MagicPrefix) + 3

// MagicNumber is a number whose fate no profile changes but for how long the carrier takes to answer.
type MagicNumber struct {
	// NN are the last two digits.
	NN uint8
	// Does says what happens, for people.
	Does string
	// Outcome is how the truth file calls the submission of the first try.
	Outcome string
	// Kind and Code are where the recipient ends when the campaign's policy allows three hand-overs and its receipt window is over.
	// CODE_UNSPECIFIED: that depends on the policy.
	Kind fanfarev1.Kind
	Code fanfarev1.Code

	refuse   carrier.Outcome // how it is answered, when it is not taken
	sub      fanfarev1.Code
	tries    uint8 // the refusal or receipts below are for tries up to this one, a later one is delivered; 0: for all
	silent   bool
	broken   bool          // the connection breaks instead of an answer
	answer   time.Duration // the answer takes this long
	receipts []says
}

// says is a receipt of a magic number.
type says struct {
	after  time.Duration
	status fanfarev1.ReceiptStatus
	sub    fanfarev1.Code
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
	deliver := says{soon, delivered, fanfarev1.Code_CODE_DELIVERED}
	negative := func(nn uint8, does string, code fanfarev1.Code) MagicNumber {
		return MagicNumber{
			NN: nn, Does: does, Outcome: Accepted, Kind: fanfarev1.Kind_KIND_UNDELIVERED, Code: code,
			receipts: []says{{soon, failed, code}},
		}
	}
	refused := func(nn uint8, does string, code fanfarev1.Code) MagicNumber {
		return MagicNumber{
			NN: nn, Does: does, Outcome: Refused, Kind: fanfarev1.Kind_KIND_NOT_SENT, Code: code,
			refuse: carrier.Rejected, sub: code,
		}
	}
	ends := func(m MagicNumber, outcome string, kind fanfarev1.Kind, code fanfarev1.Code) MagicNumber {
		m.Outcome, m.Kind, m.Code = outcome, kind, code
		return m
	}
	toDelivered := func(m MagicNumber) MagicNumber {
		return ends(m, Accepted, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	}
	return []MagicNumber{
		toDelivered(MagicNumber{NN: 0, Does: "delivered at once", receipts: []says{deliver}}),
		toDelivered(MagicNumber{NN: 1, Does: "delivered after 20 s", receipts: []says{{20 * time.Second, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		toDelivered(MagicNumber{NN: 2, Does: "on its way, then delivered", receipts: []says{{soon, buffered, fanfarev1.Code_CODE_ENROUTE}, {2 * later, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		ends(MagicNumber{NN: 3, Does: "taken, then silence: no receipt ever"}, Accepted, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR),
		ends(MagicNumber{NN: 4, Does: "delivered, then read", receipts: []says{deliver, {2 * later, read, fanfarev1.Code_CODE_READ}}}, Accepted, fanfarev1.Kind_KIND_READ, fanfarev1.Code_CODE_READ),
		ends(MagicNumber{NN: 5, Does: "read, and no receipt ever says delivered", receipts: []says{{later, read, fanfarev1.Code_CODE_READ}}}, Accepted, fanfarev1.Kind_KIND_READ, fanfarev1.Code_CODE_READ),
		ends(MagicNumber{NN: 6, Does: "the receipt says that the carrier does not know", receipts: []says{{soon, unknown, fanfarev1.Code_CODE_UNSPECIFIED}}}, Accepted, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR),

		negative(10, "out of reach, at every try", fanfarev1.Code_CODE_ABSENT_SUBSCRIBER),
		negative(11, "switched off, at every try", fanfarev1.Code_CODE_HANDSET_OFF),
		negative(12, "busy, at every try", fanfarev1.Code_CODE_HANDSET_BUSY),
		negative(13, "memory full, at every try", fanfarev1.Code_CODE_MEMORY_FULL),
		negative(14, "network error, at every try", fanfarev1.Code_CODE_NETWORK_ERROR),
		negative(15, "operator failed, at every try", fanfarev1.Code_CODE_ROAMING_OR_OPERATOR_FAIL),
		negative(16, "provider error, at every try", fanfarev1.Code_CODE_PROVIDER_ERROR),
		negative(17, "expired, at every try", fanfarev1.Code_CODE_EXPIRED),
		negative(18, "number not in use", fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER),
		negative(19, "barred by the operator", fanfarev1.Code_CODE_BARRED),
		negative(20, "number range blocked by the operator", fanfarev1.Code_CODE_OPERATOR_SERIES_BLOCK),
		negative(21, "on the operator's blacklist", fanfarev1.Code_CODE_OPERATOR_BLACKLIST),
		negative(22, "refused by the handset", fanfarev1.Code_CODE_HANDSET_ERROR),
		negative(23, "failed for a reason that only the carrier's code names", fanfarev1.Code_CODE_UNDELIVERED_OTHER),

		refused(30, "refused: invalid number", fanfarev1.Code_CODE_INVALID_NUMBER),
		refused(31, "refused: sender id not allowed", fanfarev1.Code_CODE_SENDER_INVALID),
		refused(32, "refused: classed as spam", fanfarev1.Code_CODE_SPAM_CONTENT),
		refused(33, "refused: no credit with the carrier", fanfarev1.Code_CODE_NO_CREDITS),
		refused(34, "refused: country not enabled", fanfarev1.Code_CODE_COUNTRY_NOT_ENABLED),
		refused(35, "refused: number range blocked", fanfarev1.Code_CODE_SERIES_BLOCKED),
		refused(36, "refused: identity check missing", fanfarev1.Code_CODE_KYC),
		refused(37, "refused for a reason that only the carrier's code names", fanfarev1.Code_CODE_NOT_SENT_OTHER),
		ends(MagicNumber{NN: 39, Does: "this channel cannot reach it", refuse: carrier.Unsupported, sub: fanfarev1.Code_CODE_UNSUPPORTED}, Unsupported, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_UNSPECIFIED),

		ends(MagicNumber{NN: 40, Does: "throttled at the first try, then delivered", refuse: carrier.Throttled, sub: fanfarev1.Code_CODE_THROTTLED, tries: 1}, Throttled, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED),
		ends(MagicNumber{NN: 41, Does: "throttled at every try", refuse: carrier.Throttled, sub: fanfarev1.Code_CODE_THROTTLED}, Throttled, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_UNSPECIFIED),
		ends(MagicNumber{NN: 42, Does: "a passing error at the first try, then delivered", refuse: carrier.Retryable, sub: fanfarev1.Code_CODE_PROVIDER_ERROR, tries: 1}, Busy, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED),
		ends(MagicNumber{NN: 43, Does: "a passing error at every try", refuse: carrier.Retryable, sub: fanfarev1.Code_CODE_PROVIDER_ERROR}, Busy, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_UNSPECIFIED),
		toDelivered(MagicNumber{NN: 44, Does: "out of reach at the first try, then delivered", tries: 1, receipts: []says{{soon, failed, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER}}}),
		toDelivered(MagicNumber{NN: 45, Does: "switched off at the first two tries, then delivered", tries: 2, receipts: []says{{soon, failed, fanfarev1.Code_CODE_HANDSET_OFF}}}),

		ends(MagicNumber{NN: 50, Does: "taken, but neither answer nor receipt ever comes: it stays ambiguous", silent: true}, Accepted, fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Code_CODE_TIMEOUT),
		toDelivered(MagicNumber{NN: 51, Does: "the answer never comes, but the receipt does", silent: true, receipts: []says{{5 * time.Second, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		ends(MagicNumber{NN: 52, Does: "lost before the carrier took it: it stays ambiguous, and was never sent", silent: true, refuse: carrier.Unknown}, Dropped, fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Code_CODE_TIMEOUT),
		toDelivered(MagicNumber{NN: 53, Does: "the connection breaks right after it was taken; the receipt comes", silent: true, broken: true, receipts: []says{{2 * later, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		toDelivered(MagicNumber{NN: 54, Does: "answered only after 5 s", answer: 5 * time.Second, receipts: []says{{6 * time.Second, delivered, fanfarev1.Code_CODE_DELIVERED}}}),

		toDelivered(MagicNumber{NN: 60, Does: "expired, and delivered after all 2 s later", receipts: []says{{soon, failed, fanfarev1.Code_CODE_EXPIRED}, {soon + 2*later, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		toDelivered(MagicNumber{NN: 61, Does: "the receipt comes three times", receipts: []says{deliver, deliver, {soon + later, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		toDelivered(MagicNumber{NN: 62, Does: "the receipt comes before the answer", answer: later, receipts: []says{{0, delivered, fanfarev1.Code_CODE_DELIVERED}}}),
		toDelivered(MagicNumber{NN: 63, Does: "on its way, said after it was delivered", receipts: []says{deliver, {soon + later, buffered, fanfarev1.Code_CODE_ENROUTE}}}),
		toDelivered(MagicNumber{NN: 64, Does: "delivered, then said to have failed", receipts: []says{deliver, {soon + later, failed, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER}}}),
		ends(MagicNumber{NN: 65, Does: "barred, then said to be not in use", receipts: []says{{soon, failed, fanfarev1.Code_CODE_BARRED}, {soon + later, failed, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER}}}, Accepted, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER),
	}
}()

// magicTable finds a magic number by its last two digits.
var magicTable = func() (t [100]*MagicNumber) {
	for i := range Magic {
		t[Magic[i].NN] = &Magic[i]
	}
	return t
}()

// magic returns the row of a number, nil of one that is not magic.
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
