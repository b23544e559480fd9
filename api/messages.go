package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// MessageStatus is the state of one message.
type MessageStatus struct {
	MessageID         string  `json:"messageId" doc:"Our id of the message."`
	CustomerMessageID string  `json:"customerMessageId" doc:"The client's own reference; messageId when it gave none."`
	CampaignID        *string `json:"campaignId" doc:"Null for a single send."`
	Destination       *string `json:"destination" doc:"Null until the first event about the message has arrived."`
	Channel           *string `json:"channel" doc:"Channel of the try that decides the status; null before the first event."`
	Sender            *string `json:"sender" doc:"What the recipient sees as the sender; null before the first event."`
	Country           *string `json:"country" doc:"ISO 3166-1 alpha-2, of the number; null when it is not known."`
	Status            string  `json:"status" enum:"pending,sent,delivered,failed" doc:"sent covers the states awaiting and ambiguous; failed covers undelivered, notSent and skipped."`
	State             string  `json:"state" enum:"pending,ambiguous,notSent,skipped,awaiting,undelivered,delivered" doc:"The status in more detail."`
	SubStatus         *string `json:"subStatus" doc:"Why the message has its state; null before the first event." example:"ABSENT_SUBSCRIBER"`
	Description       *string `json:"description" doc:"subStatus in a sentence; null before the first event."`
	RawCode           *string `json:"rawCode" doc:"The carrier's own code."`
	Attempts          int     `json:"attempts" doc:"How often the message was handed over to a carrier."`
	SentAt            *string `json:"sentAt" format:"date-time" doc:"When a carrier first accepted the message, in UTC; null before."`
	DeliveredAt       *string `json:"deliveredAt" format:"date-time" doc:"When it was delivered, in UTC; null before."`
	UpdatedAt         *string `json:"updatedAt" format:"date-time" doc:"When the event that decides the status happened, in UTC; null before the first event."`
}

// StatusAnswer is the newest message with a reference, and all messages with it.
type StatusAnswer struct {
	MessageStatus
	Results []MessageStatus `json:"results" nullable:"false" doc:"Every message that carries the reference, newest first, at most 100."`
	More    bool            `json:"more" doc:"There may be more messages with this reference; get each by its messageId."`
}

// StatusesAnswer is the status of several references.
type StatusesAnswer struct {
	Data     []StatusAnswer `json:"data" nullable:"false" doc:"One for each reference that is known, in the order of the request."`
	NotFound []string       `json:"notFound" nullable:"false" doc:"References that no message has."`
}

// MessageHistory is a message with all its events.
type MessageHistory struct {
	MessageStatus
	Events []MessageEvent `json:"events" nullable:"false" doc:"Everything that happened to the message, oldest first."`
}

// MessageEvent is one event of a message.
type MessageEvent struct {
	Kind        string  `json:"kind" doc:"What happened." example:"sent"`
	SubStatus   *string `json:"subStatus" doc:"The outcome in one word; null when the event has none."`
	Description *string `json:"description" doc:"subStatus in a sentence; null when the event has none."`
	RawCode     *string `json:"rawCode" doc:"The carrier's own code; null when it sent none."`
	Try         int     `json:"try" doc:"Number of the try that the event is about, from 1; 0: of none."`
	Leg         int     `json:"leg" doc:"Number of the channel in the chain, from 1; 0 when it is not known."`
	Channel     *string `json:"channel" doc:"Channel that the event is about; null when it is about none."`
	Route       *string `json:"route" doc:"Route of the try; null when the event is about none."`
	ProviderID  *string `json:"providerId" doc:"The carrier's id of the message; null before it gave one."`
	Time        string  `json:"time" format:"date-time" doc:"When it happened, in UTC."`
}

type (
	statusIn struct {
		Ref string `path:"customerMessageId" doc:"The client's reference, or the message id (msg_…) from an answer."`
	}
	statusOut  struct{ Body *StatusAnswer }
	statusesIn struct {
		Refs []string `query:"customerMessageIds,explode" required:"true" doc:"Up to 100 references, separated by commas or given one by one."`
	}
	statusesOut struct{ Body *StatusesAnswer }
	historyIn   struct {
		ID string `path:"id" doc:"Id of the message." example:"msg_…"`
	}
	historyOut struct{ Body *MessageHistory }
)

// maxRefs is the maximum number of references in one query.
const maxRefs = 100

// refSpan is how far back a reference is searched: as long as deliveries are kept.
const refSpan = 35 * 24 * time.Hour

