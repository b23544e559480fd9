// Package storetest is the test suite that every database under package store must pass. It tests the same promises in
// the same way on SQLite and on Postgres. Each test gets a fresh database; a test about several processes opens it
// twice.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"fanfare/api/phone"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Opener creates a fresh, migrated database. It returns cfg with the address of the database, and the database itself:
// some tests read the tables, or write rows that a crash would leave.
type Opener func(t testing.TB, cfg store.Config) (store.Config, *sql.DB)

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	phones, err := phone.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"tenants", tenantTests},
		{"keys", keyTests},
		{"users", userTests},
		{"resources", resourceTests},
		{"domains", domainTests},
		{"webhooks", webhookTests},
		{"money", moneyTests},
		{"contacts", contactTests},
		{"import", importTests},
		{"import jobs", importJobTests},
		{"jobs", jobTests},
		{"erasures", erasureTests},
		{"conversations", conversationTests},
		{"numbers", numberTests},
		{"list fields", listFieldTests},
		{"campaigns", campaignTests},
		{"kept", keptTests},
		{"confirm", confirmTests},
		{"freeze", freezeTests},
		{"caps", capTests},
		{"replay", replayTests},
		{"outbox", outboxTests},
		{"suppressions", suppressionTests},
		{"idempotency", idempotencyTests},
		{"singles", singleTests},
		{"restore", restoreTests},
		{"callers", giveUpTests},
		{"tenancy", tenancyTests},
		{"at the same time", linearTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { test.run(newEnv(t, open, phones)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(*env)
}

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// start is the time at which every test starts: a Friday, at noon.
var start = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// env is the database of one test and what the test needs besides.
type env struct {
	*testing.T
	s     *store.Store
	cfg   store.Config
	sql   *sql.DB
	clock *clock
	keys  *schemas.Keys
}

func newEnv(t *testing.T, open Opener, phones *phone.Parser) *env {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	e := &env{T: t, clock: &clock{at: start}, keys: keys}
	e.cfg, e.sql = open(t, store.Config{Keys: keys, Phones: phones, Now: e.clock.now})
	e.s = e.open()
	return e
}

// open opens the database once more, as a second process would.
func (e *env) open() *store.Store {
	e.Helper()
	s, err := store.Open(e.Context(), e.cfg)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.Error(err)
		}
	})
	return s
}

// exec runs a statement in SQL that both databases understand.
func (e *env) exec(statement string) {
	e.Helper()
	_, err := e.sql.ExecContext(e.Context(), statement)
	e.must(err)
}

// must ends the test on an error.
func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("got error %v, want none", err)
	}
}

// wantErr fails the test unless err wraps want.
func (e *env) wantErr(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("got error %v, want %v", err, want)
	}
}

// equal fails the test unless got equals want.
func equal[T comparable](e *env, what string, got, want T) {
	e.Helper()
	if got != want {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (e *env) tenant(name string) store.Tenant {
	e.Helper()
	t, err := e.s.CreateTenant(e.Context(), store.TenantSpec{Name: name})
	e.must(err)
	return t
}

// limited creates a tenant whose credit is limited to micros.
func (e *env) limited(name string, micros uint64) store.Tenant {
	e.Helper()
	t, err := e.s.CreateTenant(e.Context(), store.TenantSpec{Name: name, Credit: &micros})
	e.must(err)
	return t
}

// list creates a list of contacts with these numbers.
func (e *env) list(t store.Tenant, name string, phones ...string) store.List {
	e.Helper()
	l, err := e.s.CreateList(e.Context(), t.ID, name, false)
	e.must(err)
	e.fill(t, l, phones...)
	return l
}

func (e *env) fill(t store.Tenant, l store.List, phones ...string) {
	e.Helper()
	var numbers []uint64
	for _, phone := range phones {
		c, err := e.s.ContactByPhone(e.Context(), t.ID, phone)
		if errors.Is(err, schemas.ErrNotFound) {
			c, err = e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: phone})
		}
		e.must(err)
		numbers = append(numbers, c.Number)
	}
	_, err := e.s.AddToList(e.Context(), t.ID, l.Number, numbers)
	e.must(err)
}

// user is the cause of a change that a user makes.
var user = store.Cause{Actor: schemas.ActorUser, By: "key_test", RequestID: "req_1"}

const (
	draft      = schemas.StateDraft
	configured = schemas.StateConfigured
	ready      = schemas.StateReady
	scheduled  = schemas.StateScheduled
	preparing  = schemas.StatePreparing
	sending    = schemas.StateSending
	paused     = schemas.StatePaused
	completed  = schemas.StateCompleted
	cancelled  = schemas.StateCancelled
	aborted    = schemas.StateAborted
	failed     = schemas.StateFailed
	sms        = schemas.ChannelSMS
)

// campaign creates a configured campaign to these lists.
func (e *env) campaign(t store.Tenant, name string, lists ...store.List) store.Campaign {
	e.Helper()
	c := store.Campaign{Tenant: t.ID, State: configured, Spec: store.Spec{Name: name, Chain: []schemas.Channel{sms}, Body: "Hello"}}
	for _, l := range lists {
		c.Lists = append(c.Lists, l.Number)
	}
	c, err := e.s.CreateCampaign(e.Context(), c, user)
	e.must(err)
	return c
}

// confirm confirms a campaign that starts at once, and reserves micros.
func (e *env) confirm(c store.Campaign, micros uint64) store.Campaign {
	e.Helper()
	c, err := confirm(e, e.s, c, preparing, micros)
	e.must(err)
	return c
}

func confirm(e *env, s *store.Store, c store.Campaign, to schemas.State, micros uint64) (store.Campaign, error) {
	return s.Confirm(e.Context(), c.Tenant, c.ID(), c.Version, user, func(conf store.Confirmation, c *store.Campaign) (uint64, error) {
		c.State = to
		c.Legs = []store.Leg{{
			Channel: sms, Route: conf.Tenant.DefaultRoute, Sender: conf.Tenant.DefaultSender, Price: priceOf(conf.Prices, sms), MaxHandovers: 3,
			Backoff: []time.Duration{time.Minute},
		}}
		return micros, nil
	})
}

// apply makes a transition as the scheduler does.
func (e *env) apply(c store.Campaign, to schemas.State, trigger schemas.Trigger) store.Campaign {
	e.Helper()
	_, err := e.s.Apply(e.Context(), schemas.Change{
		Tenant: c.Tenant, Campaign: c.ID(), Version: c.Version, To: to, Trigger: trigger, Actor: schemas.ActorScheduler, At: e.clock.now(),
	})
	e.must(err)
	return e.read(c)
}

func (e *env) read(c store.Campaign) store.Campaign {
	e.Helper()
	c, err := e.s.Campaign(e.Context(), c.Tenant, c.ID())
	e.must(err)
	return c
}

// mobile returns the i-th Italian mobile number.
func mobile(i int) string { return fmt.Sprintf("+39333%07d", i) }

func contextWithCancel(e *env) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(e.Context())
	e.Cleanup(cancel)
	return ctx, cancel
}

// move returns a change that makes one transition of a campaign.
func move(to schemas.State, trigger schemas.Trigger) func(*store.Campaign) (schemas.Trigger, error) {
	return func(c *store.Campaign) (schemas.Trigger, error) {
		c.State = to
		return trigger, nil
	}
}

// priceOf returns the price of a channel for countries that have no row of their own.
func priceOf(list store.Prices, channel schemas.Channel) uint64 {
	micros, _ := list.Price(channel, "", 1, time.Now())
	return micros
}
