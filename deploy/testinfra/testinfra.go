// Package testinfra finds or starts the real services that integration tests run on: Kafka, Redis, ClickHouse and Postgres.
//
// An address given in FANFARE_TEST_KAFKA, _REDIS, _CLICKHOUSE or _POSTGRES is used as it is. What is not given is started when
// FANFARE_TEST_INTEGRATION is set (make integration sets it): by the scripts in services/ on a Debian machine where we are
// root, else by testcontainers where Docker runs; if neither works the test fails. Without that variable the test is skipped,
// and says so in one line.
package testinfra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Service is one that tests may need.
type Service string

// Services.
const (
	Kafka      Service = "kafka"
	Redis      Service = "redis"
	ClickHouse Service = "clickhouse"
	Postgres   Service = "postgres"
)

// All are all services.
var All = []Service{Kafka, Redis, ClickHouse, Postgres}

// Env is the variable that holds a service's address.
func (s Service) Env() string { return "FANFARE_TEST_" + strings.ToUpper(string(s)) }

// integrationEnv says that services are to be started, and that a missing one is a failure.
const integrationEnv = "FANFARE_TEST_INTEGRATION"

// Need returns the addresses of the services. It skips the test, or fails it, as the package comment says.
func Need(tb testing.TB, services ...Service) map[Service]string {
	tb.Helper()
	out := map[Service]string{}
	var missing []Service
	for _, s := range services {
		if addr := os.Getenv(s.Env()); addr != "" {
			out[s] = addr
		} else {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return out
	}
	if os.Getenv(integrationEnv) == "" {
		tb.Skipf("needs %v: run make integration, or give %s", missing, missing[0].Env())
	}
	for _, s := range missing {
		addr, err := start(s)
		if err != nil {
			tb.Fatalf("%s can neither be found nor started: %v (give its address in %s)", s, err, s.Env())
		}
		out[s] = addr
	}
	return out
}

var (
	mu      sync.Mutex
	started = map[Service]string{}
)

// start starts a service once in this process; the scripts see to it that it is started once on this machine.
func start(s Service) (string, error) {
	mu.Lock()
	defer mu.Unlock()
	if addr := started[s]; addr != "" {
		return addr, nil
	}
	addr, err := byScript(s)
	if err != nil {
		var again error
		if addr, again = byContainer(s); again != nil {
			return "", errors.Join(err, again)
		}
	}
	started[s] = addr
	return addr, nil
}

// byScript runs services/up, which installs from Debian, Maven and npm.
func byScript(s Service) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", errors.New("the scripts need a Debian machine and root")
	}
	_, here, _, _ := runtime.Caller(0)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(here), "services", "up"), string(s))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("services/up %s: %w: %s", s, err, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "export "+s.Env()+"="); ok {
			return strings.Trim(v, "'"), nil
		}
	}
	return "", fmt.Errorf("services/up %s printed no address: %s", s, out)
}
