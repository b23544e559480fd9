package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"fanfare/api/store"
)

// SuppressionInput names a number.
type SuppressionInput struct {
	PhoneNumber string `json:"phoneNumber" example:"+393331234567"`
}

// Suppression is an opt-out.
type Suppression struct {
	PhoneNumber string `json:"phoneNumber"`
	Suppressed  bool   `json:"suppressed"`
	Source      string `json:"source" doc:"api, keyword, link or carrier."`
	UpdatedAt   string `json:"updatedAt" format:"date-time"`
}

type (
	suppressIn struct{ Body Body[SuppressionInput] }
	liftIn     struct {
		PhoneNumber string `query:"phoneNumber" doc:"Instead of the body."`
		Body        *Body[SuppressionInput]
	}
	suppressionOut struct{ Body *Suppression }
	suppressionsIn struct {
		Page        int    `query:"page" minimum:"0"`
		Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		PhoneNumber string `query:"phoneNumber" doc:"Only this number."`
	}
	suppressionsOut struct{ Body *Page[*Suppression] }
)

const suppressionTag = "Opt-outs"

func (s *server) registerSuppressions() {
	register(s, operation{
		id: "createSuppression", method: http.MethodPost, path: "/api/suppressions", summary: "Opt a number out", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 422}, tag: suppressionTag,
		describe: "Answered once the opt-out is in the log that every sender follows: two seconds later nothing is handed over to the number. A 503 says that it took too long; the opt-out is kept and takes effect by itself.",
	}, s.suppress)
	register(s, operation{
		id: "deleteSuppression", method: http.MethodDelete, path: "/api/suppressions", summary: "Lift an opt-out",
		scope: store.ScopeContacts, errors: []int{400, 422}, tag: suppressionTag,
		describe: "Of a number that has not opted out it changes nothing.",
	}, s.lift)
	register(s, operation{
		id: "listSuppressions", method: http.MethodGet, path: "/api/suppressions", summary: "List opt-outs",
		scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
	}, s.listSuppressions)
}

// number reads a phone number of a request.
func (s *server) number(who *principal, raw, field string) (string, *Problem) {
	if raw == "" {
		return "", fieldProblem(CodeRequired, field, "%s is required.", field)
	}
	n, err := s.phones.Parse(raw, who.tenant.Region)
	if err != nil {
		return "", fieldProblem(CodeInvalidNumber, field, "%s is not a phone number.", field)
	}
	return n.E164, nil
}

func (s *server) suppress(ctx context.Context, in *suppressIn) (*suppressionOut, error) {
	who := requestOf(ctx).who
	e164, p := s.number(who, in.Body.Value.PhoneNumber, "phoneNumber")
	if p != nil {
		return nil, p
	}
	if err := s.Store.Suppress(ctx, who.tenant.ID, sourceAPI, e164); err != nil {
		return nil, s.storeProblem(err)
	}
	return s.published(ctx, who, e164, true, "The opt-out is kept and takes effect by itself, but the log has not acknowledged it yet.")
}

// sourceAPI is where these opt-outs come from.
const sourceAPI = "api"

func (s *server) lift(ctx context.Context, in *liftIn) (*suppressionOut, error) {
	who := requestOf(ctx).who
	raw := in.PhoneNumber
	if in.Body != nil {
		raw = in.Body.Value.PhoneNumber
	}
	e164, p := s.number(who, raw, "phoneNumber")
	if p != nil {
		return nil, p
	}
	if err := s.Store.Lift(ctx, who.tenant.ID, sourceAPI, e164); err != nil {
		return nil, s.storeProblem(err)
	}
	return s.published(ctx, who, e164, false, "The opt-out is lifted, but the log has not acknowledged it yet.")
}

// published waits until the record of the opt-out is acknowledged by Kafka (P4): only then may it be said to hold.
func (s *server) published(ctx context.Context, who *principal, e164 string, suppressed bool, late string) (*suppressionOut, error) {
	wait, cancel := context.WithTimeout(ctx, s.PublishTimeout)
	defer cancel()
	if err := s.Store.WaitPublished(wait, who.tenant.ID, e164); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, unavailable(2*time.Second, nil, "%s", late).fixed("Repeat the request to learn when it holds.")
		}
		return nil, s.storeProblem(err)
	}
	if err := s.seen(ctx, who, e164); err != nil {
		return nil, s.storeProblem(err)
	}
	log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Suppression{PhoneNumber: e164, Suppressed: suppressed, Source: sourceAPI, UpdatedAt: stamp(s.Now())}
	if len(log) > 0 { // when it was first said: a repetition changes nothing
		last := &log[len(log)-1]
		out.Source, out.UpdatedAt = last.Source, stamp(last.Updated)
	}
	return &suppressionOut{out}, nil
}

// ownViewLag is how long an answer waits for this process's own memory of opt-outs, which follows the log by milliseconds: who
// says that a number has opted out and then sends to it is refused at once. Senders do not depend on it.
const ownViewLag = time.Second

// seen waits until the memory of opt-outs says of a number what the store says.
func (s *server) seen(ctx context.Context, who *principal, e164 string) error {
	if !s.knowsOptOuts() {
		return nil
	}
	want, err := s.Store.Suppressed(ctx, who.tenant.ID, e164)
	if err != nil {
		return err
	}
	late := time.NewTimer(ownViewLag)
	defer late.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.OptedOut(who.tenant.ID, e164) != want {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return nil
		case <-tick.C:
		}
	}
	return nil
}

func viewSuppression(r *store.Suppression) *Suppression {
	return &Suppression{PhoneNumber: r.Phone, Suppressed: !r.Lifted, Source: r.Source, UpdatedAt: stamp(r.Updated)}
}

func (s *server) listSuppressions(ctx context.Context, in *suppressionsIn) (*suppressionsOut, error) {
	who := requestOf(ctx).who
	out := &Page[*Suppression]{Data: []*Suppression{}, Page: in.Page, Limit: in.Limit}
	if in.PhoneNumber != "" {
		e164, p := s.number(who, in.PhoneNumber, "phoneNumber")
		if p != nil {
			return nil, p
		}
		log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		if n := len(log); n > 0 && !log[n-1].Lifted {
			out.Data, out.Total = append(out.Data, viewSuppression(&log[n-1])), 1
		}
		return &suppressionsOut{out}, nil
	}
	rows, total, err := s.Store.Suppressions(ctx, who.tenant.ID, store.Page{Number: in.Page, Limit: in.Limit})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range rows {
		out.Data = append(out.Data, viewSuppression(&rows[i]))
	}
	out.Total = total
	return &suppressionsOut{out}, nil
}
