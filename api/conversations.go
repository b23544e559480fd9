package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/api/ui"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Conversation is all messages between one number and one of the tenant's senders on one channel (R90).
type Conversation struct {
	ID          string  `json:"id" example:"conv_4k2mq8vtc0m1xw7r" doc:"Made of channel, sender and number: the same three are the same conversation."`
	PhoneNumber string  `json:"phoneNumber" example:"+393331234567" doc:"Of the recipient, E.164."`
	Channel     string  `json:"channel" enum:"sms,rcs,whatsapp" doc:"Channel of all its messages."`
	Sender      string  `json:"sender" doc:"The tenant's sender that the recipient writes to."`
	State       string  `json:"state" enum:"open,closed" doc:"A message that comes in opens a closed one."`
	AssignedTo  *string `json:"assignedTo" doc:"Who answers it: a name or e-mail address; null: nobody yet."`
	Unread      int     `json:"unread" doc:"Messages that came in and were not marked as read."`
	Reviews     int     `json:"reviews" doc:"Messages that may ask for an opt-out and wait for a decision."`
	CampaignID  *string `json:"campaignId" doc:"Campaign whose message the recipient last answered; null: it is not known, or it was a single send."`
	LastMessage string  `json:"lastMessage" doc:"The first 200 characters of the newest message."`
	LastOut     bool    `json:"lastOut" doc:"True: the newest message went out; false: it came in."`
	LastAt      string  `json:"lastAt" format:"date-time" doc:"Time of the newest message, in UTC."`
	Test        bool    `json:"test" doc:"True: it is with the simulator."`
	CreatedAt   string  `json:"createdAt" format:"date-time" doc:"When the first message came in, in UTC."`
	Version     uint64  `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// ConversationMessage is one message of a conversation.
type ConversationMessage struct {
	ID         uint64  `json:"id" doc:"Rises with every message of the installation."`
	Direction  string  `json:"direction" enum:"in,out" doc:"in: the recipient wrote it."`
	Text       string  `json:"text" doc:"At most 4,000 characters."`
	Meaning    string  `json:"meaning" enum:"none,opt_out,opt_in,review" doc:"Of a message that came in: whether a keyword changed the opt-out, or it waits, or waited, for a decision."`
	Review     *string `json:"review" enum:"open,opted_out,dismissed" doc:"What became of the review; null: there was none."`
	MessageID  *string `json:"messageId" doc:"in: the message that it answers, null when none is known; out: its own id, for status queries."`
	CampaignID *string `json:"campaignId" doc:"Campaign of the answered message; null: none."`
	By         *string `json:"by" doc:"Who wrote it, or decided about it; confirmation: Fanfare confirmed an opt-out. Null: nobody."`
	Segments   uint32  `json:"segments" doc:"Billing units; 0 of a message that came in."`
	Cost       Money   `json:"cost" doc:"Price of all its segments; 0 of a message that came in."`
	At         string  `json:"at" format:"date-time" doc:"When it came in or was accepted, in UTC."`
}

// ConversationInput changes a conversation.
type ConversationInput struct {
	State      problem.Optional[string] `json:"state,omitzero" doc:"open or closed."`
	AssignedTo problem.Optional[string] `json:"assignedTo,omitzero" doc:"Who answers it, at most 200 characters; null or empty: nobody."`
	ReadUpTo   problem.Optional[uint64] `json:"readUpTo,omitzero" doc:"Id of the newest message that was read: later ones stay unread."`
}

// ReplyInput is an answer to a recipient.
type ReplyInput struct {
	Message string `json:"message" doc:"The text."`
	Preview bool   `json:"preview,omitzero" doc:"true: only say what it would cost; nothing is sent."`
}

// Reply is the result of an answer.
type Reply struct {
	MessageID *string `json:"messageId" doc:"Id for status queries; null of a preview."`
	Segments  int     `json:"segments" doc:"Billing units of the text."`
	Cost      Money   `json:"cost" doc:"Price of all segments."`
	Currency  string  `json:"currency" doc:"ISO 4217 code."`
}

// ConversationSummary counts the conversations that need a person.
type ConversationSummary struct {
	Open    int `json:"open" doc:"Conversations that are open."`
	Unread  int `json:"unread" doc:"Conversations with unread messages."`
	Reviews int `json:"reviews" doc:"Messages that wait for a decision about an opt-out."`
}

// OptOutReview is a message that may ask for an opt-out without being a keyword (X10).
type OptOutReview struct {
	ID             uint64  `json:"id" doc:"Of the message."`
	ConversationID string  `json:"conversationId" doc:"Its conversation."`
	PhoneNumber    string  `json:"phoneNumber" doc:"Who wrote it, E.164."`
	Channel        string  `json:"channel" enum:"sms,rcs,whatsapp" doc:"The channel that an opt-out would be of."`
	Sender         string  `json:"sender" doc:"The tenant's sender that it was written to."`
	Text           string  `json:"text" doc:"What the recipient wrote."`
	Status         string  `json:"status" enum:"open,opted_out,dismissed" doc:"open: it waits for a decision."`
	CampaignID     *string `json:"campaignId" doc:"Campaign of the answered message; null: none."`
	At             string  `json:"at" format:"date-time" doc:"When it came in, in UTC."`
}

// ReviewInput is the decision about a message.
type ReviewInput struct {
	Decision string `json:"decision" enum:"opt_out,dismiss" doc:"opt_out: the number opts out of the channel, with the text as proof. dismiss: the message asks for none."`
}

type (
	conversationsIn struct {
		Page       int    `query:"page" minimum:"0" doc:"0-based."`
		Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"10" doc:"The most rows of the answer."`
		State      string `query:"state" enum:"open,closed" doc:"Only those in this state."`
		AssignedTo string `query:"assignedTo" doc:"Only those of this person; none: only those of nobody."`
		Unread     bool   `query:"unread" doc:"true: only those with unread messages."`
		Review     bool   `query:"review" doc:"true: only those with messages that wait for a decision about an opt-out."`
		Search     string `query:"search" maxLength:"20" doc:"Digits within the number."`
		Cursor     string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row, those with older messages."`
	}
	conversationsOut struct{ Body *Page[*Conversation] }
	conversationIn   struct {
		ID string `path:"id" example:"conv_4k2mq8vtc0m1xw7r" doc:"Id of the conversation."`
	}
	conversationOut struct {
		ETag string `header:"ETag"`
		Body *Conversation
	}
	conversationChangeIn struct {
		ID      string `path:"id" example:"conv_4k2mq8vtc0m1xw7r" doc:"Id of the conversation."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[ConversationInput]
	}
	messagesOfIn struct {
		ID     string `path:"id" example:"conv_4k2mq8vtc0m1xw7r" doc:"Id of the conversation."`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"The most messages of the answer."`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues with older messages."`
	}
	messagesOfOut struct{ Body *ConversationMessages }
	replyIn       struct {
		ID   string `path:"id" example:"conv_4k2mq8vtc0m1xw7r" doc:"Id of the conversation."`
		Body problem.Body[ReplyInput]
	}
	replyOut   struct{ Body *Reply }
	summaryIn  struct{}
	summaryOut struct{ Body *ConversationSummary }
	reviewsIn  struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"The most rows of the answer."`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer."`
	}
	reviewsOut struct{ Body *OptOutReviews }
	reviewIn   struct {
		ID   string `path:"id" doc:"Id of the message." example:"7"`
		Body problem.Body[ReviewInput]
	}
	reviewOut struct{ Body *OptOutReview }
)

