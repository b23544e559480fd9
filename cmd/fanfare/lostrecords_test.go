package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"fanfare/api/store"
	"fanfare/deploy/testinfra"
	"fanfare/schemas"
)

// P4: Kafka loses the newest records of its topics, and with them a pause, an opt-out and a tenant's limit that were
// answered. All of them take effect again once a relay leads: the control-plane view, which senders obey, has them. The
// test cuts off the end of the embedded log, as after a power failure before the disk has written.
func TestLostRecordsTakeEffectAgain(t *testing.T) {
	t.Parallel()
	testLostRecords(t, nil, func(w *wiring) {
		w.close()
		for _, topic := range []string{w.names.Campaigns(), w.names.Suppressions(), w.names.Control()} {
			files, err := filepath.Glob(filepath.Join(w.cfg.Data, "kafka", "partitions", topic+"-*", "*.dat"))
			if err != nil || len(files) == 0 {
				t.Fatalf("files of %s: got %v, %v", topic, files, err)
			}
			for _, file := range files {
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				if info.Size() == 0 {
					continue
				}
				if err := os.Truncate(file, info.Size()-3); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// The same on real Kafka and Postgres, where the topics are deleted and created again.
func TestIntegrationLostRecordsTakeEffectAgain(t *testing.T) {
	addresses := testinfra.Need(t, testinfra.Kafka, testinfra.Postgres)
	prefix := "lost" + shortID() + "."
	testLostRecords(t, func(c *Config) {
		c.Kafka, c.Store, c.Prefix = strings.Split(addresses[testinfra.Kafka], ","), addresses[testinfra.Postgres], prefix
	}, func(w *wiring) {
		adm := kadm.NewClient(w.ops)
		if _, err := adm.DeleteTopics(t.Context(), w.names.Campaigns(), w.names.Suppressions(), w.names.Control()); err != nil {
			t.Fatal(err)
		}
		w.close()
	})
}

func testLostRecords(t *testing.T, change func(*Config), lose func(*wiring)) {
	t.Helper()
	dir := t.TempDir()
	open := func() *wiring {
		t.Helper()
		w := newWiring(testConfig(t, func(c *Config) {
			if c.Data = dir; change != nil {
				change(c)
			}
		}), slog.New(slog.DiscardHandler))
		if err := w.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w
	}
	run := func(roles ...runner) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		for _, r := range roles {
			g.Go(func() error { return r(ctx) })
		}
		return func() {
			cancel()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	relay := func(w *wiring) runner {
		t.Helper()
		r, err := buildRelay(w)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	w := open()
	stop := run(w.view.Run, relay(w))
	tenant, err := w.store.CreateTenant(t.Context(), store.TenantSpec{Name: "Acme", Region: "IT"})
	if err != nil {
		t.Fatal(err)
	}
	user := store.Cause{Actor: schemas.ActorUser, By: "test"}
	c, err := w.store.CreateCampaign(t.Context(), store.Campaign{
		Tenant: tenant.ID, State: schemas.StateConfigured, Spec: store.Spec{Name: "c", Chain: []schemas.Channel{schemas.ChannelSMS}, Body: "Hello"},
	}, user)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 77
	known := func(w *wiring, want schemas.State, optedOut bool) {
		t.Helper()
		const phone = "+393331234567"
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got := w.view.Campaign(c.ID()).GetState()
			out, rate := w.view.OptedOut(tenant.ID, phone, schemas.ChannelSMS), w.view.Tenant(tenant.ID).GetRate()
			if got == want && out == optedOut && (rate == limit) == optedOut {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("got %s, opted out %v and limit %d, want %s and both changes: %v", schemas.StateName(got), out, rate, schemas.StateName(want), optedOut)
			}
		}
	}
	known(w, schemas.StateConfigured, false)
	c, err = w.store.Confirm(t.Context(), tenant.ID, c.ID(), c.Version, user, func(conf store.Confirmation, c *store.Campaign) (uint64, error) {
		c.State = schemas.StatePreparing
		c.Legs = []store.Leg{{Channel: schemas.ChannelSMS, Route: conf.Tenant.DefaultRoute, Sender: conf.Tenant.DefaultSender, MaxHandovers: 1}}
		return 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	known(w, schemas.StatePreparing, false)
	if _, err := w.store.UpdateCampaign(t.Context(), tenant.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
		c.State = schemas.StatePaused
		return schemas.TriggerPause, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Suppress(t.Context(), tenant.ID, "api", "+393331234567"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.UpdateTenant(t.Context(), tenant.ID, 0, func(t *store.Tenant) error {
		t.Rate = limit
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	known(w, schemas.StatePaused, true)
	stop()
	lose(w)

	w = open()
	defer w.close()
	stopView := run(w.view.Run)
	defer stopView()
	select {
	case <-w.view.Ready():
	case <-time.After(60 * time.Second):
		t.Fatal("the view is not ready")
	}
	if got := w.view.Campaign(c.ID()).GetState(); got == schemas.StatePaused || w.view.OptedOut(tenant.ID, "+393331234567", schemas.ChannelSMS) ||
		w.view.Tenant(tenant.ID).GetRate() == limit {
		t.Fatalf("nothing was lost: the campaign is %s", schemas.StateName(got))
	}
	stopRelay := run(relay(w))
	defer stopRelay()
	known(w, schemas.StatePaused, true)
}
