package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fanfare/schemas"
)

// The first line of a process says its version, before anything can fail; fanfare_build_info says it too.
func TestFirstLineSaysTheVersion(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	var log bytes.Buffer
	w := newWiring(Config{HTTP: busy.Addr().String(), Data: t.TempDir(), Prefix: schemas.DefaultPrefix}, slog.New(slog.NewJSONHandler(&log, nil)))
	defer w.close()
	if err := w.serve(t.Context(), nil); err == nil {
		t.Fatal("got no error, want the port in use")
	}
	var first struct{ Msg, Version string }
	if err := json.NewDecoder(&log).Decode(&first); err != nil || first.Version != version() || first.Msg != "starting" {
		t.Errorf("got %+v, %v, want the version %q", first, err, version())
	}
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range families {
		if f.GetName() == "fanfare_build_info" {
			found = f.GetMetric()[0].GetLabel()[0].GetValue() == version() && f.GetMetric()[0].GetGauge().GetValue() == 1
		}
	}
	if !found {
		t.Error("got no fanfare_build_info with the version")
	}
}

// An error is logged under the key err, and a duration in milliseconds under a key that says so, because a person who
// searches the logs needs one spelling.
func TestLogKeys(t *testing.T) {
	logs := regexp.MustCompile(`\b(Info|Warn|Error|Debug)(Context)?\(`)
	wrong := map[string]*regexp.Regexp{
		"errors have the key err":                                  regexp.MustCompile(`"(error|cause_error|reason_err)",|slog\.Any\("error"`),
		"durations are in milliseconds, with _ms at the key's end": regexp.MustCompile(`slog\.Duration\(|"[a-z_]*(_in|took|pause|delay|elapsed)", [a-z.]*(pause|delay|took|time\.Since)`),
	}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			if !logs.MatchString(line) {
				continue
			}
			for rule, pattern := range wrong {
				if pattern.MatchString(line) {
					t.Errorf("%s:%d: %s: %s", path, i+1, rule, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
