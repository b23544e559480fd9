package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The load generator against a whole server: campaigns and single sends, each recipient has one answer, and every
// event is found (P2, P3). Nothing that it makes can reach a person: the campaigns are tests.
func TestEndToEndLoadgen(t *testing.T) {
	t.Parallel()
	w := newEmbeddedEnv(t, 1000, "--log-level", "warn", "--sim-profile", "fast")
	var stdout, stderr strings.Builder
	cmd := exec.Command(filepath.Join(filepath.Dir(fanfareBinary(t)), "loadgen"), "--api", w.cl.base, "--key", w.cl.key, "--data", w.dir,
		"--campaigns", "2", "--people", "150", "--singles", "60", "--per-request", "3", "--rate", "200", "--timeout", "3m", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &stdout, &stderr)
	}
	var got struct {
		Recipients, Refused, Broken int
		States                      map[string]int
		Times                       []struct {
			What     string
			Count    int
			P50, Max float64
		}
	}
	if err := json.Unmarshal([]byte(stdout.String()), &got); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	if got.Recipients != 360 || got.Refused != 0 || got.Broken != 0 || got.States["delivered"] != 360 {
		t.Errorf("got %+v, want 360 recipients, all delivered", got)
	}
	for _, x := range got.Times[1:] {
		if x.Count != 360 || x.P50 <= 0 || x.Max < x.P50 {
			t.Errorf("got %+v, want the times of 360", x)
		}
	}
	for _, c := range []struct {
		args string
		code int
	}{
		{"--key x", 2},
		{"--key x --data " + w.dir + " --people 2000000", 2},
		{"--key x --data " + t.TempDir(), 3},
		{"--key wrong --api " + w.cl.base + " --data " + w.dir, 3},
	} {
		cmd := exec.Command(cmd.Path, strings.Fields(c.args)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != c.code {
			t.Errorf("%s: got exit code %d, want %d: %s", c.args, cmd.ProcessState.ExitCode(), c.code, out)
		}
	}
}
