package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// A freezer that was silent for so long that its blobs were collected must not publish what is left of them: neither
// when it goes on writing, nor when it had written all.
func TestFreezerGivenUp(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	cfg := Config{DSN: filepath.Join(t.TempDir(), "store.db"), Now: func() time.Time { return now }}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	c := confirmedCampaign(t, s)
	for _, when := range []string{"writing", "written"} {
		f := &freezer{s: s, c: &c, id: when, zones: map[string]*zoneWriter{}, most: maxHeld}
		if err := s.write(t.Context(), func(tx *tx) error {
			return tx.InsertFreeze(t.Context(), db.InsertFreezeParams{ID: f.id, Tenant: c.Tenant, Campaign: int64(c.Number), SeenMs: tx.now})
		}); err != nil {
			t.Fatal(err)
		}
		collect := func() {
			now = now.Add(freezeSilent + time.Second)
			if err := s.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if when == "writing" {
			collect()
		}
		err := s.d.snapshot(t.Context(), func(raw db.DBTX) error { return f.read(t.Context(), raw) })
		if when == "written" {
			if err != nil {
				t.Fatal(err)
			}
			collect()
			err = f.publish(t.Context())
		}
		if !errors.Is(err, schemas.ErrConflict) {
			t.Errorf("%s: got error %v, want a conflict", when, err)
		}
	}
	if got, err := s.Campaign(t.Context(), c.Tenant, c.ID()); err != nil || got.FreezeID != "" || got.Version != c.Version {
		t.Errorf("got campaign %+v, %v, want it as it was", got, err)
	}
	if err := s.Freeze(t.Context(), c.Tenant, c.ID(), c.Version); err != nil {
		t.Errorf("a freeze after all that: %v", err)
	}
}

// A freezer holds a blob for each zone at most, and of all of them no more than it may.
func TestFreezerHolds(t *testing.T) {
	cfg := Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	c := confirmedCampaign(t, s)
	const n = 3 * audience.BlobSize
	for _, zones := range []int{1, 40} {
		f := &freezer{s: s, c: &c, id: fmt.Sprint("holds ", zones), max: n, zones: map[string]*zoneWriter{}, most: 200 << 10}
		if zones == 1 {
			f.most = maxHeld
		}
		if err := s.write(t.Context(), func(tx *tx) error {
			return tx.InsertFreeze(t.Context(), db.InsertFreezeParams{ID: f.id, Tenant: c.Tenant, Campaign: int64(c.Number), SeenMs: tx.now})
		}); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			f.entry = audience.Entry{To: "+393330000001", Zone: fmt.Sprint("zone ", i%zones), Attrs: []audience.Attr{{Name: "a", Value: "some text"}}}
			if err := f.add(t.Context()); err != nil {
				t.Fatal(err)
			}
			bytes, entries := 0, 0
			for _, w := range f.zones {
				bytes += w.bytes
				entries += w.Len()
			}
			if bytes != f.held || f.held > f.most || entries >= zones*audience.BlobSize {
				t.Fatalf("after %d entries: got %d bytes held, counted %d, of %d entries; want at most %d bytes", i+1, bytes, f.held, entries, f.most)
			}
		}
		if got := len(f.index); zones == 1 && got != 3 || zones == 40 && got < n*50/(200<<10) {
			t.Errorf("%d zones: got %d blobs", zones, got)
		}
	}
}

// confirmedCampaign is a campaign to one contact.
func confirmedCampaign(t *testing.T, s *Store) Campaign {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tenant, err := s.CreateTenant(t.Context(), TenantSpec{Name: "acme"})
	check(err)
	l, err := s.CreateList(t.Context(), tenant.ID, "l", false)
	check(err)
	contact, err := s.CreateContact(t.Context(), Contact{Tenant: tenant.ID, Phone: "+393330000001"})
	check(err)
	_, err = s.AddToList(t.Context(), tenant.ID, l.Number, []uint64{contact.Number})
	check(err)
	user := Cause{Actor: schemas.ActorUser}
	c, err := s.CreateCampaign(t.Context(), Campaign{Tenant: tenant.ID, State: schemas.StateConfigured, Spec: Spec{
		Name: "c", Chain: []schemas.Channel{schemas.ChannelSMS}, Lists: []uint64{l.Number},
	}}, user)
	check(err)
	c, err = s.Confirm(t.Context(), tenant.ID, c.ID(), 0, user, func(_ Confirmation, c *Campaign) (uint64, error) {
		c.State = schemas.StatePreparing
		return 0, nil
	})
	check(err)
	return c
}
