package carrier

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"fanfare/schemas"
)

// Key is the submission id: campaign, seq, try and a signature. The carrier gets it as the idempotency key. If the
// carrier echoes it, a receipt is matched by it.
type Key = schemas.ID

// Sub is our sub-status for the carrier's own code.
type Sub = schemas.Code

// Status is the state that a receipt reports.
type Status = schemas.ReceiptStatus

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
	Channel schemas.Channel
	// To is E.164 with a leading +.
	To string
	// From is the sender id, phone number id, agent id or caller id.
	From string
	Body Body
	// Deadline and Withdrawn end the permission to write the message. The connector tests both with [Outbound.Expired]
	// right before it writes; a message that may not be written any more gets Retryable with [CodeDeadline], and the
	// sender checks it again.
	//
	// Deadline is the earliest of: the end of the sender's ownership guard, after which another process may own the
	// message; half a second after the sender last checked opt-outs and the campaign's state; and the moment at which
	// those checks would fail because time has passed. Zero: none. Withdrawn is set when the campaign is paused or
	// aborted, or the recipient opts out, while the message waits in the connector. May be nil.
	Deadline  time.Time
	Withdrawn *atomic.Bool
	// NotAfter is the validity period, time to live or ring deadline given to the carrier, as an instant. Zero: the
	// carrier's default.
	NotAfter time.Time
	// Cost is the money that was reserved for the message.
	Cost Micros
	// Meta has further values that some carriers need: callback parameters, registration ids, tags. May be nil.
	Meta map[string]string
}

// Expired reports whether the message may not be written any more.
func (o *Outbound) Expired(now time.Time) bool {
	return !o.Deadline.IsZero() && !now.Before(o.Deadline) || o.Withdrawn != nil && o.Withdrawn.Load()
}

// Body is the content of a message. Exactly one field is set. Text counts as set if its Body is not empty, or if no
// other field is set. Body is a struct, not an interface, so that a text needs no allocation.
type Body struct {
	Text     Text
	Template *Template
	Rich     *Rich
	Call     *Call
}

// Text is a plain text, rendered.
type Text struct {
	Body string
	// Encoding is the one in which the segments were counted. The connector tells the carrier; the carrier never
	// guesses.
	Encoding schemas.Encoding
	// Segments is how many parts the text makes, at least 1.
	Segments int
}

// Template is a text that the platform keeps, with values for it.
type Template struct {
	Name     string
	Language string
	Params   []string
	// Components are the components of a WhatsApp template with their parameters, as JSON; nil if there are none.
	Components []byte
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
	// Media is the address of an audio file. Without one, Text is spoken in Language (BCP 47).
	Media, Text, Language string
	// Ring is how long the phone rings at most; 0: the connector's default.
	Ring time.Duration
}

// Outcome is the result of one hand-over.
type Outcome uint8

