package api

import (
	"context"
	"net/http"

	"fanfare/api/store"
)

// Finding is a result of the doctor about a service that this process depends on.
type Finding struct {
	Service string `json:"service" doc:"What was examined." example:"kafka"`
	Level   string `json:"level" enum:"ok,note,bad" doc:"note: worth knowing; bad: must be repaired."`
	Found   string `json:"found" doc:"What was seen, in a sentence."`
	Fix     string `json:"fix" doc:"What to do; empty when nothing is wrong."`
}

type (
	doctorIn  struct{}
	doctorOut struct{ Body *Page[Finding] }
)

func (s *server) registerDoctor() {
	register(s, operation{
		id: "examine", method: http.MethodGet, path: "/api/doctor", summary: "Examine the services that this process depends on", scope: store.ScopeAdmin, tag: operatorTag,
		describe: "What `fanfare doctor` reports on the machine of this process: services, their versions and permissions, topics and tables, clocks, " +
			"and whether the stages make progress. It changes nothing. The answer takes some seconds when a service does not respond.",
	}, func(ctx context.Context, _ *doctorIn) (*doctorOut, error) {
		found := []Finding{}
		if s.Doctor != nil {
			found = s.Doctor(ctx)
		}
		return &doctorOut{&Page[Finding]{Data: found, Limit: len(found), Total: len(found)}}, nil
	})
}