// ConversationMessages is a page of the messages of a conversation, newest first.
type ConversationMessages struct {
	Data []*ConversationMessage `json:"data" nullable:"false" doc:"The messages, newest first."`
	Next *string                `json:"next" doc:"Cursor of the older messages; null: there are none."`
}

// OptOutReviews is a page of the messages that wait for a decision, oldest first.
type OptOutReviews struct {
	Data  []*OptOutReview `json:"data" nullable:"false" doc:"The messages, oldest first."`
	Total int             `json:"total" doc:"How many wait in all."`
	Next  *string         `json:"next" doc:"Cursor of the later ones; null: there are none."`
}

const conversationTag = "Conversations"

func (s *server) registerConversations() {
	register(s, operation{
		id: "listConversations", method: http.MethodGet, path: "/api/conversations", summary: "List conversations", scope: store.ScopeRead, errors: []int{422}, tag: conversationTag,
		describe: "Those with the newest message first. The filters narrow each other.",
	}, s.listConversations)
	register(s, operation{
		id: "getConversationSummary", method: http.MethodGet, path: "/api/conversations/summary", summary: "Count what needs somebody", scope: store.ScopeRead, tag: conversationTag,
		describe: "Open conversations, those with unread messages, and messages that wait for a decision about an opt-out.",
	}, func(ctx context.Context, _ *summaryIn) (*summaryOut, error) {
		n, err := s.Store.CountConversations(ctx, requestOf(ctx).who.tenant.ID)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return &summaryOut{&ConversationSummary{n.Open, n.Unread, n.Reviews}}, nil
	})
	register(s, operation{
		id: "getConversation", method: http.MethodGet, path: "/api/conversations/{id}", summary: "Get a conversation", scope: store.ScopeRead, errors: []int{404}, tag: conversationTag,
		describe: "Without its messages.",
	}, s.getConversation)
	register(s, operation{
		id: "listConversationMessages", method: http.MethodGet, path: "/api/conversations/{id}/messages", summary: "List the messages of a conversation",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: conversationTag,
		describe: "What the recipient wrote and what was answered here, newest first. Messages of campaigns are not in it: campaignId and messageId name those that were answered.",
	}, s.messagesOf)
	register(s, operation{
		id: "replyToConversation", method: http.MethodPost, path: "/api/conversations/{id}/messages", summary: "Answer a recipient, or ask what an answer costs",
		scope: store.ScopeSend, errors: []int{400, 402, 404, 409, 413, 422}, reserves: true, tag: conversationTag,
		describe: "A single send from the conversation's sender, with priority over campaigns and without calling hours. It is refused when the number has opted out, and by WhatsApp 24 hours after the recipient's last message.",
	}, s.replyTo)
	register(s, operation{
		id: "updateConversation", method: http.MethodPut, path: "/api/conversations/{id}", summary: "Assign, close, open or mark as read",
		scope: store.ScopeSend, errors: []int{404, 409, 412, 422}, tag: conversationTag,
		describe: "Fields that are left out stay.",
	}, s.changeConversation)
	register(s, operation{
		id: "listOptOutReviews", method: http.MethodGet, path: "/api/opt-out-reviews", summary: "List messages that may ask for an opt-out", scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
		describe: "Texts that are no keyword such as STOP, but have words such as unsubscribe in them, oldest first. A person decides about each.",
	}, s.listReviews)
	register(s, operation{
		id: "decideOptOutReview", method: http.MethodPost, path: "/api/opt-out-reviews/{id}", summary: "Decide whether a message asks for an opt-out", scope: store.ScopeContacts,
		errors: []int{400, 404, 409, 422}, tag: suppressionTag,
		describe: "After opt_out the answer comes when Kafka has acknowledged the opt-out, as when a number is opted out. A decision cannot be changed; the opt-out can be lifted.",
	}, s.decideReview)
}