func (s *server) registerMessages() {
	register(s, operation{
		id: "getMessageStatuses", method: http.MethodGet, path: "/api/messages/status", summary: "Status of several messages, by the client's references",
		scope: store.ScopeRead, errors: []int{422}, tag: "Messages",
	}, s.statuses)
	register(s, operation{
		id: "getMessageStatus", method: http.MethodGet, path: "/api/messages/status/{customerMessageId}", summary: "Status of a message, by the client's reference or ours",
		scope: store.ScopeRead, errors: []int{404}, tag: "Messages",
	}, s.statusByRef)
	register(s, operation{
		id: "getMessage", method: http.MethodGet, path: "/api/messages/{id}", summary: "Get a message with its history",
		scope: store.ScopeRead, errors: []int{404}, tag: "Messages",
	}, s.messageHistory)
}

// owned finds the campaign of a message id among the tenant's campaigns. Another tenant's message is not found (P7).
func (s *server) owned(ctx context.Context, who *principal, id schemas.ID) (*store.Campaign, error) {
	missing := problem.New(problem.CodeNotFound, "There is no message with that id.")
	if s.Keys.Verify(id) != nil {
		return nil, missing
	}
	c, err := s.Store.Campaign(ctx, who.tenant.ID, schemas.CampaignID(id.CampaignNumber()))
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return nil, missing
	case err != nil:
		return nil, s.storeProblem(err)
	case id.Seq() >= c.Total:
		return nil, missing
	}
	return &c, nil
}

// messageStatus returns the state of a message. A message without events is pending: it is in its topic and will be
// sent.
func (s *server) messageStatus(ctx context.Context, who *principal, id schemas.ID) (*MessageStatus, error) {
	c, err := s.owned(ctx, who, id)
	if err != nil {
		return nil, err
	}
	id = s.Keys.MessageOf(id) // the client may also send the id of a submission
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	members, err := s.Analytics.Members(ctx, who.tenant.ID, c.ID(), []uint32{id.Seq()})
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The status cannot be read now.")
	}
	m := analytics.Member{Seq: id.Seq(), MessageID: id}
	if len(members) > 0 {
		m = members[0]
	}
	m.MessageID = id
	return viewMember(&m, visible(c)), nil
}

// visible returns the id of a campaign that clients may know, "" for the hidden campaign of single sends.
func visible(c *store.Campaign) string {
	if c.Hidden {
		return ""
	}
	return c.ID()
}

// bucketWords are the words of C for the buckets.
var bucketWords = map[schemas.Bucket]string{
	schemas.BucketPending: "pending", schemas.BucketAmbiguous: "sent", schemas.BucketAwaiting: "sent", schemas.BucketDelivered: "delivered",
	schemas.BucketUndelivered: "failed", schemas.BucketNotSent: "failed", schemas.BucketSkipped: "failed",
}

func viewMember(m *analytics.Member, campaign string) *MessageStatus {
	bucket := m.State.Bucket()
	v := &MessageStatus{
		MessageID: m.MessageID.String(), CustomerMessageID: m.CustomerRef, CampaignID: orNull(campaign), Destination: orNull(m.To),
		Sender: orNull(m.Sender), Country: orNull(m.Country), Status: bucketWords[bucket], State: bucket.String(), RawCode: orNull(m.RawCode),
		Attempts: m.Attempts, SentAt: stampOrNull(m.SentAt), DeliveredAt: stampOrNull(m.DeliveredAt), UpdatedAt: stampOrNull(m.Time),
	}
	if m.CustomerRef == "" {
		v.CustomerMessageID = v.MessageID
	}
	if m.Channel != 0 {
		v.Channel = orNull(schemas.ChannelName(m.Channel))
	}
	if code := m.State.Code(); m.State != 0 {
		info, _ := schemas.LookupCode(code)
		v.SubStatus, v.Description = orNull(schemas.CodeName(code)), orNull(info.Description)
	}
	return v
}

