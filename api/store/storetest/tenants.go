package storetest

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var tenantTests = []test{
	{"defaults", func(e *env) {
		t := e.tenant("acme")
		want := store.Tenant{
			ID: t.ID, Name: "acme", Enabled: true, CampaignsEnabled: true, Region: "IT", Timezone: "Europe/Rome", Currency: "EUR",
			DefaultRoute: "sim", DefaultSender: "FANFARE", MaxActive: 10, MaxContacts: 1_000_000, MaxSegments: 3, Weight: 1, Version: 1,
			Created: start, Updated: start,
		}
		equal(e, "tenant", t, want)
		if !strings.HasPrefix(t.ID, "tn_") {
			e.Errorf("got id %q, want tn_…", t.ID)
		}
		got, err := e.s.Tenant(e.Context(), t.ID)
		e.must(err)
		equal(e, "tenant as read", got, want)
		prices, err := e.s.Prices(e.Context(), t.ID)
		e.must(err)
		// The default prices of a new tenant are in the ranges of the source (R110 to R112).
		for channel, micros := range map[schemas.Channel]uint64{
			sms: 50_000, schemas.ChannelRCS: 80_000, schemas.ChannelWhatsApp: 150_000,
		} {
			equal(e, "price of "+channel.String(), priceOf(prices, channel), micros)
		}
		if priceOf(prices, schemas.ChannelVoice) == 0 {
			e.Error("got no price of voice, want one")
		}
		b, err := e.s.Balance(e.Context(), t.ID)
		e.must(err)
		equal(e, "balance", b, store.Balance{Unlimited: true})
		senders, err := e.s.Senders(e.Context(), t.ID)
		e.must(err)
		if len(senders) != 1 || senders[0].ID != "FANFARE" {
			e.Errorf("got senders %v, want FANFARE", senders)
		}
	}},
	{"region says the zone", func(e *env) {
		t, err := e.s.CreateTenant(e.Context(), store.TenantSpec{Name: "x", Region: "gb"})
		e.must(err)
		equal(e, "region and zone", t.Region+" "+t.Timezone, "GB Europe/London")
		for _, bad := range []store.TenantSpec{{Name: ""}, {Name: "y", Region: "XX"}, {Name: "y", Timezone: "Rome"}, {Name: "y", Route: "A B"}} {
			_, err := e.s.CreateTenant(e.Context(), bad)
			e.wantErr(err, store.ErrInvalid)
		}
	}},
	{"name is taken", func(e *env) {
		e.tenant("acme")
		_, err := e.s.CreateTenant(e.Context(), store.TenantSpec{Name: "acme"})
		e.wantErr(err, store.ErrNameTaken)
		other := e.tenant("other")
		_, err = e.s.UpdateTenant(e.Context(), other.ID, 0, func(t *store.Tenant) error { t.Name = "acme"; return nil })
		e.wantErr(err, store.ErrNameTaken)
		byName, err := e.s.TenantByName(e.Context(), "other")
		e.must(err)
		equal(e, "by name", byName.ID, other.ID)
	}},
	{"update is a compare-and-set", func(e *env) {
		t := e.tenant("acme")
		e.clock.add(time.Second)
		up, err := e.s.UpdateTenant(e.Context(), t.ID, t.Version, func(t *store.Tenant) error {
			t.Rate, t.MaxActive, t.ID, t.Currency = 7, 3, "tn_other", "USD"
			return nil
		})
		e.must(err)
		want := t
		want.Rate, want.MaxActive, want.Version, want.Updated = 7, 3, 2, start.Add(time.Second)
		equal(e, "tenant", up, want)
		_, err = e.s.UpdateTenant(e.Context(), t.ID, t.Version, func(*store.Tenant) error { return nil })
		e.wantErr(err, schemas.ErrConflict)
		boom := errors.New("boom")
		_, err = e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.Rate = 1; return boom })
		e.wantErr(err, boom)
		got, err := e.s.Tenant(e.Context(), t.ID)
		e.must(err)
		equal(e, "tenant after a failed update", got, want)
	}},
	{"routes", func(e *env) {
		r := store.Route{
			Name: "sim", Channels: []schemas.Channel{sms, schemas.ChannelRCS}, Connector: "sim", Rate: 2000,
			P99: 100 * time.Millisecond, ReceiptWindow: 72 * time.Hour, Enabled: true,
		}
		made, ok, err := e.s.EnsureRoute(e.Context(), r)
		e.must(err)
		if !ok || made.Version != 1 || !slices.Equal(made.Channels, r.Channels) || made.P99 != r.P99 || made.ReceiptWindow != r.ReceiptWindow {
			e.Errorf("got %+v, made %v, want %+v", made, ok, r)
		}
		r.Rate = 1
		again, ok, err := e.s.EnsureRoute(e.Context(), r)
		e.must(err)
		if ok || again.Rate != 2000 {
			e.Errorf("got %+v, made %v, want the one that is there", again, ok)
		}
		same, err := e.s.UpdateRoute(e.Context(), "sim", 1, func(*store.Route) error { return nil })
		e.must(err)
		equal(e, "version after no change", same.Version, 1)
		up, err := e.s.UpdateRoute(e.Context(), "sim", 1, func(r *store.Route) error { r.Rate = 500; return nil })
		e.must(err)
		equal(e, "version after a change", up.Version, 2)
		_, err = e.s.UpdateRoute(e.Context(), "sim", 1, func(r *store.Route) error { r.Rate = 501; return nil })
		e.wantErr(err, schemas.ErrConflict)
		_, err = e.s.UpdateRoute(e.Context(), "sim", 0, func(r *store.Route) error { r.Rate = 0; return nil })
		e.wantErr(err, store.ErrInvalid)
		equal(e, "care that was not given", up.Care, store.DefaultCare)
		for _, care := range []store.Care{{DownAfter: 25 * time.Hour, FailureSample: 10}, {FailurePercent: 101, FailureSample: 10}, {FailurePercent: 50, FailureSample: 9}} {
			_, err = e.s.UpdateRoute(e.Context(), "sim", 0, func(r *store.Route) error { r.Care = care; return nil })
			e.wantErr(err, store.ErrInvalid)
		}
		_, err = e.s.Route(e.Context(), "none")
		e.wantErr(err, schemas.ErrNotFound)
		routes, err := e.s.Routes(e.Context())
		e.must(err)
		if len(routes) != 1 || routes[0].Rate != 500 {
			e.Errorf("got %+v, want the one route at 500", routes)
		}
	}},
	{"routes keep configuration and sealed credentials, and are published and deleted", func(e *env) {
		r := store.Route{
			Name: "acme", Channels: []schemas.Channel{sms}, Connector: "smpp", Rate: 20, ReceiptWindow: time.Hour, Enabled: true,
			Configuration: `{"host":"h"}`, Credentials: []byte{1, 0, 255}, CredentialNames: []string{"password", "tls.key"}, Priority: 2, Share: 3, Cost: 4,
			Care: store.Care{DownAfter: 90 * time.Second, FailurePercent: 7, FailureSample: 11},
		}
		made, err := e.s.CreateRoute(e.Context(), r)
		e.must(err)
		got, err := e.s.Route(e.Context(), "acme")
		e.must(err)
		r.Version, r.Created, r.Updated = 1, made.Created, made.Updated
		if !reflect.DeepEqual(got, r) {
			e.Errorf("got %+v, want %+v", got, r)
		}
		_, err = e.s.CreateRoute(e.Context(), r)
		e.wantErr(err, store.ErrNameTaken)
		record := decode(e, e.unpublished()["route/acme"], &fanfarev1.Control{}).GetRoute()
		if string(record.GetConfiguration()) != r.Configuration || !slices.Equal(record.GetSealedCredentials(), r.Credentials) {
			e.Errorf("got record %v", record)
		}
		t := e.tenant("acme")
		_, err = e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.DefaultRoute = "acme"; return nil })
		e.must(err)
		e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 0)
		use, err := e.s.DeleteRoute(e.Context(), "acme", 0)
		e.must(err)
		equal(e, "uses", use, store.RouteUse{Tenants: 1, Campaigns: 1})
		_, err = e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.DefaultRoute = "sim"; return nil })
		e.must(err)
		use, err = e.s.DeleteRoute(e.Context(), "acme", 0)
		e.must(err)
		equal(e, "uses", use, store.RouteUse{Campaigns: 1})

		r.Name = "other" // it carries a campaign in place of another route
		_, err = e.s.CreateRoute(e.Context(), r)
		e.must(err)
		c := e.campaign(t, "d", e.list(t, "m", mobile(2)))
		_, err = e.s.Confirm(e.Context(), c.Tenant, c.ID(), c.Version, user, func(_ store.Confirmation, c *store.Campaign) (uint64, error) {
			c.State, c.Legs = preparing, []store.Leg{{Channel: sms, Route: "sim", OtherRoutes: []string{"other"}, MaxHandovers: 3}}
			return 0, nil
		})
		e.must(err)
		use, err = e.s.DeleteRoute(e.Context(), "other", 0)
		e.must(err)
		equal(e, "uses in place of another", use, store.RouteUse{Campaigns: 1})

		r.Name = "spare"
		_, err = e.s.CreateRoute(e.Context(), r)
		e.must(err)
		_, err = e.s.DeleteRoute(e.Context(), "spare", 7)
		e.wantErr(err, schemas.ErrConflict)
		use, err = e.s.DeleteRoute(e.Context(), "spare", 1)
		e.must(err)
		equal(e, "uses", use, store.RouteUse{})
		_, err = e.s.Route(e.Context(), "spare")
		e.wantErr(err, schemas.ErrNotFound)
		if row, ok := e.unpublished()["route/spare"]; !ok || row.Value != nil || row.Version != 2 {
			e.Errorf("got row %+v, want a tombstone of version 2", row)
		}
		back, err := e.s.CreateRoute(e.Context(), store.Route{Name: "spare", Channels: []schemas.Channel{sms}, Connector: "sim", Rate: 1, ReceiptWindow: time.Hour})
		e.must(err)
		equal(e, "version of the route that comes back", back.Version, 3)
		equal(e, "configuration of the route that comes back", back.Configuration, "")
	}},
	{"senders come back with a higher version", func(e *env) {
		t := e.tenant("acme")
		s, err := e.s.PutSender(e.Context(), store.Sender{Tenant: t.ID, ID: "SHOP", Rate: 5})
		e.must(err)
		equal(e, "version", s.Version, 1)
		e.must(e.s.DeleteSender(e.Context(), t.ID, "SHOP"))
		_, err = e.s.Sender(e.Context(), t.ID, "SHOP")
		e.wantErr(err, schemas.ErrNotFound)
		e.wantErr(e.s.DeleteSender(e.Context(), t.ID, "SHOP"), schemas.ErrNotFound)
		s, err = e.s.PutSender(e.Context(), store.Sender{Tenant: t.ID, ID: "SHOP"})
		e.must(err)
		equal(e, "version after the return", s.Version, 3)
		_, err = e.s.PutSender(e.Context(), store.Sender{Tenant: t.ID, ID: "a/b"})
		e.wantErr(err, store.ErrInvalid)
	}},
}

