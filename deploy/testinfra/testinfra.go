// Package testinfra finds or starts the real services that integration tests run on: Kafka, Redis, ClickHouse and
// Postgres.
//
// Addresses in FANFARE_TEST_KAFKA, _REDIS, _CLICKHOUSE and _POSTGRES are used as they are. If FANFARE_TEST_INTEGRATION
// is set, as make integration does, the package starts the services without an address: with the scripts in services/
// on a Debian machine as root, else with testcontainers if Docker runs; if neither works the test fails. Without that
// variable the test is skipped and says so in one line.
package testinfra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// All lists all services.
var All = []Service{Kafka, Redis, ClickHouse, Postgres}

// Env returns the variable with the address of the service.
func (s Service) Env() string { return "FANFARE_TEST_" + strings.ToUpper(string(s)) }

// integrationEnv is set if tests may start services, and must fail without them.
const integrationEnv = "FANFARE_TEST_INTEGRATION"

// Need returns the addresses of the services. It skips or fails the test as the package comment says.
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

// Find returns the addresses of the services: given by variables, or of services that it starts.
func Find(services ...Service) (map[Service]string, error) {
	found := map[Service]string{}
	for _, s := range services {
		addr := os.Getenv(s.Env())
		if addr == "" {
			var err error
			if addr, err = start(s); err != nil {
				return nil, fmt.Errorf("%s has no address and cannot be started: %w (give its address in %s)", s, err, s.Env())
			}
		}
		found[s] = addr
	}
	return found, nil
}

// Stop stops the services that the scripts have started for this process, and deletes their data. Containers end with
// the process.
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
	// scripted are the services started by the scripts.
	scripted []Service
)

// start starts a service once in this process. The scripts start it once on this machine.
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

// script is the path of a script in services. It searches from the working directory of go test or go run upwards. It
// cannot use the path of this source file, because -trimpath removes it from the binary.
func script(name string) string {
	below := filepath.Join("deploy", "testinfra", "services", name)
	dir, err := os.Getwd()
	if err != nil {
		return below
	}
	for ; ; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, below); exists(path) || dir == filepath.Dir(dir) {
			return path
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