func viewConversation(c *store.Conversation) *Conversation {
	return &Conversation{
		ID: c.ID, PhoneNumber: c.Phone, Channel: schemas.ChannelName(c.Channel), Sender: c.Sender, State: c.State, AssignedTo: orNull(c.Assigned), Unread: c.Unread, Reviews: c.Reviews,
		CampaignID: orNull(c.Campaign), LastMessage: c.LastText, LastOut: c.LastOut, LastAt: stamp(c.Last), Test: c.Test, CreatedAt: stamp(c.Created), Version: c.Version,
	}
}

var meaningNames = map[schemas.ReplyMeaning]string{
	schemas.ReplyMeaningUnspecified: "none", schemas.ReplyMeaningOptOut: "opt_out", schemas.ReplyMeaningOptIn: "opt_in", schemas.ReplyMeaningReview: "review",
}

func (s *server) listConversations(ctx context.Context, in *conversationsIn) (*conversationsOut, error) {
	f := store.ConversationFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, State: in.State, Assigned: in.AssignedTo, Unread: in.Unread, Review: in.Review,
		Phone: strings.TrimPrefix(plusInQuery(in.Search), "+"),
	}
	if strings.Trim(f.Phone, "0123456789") != "" {
		return nil, problem.Field(problem.CodeInvalid, "search", "Want digits of a number.")
	}
	if in.AssignedTo == "none" {
		f.Unassigned, f.Assigned = true, ""
	}
	after, p := readCursor("conversations", in.Cursor)
	if p != nil {
		return nil, p
	}
	out := &Page[*Conversation]{Data: []*Conversation{}, Page: in.Page, Limit: in.Limit}
	if after != "" {
		at, id, ok := strings.Cut(after, " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			return nil, problem.Field(problem.CodeInvalid, "cursor", "The cursor is not one of this list.")
		}
		f.Before, f.BeforeID, out.Page = time.UnixMilli(ms), id, 0
	}
	rows, total, err := s.Store.Conversations(ctx, requestOf(ctx).who.tenant.ID, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range rows {
		out.Data = append(out.Data, viewConversation(&rows[i]))
	}
	out.Total = total
	out.Next = nextCursor("conversations", len(rows), in.Limit, func() string {
		last := &rows[len(rows)-1]
		return fmt.Sprintf("%d %s", last.Last.UnixMilli(), last.ID)
	})
	return &conversationsOut{out}, nil
}

