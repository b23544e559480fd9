package carrier

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"fanfare/schemas"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Key is the submission id: campaign, seq, try and a signature. It is the idempotency key given to the carrier and, where the
// carrier echoes it, what a receipt is found by.
type Key = schemas.ID

// Sub is our sub-status, normalised from the carrier's own code.
type Sub = fanfarev1.Code

// Status is what a receipt says.
type Status = fanfarev1.ReceiptStatus

// Micros is an amount of money in millionths of the unit of its currency.
type Micros uint64

// Errors of [Connector.Send]. Nothing of the batch was handed over.
var (
	// ErrDrained is returned once Drain was called.
	ErrDrained = errors.New("connector is drained")
	// ErrBatch is returned for a batch of more than Caps.MaxBatch messages.
	ErrBatch = errors.New("batch is larger than the connector takes")
)

// Outbound is one message to be handed over.
type Outbound struct {
	Key     Key
	Channel fanfarev1.Channel
	// To is E.164 with a leading +.
	To string
	// From is the sender id, phone number id, agent id or caller id.
	From string
	Body Body
	// Deadline of the hand-over: the connector tests it right before it writes, and writes nothing after it. A message whose deadline
	// is over gets Retryable with [CodeDeadline]. Zero: none. It is the ownership guard of the sender: past it another process may hold
	// the message. And it bounds how old the sender's last look at opt-outs and at the state of the campaign may be.
	Deadline time.Time
	// NotAfter is the validity period, time to live or ring deadline given to the carrier, as an instant. Zero: the carrier's default.
	NotAfter time.Time
	// Cost is what was reserved for it.
	Cost Micros
	// Meta has what single carriers want besides: callback parameters, registration ids, tags. May be nil.
	Meta map[string]string
}

// Body is what is sent. Exactly one of its fields is set; Text counts as set when its Body is not empty or no other is.
// It is a struct and no interface so that a text costs no allocation.
type Body struct {
	Text     Text
	Template *Template
	Rich     *Rich
	Call     *Call
}

// Text is a plain text, rendered.
type Text struct {
	Body string
	// Encoding that the segments were counted in. The carrier is always told; it never guesses.
	Encoding fanfarev1.Encoding
	// Segments is how many parts the text makes, at least 1.
	Segments int
}

// Template is a text that the platform keeps, with values for it.
type Template struct {
	Name     string
	Language string
	Params   []string
}

// Rich is a message in the channel's own JSON.
type Rich struct {
	JSON []byte
}

// Call is a telephone call.
type Call struct {
	// Queue takes the call once a person answers.
	Queue string
	// MachineAction is empty (no detection), `hangup` or `voicemail`.
	MachineAction string
	Media         string
}

// Outcome is what became of one hand-over.
type Outcome uint8

// Outcomes of a hand-over. The sender makes of them: sent; not_sent; returned with a time; returned with a time; ambiguous;
// returned for the next channel of the chain.
const (
	// Accepted: the carrier has it, Ref is set. A receipt will follow, or never.
	Accepted Outcome = iota + 1
	// Rejected for good: do not try again. Sub and Code say why.
	Rejected
	// Throttled: not taken. RetryAfter says how long to wait; the rate is to be lowered.
	Throttled
	// Retryable: certainly not taken, for a reason that passes.
	Retryable
	// Unknown: the carrier may have it. Held; never handed over again without proof.
	Unknown
	// Unsupported: this channel cannot reach the recipient; the next one may be tried at once.
	Unsupported
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Throttled:
		return "throttled"
	case Retryable:
		return "retryable"
	case Unknown:
		return "unknown"
	case Unsupported:
		return "unsupported"
	default:
		return "none"
	}
}

// CodeDeadline is the code of a Retryable result of a message that was kept back because its deadline was over: nobody asked the
// carrier.
const CodeDeadline = "deadline"

// Result is the answer to one hand-over.
type Result struct {
	Outcome Outcome
	// Ref is the provider's id of the submission. Set when accepted.
	Ref string
	// Code is the carrier's own, as it came.
	Code string
	// Sub is what Code means in our words.
	Sub Sub
	// RetryAfter is how long the carrier asks to wait. 0: it does not say.
	RetryAfter time.Duration
	// Parts is how many parts the carrier counted; 0: it does not say.
	Parts int
}

// Idem says what a carrier does with a key it has seen.
type Idem uint8

// Kinds of idempotency.
const (
	// IdemNone: a second submission is a second message.
	IdemNone Idem = iota
	// IdemKeyHeader: a repetition within the provider's time window gets the first answer.
	IdemKeyHeader
	// IdemNaturalID: the key is the message's id at the carrier; a second one is ignored for ever.
	IdemNaturalID
)

// ReceiptMode says how receipts come in.
type ReceiptMode uint8

// Ways of receipts.
const (
	ReceiptsNone    ReceiptMode = iota
	ReceiptsSession             // on the same session, such as deliver_sm: the connector is a ReceiptSource
	ReceiptsWebhook             // the carrier calls us: the connector is a Webhook
	ReceiptsPoll                // we ask: the connector is a ReceiptSource
)

// Pacing says what the carrier's limit counts.
type Pacing uint8

