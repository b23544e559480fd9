package api

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/danielgtaylor/huma/v2/sse"
	"github.com/go-json-experiment/json"

	"fanfare/api/store"
)

// StatsEvent is one event of the stream of live statistics.
type StatsEvent Stats

// MarshalJSON writes the same JSON as GET /stats, because the stream has its own encoder.
func (e *StatsEvent) MarshalJSON() ([]byte, error) {
	return json.Marshal((*Stats)(e), json.Deterministic(true))
}

const (
	// liveEvery is how often a stream looks for new figures; together with the maximum age of a report and the feed's
	// interval, a change is visible within a second.
	liveEvery = 250 * time.Millisecond
	// liveAtLeast is how often a stream sends figures that have not changed, so that both ends detect a broken
	// connection.
	liveAtLeast = 10 * time.Second
)

func (s *server) registerLiveStats() {
	o := operation{
		id: "streamCampaignStats", method: http.MethodGet, path: "/api/campaigns/{id}/stats/live", summary: "Statistics of a campaign, live",
		describe: "A stream of server-sent events. Each event `stats` has the answer of GET /stats. The first is sent at once, others when the figures change and at least every 10 seconds.",
		scope:    store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}
	op := s.describe(&o)
	// The status cannot be changed once the stream has begun, so problems are found before.
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		if _, err := s.campaignStats(ctx.Context(), &statsIn{ID: ctx.Param("id"), Vocab: ctx.Query("vocab")}); err != nil {
			r, w := humachi.Unwrap(ctx)
			writeProblem(w, r, s.explain(ctx.Context(), err))
			return
		}
		next(ctx)
	}}
	sse.Register(s.api, op, map[string]any{"stats": StatsEvent{}}, s.streamStats)
}

func (s *server) streamStats(ctx context.Context, in *statsIn, send sse.Sender) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	var last []byte
	var sent time.Time
	for {
		out, err := s.campaignStats(ctx, in)
		if err == nil {
			figures := *out.Body
			figures.AsOf = nil // it changes although the figures do not
			now, err := json.Marshal(&figures, json.Deterministic(true))
			if err != nil {
				return
			}
			if !bytes.Equal(now, last) || time.Since(sent) >= liveAtLeast {
				if send.Data((*StatsEvent)(out.Body)) != nil {
					return // the client has disconnected
				}
				last, sent = now, time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.Done:
			return
		case <-tick.C:
		}
	}
}
