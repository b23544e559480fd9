// Package sharedlimit counts the requests of API keys over all API processes, in Redis.
//
// It promises: processes that share a Redis together admit as many requests as the limits of a key allow. It uses
// redis_rate (GCRA in one script, with the clock of Redis) and limits how long a request waits for Redis. It does not
// decide what happens while Redis is down: then each API process counts by itself.
package sharedlimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"fanfare/api"
)

// patience is how long a request waits for Redis, which answers in well under a millisecond.
const patience = 100 * time.Millisecond

// Limiter is an [api.SharedLimiter].
type Limiter struct {
	rates  *redis_rate.Limiter
	prefix string
}

var _ api.SharedLimiter = (*Limiter)(nil)

// New returns a limiter. prefix is the beginning of the names of its Redis keys, so that several installations can
// share a Redis.
func New(client redis.UniversalClient, prefix string) (*Limiter, error) {
	if client == nil {
		return nil, errors.New("sharedlimit: a Redis client is missing")
	}
	return &Limiter{redis_rate.NewLimiter(client), prefix}, nil
}

// Take counts one request of a key against both limits. A request that the limit per second refuses is not counted
// against the limit per minute.
func (l *Limiter) Take(ctx context.Context, key string, limits api.Limits) (api.Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	second, err := l.rates.Allow(ctx, l.prefix+"api-key/"+key+"/second", redis_rate.PerSecond(limits.PerSecond))
	if err != nil {
		return api.Grant{}, fmt.Errorf("count requests in Redis: %w", err)
	}
	grant := api.Grant{Limit: limits.PerMinute}
	if second.Allowed == 0 {
		grant.Wait = second.RetryAfter
		return grant, nil
	}
	minute, err := l.rates.Allow(ctx, l.prefix+"api-key/"+key+"/minute", redis_rate.PerMinute(limits.PerMinute))
	if err != nil {
		return api.Grant{}, fmt.Errorf("count requests in Redis: %w", err)
	}
	grant.OK, grant.Remaining = minute.Allowed > 0, minute.Remaining
	if !grant.OK {
		grant.Wait = minute.RetryAfter
	}
	return grant, nil
}
