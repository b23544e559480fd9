package schemas

// Class is the coarse order of delivery events. An event of a greater class always takes precedence.
type Class uint8

// Classes of delivery events.
const (
	ClassOpen      Class = 0  // nothing is final: ambiguous, or returned
	ClassNeverLeft Class = 1  // final: never handed over
	ClassLeft      Class = 2  // handed over, nothing final known
	ClassNegative  Class = 3  // final: not delivered
	ClassPositive  Class = 4  // final: delivered
	ClassFact      Class = 15 // no state: clicks, replies, opt-outs
)

// Bucket is where statistics count a recipient. The buckets of all recipients of a campaign are disjoint and add up to
// its total.
type Bucket uint8

// Buckets, and the identities that always hold (requirements §4): total = pending + ambiguous + notSent + skipped +
// sent, sent = awaiting + undelivered + delivered.
const (
	BucketPending Bucket = iota // not dealt, in flight, or waiting to be dealt again
	BucketAmbiguous
	BucketNotSent
	BucketSkipped
	BucketAwaiting
	BucketUndelivered
	BucketDelivered
	BucketFact // counts nowhere
)

var bucketNames = [...]string{"pending", "ambiguous", "notSent", "skipped", "awaiting", "undelivered", "delivered", "fact"}

// String returns the bucket as the API spells it.
func (b Bucket) String() string { return bucketNames[b] }

// Sent reports whether the bucket is a part of sent.
func (b Bucket) Sent() bool { return b >= BucketAwaiting && b <= BucketDelivered }

// KindInfo is one row of the table of kinds.
type KindInfo struct {
	Kind   Kind
	Name   string // as the analytics store and the API spell it
	Class  Class
	Rank   uint8 // within the class
	Bucket Bucket
}

// Kinds is the one table of kinds of delivery events, in order of precedence.
var Kinds = []KindInfo{
	{KindAmbiguous, "ambiguous", ClassOpen, 1, BucketAmbiguous},
	{KindReturned, "returned", ClassOpen, 2, BucketPending},
	{KindNotSent, "not_sent", ClassNeverLeft, 1, BucketNotSent},
	{KindSkipped, "skipped", ClassNeverLeft, 2, BucketSkipped},
	{KindSent, "sent", ClassLeft, 1, BucketAwaiting},
	{KindBuffered, "buffered", ClassLeft, 2, BucketAwaiting},
	{KindBounced, "bounced", ClassLeft, 3, BucketAwaiting},
	{KindUnconfirmed, "unconfirmed", ClassLeft, 4, BucketAwaiting},
	{KindUndelivered, "undelivered", ClassNegative, 1, BucketUndelivered},
	{KindDelivered, "delivered", ClassPositive, 1, BucketDelivered},
	{KindRead, "read", ClassPositive, 2, BucketDelivered},
	{KindClicked, "clicked", ClassFact, 1, BucketFact},
	{KindReplied, "replied", ClassFact, 2, BucketFact},
	{KindOptedOut, "opted_out", ClassFact, 3, BucketFact},
}

// kindTable finds a kind by its number, which is below 128.
var kindTable = func() (t [128]*KindInfo) {
	for i := range Kinds {
		t[Kinds[i].Kind] = &Kinds[i]
	}
	return t
}()

// LookupKind returns the row of kind; ok is false for a kind that this version does not know.
func LookupKind(kind Kind) (info KindInfo, ok bool) {
	if kind < 0 || int(kind) >= len(kindTable) || kindTable[kind] == nil {
		return KindInfo{}, false
	}
	return *kindTable[kind], true
}

// Precedence is an event as one number: class << 28 | try << 20 | rank << 16 | code, with try 0 outside class 0. The
// state of a recipient is the greatest precedence below [PrecedenceFacts] among all events about it. Taking the
// greatest is commutative, associative and idempotent and looks at no clock: receipts may come late, twice and in any
// order.
type Precedence uint32

// PrecedenceFacts is the least precedence of a fact, which is no state.
const PrecedenceFacts = Precedence(uint32(ClassFact) << 28)

// PrecedenceOf returns the precedence of an event, 0 for a kind that is not known. A try above 255 and a code above
// 65,535 are cut off.
func PrecedenceOf(kind Kind, try uint32, code Code) Precedence {
	info, ok := LookupKind(kind)
	if !ok {
		return 0
	}
	p := uint32(info.Class)<<28 | uint32(info.Rank)<<16 | uint32(code)&0xffff
	if info.Class == ClassOpen {
		p |= try & MaxTry << 20
	}
	return Precedence(p)
}

// Class returns the class.
func (p Precedence) Class() Class { return Class(p >> 28) }

// Try returns the try of an open state; 0 otherwise.
func (p Precedence) Try() uint8 { return uint8(p >> 20) }

// Rank returns the rank within the class.
func (p Precedence) Rank() uint8 { return uint8(p>>16) & 0xf }

// Code returns the sub-status.
func (p Precedence) Code() Code { return Code(p & 0xffff) }

// Kind returns the kind that made the number.
func (p Precedence) Kind() Kind {
	return Kind(uint32(p.Class())&7<<4 | uint32(p.Rank()))
}

// Bucket returns where statistics count a recipient of that state. No state at all counts as pending.
func (p Precedence) Bucket() Bucket {
	if p == 0 {
		return BucketPending
	}
	if info, ok := LookupKind(p.Kind()); ok {
		return info.Bucket
	}
	return BucketFact
}

// Join returns the state of a recipient that has events of both: the greater one. Facts never make a state.
func Join(a, b Precedence) Precedence {
	if a >= PrecedenceFacts {
		a = 0
	}
	if b >= PrecedenceFacts {
		b = 0
	}
	return max(a, b)
}