var keyTests = []test{
	{"secret is shown once and opens", func(e *env) {
		t := e.tenant("acme")
		k, secret, err := e.s.CreateKey(e.Context(), t.ID, "ci", nil, false)
		e.must(err)
		if !slices.Equal(k.Scopes, store.Scopes[:5]) || k.Has(store.ScopeAdmin) {
			e.Errorf("got scopes %v, want all but admin", k.Scopes)
		}
		if !strings.HasPrefix(secret, "ff_live_") || len(secret) < 8+50 || !strings.HasSuffix(secret, k.Hint) {
			e.Errorf("got secret of %d characters, hint %q", len(secret), k.Hint)
		}
		got, tenant, err := e.s.Authenticate(e.Context(), secret)
		e.must(err)
		equal(e, "key", got.ID, k.ID)
		equal(e, "tenant", tenant.ID, t.ID)
		for _, bad := range []string{"", secret[:len(secret)-1], secret + "a", "ff_live_", k.ID} {
			_, _, err = e.s.Authenticate(e.Context(), bad)
			e.wantErr(err, store.ErrNoKey)
		}
		_, other, err := e.s.CreateKey(e.Context(), t.ID, "ci", nil, false)
		e.must(err)
		if other == secret {
			e.Error("got the same secret twice")
		}
	}},
	{"scopes, tests, revoking", func(e *env) {
		t := e.tenant("acme")
		k, secret, err := e.s.CreateKey(e.Context(), t.ID, "", []store.Scope{store.ScopeAdmin, store.ScopeRead, store.ScopeRead}, true)
		e.must(err)
		if !slices.Equal(k.Scopes, []store.Scope{store.ScopeRead, store.ScopeAdmin}) || !k.Test || !strings.HasPrefix(secret, "ff_test_") {
			e.Errorf("got %+v, want a test key of read and admin", k)
		}
		_, _, err = e.s.CreateKey(e.Context(), t.ID, "", []store.Scope{"root"}, false)
		e.wantErr(err, store.ErrInvalid)
		_, _, err = e.s.CreateKey(e.Context(), "tn_none", "", nil, false)
		e.wantErr(err, schemas.ErrNotFound)
		e.must(e.s.RevokeKey(e.Context(), t.ID, k.ID, 0))
		e.must(e.s.RevokeKey(e.Context(), t.ID, k.ID, 0))
		_, _, err = e.s.Authenticate(e.Context(), secret)
		e.wantErr(err, store.ErrNoKey)
		keys, err := e.s.Keys(e.Context(), t.ID)
		e.must(err)
		if len(keys) != 1 || !keys[0].Revoked.Equal(start) {
			e.Errorf("got %+v, want one revoked at %v", keys, start)
		}
		e.wantErr(e.s.RevokeKey(e.Context(), t.ID, "key_none", 0), schemas.ErrNotFound)
	}},
	{"a disabled tenant has no keys", func(e *env) {
		t := e.tenant("acme")
		_, secret, err := e.s.CreateKey(e.Context(), t.ID, "", nil, false)
		e.must(err)
		_, err = e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.Enabled = false; return nil })
		e.must(err)
		_, _, err = e.s.Authenticate(e.Context(), secret)
		e.wantErr(err, store.ErrNoKey)
	}},
	{"last use is known to the minute", func(e *env) {
		t := e.tenant("acme")
		_, secret, err := e.s.CreateKey(e.Context(), t.ID, "", nil, false)
		e.must(err)
		used := func() time.Time {
			_, _, err := e.s.Authenticate(e.Context(), secret)
			e.must(err)
			keys, err := e.s.Keys(e.Context(), t.ID)
			e.must(err)
			return keys[0].Used
		}
		equal(e, "first use", used(), start)
		e.clock.add(59 * time.Second)
		equal(e, "within the minute", used(), start)
		e.clock.add(time.Second)
		equal(e, "after the minute", used(), start.Add(time.Minute))
	}},
}