// Units of a carrier's limit.
const (
	PacingMessages   Pacing = iota // messages per second
	PacingSegments                 // segments per second
	PacingCalls                    // calls started per second
	PacingConcurrent               // calls at once
)

// Caps are what a connector can do. They do not change while it lives.
type Caps struct {
	// MaxBatch is the most messages of one Send, at least 1.
	MaxBatch int
	// Idempotent says what the carrier does with a key it has seen.
	Idempotent Idem
	// EchoesKey: receipts carry our key, so no index of provider ids is needed.
	EchoesKey bool
	Receipts  ReceiptMode
	Pacing    Pacing
	// ReadReceipts: receipts may say that a message was read.
	ReadReceipts bool
	// CanRevoke and CanProbe: the connector is a Revoker, a Prober.
	CanRevoke, CanProbe bool
	// AnswerTimeout is when a hand-over without an answer gets Unknown. 0: the connector waits for ever.
	AnswerTimeout time.Duration
}

// Health is how a connector does, for readiness, metrics and the breaker.
type Health struct {
	// Ready: a hand-over would be tried now.
	Ready bool
	// Sessions that are bound or connected.
	Sessions int
	// InFlight hand-overs wait for their answer, of at most Window.
	InFlight, Window int
	// Throttled is the share of the last answers, 0..1, in which the carrier asked to slow down.
	Throttled float64
	// LastError is the newest failure of the connection, nil after a success.
	LastError error
}

// Connector hands messages over to one account at one carrier. Its methods may be called by several goroutines.
type Connector interface {
	// Caps returns what the connector can do.
	Caps() Caps
	// Send hands batch over and takes ownership of it. When it returns nil, done is called exactly once for each index, in any
	// order, from any goroutine, maybe before Send returns and maybe after the caller has given up on the answer; when it returns
	// an error, nothing was handed over and done is not called. done must neither block nor call the connector.
	//
	// Send blocks only on the carrier's window. The end of ctx ends that wait, and what was not written yet gets Retryable (or
	// all of it the error); it does not take back what is on the wire.
	Send(ctx context.Context, batch []Outbound, done func(i int, r Result)) error
	// Drain refuses what comes after it with ErrDrained, waits for the answers that are outstanding until ctx ends, and gives
	// Unknown to those still missing, which is no error. Calling it again is harmless.
	Drain(ctx context.Context) error
	// Health returns how the connector does right now.
	Health() Health
}

// Receipt is what a carrier said about a submission.
type Receipt struct {
	// Account it came in on.
	Account string
	// Ref is the provider's id; AltRefs are other spellings of it (hexadecimal, decimal, without leading zeros).
	Ref     string
	AltRefs []string
	// Key is zero where the carrier does not echo it.
	Key Key
	// To is E.164 with a leading +; empty when the carrier does not say.
	To     string
	Status Status
	// Code is the carrier's own, as it came; Sub is what it means in our words.
	Code string
	Sub  Sub
	// At is when the carrier says it happened.
	At time.Time
	// Part of Parts, 1 and up; 0: the whole message.
	Part, Parts uint8
	// Cost as the carrier bills it; nil: it does not say.
	Cost *Micros
	// Raw is the receipt as it came in.
	Raw []byte
}

// ReceiptSource is a connector that brings receipts itself, on its session or by asking for them.
type ReceiptSource interface {
	// Receipts calls emit, never twice at a time, with each batch of receipts until ctx ends or the connection is no more; it then
	// returns nil, and an error only when trying again makes no sense. emit returns nil once the receipts are durable; only then
	// are they acknowledged to the carrier. After an error from emit the same receipts come again, here or at another consumer of
	// the account. The slice belongs to emit until it returns; what the receipts point to may be kept.
	Receipts(ctx context.Context, emit func([]Receipt) error) error
}

// Inbound is what a recipient wrote to us.
type Inbound struct {
	Account string
	Ref     string
	From    string // E.164 with a leading +
	To      string
	Text    string
	At      time.Time
	Raw     []byte
}

// Webhook is a connector whose carrier calls us. The endpoint verifies, stores the raw body durably, answers 2xx, and only
// then is it parsed.
type Webhook interface {
	// Verify returns an error unless the carrier has signed the raw body.
	Verify(h http.Header, u *url.URL, raw []byte) error
	// Parse reads what is in it. It does not depend on any state of the connector.
	Parse(h http.Header, raw []byte) ([]Receipt, []Inbound, error)
}

// Prober is a connector that can ask which numbers its channel reaches.
type Prober interface {
	// Probe answers for each of to, and how long the answer holds.
	Probe(ctx context.Context, to []string) (reach []bool, ttl time.Duration, err error)
}

// RevokeOutcome is what became of an attempt to take a message back.
type RevokeOutcome uint8

// Outcomes of a revocation.
const (
	RevokeUnknown RevokeOutcome = iota // nobody knows
	Revoked                            // it will not be delivered
	RevokeTooLate                      // delivered, or failed, already
)

// Revoker is a connector that can take a message back while it is not delivered.
type Revoker interface {
	Revoke(ctx context.Context, to, ref string) (RevokeOutcome, error)
}
