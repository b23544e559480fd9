// Package peer has the common parts of the simulated providers: the accounts that their clients name, and submission
// ids for messages without one.
package peer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Account is one account of a simulated provider: it accepts messages and reports their states.
type Account interface {
	Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error
	Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error
}

// mostAccounts is how many accounts may wait for [Accounts.Run] to read their receipts.
const mostAccounts = 1000

// Accounts are the accounts of one provider. It is safe for concurrent use.
type Accounts[A Account] struct {
	open   func(name string) (A, error)
	opened chan string

	mu  sync.Mutex
	all map[string]A
}

// NewAccounts returns an empty set. open makes an account when a client names it for the first time.
func NewAccounts[A Account](open func(name string) (A, error)) *Accounts[A] {
	return &Accounts[A]{open: open, opened: make(chan string, mostAccounts), all: map[string]A{}}
}

// Get returns the account of that name. It fails if open fails, or if a thousand accounts wait for Run.
func (s *Accounts[A]) Get(name string) (A, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.all[name]; ok {
		return a, nil
	}
	a, err := s.open(name)
	if err != nil {
		return a, err
	}
	select {
	case s.opened <- name:
	default:
		return a, errors.New("too many accounts")
	}
	s.all[name] = a
	return a, nil
}

// Run passes the receipts of every account to emit until ctx ends. If the receipts of an account end with an error, Run
// logs the name of the account.
func (s *Accounts[A]) Run(ctx context.Context, log *slog.Logger, emit func(context.Context, A, []carrier.Receipt) error) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-s.opened:
			s.mu.Lock()
			a := s.all[name]
			s.mu.Unlock()
			running.Go(func() {
				if err := a.Receipts(ctx, func(list []carrier.Receipt) error { return emit(ctx, a, list) }); err != nil {
					log.ErrorContext(ctx, "receipts of an account ended", "account", name, "err", err)
				}
			})
		}
	}
}

// Numbering makes submission ids for messages of clients that are not Fanfare. Two providers that began in different
// milliseconds never make the same one. It is safe for concurrent use.
type Numbering struct {
	keys  *schemas.Keys
	began uint64

	mu  sync.Mutex
	seq uint64
}

// NewNumbering returns a numbering that begins now. keys sign the ids.
func NewNumbering(keys *schemas.Keys) *Numbering {
	return &Numbering{keys: keys, began: uint64(time.Now().UnixMilli())}
}

// foreignCampaigns is the first campaign number for messages of other clients. It is above all numbers that the control
// plane gives.
const foreignCampaigns = 1 << 46

// Next returns the next submission id.
func (n *Numbering) Next() carrier.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	return n.keys.Submission(foreignCampaigns+n.began+n.seq>>24, uint32(n.seq)&schemas.MaxSeq, 1)
}

// Submit hands one message of a request to an account and waits for its answer. ok is false if the request is over
// without one: the client hung up, or the account says [carrier.Unknown] and Submit closed the connection, so that the
// client never learns whether the message was taken. An account that takes nothing answers [carrier.Retryable].
func Submit(w http.ResponseWriter, r *http.Request, a Account, out carrier.Outbound) (x carrier.Result, ok bool) {
	answered := make(chan carrier.Result, 1)
	if err := a.Send(r.Context(), []carrier.Outbound{out}, func(_ int, x carrier.Result) { answered <- x }); err != nil {
		return carrier.Result{Outcome: carrier.Retryable}, true
	}
	select {
	case x = <-answered:
	case <-r.Context().Done():
		return x, false
	}
	if x.Outcome == carrier.Unknown {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return x, false
	}
	return x, true
}

// Webhook counts the calls of a provider's webhook. The zero value has made none. It is safe for concurrent use.
type Webhook struct {
	mu                  sync.Mutex
	registered          bool
	delivered, repeated int
}

// Counts returns how many calls succeeded, and how many failed and were repeated.
func (w *Webhook) Counts() (delivered, repeated int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.delivered, w.repeated
}

// Deliver calls post until it succeeds or ctx ends. Between two tries it waits 50 ms, then twice as long each time, 5 s
// at most. Before the first post it calls register, until that has succeeded once; nil: the webhook needs no registration.
func (w *Webhook) Deliver(ctx context.Context, register, post func() error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		if w.try(register, post) {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (w *Webhook) try(register, post func() error) bool {
	w.mu.Lock()
	registered := w.registered || register == nil
	w.mu.Unlock()
	ok := registered || register() == nil
	registered = ok
	ok = ok && post() == nil
	w.mu.Lock()
	defer w.mu.Unlock()
	w.registered = w.registered || registered
	if ok {
		w.delivered++
	} else {
		w.repeated++
	}
	return ok
}

// EachOf calls work for every item of list, up to most at a time, and returns when all calls have returned.
func EachOf[T any](list []T, most int, work func(*T)) {
	items := make(chan *T)
	var running sync.WaitGroup
	for range min(most, len(list)) {
		running.Go(func() {
			for i := range items {
				work(i)
			}
		})
	}
	for i := range list {
		items <- &list[i]
	}
	close(items)
	running.Wait()
}
