package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"fanfare/schemas"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lasting are errors of a broker that waiting does not mend: a missing login or permission, a broker that is too old, a
// wrong request. All others pass: a coordinator or a leader is elected, a topic becomes known to all brokers, missing
// brokers register, a quota frees up.
var lasting = []*kerr.Error{
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState, kerr.SecurityDisabled,
	kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	kerr.DelegationTokenAuthorizationFailed, kerr.DelegationTokenExpired, kerr.DelegationTokenNotFound,
	kerr.UnsupportedVersion, kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType,
	kerr.InvalidTopicException, kerr.InvalidPartitions, kerr.InvalidReplicaAssignment, kerr.InvalidConfig, kerr.PolicyViolation, kerr.InvalidRequest,
	kerr.InvalidGroupID, kerr.InvalidSessionTimeout, kerr.InvalidTransactionTimeout, kerr.InvalidRequiredAcks,
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.OffsetMetadataTooLarge, kerr.InvalidCommitOffsetSize,
}

// Temporary reports whether an error of Kafka may pass by itself. It is false for errors that a person must mend (a
// wrong password, a missing right, a wrong protocol or certificate, a broker that is too old, a topic that differs),
// for a client that was closed and for a cancelled context; it is true for everything else, network errors and names
// that do not resolve included.
func Temporary(err error) bool {
	switch {
	case err == nil, errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled):
		return false
	case isA[*TopicError](err), isA[*OffsetError](err):
		return false
	case isA[*tls.CertificateVerificationError](err), isA[x509.HostnameError](err), isA[x509.UnknownAuthorityError](err), isA[x509.CertificateInvalidError](err),
		isA[tls.RecordHeaderError](err), isA[tls.AlertError](err):
		return false
	}
	// One part that waiting cannot mend is enough.
	if shards, ok := errors.AsType[*kadm.ShardErrors](err); ok {
		return !slices.ContainsFunc(shards.Errs, func(s kadm.ShardError) bool { return !Temporary(s.Err) })
	}
	return !slices.ContainsFunc(lasting, func(e *kerr.Error) bool { return errors.Is(err, e) })
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// Waits of [Await].
const (
	awaitFirst = 100 * time.Millisecond
	awaitMost  = 5 * time.Second
	// awaitAttempt bounds one attempt, so that its error is logged although a broker does not answer.
	awaitAttempt = 15 * time.Second
)

// Await calls try until it succeeds, with growing waits. It gives up with the last error when the error is not
// [Temporary] or when ctx ends, so a deadline of ctx says how long to wait. It logs when the waiting begins, when its
// reason changes and when it is over. what names the task, such as "create topics"; the error begins with it.
func Await(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error) error {
	began := time.Now()
	state := NewState(log.With("waiting_for", what))
	retry := NewBackoff(awaitFirst, awaitMost)
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, awaitAttempt)
		err := try(attempt)
		cancel()
		if err == nil {
			state.OK(ctx)
			return nil
		}
		if ctx.Err() == nil || last == nil { // the last real error says more than the end of ctx
			last = err
		}
		if ctx.Err() == nil && !Temporary(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ctx.Err() == nil {
			state.Failed(ctx, err)
		}
		if ctx.Err() != nil || !retry.Wait(ctx) {
			return fmt.Errorf("%s: gave up after %s: %w", what, time.Since(began).Round(100*time.Millisecond), last)
		}
	}
}

// State logs when Kafka stops answering as it should: one line when it begins, one when the reason changes, one when
// Kafka works again, however many calls fail in between. It is for one goroutine.
type State struct {
	log    *slog.Logger
	reason string
	since  time.Time
}

// NewState returns a State that assumes a working Kafka.
func NewState(log *slog.Logger) *State { return &State{log: log} }

// Failed records an error.
func (s *State) Failed(ctx context.Context, err error) {
	reason := reasonOf(err)
	if s.reason == reason {
		return
	}
	if s.reason == "" {
		s.since = time.Now()
	}
	s.reason = reason
	s.log.WarnContext(ctx, "kafka is not ready; retrying", "reason", reason, "err", err)
}

// OK records that a call succeeded.
func (s *State) OK(ctx context.Context) {
	if s.reason == "" {
		return
	}
	s.log.InfoContext(ctx, "kafka is ready again", "waited_ms", time.Since(s.since).Milliseconds())
	s.reason = ""
}

// reasonOf names the kind of an error: texts differ from attempt to attempt by ports and times.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return "not reachable"
}

// Start is a group that must have committed offsets in a topic before it reads, see [EnsureOffsets].
type Start struct{ Group, Topic string }

// SenderStarts are the starts of the senders of a route. Senders have no reset policy: a reset would send messages
// again.
func SenderStarts(names schemas.Names, route string) []Start {
	var starts []Start
	for _, lane := range schemas.Lanes {
		starts = append(starts, Start{Group: names.SenderGroup(route, lane), Topic: names.Messages(route, lane)})
	}
	return starts
}

// Prepare creates and verifies topics, then commits the first offsets of groups. It waits for a Kafka that is still
// starting, until ctx ends. opts are options of its client.
func (c Cluster) Prepare(ctx context.Context, replication int16, topics []schemas.Topic, starts []Start, opts ...kgo.Opt) error {
	// The client retries only a few times: more retries would hide the reason of the wait for half a minute.
	cl, err := c.Client(append([]kgo.Opt{kgo.RequestRetries(2), kgo.RetryTimeout(awaitAttempt / 3)}, opts...)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	err = Await(ctx, c.Logger, "create and verify topics", func(ctx context.Context) error { return EnsureTopics(ctx, adm, replication, topics) })
	if err != nil {
		return err
	}
	return Await(ctx, c.Logger, "commit first offsets", func(ctx context.Context) error {
		for _, s := range starts {
			if err := EnsureOffsets(ctx, adm, s.Group, s.Topic); err != nil {
				return err
			}
		}
		return nil
	})
}
