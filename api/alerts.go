package api

import (
	"context"
	"net/http"

	"fanfare/api/store"
)

// Alert is one of the installation's alerts, and what this process knows about it.
type Alert struct {
	Name       string   `json:"name" doc:"Its name in Prometheus and in the runbook." example:"FanfareNoSchedulerLeads"`
	Severity   string   `json:"severity" enum:"critical,warning" doc:"critical: act now. warning: act in working hours."`
	Means      string   `json:"means" doc:"What it means for messages."`
	Do         string   `json:"do" doc:"What to do."`
	Runbook    string   `json:"runbook" doc:"Its entry in the runbook, as a path in the repository." example:"deploy/README.md#fanfarenoschedulerleads"`
	State      string   `json:"state" enum:"holds,not_here,unknown" doc:"Whether its condition holds now. holds: the figures of this process are enough to say so. not_here: not in this process; another one may tell more. unknown: it takes the figures of several processes, or figures over time, which only Prometheus has."`
	Where      []string `json:"where" nullable:"false" doc:"For holds: the labels and values that satisfy the condition, such as route=it-1: 1."`
	ForSeconds int      `json:"forSeconds" doc:"How long the condition must hold before Prometheus fires the alert."`
}

type alertsOut struct{ Body *Page[Alert] }

func (s *server) registerAlerts() {
	register(s, operation{
		id: "listAlerts", method: http.MethodGet, path: "/api/alerts", summary: "The alerts of the installation, and which hold now", scope: store.ScopeAdmin, tag: operatorTag,
		describe: "The alerts of deploy/alerts with their runbook. The process that answers evaluates those whose conditions are about its present figures alone. Those that hold come first.",
	}, func(ctx context.Context, _ *struct{}) (*alertsOut, error) {
		found := []Alert{}
		if s.Alerts != nil {
			found = s.Alerts(ctx)
		}
		return &alertsOut{&Page[Alert]{Data: found, Limit: len(found), Total: len(found)}}, nil
	})
}