// Outcomes of a hand-over. The sender turns them, in this order, into: sent; not_sent; returned with a time; returned
// with a time; ambiguous; returned for the next channel of the chain.
const (
	// Accepted: the carrier has the message, and Ref is set. A receipt may follow.
	Accepted Outcome = iota + 1
	// Rejected: the carrier refused the message for good; do not try again. Sub and Code say why.
	Rejected
	// Throttled: the carrier did not take the message. RetryAfter says how long to wait; the sender lowers its rate.
	Throttled
	// Retryable: the carrier certainly did not take the message, for a temporary reason.
	Retryable
	// Unknown: the carrier may have the message. The recipient is held, and the message is not handed over again
	// without proof that it was not taken.
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

// CodeDeadline is the code of a Retryable result of a message that the connector did not write: it had expired, or the
// context of Send had ended. The carrier was not asked, so the result says nothing about the carrier.
const CodeDeadline = "deadline"

// Result is the answer to one hand-over.
type Result struct {
	Outcome Outcome
	// Ref is the provider's id of the submission. Set when accepted.
	Ref string
	// Code is the carrier's own code, unchanged.
	Code string
	// Sub is our sub-status for Code.
	Sub Sub
	// RetryAfter is how long the carrier asks to wait; 0 if it does not say.
	RetryAfter time.Duration
	// Parts is how many parts the carrier counted; 0: it does not say.
	Parts int
	// PartRefs are the provider's ids of the parts, in order, if each part has its own id; nil otherwise. A receipt
	// then names a part by its id. The entry of a part that the carrier did not accept is empty.
	PartRefs []string
}

// Doubt says what ends the doubt about a hand-over whose answer is not known, after a crash or a time-out.
type Doubt uint8

// Ways to end a doubt.
const (
	// DoubtNone: a second submission is a second message, and the carrier cannot be asked. Only a receipt or a person
	// ends the doubt.
	DoubtNone Doubt = iota
	// DoubtKeyHeader: the carrier remembers the keys of the last [Caps.KeyWindow]. The sender hands over again under
	// the same key; see [Connector.Send] for what the answer proves.
	DoubtKeyHeader
	// DoubtNaturalID: as DoubtKeyHeader, but the carrier remembers keys for ever, because the key is the message's id
	// at the carrier.
	DoubtNaturalID
	// DoubtQuery: the connector is a [Querier], and the sender asks it. A second submission is a second message.
	DoubtQuery
)

// String returns the way in lower case.
func (d Doubt) String() string {
	switch d {
	case DoubtNone:
		return "none"
	case DoubtKeyHeader:
		return "key header"
	case DoubtNaturalID:
		return "natural id"
	case DoubtQuery:
		return "query"
	default:
		return "unknown"
	}
}

// ReceiptMode is how receipts come in.
type ReceiptMode uint8

// Ways in which receipts come in.
const (
	ReceiptsNone    ReceiptMode = iota
	ReceiptsSession             // on the same session, such as deliver_sm: the connector is a ReceiptSource
	ReceiptsWebhook             // the carrier calls us: the connector is a Webhook
	ReceiptsPoll                // we ask: the connector is a ReceiptSource
)

// Pacing is what the carrier's limit counts.
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
	// MaxBatch is how many messages one Send may have, at least 1.
	MaxBatch int
	// Doubt says what ends the doubt about a hand-over whose answer is not known.
	Doubt Doubt
	// KeyWindow is how long the carrier remembers a key, for DoubtKeyHeader.
	KeyWindow time.Duration
	// QuerySettles is how long after a hand-over the carrier's answer that it does not have the message is final, for
	// DoubtQuery. Before that, the submission may still be on its way through the carrier.
	QuerySettles time.Duration
	// EchoesKey: receipts carry our key, so no index of provider ids is needed.
	EchoesKey bool
	Receipts  ReceiptMode
	Pacing    Pacing
	// ReadReceipts: receipts may say that a message was read.
	ReadReceipts bool
	// CanRevoke and CanProbe: the connector is a Revoker, a Prober.
	CanRevoke, CanProbe bool
	// AnswerTimeout is how long the connector waits for an answer before the result is Unknown. 0: it waits for ever.
	AnswerTimeout time.Duration
}

// Health is the state of a connector, for readiness, metrics and the breaker.
type Health struct {
	// Ready: the connector would try a hand-over now.
	Ready bool
	// Sessions that are bound or connected.
	Sessions int
	// InFlight is how many hand-overs wait for their answer, at most Window.
	InFlight, Window int
	// Throttled is the share of the last answers, 0..1, in which the carrier asked to slow down.
	Throttled float64
	// LastError is the newest failure of the connection, nil after a success.
	LastError error
}

// AccountRefused reports whether an error, such as [Health.LastError], says that the carrier refuses the account: a
// wrong password, an expired token. Such an error has a method AccountRefused that returns true.
func AccountRefused(err error) bool {
	var refused interface{ AccountRefused() bool }
	return errors.As(err, &refused) && refused.AccountRefused()
}

// Connector hands messages over to one account at one carrier. Its methods may be called by several goroutines.
type Connector interface {
	// Caps returns what the connector can do.
	Caps() Caps
	// Send hands batch over and takes ownership of it. When it returns nil, done is called exactly once for each index,
	// in any order, from any goroutine, maybe before Send returns and maybe after the caller has given up on the
	// answer; when it returns an error, nothing was handed over and done is not called. done must neither block nor
	// call the connector.
	//
	// Send blocks only on the carrier's window. When ctx ends during that wait, Send returns the error of ctx, or
	// returns nil and gives each message that was not written Retryable with [CodeDeadline]. It does not take back what
	// is on the wire.
	//
	// When Caps say that a repeated key is ignored, the answer to a repetition is about the first submission as well:
	// Accepted, with the same Ref, when the first was taken; Rejected and Unsupported only when it was not. Any other
	// answer proves nothing about the first, not even Retryable and Throttled: a carrier may give them before it looks
	// at the key.
	Send(ctx context.Context, batch []Outbound, done func(i int, r Result)) error
	// Drain makes later calls of Send fail with ErrDrained, waits for outstanding answers until ctx ends, and then
	// gives Unknown to hand-overs still without an answer, which is no error. Calling it again is harmless.
	Drain(ctx context.Context) error
	// Health returns the present state of the connector.
	Health() Health
}

