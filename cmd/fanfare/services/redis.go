package services

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// LogRedis sends the log of the Redis client to log, at level debug. The components that wait for Redis log each change
// once.
func LogRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements the logger of go-redis.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "client of redis", "detail", fmt.Sprintf(format, args...))
}

func expectedRedis(opts *redis.UniversalOptions) expected {
	return expected{
		flag: "--redis", protocol: protocolRedis, secure: opts.TLSConfig != nil, port: "Redis' is 6379 by default",
		addTLS: "write rediss:// instead of redis:// after --redis", dropTLS: "write redis:// instead of rediss:// after --redis",
	}
}

// OpenRedis connects as the roles do and returns a client once Redis has let it in.
func OpenRedis(ctx context.Context, addr string) (redis.UniversalClient, *Problem) {
	opts, err := RedisOptions(addr)
	if err != nil {
		return nil, Permanent(err.Error(), "want host:port or redis://user:password@host:port/0")
	}
	reachable, p := firstReachable(ctx, "--redis", opts.Addrs)
	if p != nil {
		return nil, p
	}
	opts.MaxRetries, opts.DialTimeout, opts.ReadTimeout, opts.ContextTimeoutEnabled = -1, 2*time.Second, Timeout-time.Second, true
	rdb := redis.NewUniversalClient(opts)
	err = expectedRedis(opts).call(ctx, reachable, func(ctx context.Context) error { return rdb.Ping(ctx).Err() })
	if err != nil {
		p = redisProblem(ctx, reachable, opts, err)
	} else {
		p = redisNotUsable(ctx, rdb, reachable)
	}
	if p != nil {
		_ = rdb.Close()
		return nil, p
	}
	return rdb, nil
}

// leastRedis is the first version in which a script may write after it has called TIME, as the scripts of the limiter
// do.
const leastRedis = 5

// redisNotUsable says that a Redis which answers cannot be used: it is too old, or a replica, as it is for a moment in
// a failover. It says nothing if the user may not run INFO.
func redisNotUsable(ctx context.Context, rdb redis.UniversalClient, addr string) *Problem {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	info := RedisInfo(ctx, rdb, "server", "replication")
	version, _, _ := strings.Cut(info["redis_version"], ".")
	if major, err := strconv.Atoi(version); err == nil && major < leastRedis {
		return Permanent(fmt.Sprintf("%s is Redis version %s", addr, info["redis_version"]),
			fmt.Sprintf("use Redis %d or newer: in older versions a script cannot write after it has called TIME", leastRedis))
	}
	if info["role"] == "slave" {
		return transient(fmt.Sprintf("%s is a replica of %s:%s and read-only", addr, info["master_host"], info["master_port"]),
			"give the address of the primary after --redis: the limiter must write")
	}
	return nil
}

// RedisInfo returns the fields of sections of INFO. It is empty if the user may not run INFO.
func RedisInfo(ctx context.Context, rdb redis.UniversalClient, sections ...string) map[string]string {
	info := map[string]string{}
	for _, section := range sections {
		text, err := rdb.Info(ctx, section).Result()
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				info[k] = v
			}
		}
	}
	return info
}

// redisProblem describes the error of the first command.
func redisProblem(ctx context.Context, addr string, opts *redis.UniversalOptions, err error) *Problem {
	switch {
	case redis.HasErrorPrefix(err, "NOAUTH"):
		return Permanent(addr+" wants a password", "give it: --redis redis://:PASSWORD@"+addr)
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "Client sent AUTH"), redis.HasErrorPrefix(err, "AUTH"):
		return Permanent(addr+" refuses the user or the password", "correct them in --redis redis://USER:PASSWORD@"+addr)
	case redis.HasErrorPrefix(err, "NOPERM"):
		return Permanent(fmt.Sprintf("the user lacks the rights that Fanfare needs (%v)", err), "ACL SETUSER "+orElse(opts.Username, "default")+" +@all ~*")
	case redis.HasErrorPrefix(err, "LOADING"):
		return transient(addr+" is still reading its data", "wait, and start again")
	case redis.HasErrorPrefix(err, "CLUSTERDOWN"), redis.HasErrorPrefix(err, "MASTERDOWN"), redis.HasErrorPrefix(err, "READONLY"),
		redis.HasErrorPrefix(err, "TRYAGAIN"), redis.HasErrorPrefix(err, "BUSY"), redis.HasErrorPrefix(err, "max number of clients"):
		return transient(fmt.Sprintf("%s cannot serve now (%v)", addr, err), "see the log of Redis, and whether its other nodes run")
	case redis.HasErrorPrefix(err, "DENIED"):
		return Permanent(addr+" is in protected mode and accepts only connections from its own machine", "give it a password (requirepass), or the addresses to listen on (bind)")
	}
	if opts.TLSConfig != nil {
		if p := tlsProblem(addr, expectedRedis(opts).dropTLS, err); p != nil {
			return p
		}
	}
	if p := expectedRedis(opts).problem(ctx, addr); p != nil {
		return p
	}
	return transient(fmt.Sprintf("%s does not answer as it should (%s)", addr, reason(err)), "see the log of Redis")
}
