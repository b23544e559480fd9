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
	for _, s := range services {
		if os.Getenv(s.Env()) == "" && os.Getenv(integrationEnv) == "" {
			tb.Skipf("needs %s: run make integration, or give %s", s, s.Env())
		}
	}
	found, err := Find(services...)
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

// Find returns the addresses of the services: those that are given, else of ones that it starts.
func Find(services ...Service) (map[Service]string, error) {
	found := map[Service]string{}
	for _, s := range services {
		addr := os.Getenv(s.Env())
		if addr == "" {
			var err error
			if addr, err = start(s); err != nil {
				return nil, fmt.Errorf("%s can neither be found nor started: %w (give its address in %s)", s, err, s.Env())
			}
		}
		found[s] = addr
	}
	return found, nil
}

// Stop ends what the scripts have started for this process, and forgets its data. Containers end with the process.
func Stop() error {
	mu.Lock()
	defer mu.Unlock()
	if len(scripted) == 0 {
		return nil
	}
	args := []string{"--wipe"}
	for _, s := range scripted {
		args = append(args, string(s))
		delete(started, s)
	}
	scripted = nil
	if out, err := exec.Command(script("down"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("services/down: %w: %s", err, out)
	}
	return nil
}

var (
	mu      sync.Mutex
	started = map[Service]string{}
	// scripted are those of them that the scripts started.
	scripted []Service
)

// start starts a service once in this process; the scripts see to it that it is started once on this machine.
func start(s Service) (string, error) {
	mu.Lock()
	defer mu.Unlock()
	if addr := started[s]; addr != "" {
		return addr, nil
	}
	addr, err := byScript(s)
	if err == nil {
		scripted = append(scripted, s)
	} else {
		var again error
		if addr, again = byContainer(s); again != nil {
			return "", errors.Join(err, again)
		}
	}
	started[s] = addr
	return addr, nil
}

func script(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "services", name)
}

// byScript runs services/up, which installs from Debian, Maven and npm.
func byScript(s Service) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", errors.New("the scripts need a Debian machine and root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, script("up"), string(s))
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
