//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The clients that generators make from the OpenAPI document compile, and send a campaign through a real server: in Go
// with oapi-codegen, in TypeScript with openapi-typescript.
func TestGeneratedClients(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	runBinary(t, "tenants", "create", "Acme", "--region", "IT", "--data", dir)
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", dir)}
	startProcess(t, "fanfare", fanfareBinary(t), "serve", "--data", dir, "--http", addr, "--sim-profile", "fast", "--log-level", "warn")
	api.waitReady(t)
	for i, example := range []struct {
		name  string
		build func(t *testing.T) []string
	}{{"go", goExample}, {"typescript", typescriptExample}} {
		t.Run(example.name, func(t *testing.T) {
			command := example.build(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			phones := []string{fmt.Sprintf("+39347000%d001", i), fmt.Sprintf("+39347000%d002", i)}
			cmd := exec.CommandContext(ctx, command[0], append(command[1:], phones...)...)
			cmd.Env = append(os.Environ(), "FANFARE_URL="+api.base, "FANFARE_KEY="+api.key)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, stderr.String())
			}
			var got struct {
				Campaign    string
				Cost        float64
				Total, Sent uint64
			}
			if err := json.Unmarshal(out, &got); err != nil || got.Campaign == "" {
				t.Fatalf("got %s, %v, want the campaign as JSON", out, err)
			}
			var stats statsAnswer
			api.must(t, http.MethodGet, "/api/campaigns/"+got.Campaign+"/stats", nil, &stats, "")
			if stats.State != "completed" || stats.Sent != 2 || got.Sent != 2 || got.Total != 2 || got.Cost <= 0 {
				t.Errorf("the client says %+v, the server %+v, want two messages sent and their cost", got, stats)
			}
		})
	}
}

// goExample builds schemas/examples/go and returns how to run it.
func goExample(t *testing.T) []string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "example")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "fanfare/schemas/examples/go").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{bin}
}

// typescriptExample generates and compiles schemas/examples/typescript and returns how to run it. Its packages are
// installed from npm into a folder of the test. Without npm the test is skipped; in CI it fails.
func typescriptExample(t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no npm to build the example with: %v", err)
		}
		t.Skipf("no npm to build the example with: %v", err)
	}
	root, err := filepath.Abs(filepath.Join("..", "..", "schemas"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "examples", "typescript")
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "campaign.ts"} {
		copyFile(t, filepath.Join(root, "examples", "typescript", name), filepath.Join(dir, name))
	}
	copyFile(t, filepath.Join(root, "openapi", "openapi.json"), filepath.Join(dir, "..", "..", "openapi", "openapi.json"))
	for _, args := range [][]string{{"ci", "--no-audit", "--no-fund"}, {"run", "generate"}, {"run", "build"}} {
		cmd := exec.CommandContext(t.Context(), "npm", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return []string{"node", filepath.Join(dir, "dist", "campaign.js")}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