// byRef finds the messages of a reference, which is our message id or the client's own reference.
func (s *server) byRef(ctx context.Context, who *principal, ref string) (*StatusAnswer, error) {
	if id, err := schemas.ParseID(ref); err == nil {
		st, err := s.messageStatus(ctx, who, id)
		if err != nil {
			return nil, err
		}
		return &StatusAnswer{MessageStatus: *st, Results: []MessageStatus{*st}}, nil
	}
	found, err := s.findRef(ctx, who, ref)
	if err != nil {
		return nil, err
	}
	out := &StatusAnswer{Results: []MessageStatus{}}
	seen, campaigns := map[schemas.ID]bool{}, map[string]string{}
	for i := range found {
		m := &found[i]
		seen[m.MessageID] = true
		id, ok := campaigns[m.Campaign]
		if !ok {
			id = s.visibleID(ctx, who, m.Campaign)
			campaigns[m.Campaign] = id
		}
		out.Results = append(out.Results, *viewMember(&m.Member, id))
	}
	for _, id := range s.recent.find(who.tenant.ID, ref) {
		if !seen[id] && len(out.Results) < maxRefs {
			m := analytics.Member{MessageID: id, CustomerRef: ref}
			out.Results = append(out.Results, *viewMember(&m, ""))
		}
	}
	out.More = len(out.Results) == maxRefs
	if len(out.Results) == 0 {
		return nil, problem.New(problem.CodeNotFound, "There is no message with the reference %q.", problem.Truncate(ref, 100)).
			WithFix("A message that was sent through another process may take a second to be found.")
	}
	out.MessageStatus = out.Results[0]
	return out, nil
}

func (s *server) findRef(ctx context.Context, who *principal, ref string) ([]analytics.Referred, error) {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	found, err := s.Analytics.ByCustomerRef(ctx, who.tenant.ID, ref, s.Now().Add(-refSpan))
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The status cannot be read now.")
	}
	return found, nil
}

// visibleID returns the id of a campaign that clients may see, "" for a hidden one.
func (s *server) visibleID(ctx context.Context, who *principal, id string) string {
	c, err := s.Store.Campaign(ctx, who.tenant.ID, id)
	if err != nil {
		return ""
	}
	return visible(&c)
}

func (s *server) statusByRef(ctx context.Context, in *statusIn) (*statusOut, error) {
	out, err := s.byRef(ctx, requestOf(ctx).who, in.Ref)
	if err != nil {
		return nil, err
	}
	return &statusOut{out}, nil
}

func (s *server) statuses(ctx context.Context, in *statusesIn) (*statusesOut, error) {
	var refs []string
	for _, given := range in.Refs {
		refs = append(refs, strings.Split(given, ",")...)
	}
	if len(refs) > maxRefs {
		return nil, problem.Field(problem.CodeInvalid, "customerMessageIds", "%d references; at most %d are taken.", len(refs), maxRefs)
	}
	out := &StatusesAnswer{Data: []StatusAnswer{}, NotFound: []string{}}
	for _, ref := range refs {
		if ref = strings.TrimSpace(ref); ref == "" {
			continue
		}
		a, err := s.byRef(ctx, requestOf(ctx).who, ref)
		if p := (*problem.Problem)(nil); errors.As(err, &p) && p.Code == problem.CodeNotFound {
			out.NotFound = append(out.NotFound, ref)
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, *a)
	}
	return &statusesOut{out}, nil
}

func (s *server) messageHistory(ctx context.Context, in *historyIn) (*historyOut, error) {
	who := requestOf(ctx).who
	id, err := schemas.ParseID(in.ID)
	if err != nil {
		return nil, problem.New(problem.CodeNotFound, "There is no message %q.", problem.Truncate(in.ID, 40))
	}
	st, err := s.messageStatus(ctx, who, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	events, err := s.Analytics.History(ctx, who.tenant.ID, schemas.CampaignID(id.CampaignNumber()), id.Seq())
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The history cannot be read now.")
	}
	return &historyOut{&MessageHistory{MessageStatus: *st, Events: viewEvents(events)}}, nil
}

func viewEvents(events []analytics.Event) []MessageEvent {
	out := make([]MessageEvent, 0, len(events))
	for i := range events {
		e := &events[i]
		kind, _ := schemas.LookupKind(e.Kind)
		info, _ := schemas.LookupCode(e.Code)
		v := MessageEvent{
			Kind: kind.Name, SubStatus: orNull(schemas.CodeName(e.Code)), Description: orNull(info.Description), RawCode: orNull(e.RawCode),
			Try: int(e.Try), Leg: int(e.Leg), Route: orNull(e.Route), ProviderID: orNull(e.ProviderID), Time: stamp(e.Time()),
		}
		if e.Channel != 0 {
			v.Channel = orNull(schemas.ChannelName(e.Channel))
		}
		out = append(out, v)
	}
	return out
}
