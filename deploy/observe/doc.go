// Package observe is the one source of what people look at: the Grafana dashboards, the Prometheus alerts, the examples that
// show each alert firing, and the runbook in deploy/README.md. All of them are generated from the tables of this package:
//
//	deploy/grafana/*.json               dashboards, to be imported or provisioned
//	deploy/alerts/fanfare.yaml          alerting rules
//	deploy/alerts/examples.yaml         for each alert series on which it fires and series on which it does not
//	deploy/helm/fanfare/files/alerts.yaml   the same rules, for the chart's PrometheusRule
//	deploy/README.md                    the runbook, between two marks
//
// Its tests read the Go sources for every metric that is registered: a panel or an alert may only name one that exists, with
// labels that it has, and every metric is on a dashboard. deploy/check evaluates every expression with the engine of Prometheus.
//
// One Prometheus job is one installation: alerts are grouped by the label job, so that two installations do not mix.
package observe

//go:generate go run fanfare/deploy/observe/gen ../..
