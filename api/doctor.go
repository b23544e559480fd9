package api

import (
	"context"
	"net/http"

	"fanfare/api/store"
)

// Finding is something that the doctor found about what this process runs on.
type Finding struct {
	Service string `json:"service" example:"kafka"`
	Level   string `json:"level" enum:"ok,note,bad" doc:"note: worth knowing; bad: it must be mended."`
	Found   string `json:"found"`
	Fix     string `json:"fix" doc:"What to do; empty when it is as it should be."`
}

type (
	doctorIn  struct{}
	doctorOut struct{ Body *Page[Finding] }
)

func (s *server) registerDoctor() {
	register(s, operation{
		id: "examine", method: http.MethodGet, path: "/api/doctor", summary: "Examine what this process runs on", scope: store.ScopeAdmin, tag: operatorTag,
		describe: "What `fanfare doctor` would say on the machine of this process: services, their versions and rights, topics and tables, clocks, " +
			"and whether messages are dealt and taken. It changes nothing. An answer takes some seconds while a service does not answer.",
	}, func(ctx context.Context, _ *doctorIn) (*doctorOut, error) {
		found := []Finding{}
		if s.Doctor != nil {
			found = s.Doctor(ctx)
		}
		return &doctorOut{&Page[Finding]{Data: found, Limit: len(found), Total: len(found)}}, nil
	})
}
