package scheduler

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// retryLead is the longest wait before leading again after an error.
const retryLead = time.Second

// leadWhileOwned leads until the group takes leadership away or ctx ends. After an error it leads again, from the
// topics.
func (s *Scheduler) leadWhileOwned(ctx context.Context, lock *leaderLock) {
	for {
		leadCtx, release := lock.acquire(ctx)
		if release == nil {
			return
		}
		err := s.lead(leadCtx)
		release()
		s.metrics.leading.Set(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.metrics.restarts.Inc()
			s.log.WarnContext(ctx, "leadership failed; restarting from the topics", "err", err)
		}
		timer := time.NewTimer(retryLead/4 + rand.N(retryLead*3/4))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// leaderLock follows the group's assignments: the owner of the partition of topic `cursors` leads.
type leaderLock struct {
	topic  string
	gained chan struct{}

	mu     sync.Mutex
	owned  bool
	cancel context.CancelFunc // ends the current leadership, nil: there is none
	done   chan struct{}      // closed when the current leadership has ended
}

func (l *leaderLock) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[l.topic]) == 0 {
		return
	}
	l.mu.Lock()
	l.owned = true
	l.mu.Unlock()
	select {
	case l.gained <- struct{}{}:
	default:
	}
}

// revoked ends the leadership and waits until it has ended, so that the group does not assign the partition to another
// process while this one still writes. A leadership that does not end in time is fenced by its successor.
func (l *leaderLock) revoked(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[l.topic]) == 0 {
		return
	}
	l.mu.Lock()
	l.owned = false
	cancel, done := l.cancel, l.done
	l.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	timer := time.NewTimer(stopWithin + time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// acquire returns a context that lasts as long as this process may lead, and a function to call when it has stopped
// leading; nil: this process is not the leader.
func (l *leaderLock) acquire(ctx context.Context) (context.Context, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.owned || ctx.Err() != nil {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	l.cancel, l.done = cancel, done
	return ctx, func() {
		cancel()
		l.mu.Lock()
		l.cancel = nil
		l.mu.Unlock()
		close(done)
	}
}