// Receipt is what a carrier said about a submission.
type Receipt struct {
	// Account is the account on which the receipt came in.
	Account string
	// Ref is the provider's id; AltRefs are other spellings of it (hexadecimal, decimal, without leading zeros).
	Ref     string
	AltRefs []string
	// Key is zero if the carrier does not echo it.
	Key Key
	// To is E.164 with a leading +; empty if the carrier does not name it.
	To     string
	Status Status
	// Code is the carrier's own code, unchanged; Sub is our sub-status for it.
	Code string
	Sub  Sub
	// At is the time of the event on the carrier's clock.
	At time.Time
	// Part is which of Parts the receipt is about, from 1; 0: the whole message.
	Part, Parts uint8
	// Cost is what the carrier charges; nil if it does not say.
	Cost *Micros
	// Raw is the unchanged receipt.
	Raw []byte
}

// ReceiptSource is a connector that brings receipts itself, on its session or by polling.
type ReceiptSource interface {
	// Receipts calls emit, never twice at a time, with each batch of receipts until ctx ends or the connection closes.
	// It then returns nil; it returns an error only if another call would fail too. emit returns nil once the receipts
	// are durable; only then are they acknowledged to the carrier. After an error from emit the same receipts come
	// again, here or at another consumer of the account. The slice belongs to emit until it returns; what the receipts
	// point to may be kept.
	Receipts(ctx context.Context, emit func([]Receipt) error) error
}

// Inbound is a message from a recipient.
type Inbound struct {
	Account string
	// Channel is the channel on which it came.
	Channel schemas.Channel
	// Ref is the carrier's id of the message; "" if it has none.
	Ref  string
	From string // E.164 with a leading +
	To   string
	Text string
	At   time.Time
	// Part is which of Parts this is, if the other parts of a long text did not come; 0: the whole text.
	Part, Parts uint8
	Raw         []byte
}

// InboundSource is a connector that brings recipients' messages on its session.
type InboundSource interface {
	// Inbound calls emit as [ReceiptSource.Receipts] does: messages that emit did not make durable come again. While no
	// call of Inbound is running, the carrier keeps the messages of recipients.
	Inbound(ctx context.Context, emit func([]Inbound) error) error
}

// Callback is an unchanged request from a carrier.
type Callback struct {
	Method string
	// URL is the whole address that the carrier called, in the carrier's form, because some carriers sign it.
	URL    string
	Header http.Header
	Body   []byte
	// From is the IP address from which the request came, in front of our own proxies; invalid if it is not known.
	From netip.Addr
}

// Webhook is a connector whose carrier sends callbacks. The endpoint verifies a callback, stores it durably and answers
// 2xx. It is parsed only afterwards. Both methods may be called on a drained connector, or in a process that hands
// nothing over.
type Webhook interface {
	// Verify returns an error unless the carrier made the callback.
	Verify(c *Callback) error
	// Parse reads the receipts and messages in a callback. It depends on the configuration only, so that a callback
	// that it could not read can be read again later.
	Parse(c *Callback) ([]Receipt, []Inbound, error)
}

// Handshaker is a Webhook whose carrier calls the address once at its registration, and accepts the address after the
// right answer. Such a callback is neither verified nor stored.
type Handshaker interface {
	// Handshake returns the text to answer; ok is false for any other callback. An error means that it is a handshake
	// that the carrier did not make.
	Handshake(c *Callback) (answer string, ok bool, err error)
}

// TemplateNotice is a carrier's decision about a template that was submitted for approval.
type TemplateNotice struct {
	// Account is the account at the carrier that has the template; the template's name and language are the carrier's.
	Account, Name, Language string
	// Status is approved, pending, rejected, paused or disabled.
	Status string
	// Reason as the carrier gives it; may be empty.
	Reason string
}

// TemplateTeller is a Webhook whose callbacks may have decisions about templates.
type TemplateTeller interface {
	// Templates returns the decisions in a callback; none for any other callback.
	Templates(c *Callback) []TemplateNotice
}

// Querier is a connector whose carrier can be asked for the state of a submission.
type Querier interface {
	// Query returns what the carrier knows of each key: Accepted with its Ref, Rejected, Retryable when the carrier
	// does not have the submission, Unknown when the carrier cannot say yet. It changes nothing at the carrier.
	Query(ctx context.Context, keys []Key) ([]Result, error)
}

// Prober is a connector that can query which numbers its channel reaches.
type Prober interface {
	// Probe reports for each number in to whether the channel reaches it, and how long the answer is valid.
	Probe(ctx context.Context, to []string) (reach []bool, ttl time.Duration, err error)
}

// RevokeOutcome is the result of an attempt to take a message back.
type RevokeOutcome uint8

// Outcomes of a revocation.
const (
	RevokeUnknown RevokeOutcome = iota // the carrier does not say
	Revoked                            // it will not be delivered
	RevokeTooLate                      // delivered, or failed, already
)

// Revoker is a connector that can take a message back while it is not delivered.
type Revoker interface {
	Revoke(ctx context.Context, to, ref string) (RevokeOutcome, error)
}
