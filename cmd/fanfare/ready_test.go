package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadyCommand(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"status":"fine"}`))
	}))
	addr := server.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	ask := func(args ...string) (int, string) {
		var out, errs strings.Builder
		return Main(t.Context(), append([]string{"ready"}, args...), []string{"FANFARE_HTTP=0.0.0.0:" + port, "FANFARE_KAFKA=k:9092"}, &out, &errs), out.String() + errs.String()
	}
	if code, said := ask(); code != exitOK || !strings.Contains(said, "fine") {
		t.Errorf("by the environment: got code %d and %q, want %d and the answer", code, said, exitOK)
	}
	if code, said := ask("--http", addr); code != exitOK {
		t.Errorf("by the flag: got code %d and %q, want %d", code, said, exitOK)
	}
	status = http.StatusServiceUnavailable
	if code, said := ask(); code != exitError || !strings.Contains(said, "fine") {
		t.Errorf("unready: got code %d and %q, want %d and the answer", code, said, exitError)
	}
	server.Close()
	if code, _ := ask(); code != exitError {
		t.Errorf("nothing listens: got code %d, want %d", code, exitError)
	}
	if code, _ := ask("--http", "nonsense"); code != exitUsage {
		t.Errorf("nonsense: got code %d, want %d", code, exitUsage)
	}
}
