package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func redisTongue(opts *redis.UniversalOptions) tongue {
	return tongue{
		flag: "--redis", want: speaksRedis, secure: opts.TLSConfig != nil, port: "Redis' is 6379 by default",
		withTLS: "say rediss:// instead of redis:// after --redis", without: "say redis:// instead of rediss:// after --redis",
	}
}

// openRedis connects as the roles do and returns a client once Redis has let it in.
func openRedis(ctx context.Context, cfg Config) (redis.UniversalClient, *trouble) {
	opts, err := redisOptions(cfg.Redis)
	if err != nil {
		return nil, wrong(err.Error(), "want host:port or redis://user:password@host:port/0")
	}
	reachable, t := firstReachable(ctx, "--redis", opts.Addrs)
	if t != nil {
		return nil, t
	}
	opts.MaxRetries, opts.DialTimeout, opts.ReadTimeout, opts.ContextTimeoutEnabled = -1, 2*time.Second, patience-time.Second, true
	rdb := redis.NewUniversalClient(opts)
	if err := redisTongue(opts).try(ctx, reachable, func(ctx context.Context) error { return rdb.Ping(ctx).Err() }); err != nil {
		_ = rdb.Close()
		return nil, redisTrouble(ctx, reachable, opts, err)
	}
	return rdb, nil
}

// redisTrouble puts an error of Redis into words.
func redisTrouble(ctx context.Context, addr string, opts *redis.UniversalOptions, err error) *trouble {
	switch {
	case redis.HasErrorPrefix(err, "NOAUTH"):
		return wrong(addr+" wants a password", "give it: --redis redis://:PASSWORD@"+addr)
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "ERR Client sent AUTH"), redis.HasErrorPrefix(err, "ERR AUTH"):
		return wrong(addr+" refuses the user or the password", "correct them in --redis redis://USER:PASSWORD@"+addr)
	case redis.HasErrorPrefix(err, "NOPERM"):
		return wrong(fmt.Sprintf("the user may not do what we need (%v)", err), "ACL SETUSER "+orElse(opts.Username, "default")+" +@all ~*")
	case redis.HasErrorPrefix(err, "LOADING"):
		return passing(addr+" is still reading its data", "wait, and start again")
	case redis.HasErrorPrefix(err, "CLUSTERDOWN"), redis.HasErrorPrefix(err, "MASTERDOWN"):
		return passing(fmt.Sprintf("%s is of no use now (%v)", addr, err), "bring its other nodes back")
	case redis.HasErrorPrefix(err, "DENIED"):
		return wrong(addr+" is in protected mode and lets only its own machine in", "give it a password (requirepass), or the addresses to listen on (bind)")
	}
	if opts.TLSConfig != nil {
		if t := tlsTrouble(addr, redisTongue(opts).without, err); t != nil {
			return t
		}
	}
	if t := redisTongue(opts).trouble(ctx, addr); t != nil {
		return t
	}
	return passing(fmt.Sprintf("%s does not answer as it should (%s)", addr, oneLine(err.Error())), "see the log of Redis")
}

// leastRedis is the first version whose scripts may write after they have asked for the time.
const leastRedis = 5

