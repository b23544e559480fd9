package api

import (
	"context"
	"errors"
	"time"

	"fanfare/api/problem"
	"fanfare/schemas"
)

// ContactHistory is everything that was sent to a contact, and its opt-outs.
type ContactHistory struct {
	ContactID   string           `json:"contactId" doc:"Id of the contact." example:"contact_17"`
	PhoneNumber string           `json:"phoneNumber" doc:"The contact's number, E.164. What was sent to an earlier number of the contact is not in the history."`
	Since       string           `json:"since" format:"date-time" doc:"Messages of campaigns that were confirmed in the month of this time or later are in the history."`
	Messages    []ContactMessage `json:"messages" nullable:"false" doc:"Newest first, at most 100."`
	More        bool             `json:"more" doc:"There may be older messages: only the newest 100 are answered."`
	OptOuts     []OptOutChange   `json:"optOuts" nullable:"false" doc:"Every change of the number's opt-outs, newest first."`
}

// ContactMessage is one message to a contact.
type ContactMessage struct {
	MessageStatus
	CampaignName *string `json:"campaignName" doc:"Name of the campaign; null for a single send, and for a campaign that is not known any more."`
	Seq          uint32  `json:"seq" doc:"Number of the recipient within the campaign's audience, from 0."`
}

// OptOutChange is one entry of the log of opt-outs, which is their proof (X10).
type OptOutChange struct {
	Time     string   `json:"time" format:"date-time" doc:"When it was recorded, in UTC."`
	Lifted   bool     `json:"lifted" doc:"The opt-out ended; false: the person opted out."`
	Scope    string   `json:"scope" doc:"The channel that changed, or all." example:"all"`
	Channels []string `json:"channels" nullable:"false" doc:"Channels that were opted out of after the change; all, or single ones; empty: none."`
	Source   string   `json:"source" doc:"api, import, keyword, link or carrier."`
	Reason   *string  `json:"reason" doc:"Why, in words; null when no reason was given."`
	By       *string  `json:"by" doc:"What reported it, such as the id of a key or of a message; null when it is not known."`
}

type (
	contactHistoryIn struct {
		ID    string `path:"id" doc:"Id of the contact." example:"contact_17"`
		Since string `query:"since" format:"date-time" doc:"How far back messages are looked for; default: 90 days. A longer time takes longer: the numbers of all messages since then are read."`
	}
	contactHistoryOut struct{ Body *ContactHistory }
)

// historySpan is how far back messages to a contact are looked for unless the request says it.
const historySpan = 90 * 24 * time.Hour

func (s *server) contactHistory(ctx context.Context, in *contactHistoryIn) (*contactHistoryOut, error) {
	who, since := requestOf(ctx).who, s.Now().Add(-historySpan)
	if in.Since != "" {
		at, err := time.Parse(time.RFC3339, in.Since)
		if err != nil {
			return nil, problem.Field(problem.CodeInvalid, "since", "%q is not a time such as 2026-01-31T00:00:00Z.", problem.Truncate(in.Since, 40))
		}
		since = at
	}
	c, err := s.contact(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, c.Phone)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	numbers := []string{c.Phone}
	if key := schemas.NumberKey(c.Phone); key != c.Phone {
		numbers = append(numbers, key)
	}
	ask, cancel := context.WithTimeout(ctx, 5*analyticsTimeout)
	defer cancel()
	found, err := s.Analytics.ByNumber(ask, who.tenant.ID, numbers, since)
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The messages cannot be read now. A shorter time since answers faster.")
	}
	out := &ContactHistory{
		ContactID: c.ID(), PhoneNumber: c.Phone, Since: stamp(since), More: len(found) == maxRefs,
		Messages: []ContactMessage{}, OptOuts: []OptOutChange{},
	}
	type name struct{ id, name string }
	names := map[string]name{}
	for i := range found {
		m := &found[i]
		of, ok := names[m.Campaign]
		if !ok {
			campaign, err := s.Store.Campaign(ctx, who.tenant.ID, m.Campaign)
			switch {
			case err == nil && !campaign.Hidden:
				of = name{campaign.ID(), campaign.Name}
			case err != nil && !errors.Is(err, schemas.ErrNotFound):
				return nil, s.storeProblem(err)
			}
			names[m.Campaign] = of
		}
		out.Messages = append(out.Messages, ContactMessage{*viewMember(&m.Member, of.id), orNull(of.name), m.Seq})
	}
	for i := len(log) - 1; i >= 0; i-- {
		e := &log[i]
		scope := "all"
		if e.Scope != 0 {
			scope = schemas.ChannelName(e.Scope)
		}
		out.OptOuts = append(out.OptOuts, OptOutChange{stamp(e.Updated), e.Lifted, scope, optedOutOf(e.Channels), e.Source, orNull(e.Reason), orNull(e.By)})
	}
	return &contactHistoryOut{out}, nil
}
