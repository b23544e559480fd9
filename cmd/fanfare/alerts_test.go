package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/api"
)

// A process says that an alert holds only where its own present figures prove it, and that it does not hold only for
// itself. It never guesses about conditions over time or over several processes.
func TestAlertStates(t *testing.T) {
	reg := prometheus.NewRegistry()
	gauge := func(name string, labels ...string) *prometheus.GaugeVec {
		t.Helper()
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "h"}, labels)
		reg.MustRegister(g)
		return g
	}
	states := func() map[string]api.Alert {
		t.Helper()
		all, err := alertStates(reg)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]api.Alert{}
		for i, a := range all {
			out[a.Name] = a
			if a.Name == "" || a.Means == "" || a.Do == "" || a.Runbook == "" || a.Where == nil {
				t.Errorf("%+v: a field is missing", a)
			}
			if i > 0 && a.State == alertHolds && all[i-1].State != alertHolds {
				t.Errorf("%s holds and comes after %s, which does not", a.Name, all[i-1].Name)
			}
		}
		return out
	}
	for name, a := range states() {
		if a.State != alertUnknown {
			t.Errorf("%s: got %s of a process without metrics, want unknown", name, a.State)
		}
	}
	leading := gauge("fanfare_scheduler_leading").WithLabelValues()
	breaker := gauge("fanfare_sender_breaker_open", "route")
	oldest := gauge("fanfare_sender_oldest_seconds", "route", "lane")
	without := gauge("fanfare_api_campaigns_without_domains").WithLabelValues()
	is := func(when, name, want string, where ...string) {
		t.Helper()
		a, ok := states()[name]
		if !ok {
			t.Fatalf("there is no alert %s", name)
		}
		if a.State != want || len(a.Where) != len(where) || len(where) > 0 && a.Where[0] != where[0] {
			t.Errorf("%s: %s is %s at %q, want %s at %q", when, name, a.State, a.Where, want, where)
		}
	}
	leading.Set(0)
	is("another process may lead", "FanfareNoSchedulerLeads", alertUnknown)
	leading.Set(1)
	is("this process leads", "FanfareNoSchedulerLeads", alertNotHere)
	breaker.WithLabelValues("a").Set(0)
	is("no breaker is open", "FanfareCarrierAway", alertNotHere)
	breaker.WithLabelValues("b").Set(1)
	is("one is open", "FanfareCarrierAway", alertHolds, "route=b: 1")
	oldest.WithLabelValues("a", "bulk").Set(100)
	oldest.WithLabelValues("a", "txn").Set(5)
	is("only bulk messages are old", "FanfareSinglesSlow", alertNotHere)
	oldest.WithLabelValues("a", "txn").Set(5.5)
	is("single messages are late", "FanfareSinglesSlow", alertHolds, "lane=txn, route=a: 5.5")
	lag := gauge("fanfare_analytics_lag_seconds").WithLabelValues()
	lag.Set(-1)
	is("the lag is not known", "FanfareStatisticsBehind", alertUnknown)
	lag.Set(61)
	is("statistics are late", "FanfareStatisticsBehind", alertHolds, "61")
	without.Set(2)
	is("campaigns wait", "FanfareNoDomains", alertHolds, "2")
	is("a rate", "FanfareLostCommits", alertUnknown)
	is("the absence of all processes", "FanfareDown", alertUnknown)
}