// examineRedis looks at rights, role, memory and clock.
func examineRedis(ctx context.Context, cfg Config) []finding {
	if !cfg.needs(needRedis) {
		return nil
	}
	if cfg.Redis == "" {
		return []finding{well("redis", "embedded in fanfare serve")}
	}
	rdb, t := openRedis(ctx, cfg)
	if t != nil {
		return []finding{bad("redis", t.found, t.fix)}
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	where := withoutPassword(cfg.Redis)
	info := redisInfo(ctx, rdb)
	first := well("redis", where+versionOf(info["redis_version"]))
	var all []finding
	if major, err := strconv.Atoi(before(info["redis_version"], ".")); err == nil && major < leastRedis {
		all = append(all, bad("redis", "version "+info["redis_version"], fmt.Sprintf("use Redis %d or newer: scripts that write by the clock are relied on", leastRedis)))
	}
	if info["cluster_enabled"] == "1" && !strings.Contains(cfg.Redis, ",") {
		all = append(all, bad("redis", where+" is a node of a Redis Cluster, but one address is taken for a single Redis", "give several nodes, separated by commas: --redis HOST1:PORT,HOST2:PORT"))
	}
	replica := info["role"] == "slave"
	if replica {
		all = append(all, bad("redis", fmt.Sprintf("%s is a replica of %s:%s", where, info["master_host"], info["master_port"]), "give the address of the primary after --redis: limits are written"))
	}
	all = append(all, redisMemory(info)...)
	// What the limiter does, on a key of its own that is gone after a second.
	const script = "local t = redis.call('TIME') redis.call('HSET', KEYS[1], 't', t[1]) redis.call('PEXPIRE', KEYS[1], 1000) return t[1]"
	if err := rdb.Eval(ctx, script, []string{cfg.Prefix + "doctor"}).Err(); err != nil && !replica {
		all = append(all, redisScript(cfg, err))
	}
	off, err := clockOf(func() (time.Time, error) { return rdb.Time(ctx).Result() })
	if err != nil {
		all = append(all, bad("redis", fmt.Sprintf("does not tell the time (%v)", err), "allow TIME: it is the clock of all limits"))
	}
	all = append(all, clockFinding("redis", off)...)
	return append([]finding{first}, all...)
}

func redisScript(cfg Config, err error) finding {
	switch {
	case redis.HasErrorPrefix(err, "OOM"):
		return bad("redis", "its memory is full: nothing can be written", "raise maxmemory, or find what else fills it")
	case redis.HasErrorPrefix(err, "READONLY"):
		return bad("redis", "it is read-only", "give the address of the primary after --redis: limits are written")
	case redis.HasErrorPrefix(err, "MISCONF"):
		return bad("redis", "it cannot save to disk and refuses writes", "free its disk, or set stop-writes-on-bgsave-error no: nothing of ours in Redis need survive")
	case redis.HasErrorPrefix(err, "MOVED"), redis.HasErrorPrefix(err, "CROSSSLOT"):
		return bad("redis", fmt.Sprintf("it is a Redis Cluster (%v)", err), "give several nodes, separated by commas: --redis HOST1:PORT,HOST2:PORT")
	case redis.HasErrorPrefix(err, "NOPERM"), errors.Is(err, redis.Nil):
		return bad("redis", fmt.Sprintf("the user may not run scripts (%v)", err), fmt.Sprintf("ACL SETUSER NAME +@read +@write +@scripting +time +ping ~%s* ", cfg.Prefix))
	default:
		return bad("redis", fmt.Sprintf("refuses scripts (%v)", err), "allow EVAL and EVALSHA: limits are kept by scripts")
	}
}

// redisMemory says what an eviction would do.
func redisMemory(info map[string]string) []finding {
	limit, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
	policy := info["maxmemory_policy"]
	var all []finding
	if limit > 0 && policy != "" && policy != "noeviction" {
		all = append(all, bad("redis", "maxmemory-policy is "+policy+": an evicted bucket is a full one, and a limit is broken", "CONFIG SET maxmemory-policy noeviction"))
	}
	if limit > 0 && used*10 > limit*9 {
		all = append(all, bad("redis", fmt.Sprintf("%d of %d MB are used", used>>20, limit>>20), "raise maxmemory: when it is full, routes pause"))
	}
	return all
}

// redisInfo is what Redis says of itself; empty where it may not be asked.
func redisInfo(ctx context.Context, rdb redis.UniversalClient) map[string]string {
	info := map[string]string{}
	for _, section := range []string{"server", "replication", "memory", "cluster"} {
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

func before(s, sep string) string {
	head, _, _ := strings.Cut(s, sep)
	return head
}

func versionOf(v string) string {
	if v == "" {
		return ""
	}
	return ", version " + v
}
