package sim

import (
	"context"
	"errors"
	"testing"
	"time"

	"fanfare/sinks/carrier"
)

// TestWrite: a message that a phone writes reaches only connectors of its account, and the writer learns whether it is
// durable. Without a connector, the writer waits until its time-out.
func TestWrite(t *testing.T) {
	c, err := Open(Config{Keys: testKeys(t), Profile: Fast()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	m := carrier.Inbound{Account: "one", From: "+393401234567", To: "48000", Text: "STOP"}
	if err := c.Write(short, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("without a connector: got %v, want the end of the time", err)
	}
	away := errors.New("Kafka is away")
	var got []carrier.Inbound
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for _, account := range []string{"one", "two"} {
		go func() {
			done <- c.Connector(Options{Account: account}).Inbound(ctx, func(list []carrier.Inbound) error {
				if account != "one" {
					t.Errorf("account %s got %+v", account, list)
				}
				got = append(got, list...)
				if len(got) == 1 {
					return away
				}
				return nil
			})
		}()
	}
	if err := c.Write(t.Context(), m); !errors.Is(err, away) {
		t.Fatalf("got %v, want the reason why it is not durable", err)
	}
	if err := c.Write(t.Context(), m); err != nil {
		t.Fatalf("the second time: got %v", err)
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(got) != 2 || got[1].Text != "STOP" {
		t.Errorf("got %+v, want the message twice", got)
	}
}
