package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fanfare/schemas"
)

// consumer is account.py with its interpreter, state and arguments.
type consumer struct {
	python, script, state string
	args                  []string
}

// newConsumer returns a consumer with its own state and its own group. Its packages are installed from PyPI once per
// machine and set of pinned versions; the code for the records is generated from the committed .proto files. Without
// Python the test is skipped; in CI it fails.
func newConsumer(t *testing.T, kafka, prefix string) *consumer {
	t.Helper()
	python, err := pythonEnvironment(t.Context())
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no Python to run the example consumer with: %v", err)
		}
		t.Skipf("no Python to run the example consumer with: %v", err)
	}
	dir := t.TempDir()
	script, err := os.ReadFile(filepath.Join(pythonExample, "account.py"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "account.py"), script, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "-m", "grpc_tools.protoc", "-I", protoRoot, "--python_out", dir,
		"fanfare/v1/campaign.proto", "fanfare/v1/delivery.proto").CombinedOutput()
	if err != nil {
		t.Fatalf("protoc: %v\n%s", err, out)
	}
	c := &consumer{python: python, script: filepath.Join(dir, "account.py"), state: filepath.Join(dir, "account.db")}
	c.args = []string{"--brokers", kafka, "--prefix", prefix, "--group", prefix + "downstream." + strings.ToLower(rand.Text()[:6]), "--state", c.state, "--json"}
	return c
}

// pythonEnvironment returns the interpreter of a virtual environment with the packages of requirements.txt.
func pythonEnvironment(ctx context.Context) (string, error) {
	base, err := exec.LookPath("python3")
	if err != nil {
		return "", err
	}
	requirements := filepath.Join(pythonExample, "requirements.txt")
	pinned, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, base, "-VV").Output()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(slices.Concat(pinned, version, []byte(base)))
	dir := filepath.Join(cache, "fanfare", "python-"+hex.EncodeToString(sum[:8]))
	interpreter := filepath.Join(dir, "bin", "python")
	if _, err := os.Stat(interpreter); err == nil {
		return interpreter, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// The environment is made in another folder and then renamed, because half an environment does not work, and two
	// tests may make it at the same time.
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "python-new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	for _, args := range [][]string{
		{base, "-m", "venv", fresh},
		{filepath.Join(fresh, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:", "-r", requirements},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return interpreter, nil
}

// waitOutput waits until account.py has printed its counts; by then they are in its state, too.
func waitOutput(t *testing.T, p *process) {
	t.Helper()
	for range 600 {
		if b, err := os.ReadFile(p.log.Name()); err == nil && bytes.Contains(b, []byte(`"campaign"`)) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s has printed no counts for 30 s", p.name)
}

// start runs account.py beside the test.
func (c *consumer) start(t *testing.T, extra ...string) *process {
	t.Helper()
	return startProcess(t, "account.py", c.python, append(append([]string{c.script}, c.args...), extra...)...)
}

// untilSettled runs account.py until the campaign is settled and returns what it printed.
func (c *consumer) untilSettled(t *testing.T, campaign string, limit time.Duration) pythonAccount {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.python, append(append([]string{c.script}, c.args...), "--until-settled", campaign)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("account.py: %v after at most %s\n%s%s", err, limit, out, stderr.String())
	}
	var a pythonAccount
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("account.py printed %q: %v", out, err)
	}
	return a
}

// The example consumer logs in to an embedded installation with DIR/consumer.json and counts a campaign. Without the
// login the broker gives it no records.
func TestIntegrationPythonConsumerLogsIn(t *testing.T) {
	w := newEmbeddedEnv(t, 2000, "--sim-profile", "fast", "--receipt-window", "2s", "--log-level", "warn")
	connection := filepath.Join(w.dir, "consumer.json")
	c := newConsumer(t, "unused:1", schemas.DefaultPrefix)
	id := runningCampaign(t, w.cl, 200)
	c.args = append(c.args, "--connection", connection)
	a := c.untilSettled(t, id, 2*time.Minute)
	if a.Total != 200 || a.Sent != 200 || !a.Settled {
		t.Errorf("got %+v, want 200 sent and settled", a)
	}
	w.stop(t)
}