func (s *server) getConversation(ctx context.Context, in *conversationIn) (*conversationOut, error) {
	c, err := s.Store.Conversation(ctx, requestOf(ctx).who.tenant.ID, in.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &conversationOut{etag(c.Version), viewConversation(&c)}, nil
}

func (s *server) messagesOf(ctx context.Context, in *messagesOfIn) (*messagesOfOut, error) {
	who := requestOf(ctx).who
	before, p := readNumberCursor("messages", in.Cursor)
	if p != nil {
		return nil, p
	}
	if _, err := s.Store.Conversation(ctx, who.tenant.ID, in.ID); err != nil {
		return nil, s.storeProblem(err)
	}
	rows, err := s.Store.ConversationMessages(ctx, who.tenant.ID, in.ID, before, in.Limit)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &ConversationMessages{Data: []*ConversationMessage{}}
	for i := range rows {
		m := &rows[i]
		out.Data = append(out.Data, &ConversationMessage{
			ID: m.ID, Direction: pick(m.Out, "out", "in"), Text: m.Text, Meaning: meaningNames[m.Meaning], Review: orNull(m.Review), MessageID: orNull(m.Message),
			CampaignID: orNull(m.Campaign), By: orNull(s.whoNames.of(ctx, who.tenant.ID, m.By)), Segments: m.Segments, Cost: Money(m.Price * uint64(m.Segments)), At: stamp(m.Time),
		})
	}
	out.Next = nextCursor("messages", len(rows), in.Limit, func() string { return strconv.FormatUint(rows[len(rows)-1].ID, 10) })
	return &messagesOfOut{out}, nil
}

func (s *server) changeConversation(ctx context.Context, in *conversationChangeIn) (*conversationOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	var ps problem.List
	var change store.ConversationChange
	body := &in.Body.Value
	if body.State.Set {
		allowedWord(&ps, "state", body.State.Value, store.ConversationOpen, store.ConversationClosed)
		change.State = &body.State.Value
	}
	if body.AssignedTo.Set {
		name := strings.TrimSpace(body.AssignedTo.Value)
		if len([]rune(name)) > maxReason {
			ps.Add(problem.CodeTooLong, "assignedTo", "At most %d characters.", maxReason)
		}
		if strings.EqualFold(name, "none") {
			ps.Add(problem.CodeInvalid, "assignedTo", "none names nobody in the list's filter: send null to assign it to nobody.")
		}
		change.Assigned = &name
	}
	if body.ReadUpTo.Set {
		change.Read = &body.ReadUpTo.Value
	}
	if err := ps.Err(); err != nil {
		return nil, err
	}
	c, err := s.Store.ChangeConversation(ctx, requestOf(ctx).who.tenant.ID, in.ID, version, change)
	if errors.Is(err, schemas.ErrConflict) && version != 0 {
		return nil, problem.New(problem.CodeVersionMismatch, "The conversation has another version: a message came, or somebody changed it.")
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &conversationOut{etag(c.Version), viewConversation(&c)}, nil
}

// whatsAppService is how long after a recipient's last message WhatsApp accepts texts that are not templates.
const whatsAppService = 24 * time.Hour

// singleReply prepares a single send from the sender of a conversation.
func (s *server) singleReply(ctx context.Context, who *principal, c *store.Conversation, text string) (*single, error) {
	m := &single{who: who, channel: c.Channel, now: s.Now(), test: c.Test || who.key.Test, sender: c.Sender, field: "phoneNumber"}
	if !m.test {
		m.prices = who.prices
	}
	var ps problem.List
	m.text(given[string]{"message", text}, &SendInput{}, &ps)
	if err := ps.Err(); err != nil {
		return nil, err
	}
	if c.Channel != schemas.ChannelSMS {
		m.size.Segments, m.warning = 1, nil
	}
	if c.Channel == schemas.ChannelWhatsApp && m.now.Sub(c.Came) > whatsAppService {
		return nil, problem.New(problem.CodeWrongState, "WhatsApp takes a text only within 24 hours of the recipient's last message, which came at %s.", stamp(c.Came)).
			WithFix("Send an approved template by a campaign, or wait until the recipient writes.")
	}
	var err error
	if m.test {
		m.route, err = s.routes.simulated(ctx, c.Channel)
	} else {
		m.route, err = s.routes.route(ctx, c.Route)
	}
	switch {
	case errors.Is(err, schemas.ErrNotFound), err == nil && !carries(m.route, c.Channel):
		return nil, problem.Unavailable(30*time.Second, nil, "The route %s, by which the recipient wrote, does not send now.", c.Route)
	case err != nil:
		return nil, s.storeProblem(err)
	}
	if err := s.destinations(m, []string{c.Phone}); err != nil {
		return nil, err
	}
	if m.accepted == 0 {
		return nil, m.refusal()
	}
	return m, nil
}

func (s *server) replyTo(ctx context.Context, in *replyIn) (*replyOut, error) {
	who := requestOf(ctx).who
	c, err := s.Store.Conversation(ctx, who.tenant.ID, in.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	m, err := s.singleReply(ctx, who, &c, in.Body.Value.Message)
	if err != nil {
		return nil, err
	}
	out := &Reply{Segments: m.size.Segments, Cost: Money(m.targets[0].price * uint64(m.size.Segments)), Currency: who.tenant.Currency}
	if in.Body.Value.Preview {
		return &replyOut{out}, nil
	}
	claim := requestOf(ctx).claim
	if claim != nil && claim.State == store.ClaimInFlight {
		first, err := s.resumed(ctx, who, claim)
		if err != nil {
			return nil, err
		}
		// The ids are reserved before the message is sent. It is known to be sent once the conversation has it.
		list, err := s.Store.ConversationMessages(ctx, who.tenant.ID, c.ID, 0, 100)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		if !slices.ContainsFunc(list, func(m store.ConversationMessage) bool { return m.Message == first.Body.MessageID }) {
			return nil, problem.New(problem.CodeIdempotencyInFlight, "The first request with this Idempotency-Key is still running, or ended without an answer.").
				WithFix("Look at the conversation: if it does not have your message, send it with another key.")
		}
		out.MessageID = orNull(first.Body.MessageID)
		return &replyOut{out}, nil
	}
	records, err := s.prepare(ctx, m)
	if err != nil {
		return nil, err
	}
	if claim != nil {
		if err := s.reserve(ctx, claim, m); err != nil {
			s.unpay(m) //nolint:contextcheck // the money is returned although the request has ended
			return nil, err
		}
	}
	if err := s.produce(ctx, m, records); err != nil {
		return nil, err
	}
	out.MessageID = orNull(m.targets[0].id.String())
	// The message has been sent, so the conversation must have it, even if the client has closed its connection.
	if err := s.said(context.WithoutCancel(ctx), m, &c, who.by()); err != nil {
		s.Logger.ErrorContext(ctx, "a reply was sent and is not in its conversation", "conversation", c.ID, "message", *out.MessageID, "err", err)
	}
	return &replyOut{out}, nil
}

// said adds a message that was sent to its conversation.
func (s *server) said(ctx context.Context, m *single, c *store.Conversation, by string) error {
	return s.Store.AddReply(ctx, m.who.tenant.ID, &store.ConversationMessage{
		Conversation: c.ID, Text: m.body, Message: m.targets[0].id.String(), By: by, Segments: uint32(m.size.Segments), Price: m.targets[0].price, Time: m.now,
	})
}

func viewReview(r *store.Review) *OptOutReview {
	return &OptOutReview{
		ID: r.ID, ConversationID: r.Conversation, PhoneNumber: r.Phone, Channel: schemas.ChannelName(r.Channel), Sender: r.Sender, Text: r.Text, Status: r.Review,
		CampaignID: orNull(r.Campaign), At: stamp(r.Time),
	}
}

func (s *server) listReviews(ctx context.Context, in *reviewsIn) (*reviewsOut, error) {
	after, p := readNumberCursor("reviews", in.Cursor)
	if p != nil {
		return nil, p
	}
	rows, total, err := s.Store.Reviews(ctx, requestOf(ctx).who.tenant.ID, after, in.Limit)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &OptOutReviews{Data: []*OptOutReview{}, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewReview(&rows[i]))
	}
	out.Next = nextCursor("reviews", len(rows), in.Limit, func() string { return strconv.FormatUint(rows[len(rows)-1].ID, 10) })
	return &reviewsOut{out}, nil
}

func (s *server) decideReview(ctx context.Context, in *reviewIn) (*reviewOut, error) {
	who := requestOf(ctx).who
	id, err := strconv.ParseUint(in.ID, 10, 63)
	if err != nil {
		return nil, problem.New(problem.CodeNotFound, "There is no message %q to decide about.", problem.Truncate(in.ID, 40))
	}
	if _, err := s.Store.Review(ctx, who.tenant.ID, id); err != nil {
		return nil, s.storeProblem(err)
	}
	var ps problem.List
	allowedWord(&ps, "decision", in.Body.Value.Decision, "opt_out", "dismiss")
	if err := ps.Err(); err != nil {
		return nil, err
	}
	optOut := in.Body.Value.Decision == "opt_out"
	r, err := s.Store.DecideReview(ctx, who.tenant.ID, id, optOut, who.by())
	if errors.Is(err, schemas.ErrTransition) {
		return nil, problem.New(problem.CodeWrongState, "Somebody has decided about this message already.").WithFix("The number's opt-out can be made or lifted at /api/suppressions.")
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if optOut {
		if _, err := s.published(ctx, who, r.Phone, "The decision is stored and the opt-out takes effect by itself, but Kafka has not acknowledged it yet."); err != nil {
			return nil, err
		}
	}
	return &reviewOut{viewReview(&r)}, nil
}

// RunConfirmations looks for confirmations this often, and takes this many at a time.
const (
	confirmEvery = 500 * time.Millisecond
	confirmMost  = 20
	// byConfirmation is the author of a confirmation in its conversation.
	byConfirmation = "confirmation"
)

// RunConfirmations sends the confirmations of opt-outs until ctx ends. Each confirmation is sent at most once, because
// the API removes it from the store before it sends it. If the route has no room or does not send now, so that Kafka
// did not get the confirmation, the API puts it back into the store and tries again for an hour. If Kafka got it but
// did not acknowledge it, it may have been sent, and the API does not repeat it.
func (s *Server) RunConfirmations(ctx context.Context) error {
	ticker := time.NewTicker(confirmEvery)
	defer ticker.Stop()
	for {
		list, err := s.s.Store.TakeConfirmations(ctx, confirmMost)
		if err != nil && ctx.Err() == nil {
			s.s.Logger.WarnContext(ctx, "confirmations of opt-outs wait: the store does not answer", "err", err)
		}
		later := false
		for i := range list {
			if ctx.Err() == nil && s.s.confirmOptOut(context.WithoutCancel(ctx), &list[i]) {
				continue
			}
			later = true
			if err := s.s.Store.PutBackConfirmation(context.WithoutCancel(ctx), &list[i]); err != nil {
				s.s.Logger.WarnContext(ctx, "an opt-out is not confirmed to the recipient; it holds all the same", "conversation", list[i].Conversation.ID, "err", err)
			}
		}
		if len(list) == confirmMost && !later {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// confirmOptOut sends one confirmation. It sends the confirmation of an opt-out although the number has opted out. It
// does not send the confirmation that an opt-out has ended if the person has opted out again since, and sends nothing if
// the policy of the tenant wants no confirmations. It returns false if nothing was sent and a later try may succeed.
func (s *server) confirmOptOut(ctx context.Context, n *store.OptOutNotice) (done bool) {
	produced, off := false, false
	err := func() error {
		_, policy, err := s.policyRow(ctx, n.Conversation.Tenant)
		if err != nil {
			return err
		}
		if off = policy.Unconfirmed; off {
			return nil
		}
		who, err := s.auth.actor(ctx, ui.Actor{Tenant: n.Conversation.Tenant, User: byConfirmation})
		if err != nil {
			return err
		}
		m, err := s.singleReply(ctx, who, &n.Conversation, n.Text)
		if err != nil {
			return err
		}
		m.dress = func(msg *fanfarev1.Message) { msg.ConfirmsOptOut = n.OptedOut }
		if !n.OptedOut {
			if err := s.optOuts(ctx, m); err != nil {
				return err
			}
			if m.accepted == 0 {
				return m.refusal()
			}
		}
		if err := s.admit(m); err != nil {
			return err
		}
		records, err := s.records(ctx, m)
		if err != nil {
			return err
		}
		if err := s.pay(ctx, m); err != nil {
			return err
		}
		produced = true
		if err := s.produce(ctx, m, records); err != nil {
			return err
		}
		return s.said(ctx, m, &n.Conversation, byConfirmation)
	}()
	result := pick(off, "off", "sent")
	if err != nil {
		p := (*problem.Problem)(nil)
		if passing := !errors.As(err, &p) || p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError; passing && !produced {
			return false
		}
		result = "failed"
		s.Logger.WarnContext(ctx, "an opt-out is not confirmed to the recipient; it holds all the same", "conversation", n.Conversation.ID, "err", err)
	}
	s.metrics.confirmations.WithLabelValues(result).Inc()
	return true
}
