// Package peer holds what the simulated providers have in common: the accounts that their clients name, and submission
// ids for messages that came without one.
package peer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Account is one account of a simulated provider: it takes messages and says what became of them.
type Account interface {
	Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error
	Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error
}

// mostAccounts bounds the accounts whose receipts [Accounts.Run] has not begun to read.
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

// Run passes the receipts of every account to emit until ctx ends. An account whose receipts end with an error is
// logged by its name.
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

// foreignCampaigns is where the campaign numbers of foreign messages begin: above all that the control plane gives.
const foreignCampaigns = 1 << 46

// Next returns the next submission id.
func (n *Numbering) Next() carrier.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	return n.keys.Submission(foreignCampaigns+n.began+n.seq>>24, uint32(n.seq)&schemas.MaxSeq, 1)
}
