package api_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
)

const smsPrice = 50_000 // micros of a segment

// limitedTo gives the tenant of the env a limited credit.
func (w *env) limitedTo(micros uint64) {
	w.Helper()
	w.check(w.store.SetCredit(w.Context(), w.tenant.ID, micros, false))
	w.clock.forward(3 * time.Second) // the key's cached tenant
}

// P4: single sends on a limited credit reserve in slices. The hidden campaign is not written for each of them, the
// balance never falls below zero, and a stop returns what was not spent to the last micro.
func TestCreditInSlices(t *testing.T) {
	w := newEnv(t)
	const sends, total = 300, 1000 * smsPrice
	w.limitedTo(total)
	id := ""
	for i := range sends {
		w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":%q,"message":"hi"}`, phoneOf(i))).want(200)
		if i == 0 {
			rows, err := w.store.Unpublished(t.Context(), 100)
			w.check(err)
			for _, r := range rows {
				if _, c, ok := strings.Cut(r.Key, "/"); ok && strings.HasPrefix(c, "camp_") {
					id = c
				}
			}
		}
	}
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	if c.Version > 40 || c.Reserved < sends*smsPrice {
		t.Errorf("after %d sends: got version %d and %d reserved, want few versions and at least %d", sends, c.Version, c.Reserved, sends*smsPrice)
	}
	w.check(w.server.Close(t.Context()))
	b, err := w.store.Balance(t.Context(), w.tenant.ID)
	w.check(err)
	if want := (store.Balance{Available: total - sends*smsPrice, Reserved: sends * smsPrice}); b != want {
		t.Errorf("after the stop: got %+v, want %+v", b, want)
	}
}

// P4: several processes share a balance; together they never send more than it is worth, and one that is alone sends
// all of it.
func TestCreditOfSeveralProcesses(t *testing.T) {
	w := newEnv(t)
	const worth = 60
	w.limitedTo(worth * smsPrice)
	servers := make([]*api.Server, 4)
	var sent atomic.Int64
	var all sync.WaitGroup
	for i := range servers {
		deps := w.deps
		deps.Registry = newRegistry()
		var err error
		servers[i], err = api.New(deps)
		w.check(err)
		all.Go(func() {
			for n := range worth {
				body := fmt.Sprintf(`{"phoneNumber":%q,"message":"hi"}`, phoneOf(1000*i+n))
				r := httptest.NewRequest("POST", sendPath, strings.NewReader(body))
				r.Header.Set("X-Api-Key", w.key)
				r.Header.Set("Content-Type", "application/json")
				rec := httptest.NewRecorder()
				servers[i].ServeHTTP(rec, r)
				switch rec.Code {
				case 200:
					sent.Add(1)
				case 402:
					return
				default:
					t.Errorf("got %d %s", rec.Code, rec.Body)
				}
			}
		})
	}
	all.Wait()
	for _, s := range servers {
		w.check(s.Close(t.Context()))
	}
	b, err := w.store.Balance(t.Context(), w.tenant.ID)
	w.check(err)
	n := uint64(sent.Load())
	if want := (store.Balance{Available: (worth - n) * smsPrice, Reserved: n * smsPrice}); n > worth || b != want {
		t.Errorf("%d sends of a balance worth %d: got %+v, want %+v", n, worth, b, want)
	}
	for ; n < worth; n++ { // the other processes have returned theirs
		w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":%q,"message":"hi"}`, phoneOf(int(9000+n)))).want(200)
	}
	w.call("POST", sendPath, docSend).problem(402, "insufficient_credit", "")
}

// P4, C13: a credit that covers the estimated cost is enough to confirm. The campaign has as many hand-overs as it
// covers, and says so; what is reserved is the most that those can cost.
func TestConfirmReservesWhatItCanCost(t *testing.T) {
	for _, c := range []struct {
		credit             uint64 // of 3 contacts, each 0.05 a hand-over
		handovers          uint32
		reserved           uint64
		refused, fewerThan bool
	}{
		{credit: 9 * smsPrice, handovers: 3, reserved: 9 * smsPrice},
		{credit: 8 * smsPrice, handovers: 2, reserved: 6 * smsPrice, fewerThan: true},
		{credit: 3 * smsPrice, handovers: 1, reserved: 3 * smsPrice, fewerThan: true},
		{credit: 3*smsPrice - 1, refused: true},
	} {
		w := newEnvOf(t)
		w.limitedTo(c.credit)
		id := w.campaign(3, "")
		a := w.call("PUT", "/api/campaigns/"+id+"/confirm", "")
		if c.refused {
			a.problem(402, "insufficient_credit", "")
			continue
		}
		a.want(200)
		got, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		if got.Legs[0].MaxHandovers != c.handovers || got.Reserved != c.reserved {
			t.Errorf("credit %d: got %d hand-overs and %d reserved, want %d and %d", c.credit, got.Legs[0].MaxHandovers, got.Reserved, c.handovers, c.reserved)
		}
		if warned := strings.Contains(string(w.call("GET", "/api/campaigns/"+id, "").body), "fewer retries"); warned != c.fewerThan {
			t.Errorf("credit %d: got a warning %v, want %v", c.credit, warned, c.fewerThan)
		}
	}
}
