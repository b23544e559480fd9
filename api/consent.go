package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Consent is what is known of the consent of a number: the proof of it (R43, X10).
type Consent struct {
	PhoneNumber string          `json:"phoneNumber" doc:"E.164."`
	At          string          `json:"at" format:"date-time" doc:"When this was read, in UTC."`
	OptedIn     bool            `json:"optedIn" doc:"The contact of the number has an opt-in."`
	OptedOut    []string        `json:"optedOut" nullable:"false" doc:"Channels that the number has opted out of: all, or single channels; empty: none. It holds for an erased person too." example:"[\"sms\"]"`
	Changes     []ConsentChange `json:"changes" nullable:"false" doc:"The opt-in and every opt-out, oldest first. Those of an erased person are not shown."`
}

// ConsentChange is one change of the consent of a number.
type ConsentChange struct {
	Time      string   `json:"time" format:"date-time" doc:"When it happened, in UTC."`
	Event     string   `json:"event" enum:"opt_in,opt_out,opt_out_lifted" doc:"opt_in: the consent of the contact; earlier ones that it has replaced are not kept. opt_out: the person opted out. opt_out_lifted: the opt-out ended, such as by START."`
	Channel   string   `json:"channel" enum:"all,sms,rcs,whatsapp,voice" doc:"The channel that it is about."`
	OptedOut  []string `json:"optedOut" nullable:"false" doc:"Channels that the number was opted out of afterwards."`
	Source    string   `json:"source" doc:"Of an opt-in: where the consent comes from. Else api, import, keyword, link or carrier."`
	By        *string  `json:"by" doc:"Who or what reported it: the id of a key, a person, or the message that the person answered; null: not known."`
	Text      *string  `json:"text" doc:"What the person wrote, or the reason that was given; null: none."`
	ContactID *string  `json:"contactId" doc:"Of an opt-in: the contact that has it."`
}

type (
	consentIn struct {
		PhoneNumber string `query:"phoneNumber" required:"true" doc:"With country code, or as it is dialled in the tenant's region." example:"+393331234567"`
	}
	consentOut struct{ Body *Consent }
)

const (
	consentOptIn  = "opt_in"
	consentOptOut = "opt_out"
	consentLifted = "opt_out_lifted"
)

func (s *server) registerConsent() {
	register(s, operation{
		id: "getConsent", method: http.MethodGet, path: "/api/consent", summary: "Get the proof of a number's consent", scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
		describe: "The opt-in of its contact and every opt-out, with when, by what and the text that the person wrote. The log of opt-outs is only added to. A number that nothing is known of has no changes. Neither has one of an erased person: their changes are not shown, and optedOut says whether they had opted out, which still holds.",
	}, func(ctx context.Context, in *consentIn) (*consentOut, error) {
		out, err := s.consentOf(ctx, in.PhoneNumber)
		if err != nil {
			return nil, err
		}
		return &consentOut{out}, nil
	})
	register(s, operation{
		id: "exportConsent", method: http.MethodGet, path: "/api/consent/export", summary: "The proof of a number's consent, as CSV", scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
		describe: "The changes of getConsent, one row each, oldest first.",
	}, s.exportConsent)
	describeCSV(s.api.OpenAPI().Paths["/api/consent/export"].Get,
		"phone,time,event,channel,optedOut,source,by,text\n+393331234567,2025-04-15T09:00:00Z,opt_out,sms,sms,keyword,,STOP\n")
}

// consentOf reads the consent of a number.
func (s *server) consentOf(ctx context.Context, raw string) (*Consent, error) {
	who := requestOf(ctx).who
	e164, p := s.number(who, plusInQuery(raw))
	if p != nil {
		return nil, p
	}
	log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Consent{PhoneNumber: e164, At: stamp(s.Now()), OptedOut: []string{}, Changes: []ConsentChange{}}
	if len(log) == 0 {
		if out.OptedOut, err = s.optedOutErased(ctx, who.tenant.ID, e164); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	for i := range log {
		e := &log[i]
		out.OptedOut = optedOutOf(e.Channels)
		out.Changes = append(out.Changes, ConsentChange{
			Time: stamp(e.Updated), Event: pick(e.Lifted, consentLifted, consentOptOut), Channel: scopeName(e.Scope), OptedOut: out.OptedOut,
			Source: e.Source, By: orNull(e.By), Text: orNull(e.Reason),
		})
	}
	c, err := s.Store.ContactByPhone(ctx, who.tenant.ID, e164)
	if errors.Is(err, schemas.ErrNotFound) || err == nil && c.OptIn.IsZero() {
		return out, nil
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	// The log stays in its order, in which the states follow from each other.
	at, before := slices.IndexFunc(log, func(e store.Suppression) bool { return e.Updated.After(c.OptIn) }), []string{}
	if len(log) == 0 {
		before = out.OptedOut
	}
	if at < 0 {
		at = len(log)
	}
	if at > 0 {
		before = out.Changes[at-1].OptedOut
	}
	out.OptedIn = true
	out.Changes = slices.Insert(out.Changes, at, ConsentChange{
		Time: stamp(c.OptIn), Event: consentOptIn, Channel: everyChannel, OptedOut: before, Source: c.OptInSource, ContactID: orNull(c.ID()),
	})
	return out, nil
}

// optedOutErased returns the channels that a number without a log has opted out of: the opt-out of an erased person
// holds, and the log of it is gone.
func (s *server) optedOutErased(ctx context.Context, tenant, e164 string) ([]string, error) {
	out := []string{}
	for _, channel := range append([]schemas.Channel{schemas.ChannelUnspecified}, store.SingleChannels...) {
		is, err := s.Store.Suppressed(ctx, tenant, e164, channel)
		if err != nil {
			return nil, err
		}
		if is && channel == schemas.ChannelUnspecified {
			return []string{everyChannel}, nil
		}
		if is {
			out = append(out, schemas.ChannelName(channel))
		}
	}
	return out, nil
}

func (s *server) exportConsent(ctx context.Context, in *consentIn) (*huma.StreamResponse, error) {
	proof, err := s.consentOf(ctx, in.PhoneNumber)
	if err != nil {
		return nil, problem.From(err)
	}
	return s.answerCSV(ctx, "consent.csv", []string{"phone", "time", "event", "channel", "optedOut", "source", "by", "text"}, func(_ context.Context, write func(...string) error) error {
		for i := range proof.Changes {
			c := &proof.Changes[i]
			if err := write(proof.PhoneNumber, c.Time, c.Event, c.Channel, strings.Join(c.OptedOut, " "), c.Source, orBlank(c.By), orBlank(c.Text)); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// orBlank returns the text, "" for none.
func orBlank(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
