package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"fanfare/cmd/fanfare/services/servicestest"

	"github.com/alicebob/miniredis/v2"
)

func redisFindings(t testing.TB, addr string) []Finding {
	t.Helper()
	return examineRedis(t.Context(), testConfig(t, func(c *Config) { c.Redis = addr }))
}

func TestRedis(t *testing.T) {
	t.Parallel()
	yesterday := strconv.FormatInt(time.Now().Add(-24*time.Hour).Unix(), 10)
	for name, c := range map[string]struct {
		answers    map[string]string
		found, fix string
	}{
		"old":        {map[string]string{"INFO SERVER": servicestest.Bulk("redis_version:4.0.9\r\n")}, "Redis version 4.0.9", "Redis 5 or newer"},
		"replica":    {map[string]string{"INFO REPLICATION": servicestest.Bulk("role:slave\r\nmaster_host:redis-1\r\nmaster_port:6379\r\n")}, "a replica of redis-1:6379", "address of the primary"},
		"evicts":     {map[string]string{"INFO MEMORY": servicestest.Bulk("maxmemory:1000000\r\nmaxmemory_policy:volatile-lru\r\nused_memory:10\r\n")}, "maxmemory-policy is volatile-lru", "noeviction"},
		"full":       {map[string]string{"INFO MEMORY": servicestest.Bulk("maxmemory:1000000\r\nmaxmemory_policy:noeviction\r\nused_memory:990000\r\n")}, "are used", "maxmemory"},
		"cluster":    {map[string]string{"INFO CLUSTER": servicestest.Bulk("cluster_enabled:1\r\n")}, "a node of a Redis Cluster", "several nodes"},
		"no scripts": {map[string]string{"EVAL": "-NOPERM this user has no permissions to run the 'eval' command"}, "may not run scripts", "ACL SETUSER"},
		"read only":  {map[string]string{"EVAL": "-READONLY You can't write against a read only replica."}, "read-only", "primary"},
		"out of memory": {
			map[string]string{"EVAL": "-OOM command not allowed when used memory > 'maxmemory'."}, "memory is full", "maxmemory",
		},
		"clock":    {map[string]string{"TIME": "*2\r\n" + servicestest.Bulk(yesterday) + "\r\n$1\r\n0"}, "behind this machine's", "synchronise the clocks"},
		"password": {map[string]string{"PING": "-NOAUTH Authentication required."}, "wants a password", "--redis redis://:PASSWORD@"},
		"loading":  {map[string]string{"PING": "-LOADING Redis is loading the dataset in memory"}, "still reading", "wait"},
	} {
		t.Run(name, func(t *testing.T) {
			all := redisFindings(t, servicestest.Listen(t, servicestest.Redis(c.answers)))
			wantBad(t, all, c.found, c.fix)
			if len(of(all, Bad)) != 1 {
				t.Errorf("got %+v, want that alone", all)
			}
		})
	}
	// A Redis that evicts no key is good, whatever its policy is.
	all := redisFindings(t, servicestest.Listen(t, servicestest.Redis(map[string]string{"INFO MEMORY": servicestest.Bulk("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n")})))
	if len(all) != 1 || all[0].Level != OK {
		t.Errorf("got %+v, want it to be well", all)
	}
	locked := miniredis.RunT(t)
	locked.RequireAuth("right")
	wantBad(t, redisFindings(t, locked.Addr()), "wants a password", "redis://:PASSWORD@")
	wantBad(t, redisFindings(t, "redis://:wrong@"+locked.Addr()), "refuses the user or the password", "--redis redis://USER:PASSWORD@")
	if all := redisFindings(t, "redis://:right@"+locked.Addr()); len(of(all, Bad)) > 0 || strings.Contains(fmt.Sprint(all), "right@") {
		t.Errorf("got %+v, want nothing bad and no password", all)
	}
}
