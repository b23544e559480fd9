package ui

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Guessing is slowed down for each network address and for each e-mail address, and attempts that are refused leave
// nothing in memory.
func TestLoginLimits(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := newLoginLimits(func() time.Time { return now })
	for i := range loginBurst {
		if wait := l.take(fmt.Sprintf("p%d@example.com", i), "192.0.2.1"); wait != 0 {
			t.Fatalf("attempt %d: got a wait of %s, want none", i+1, wait)
		}
	}
	known := len(l.at)
	for i := range 1000 {
		if wait := l.take(strings.Repeat("x", 60_000)+fmt.Sprint(i), "192.0.2.1"); wait <= 0 {
			t.Fatalf("attempt %d of one address: got no wait", loginBurst+i+1)
		}
	}
	if len(l.at) != known {
		t.Errorf("got %d keys in memory, want %d", len(l.at), known)
	}
	now = now.Add(loginEvery)
	if wait := l.take(strings.Repeat("x", 60_000), "192.0.2.1"); wait != 0 {
		t.Errorf("after %s: got a wait of %s, want none", loginEvery, wait)
	}
	for key := range l.at {
		if len(key) > 400 {
			t.Errorf("a key of %d bytes is kept", len(key))
		}
	}
	for i := range loginBurst {
		l.take("anna@example.com", fmt.Sprintf("198.51.100.%d", i))
	}
	if wait := l.take("anna@example.com", "203.0.113.1"); wait <= 0 {
		t.Error("one person tried from many addresses: got no wait")
	}
}
