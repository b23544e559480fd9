package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// A store that was put back from an older copy agrees with Kafka after `fanfare restore`. The command prints what it
// will do, does nothing without a yes, bills and settles the campaigns that Kafka calls settled, and deletes the
// campaigns that the copy does not have. It refuses to run while a process uses the data.
func TestRestore(t *testing.T) {
	t.Parallel()
	testRestore(t, nil, "--prefix", "test.")
}

// The same on real Kafka and Postgres.
func TestIntegrationRestore(t *testing.T) {
	addresses := testinfra.Need(t, testinfra.Kafka, testinfra.Postgres)
	prefix := "restore" + shortID() + "."
	kafka := strings.Split(addresses[testinfra.Kafka], ",")
	testRestore(t, func(c *Config) { c.Kafka, c.Store, c.Prefix = kafka, addresses[testinfra.Postgres], prefix },
		"--prefix", prefix, "--kafka", addresses[testinfra.Kafka], "--store", addresses[testinfra.Postgres])
}

func testRestore(t *testing.T, change func(*Config), flags ...string) {
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
	w := open()
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
	key := schemas.CampaignKey(tenant.ID, c.ID())
	encode := func(m proto.Message) []byte {
		t.Helper()
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unknown := schemas.CampaignKey(tenant.ID, "camp_77777")
	if err := w.ops.ProduceSync(t.Context(),
		&kgo.Record{Topic: w.names.Campaigns(), Key: []byte(key), Value: encode(&fanfarev1.Campaign{
			Tenant: tenant.ID, Id: c.ID(), Number: c.Number, Version: c.Version + 9, State: schemas.StateCompleted, Settled: true, Total: 8000, FreezeId: "fz",
		})},
		&kgo.Record{Topic: w.names.Campaigns(), Key: []byte(unknown), Value: encode(&fanfarev1.Campaign{Tenant: tenant.ID, Id: "camp_77777", Number: 77777, Version: 3})},
		&kgo.Record{Topic: w.names.Cursors(), Key: []byte(key), Value: encode(&fanfarev1.Cursor{
			Tenant: tenant.ID, CampaignId: c.ID(), CampaignNumber: c.Number, Settled: true, SettledMs: time.Now().UnixMilli(), CapturedMicros: 400_000_000,
		})},
		&kgo.Record{Topic: w.names.Cursors(), Key: []byte(tenant.ID + "/camp_10009"), Value: []byte("no record")},
	).FirstErr(); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		var out strings.Builder
		code := Main(t.Context(), slices.Concat([]string{"restore", "--data", dir}, flags, args), nil, &out, &out)
		return out.String(), code
	}
	if out, code := run("--yes"); code == exitOK || !strings.Contains(out, "stop") {
		t.Errorf("while a process uses the data: exit %d, %q; want it refused", code, out)
	}
	w.close()

	out, code := run()
	if code == exitOK || !strings.Contains(out, c.ID()+" of "+tenant.ID+": configured -> completed, settled") || !strings.Contains(out, "--yes") {
		t.Errorf("without a terminal: exit %d, %q; want what would be done, and --yes", code, out)
	}
	if out, code = run("--yes"); code != exitOK || !strings.Contains(out, unknown+": the store does not know it") || !strings.Contains(out, "camp_10009: the record in cursors cannot be read") {
		t.Fatalf("exit %d, %q", code, out)
	}
	w = open()
	defer w.close()
	got, err := w.store.Campaign(t.Context(), tenant.ID, c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got.State != schemas.StateCompleted || got.Settled.IsZero() || got.Captured != 400_000_000 {
		t.Errorf("%s, settled %s, captured %d; want completed, settled, 400000000", got.State, got.Settled, got.Captured)
	}
	log, err := w.readLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if log.campaigns[unknown].Record != nil {
		t.Error("the campaign that the store does not know is still in Kafka")
	}
	if len(log.unreadable) != 0 {
		t.Errorf("records that cannot be read are still there: %v", log.unreadable)
	}
}
