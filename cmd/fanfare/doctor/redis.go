package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"fanfare/cmd/fanfare/services"
)

// examineRedis looks at rights, role, memory and clock.
func examineRedis(ctx context.Context, cfg Config) []Finding {
	if !cfg.Uses.Redis {
		return nil
	}
	if cfg.Redis == "" {
		return []Finding{ok("redis", "embedded in fanfare serve")}
	}
	rdb, p := services.OpenRedis(ctx, cfg.Redis)
	if p != nil {
		return []Finding{problem("redis", p)}
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*services.Timeout)
	defer cancel()
	where := services.WithoutPassword(cfg.Redis)
	info := services.RedisInfo(ctx, rdb, "server", "memory", "cluster")
	first := ok("redis", where+versionOf(info["redis_version"]))
	var all []Finding
	if info["cluster_enabled"] == "1" && !strings.Contains(cfg.Redis, ",") {
		all = append(all, bad("redis", where+" is a node of a Redis Cluster, but --redis has only one address, so it is used as a single Redis", "give several nodes, separated by commas: --redis HOST1:PORT,HOST2:PORT"))
	}
	all = append(all, redisMemory(info)...)
	// This script uses the same commands as the scripts of the limiter, on a key that expires after a second.
	const script = "local t = redis.call('TIME') redis.call('HSET', KEYS[1], 't', t[1]) redis.call('PEXPIRE', KEYS[1], 1000) return t[1]"
	if err := rdb.Eval(ctx, script, []string{cfg.Prefix + "doctor"}).Err(); err != nil {
		all = append(all, redisScriptFinding(cfg, err))
	}
	offset, err := clockOffset(func() (time.Time, error) { return rdb.Time(ctx).Result() })
	if err != nil {
		all = append(all, bad("redis", fmt.Sprintf("refuses TIME (%v)", err), "allow TIME: all limits use the clock of Redis"))
	}
	all = append(all, clockFinding("redis", offset)...)
	return append([]Finding{first}, all...)
}

// redisScriptFinding describes the error of a script.
func redisScriptFinding(cfg Config, err error) Finding {
	switch {
	case redis.HasErrorPrefix(err, "OOM"):
		return bad("redis", "its memory is full: nothing can be written", "raise maxmemory, or find what else fills it")
	case redis.HasErrorPrefix(err, "READONLY"):
		return bad("redis", "it is read-only", "give the address of the primary after --redis: the limiter must write")
	case redis.HasErrorPrefix(err, "MISCONF"):
		return bad("redis", "it cannot save to disk and refuses writes", "free its disk, or set stop-writes-on-bgsave-error no: Fanfare loses nothing when Redis loses its data")
	case redis.HasErrorPrefix(err, "MOVED"), redis.HasErrorPrefix(err, "CROSSSLOT"):
		return bad("redis", fmt.Sprintf("it is a Redis Cluster (%v)", err), "give several nodes, separated by commas: --redis HOST1:PORT,HOST2:PORT")
	case redis.HasErrorPrefix(err, "NOPERM"), errors.Is(err, redis.Nil):
		return bad("redis", fmt.Sprintf("the user may not run scripts (%v)", err), fmt.Sprintf("ACL SETUSER NAME +@read +@write +@scripting +time +ping ~%s*", cfg.Prefix))
	default:
		return bad("redis", fmt.Sprintf("refuses scripts (%v)", err), "allow EVAL and EVALSHA: the limiter is a script")
	}
}

// redisMemory looks at the limit of memory and at what happens when it is reached.
func redisMemory(info map[string]string) []Finding {
	limit, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
	policy := info["maxmemory_policy"]
	var all []Finding
	if limit > 0 && policy != "" && policy != "noeviction" {
		all = append(all, bad("redis", "maxmemory-policy is "+policy+": when Redis evicts a bucket it starts full again, and a limit is exceeded", "CONFIG SET maxmemory-policy noeviction"))
	}
	if limit > 0 && used*10 > limit*9 {
		all = append(all, bad("redis", fmt.Sprintf("%d of %d MB are used", used>>20, limit>>20), "raise maxmemory: when memory is full, all routes pause"))
	}
	return all
}

func versionOf(v string) string {
	if v == "" {
		return ""
	}
	return ", version " + v
}
