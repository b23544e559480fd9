package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// scriptedRedis answers each command as it is told to, and OK otherwise.
func scriptedRedis(t testing.TB, answers map[string]string) string {
	t.Helper()
	return listenTo(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			words, err := readCommand(r)
			if err != nil {
				return
			}
			answer, ok := answers[strings.ToUpper(strings.Join(words, " "))]
			if !ok {
				answer, ok = answers[strings.ToUpper(words[0])]
			}
			switch {
			case ok:
			case strings.EqualFold(words[0], "HELLO"):
				answer = "-ERR unknown command"
			case strings.EqualFold(words[0], "TIME"):
				now := time.Now()
				answer = fmt.Sprintf("*2\r\n$%d\r\n%d\r\n$1\r\n0", len(strconv.FormatInt(now.Unix(), 10)), now.Unix())
			default:
				answer = "+OK"
			}
			if _, err := io.WriteString(c, answer+"\r\n"); err != nil {
				return
			}
		}
	})
}

func readCommand(r *bufio.Reader) (words []string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "*")))
	if err != nil || n < 1 {
		return nil, io.ErrUnexpectedEOF
	}
	for range n {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "$")))
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		words = append(words, string(b[:size]))
	}
	return words, nil
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s", len(text), text) }

func redisFindings(t testing.TB, addr string) []finding {
	t.Helper()
	return examineRedis(t.Context(), testConfig(t, func(c *Config) { c.Redis = addr }))
}

func TestDoctorRedis(t *testing.T) {
	t.Parallel()
	yesterday := strconv.FormatInt(time.Now().Add(-24*time.Hour).Unix(), 10)
	for name, c := range map[string]struct {
		answers    map[string]string
		found, fix string
	}{
		"old":        {map[string]string{"INFO SERVER": bulk("redis_version:4.0.9\r\n")}, "version 4.0.9", "Redis 5 or newer"},
		"replica":    {map[string]string{"INFO REPLICATION": bulk("role:slave\r\nmaster_host:redis-1\r\nmaster_port:6379\r\n")}, "a replica of redis-1:6379", "address of the primary"},
		"evicts":     {map[string]string{"INFO MEMORY": bulk("maxmemory:1000000\r\nmaxmemory_policy:volatile-lru\r\nused_memory:10\r\n")}, "maxmemory-policy is volatile-lru", "noeviction"},
		"full":       {map[string]string{"INFO MEMORY": bulk("maxmemory:1000000\r\nmaxmemory_policy:noeviction\r\nused_memory:990000\r\n")}, "are used", "maxmemory"},
		"cluster":    {map[string]string{"INFO CLUSTER": bulk("cluster_enabled:1\r\n")}, "a node of a Redis Cluster", "several nodes"},
		"no scripts": {map[string]string{"EVAL": "-NOPERM this user has no permissions to run the 'eval' command"}, "may not run scripts", "ACL SETUSER"},
		"read only":  {map[string]string{"EVAL": "-READONLY You can't write against a read only replica."}, "read-only", "primary"},
		"out of memory": {
			map[string]string{"EVAL": "-OOM command not allowed when used memory > 'maxmemory'."}, "memory is full", "maxmemory",
		},
		"clock":    {map[string]string{"TIME": "*2\r\n" + bulk(yesterday) + "\r\n$1\r\n0"}, "behind this machine's", "synchronise the clocks"},
		"password": {map[string]string{"PING": "-NOAUTH Authentication required."}, "wants a password", "--redis redis://:PASSWORD@"},
		"loading":  {map[string]string{"PING": "-LOADING Redis is loading the dataset in memory"}, "still reading", "wait"},
	} {
		t.Run(name, func(t *testing.T) {
			all := redisFindings(t, scriptedRedis(t, c.answers))
			wantBad(t, all, c.found, c.fix)
			if len(of(all, levelBad)) != 1 {
				t.Errorf("got %+v, want that alone", all)
			}
		})
	}
	// What evicts nothing is well, whatever its policy is.
	all := redisFindings(t, scriptedRedis(t, map[string]string{"INFO MEMORY": bulk("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n")}))
	if len(all) != 1 || all[0].Level != levelOK {
		t.Errorf("got %+v, want it to be well", all)
	}
	locked := miniredis.RunT(t)
	locked.RequireAuth("right")
	wantBad(t, redisFindings(t, locked.Addr()), "wants a password", "redis://:PASSWORD@")
	wantBad(t, redisFindings(t, "redis://:wrong@"+locked.Addr()), "refuses the user or the password", "--redis redis://USER:PASSWORD@")
	if all := redisFindings(t, "redis://:right@"+locked.Addr()); len(of(all, levelBad)) > 0 || strings.Contains(fmt.Sprint(all), "right@") {
		t.Errorf("got %+v, want nothing bad and no password", all)
	}
}
