package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// SuppressionInput names a number to opt out, or a number whose opt-out to lift.
type SuppressionInput struct {
	PhoneNumber string `json:"phoneNumber" example:"+393331234567" doc:"With country code, or as it is dialled in the tenant's region."`
	Reason      string `json:"reason,omitzero" doc:"Why, in words; at most 200 characters." example:"asked by phone"`
	Channel     string `json:"channel,omitzero" doc:"sms, rcs, whatsapp or voice: only this channel; default: all." example:"all"`
}

// maxReason is the most characters of a reason.
const maxReason = 200

// Suppression is an opt-out.
type Suppression struct {
	PhoneNumber string   `json:"phoneNumber" doc:"E.164."`
	Suppressed  bool     `json:"suppressed" doc:"Whether the number has opted out of any channel."`
	Channels    []string `json:"channels" nullable:"false" doc:"Channels that the number has opted out of: all, or single channels; empty: none." example:"[\"all\"]"`
	Source      string   `json:"source" doc:"api, import, keyword, link or carrier."`
	Reason      *string  `json:"reason" doc:"Why, in words; null when no reason was given."`
	UpdatedAt   string   `json:"updatedAt" format:"date-time" doc:"When its opt-out last changed."`
}

type (
	suppressIn struct {
		Body problem.Body[SuppressionInput]
	}
	liftIn struct {
		PhoneNumber string `query:"phoneNumber" doc:"May be sent instead of the body."`
		Channel     string `query:"channel" doc:"May be sent instead of the body: lift only the opt-out of this channel; default: all."`
		Body        *problem.Body[SuppressionInput]
	}
	suppressionOut struct{ Body *Suppression }
	suppressionsIn struct {
		Page        int    `query:"page" minimum:"0" doc:"0-based."`
		Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"10" doc:"The most rows of the answer."`
		PhoneNumber string `query:"phoneNumber" doc:"Only this number."`
		Cursor      string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	suppressionsOut struct{ Body *Page[*Suppression] }
)

const suppressionTag = "Opt-outs"

func (s *server) registerSuppressions() {
	register(s, operation{
		id: "createSuppression", method: http.MethodPost, path: "/api/suppressions", summary: "Opt a number out", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 422}, tag: suppressionTag,
		describe: "For all channels, or for one. The answer comes when Kafka has acknowledged the opt-out; after two more seconds no sender hands a message over to the number. After a 503 the opt-out is stored and will take effect by itself. Repeating the request publishes the opt-out again.",
	}, s.suppress)
	register(s, operation{
		id: "deleteSuppression", method: http.MethodDelete, path: "/api/suppressions", summary: "Lift an opt-out",
		scope: store.ScopeContacts, errors: []int{400, 422}, tag: suppressionTag,
		describe: "For all channels, or for one: a number that has opted out of all channels then stays opted out of the others. Changes nothing for a number that has not opted out.",
	}, s.lift)
	register(s, operation{
		id: "listSuppressions", method: http.MethodGet, path: "/api/suppressions", summary: "List opt-outs",
		scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
	}, s.listSuppressions)
}

// number parses the field phoneNumber of a request.
func (s *server) number(who *principal, raw string) (string, *problem.Problem) {
	if raw == "" {
		return "", problem.Field(problem.CodeRequired, "phoneNumber", "phoneNumber is required.")
	}
	n, err := s.phones.Parse(raw, who.tenant.Region)
	if err != nil {
		return "", wrongNumber("phoneNumber", err)
	}
	return n.E164, nil
}

// everyChannel is the name of all channels.
const everyChannel = "all"

// scopeOf parses the scope of an opt-out: a channel, or all.
func scopeOf(name string) (schemas.Channel, bool) {
	if name == "" || strings.EqualFold(name, everyChannel) {
		return schemas.ChannelUnspecified, true
	}
	for _, c := range store.SingleChannels {
		if strings.EqualFold(name, schemas.ChannelName(c)) {
			return c, true
		}
	}
	return 0, false
}

// scopeName is the reverse of scopeOf.
func scopeName(c schemas.Channel) string {
	if c == schemas.ChannelUnspecified {
		return everyChannel
	}
	return schemas.ChannelName(c)
}

// optedOutOf returns the names of the channels that a number has opted out of, or all.
func optedOutOf(s store.ChannelSet) []string {
	out := []string{}
	if s.Has(schemas.ChannelUnspecified) {
		out = append(out, everyChannel)
	}
	for _, c := range s.Channels() {
		out = append(out, schemas.ChannelName(c))
	}
	return out
}

// optOut returns the opt-out of a request.
func optOut(e164, reason, channel string) (store.OptOut, *problem.Problem) {
	scope, ok := scopeOf(channel)
	if !ok {
		return store.OptOut{}, problem.Field(problem.CodeInvalid, "channel", "%q is not a channel.", problem.Truncate(channel, 20)).WithFix("Want all, sms, rcs, whatsapp or voice.")
	}
	reason = strings.TrimSpace(reason)
	if utf8.RuneCountInString(reason) > maxReason {
		return store.OptOut{}, problem.Field(problem.CodeTooLong, "reason", "At most %d characters.", maxReason)
	}
	return store.OptOut{Phone: e164, Reason: reason, Channel: scope}, nil
}

func (s *server) suppress(ctx context.Context, in *suppressIn) (*suppressionOut, error) {
	who := requestOf(ctx).who
	e164, p := s.number(who, in.Body.Value.PhoneNumber)
	if p != nil {
		return nil, p
	}
	o, p := optOut(e164, in.Body.Value.Reason, in.Body.Value.Channel)
	if p != nil {
		return nil, p
	}
	if _, err := s.Store.OptOuts(ctx, who.tenant.ID, store.OptOutCause{Source: sourceAPI, By: who.key.ID}, o); err != nil {
		return nil, s.storeProblem(err)
	}
	return s.published(ctx, who, e164, "The opt-out is stored and takes effect by itself, but Kafka has not acknowledged it yet.")
}

// sourceAPI is the source of opt-outs made by this API.
const sourceAPI = "api"

func (s *server) lift(ctx context.Context, in *liftIn) (*suppressionOut, error) {
	who := requestOf(ctx).who
	raw, reason, channel := plusInQuery(in.PhoneNumber), "", in.Channel
	if in.Body != nil {
		raw, reason, channel = in.Body.Value.PhoneNumber, in.Body.Value.Reason, in.Body.Value.Channel
	}
	e164, p := s.number(who, raw)
	if p != nil {
		return nil, p
	}
	o, p := optOut(e164, reason, channel)
	if p != nil {
		return nil, p
	}
	if _, err := s.Store.LiftOptOuts(ctx, who.tenant.ID, store.OptOutCause{Source: sourceAPI, By: who.key.ID}, o); err != nil {
		return nil, s.storeProblem(err)
	}
	return s.published(ctx, who, e164, "The opt-out is lifted, but Kafka has not acknowledged it yet.")
}

// published waits until Kafka has acknowledged the record of the opt-out (P4), and then answers.
func (s *server) published(ctx context.Context, who *principal, e164, late string) (*suppressionOut, error) {
	wait, cancel := context.WithTimeout(ctx, s.PublishTimeout)
	defer cancel()
	if err := s.Store.WaitPublished(wait, who.tenant.ID, e164); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, problem.Unavailable(2*time.Second, nil, "%s", late).WithFix("Repeat the request; it answers when the opt-out is in effect.")
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
	out := &Suppression{PhoneNumber: e164, Channels: []string{}, Source: sourceAPI, UpdatedAt: stamp(s.Now())}
	if len(log) > 0 { // the time of the last change, because a repeated request changes nothing
		last := &log[len(log)-1]
		out = viewSuppression(last)
	}
	return &suppressionOut{out}, nil
}

// ownViewLag is how long the answer waits until the opt-outs in this process's memory contain the change, so that a
// client that opts a number out and then sends to it is refused at once. The sender stage does not depend on it.
const ownViewLag = time.Second

// seen waits at most [ownViewLag] until the opt-outs in memory agree with the store about a number.
func (s *server) seen(ctx context.Context, who *principal, e164 string) error {
	if !s.knowsOptOuts() {
		return nil
	}
	log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
	if err != nil || len(log) == 0 {
		return err
	}
	want := log[len(log)-1].Channels
	agrees := func() bool {
		for _, c := range store.SingleChannels {
			if s.OptedOut(who.tenant.ID, e164, c) != want.Has(c) {
				return false
			}
		}
		return true
	}
	late := time.NewTimer(ownViewLag)
	defer late.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !agrees() {
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
	return &Suppression{PhoneNumber: r.Phone, Suppressed: r.Channels != 0, Channels: optedOutOf(r.Channels), Source: r.Source, Reason: orNull(r.Reason), UpdatedAt: stamp(r.Updated)}
}

func (s *server) listSuppressions(ctx context.Context, in *suppressionsIn) (*suppressionsOut, error) {
	who := requestOf(ctx).who
	out := &Page[*Suppression]{Data: []*Suppression{}, Page: in.Page, Limit: in.Limit}
	if in.PhoneNumber != "" {
		e164, p := s.number(who, plusInQuery(in.PhoneNumber))
		if p != nil {
			return nil, p
		}
		log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		if n := len(log); n > 0 && log[n-1].Channels != 0 {
			out.Data, out.Total = append(out.Data, viewSuppression(&log[n-1])), 1
		}
		return &suppressionsOut{out}, nil
	}
	after, p := readCursor("opt-outs", in.Cursor)
	if p != nil {
		return nil, p
	}
	if after != "" {
		out.Page = 0
	}
	rows, total, err := s.Store.Suppressions(ctx, who.tenant.ID, store.Page{Number: in.Page, Limit: in.Limit}, after)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range rows {
		out.Data = append(out.Data, viewSuppression(&rows[i]))
	}
	out.Total = total
	if n := len(rows); n > 0 {
		out.Next = nextCursor("opt-outs", n, in.Limit, func() string { return schemas.NumberKey(rows[n-1].Phone) })
	}
	return &suppressionsOut{out}, nil
}
