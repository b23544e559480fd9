package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/sinks/analytics"
)

// Why explains one message (X17).
type Why struct {
	MessageID  string     `json:"messageId" doc:"The message that is explained."`
	CampaignID *string    `json:"campaignId" doc:"Null for a single send."`
	Seq        uint32     `json:"seq" doc:"Number of the recipient within the audience, from 0."`
	Status     string     `json:"status" enum:"pending,sent,delivered,failed" doc:"sent covers the states awaiting and ambiguous; failed covers undelivered, notSent and skipped."`
	State      string     `json:"state" doc:"The status in more detail: pending, ambiguous, notSent, skipped, awaiting, undelivered or delivered."`
	Conclusion string     `json:"conclusion" doc:"The state of the message and what comes next, in a sentence."`
	Decisions  []Decision `json:"decisions" nullable:"false" doc:"Oldest first."`
}

// Decision is one decision about a message, or one event of it.
type Decision struct {
	Time     *string  `json:"time" format:"date-time" doc:"Null when the time was not recorded."`
	By       string   `json:"by" enum:"person,freeze,scheduler,expander,sender,carrier,recipient" doc:"Who or what decided."`
	Decision string   `json:"decision" example:"dealt" doc:"What was decided or happened, in a word or a few."`
	Sentence string   `json:"sentence" doc:"The same with its reason, for people to read."`
	Evidence Evidence `json:"evidence" doc:"What it was based on; a field that says nothing about it is left out."`
}

// Evidence is what a decision was based on. A field that says nothing about the decision is null.
type Evidence struct {
	List         *string `json:"list,omitempty" doc:"Contact list that the recipient is from."`
	ContactID    *string `json:"contactId,omitempty" doc:"Contact that became the recipient."`
	Flag         *string `json:"flag,omitempty" doc:"Why the frozen audience does not send to the recipient." enum:"invalid,duplicate,optedOut,capped,notOptedIn,overQuota"`
	From         *string `json:"from,omitempty" doc:"State of the campaign before the change."`
	To           *string `json:"to,omitempty" doc:"State of the campaign after the change."`
	Person       *string `json:"person,omitempty" doc:"Key, user or stage that changed the state of the campaign."`
	Reason       *string `json:"reason,omitempty" doc:"Why the campaign changed its state."`
	RequestID    *string `json:"requestId,omitempty" doc:"Id of the request that changed the state of the campaign."`
	Deal         *uint64 `json:"deal,omitempty" doc:"Number of the deal."`
	Try          *int    `json:"try,omitempty" doc:"Number of the try, from 1."`
	Leg          *int    `json:"leg,omitempty" doc:"Number of the leg in the chain of channels, from 1."`
	Channel      *string `json:"channel,omitempty" doc:"sms, rcs, whatsapp or voice."`
	Route        *string `json:"route,omitempty" doc:"Route of the hand-over."`
	Sender       *string `json:"sender,omitempty" doc:"What the recipient sees as the sender."`
	SubmissionID *string `json:"submissionId,omitempty" doc:"The id that the carrier got with the message."`
	ProviderID   *string `json:"providerId,omitempty" doc:"The carrier's id of the message."`
	SubStatus    *string `json:"subStatus,omitempty" doc:"The outcome code, such as ABSENT_SUBSCRIBER."`
	RawCode      *string `json:"rawCode,omitempty" doc:"The carrier's own code."`
	Segments     *int    `json:"segments,omitempty" doc:"SMS segments that were handed over."`
	Price        *Money  `json:"price,omitempty" doc:"Price of all segments of the hand-over."`
	Link         *string `json:"link,omitempty" doc:"Id of the link that was opened."`
}

type whyOut struct{ Body *Why }

func (s *server) why(ctx context.Context, in *historyIn) (*whyOut, error) {
	who := requestOf(ctx).who
	id, err := schemas.ParseID(in.ID)
	if err != nil {
		return nil, problem.New(problem.CodeNotFound, "There is no message %q.", problem.Truncate(in.ID, 40))
	}
	c, err := s.owned(ctx, who, id)
	if err != nil {
		return nil, err
	}
	seq := id.Seq()
	h, err := s.historyOf(ctx, c, seq)
	if err != nil {
		return nil, err
	}
	var d []decided
	excluded := false
	if !c.Hidden {
		people, err := s.peopleOf(ctx, c)
		if err != nil {
			return nil, err
		}
		e, err := people.of(ctx, seq)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		excluded = e != nil && e.Flag != audience.OK
		if d, err = s.decidedOnCampaign(ctx, c, e); err != nil {
			return nil, err
		}
	}
	for i := range h.deals {
		d = append(d, decidedByDeal(&h.deals[i]))
	}
	var state schemas.Precedence
	for i := range h.events {
		e := &h.events[i]
		state = schemas.Join(state, e.Precedence())
		d = append(d, s.decidedByEvent(c, e, excluded))
	}
	slices.SortStableFunc(d, func(a, b decided) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.rank, b.rank)) })
	bucket := state.Bucket()
	out := &Why{
		MessageID: s.Keys.MessageOf(id).String(), CampaignID: orNull(visible(c)), Seq: seq, Status: bucketWords[bucket], State: bucket.String(),
		Conclusion: conclusion(c, state, h.deals), Decisions: []Decision{},
	}
	for i := range d {
		d[i].Time = stampOrNull(d[i].at)
		out.Decisions = append(out.Decisions, d[i].Decision)
	}
	return &whyOut{out}, nil
}

// decided is a decision with its time. Of two decisions at the same time, the one with the lower rank comes first.
type decided struct {
	Decision
	at   time.Time
	rank int
}

func number(n uint8) *int {
	v := int(n)
	return &v
}

// decidedOnCampaign returns the changes of the campaign's state, and how the recipient got into its audience.
func (s *server) decidedOnCampaign(ctx context.Context, c *store.Campaign, e *audience.Entry) ([]decided, error) {
	moves, err := s.Store.CampaignEvents(ctx, c.Tenant, c.ID())
	if err != nil {
		return nil, s.storeProblem(err)
	}
	var out []decided
	for i := range moves {
		m := &moves[i]
		if m.From == m.To || m.Trigger == schemas.TriggerEdit || m.Trigger == schemas.TriggerPrice {
			continue // no effect on the recipient
		}
		by, rank := "person", 0
		if m.Actor != schemas.ActorUser && m.Actor != schemas.ActorOperator {
			by, rank = "scheduler", 2
		}
		sentence := fmt.Sprintf("The campaign became %s.", schemas.StateName(m.To))
		if m.Reason != "" {
			sentence = fmt.Sprintf("The campaign became %s: %s.", schemas.StateName(m.To), m.Reason)
		}
		v := decided{at: m.Time, rank: rank, Decision: Decision{By: by, Decision: "campaign " + schemas.StateName(m.To), Sentence: sentence, Evidence: Evidence{
			To: orNull(schemas.StateName(m.To)), Person: orNull(m.By), Reason: orNull(m.Reason), RequestID: orNull(m.RequestID),
		}}}
		if m.From != schemas.StateUnspecified {
			v.Evidence.From = orNull(schemas.StateName(m.From))
		}
		out = append(out, v)
	}
	if e == nil {
		return out, nil
	}
	frozen, err := s.decidedByFreeze(ctx, c, e)
	return append(out, frozen), err
}

// flagSentences say why nothing is sent to a recipient of a frozen audience.
var flagSentences = map[audience.Flag]struct{ name, sentence string }{
	audience.Invalid:    {"invalid", " It was not sent to: the number cannot receive such messages."},
	audience.Duplicate:  {"duplicate", " It was not sent to: an earlier recipient has the same number."},
	audience.OptedOut:   {"optedOut", " It was not sent to: the number had opted out."},
	audience.Capped:     {"capped", " It was not sent to: the number had reached its frequency cap."},
	audience.NotOptedIn: {"notOptedIn", " It was not sent to: the contact had not opted in."},
	audience.OverQuota:  {"overQuota", " It was not sent to: the quota of its country was used up."},
}

func (s *server) decidedByFreeze(ctx context.Context, c *store.Campaign, e *audience.Entry) (decided, error) {
	v := decided{at: c.Confirmed, rank: 1, Decision: Decision{By: "freeze", Decision: "frozen"}}
	v.Evidence.ContactID = orNull(store.ContactID(e.ContactID))
	if c.ReplayOf != 0 {
		v.Sentence = fmt.Sprintf("The recipient was taken into the audience from that of %s, which this campaign replays.", schemas.CampaignID(c.ReplayOf))
	} else {
		lists, err := s.Store.ListsOfContact(ctx, c.Tenant, e.ContactID)
		if err != nil {
			return v, s.storeProblem(err)
		}
		v.Sentence = "The recipient was taken into the audience from a contact list that it has left since."
		for _, list := range c.Lists { // a contact counts in the first list that has it
			if slices.Contains(lists, list) {
				v.Evidence.List = orNull(store.ListID(list))
				v.Sentence = fmt.Sprintf("The recipient was taken into the audience from contact list %q.", s.listNames.of(ctx, s.Store, c.Tenant, list))
				break
			}
		}
	}
	if flag, ok := flagSentences[e.Flag]; ok {
		v.Decision.Decision, v.Evidence.Flag = "excluded", orNull(flag.name)
		v.Sentence += flag.sentence
	}
	return v, nil
}

func decidedByDeal(d *analytics.Deal) decided {
	v := decided{at: d.Time(), rank: 3, Decision: Decision{By: "scheduler", Decision: "dealt", Evidence: Evidence{Deal: &d.Number, Try: number(d.Try), Leg: number(d.Leg)}}}
	v.Sentence = fmt.Sprintf("The scheduler dealt it, try %d on leg %d of the chain of channels, in deal %d.", d.Try, d.Leg, d.Number)
	if d.Cancel {
		v.Decision.Decision = "cancelled"
		v.Sentence = fmt.Sprintf("The scheduler ended it in deal %d: no message was to be sent any more.", d.Number)
	}
	return v
}

// textCodes are the sub-statuses of messages that the expander could not make.
var textCodes = []schemas.Code{schemas.CodeRenderError, schemas.CodeTooLong, schemas.CodeInvalidNumber, schemas.CodeDuplicateRecipient}

// decidedByEvent explains a delivery event. excluded is true when the flag of the frozen audience excludes the
// recipient.
func (s *server) decidedByEvent(c *store.Campaign, e *analytics.Event, excluded bool) decided {
	info, _ := schemas.LookupCode(e.Code)
	v := decided{at: e.Time(), rank: 4 + int(e.Precedence().Class()), Decision: Decision{Evidence: Evidence{
		Route: orNull(e.Route), Sender: orNull(e.Sender), ProviderID: orNull(e.ProviderID), SubStatus: orNull(schemas.CodeName(e.Code)),
		RawCode: orNull(e.RawCode), Link: orNull(e.LinkID),
	}}}
	if e.Channel != 0 {
		v.Evidence.Channel = orNull(schemas.ChannelName(e.Channel))
	}
	if e.Precedence() < schemas.PrecedenceFacts {
		v.Evidence.Try = number(e.Try)
		if e.Leg > 0 {
			v.Evidence.Leg = number(e.Leg)
		}
	}
	because := ""
	if info.Description != "" {
		because = " " + info.Description
	}
	if e.RawCode != "" {
		because += fmt.Sprintf(" The carrier's own code is %s.", e.RawCode)
	}
	receipt := func(what string) {
		v.By, v.Decision.Decision = "carrier", what
		v.Sentence = fmt.Sprintf("A receipt of try %d says: %s.%s", e.Try, what, because)
	}
	switch e.Kind {
	case schemas.KindSent:
		v.By, v.Decision.Decision = "sender", "handed over"
		v.Sentence = fmt.Sprintf("Try %d was handed over to route %q, and the carrier accepted it.", e.Try, e.Route)
		v.Evidence.SubmissionID = orNull(s.Keys.Submission(c.Number, e.Seq, e.Try).String())
		price := Money(max(uint64(e.Segments), 1) * uint64(e.PriceMicros))
		v.Evidence.Segments, v.Evidence.Price = number(e.Segments), &price
	case schemas.KindReturned:
		v.By, v.Decision.Decision = "sender", "held back"
		v.Sentence = fmt.Sprintf("Try %d was held back.%s", e.Try, because)
	case schemas.KindAmbiguous:
		v.By, v.Decision.Decision = "sender", "ambiguous"
		v.Sentence = fmt.Sprintf("It is unknown whether the carrier has try %d.%s It is not tried again until that is known.", e.Try, because)
		v.Evidence.SubmissionID = orNull(s.Keys.Submission(c.Number, e.Seq, e.Try).String())
	case schemas.KindNotSent, schemas.KindSkipped:
		v.By, v.Decision.Decision = "sender", "not sent"
		if e.Kind == schemas.KindSkipped {
			v.Decision.Decision = "skipped"
		}
		switch {
		case !e.DescribesMessage(): // an outcome of a message that was never made
			v.By = "scheduler"
		case excluded || slices.Contains(textCodes, e.Code):
			v.By = "expander"
		}
		v.Sentence = fmt.Sprintf("Try %d was not sent.%s", e.Try, because)
	case schemas.KindBuffered:
		receipt("the carrier is still trying")
	case schemas.KindBounced:
		receipt("not delivered, but worth another try")
	case schemas.KindUndelivered:
		receipt("not delivered")
	case schemas.KindDelivered:
		receipt("delivered")
	case schemas.KindRead:
		receipt("read")
	case schemas.KindUnconfirmed:
		v.By, v.Decision.Decision = "scheduler", "unconfirmed"
		v.Sentence = fmt.Sprintf("No receipt of try %d came in time.%s", e.Try, because)
	default: // facts
		kind, _ := schemas.LookupKind(e.Kind)
		v.By, v.Decision.Decision = "recipient", kind.Name
		v.Sentence = map[schemas.Kind]string{
			schemas.KindClicked: "The recipient clicked a link.", schemas.KindReplied: "The recipient replied.", schemas.KindOptedOut: "The recipient opted out.",
		}[e.Kind]
		switch e.Code {
		case schemas.CodeBot:
			v.Sentence = "A scanner, not a person, opened a link."
		case schemas.CodePreview:
			v.Sentence = "An app that shows a preview opened a link."
		case schemas.CodeUnsure:
			v.Sentence = "A link was opened; it is unknown whether by a person."
		default:
		}
	}
	return v
}

// conclusion returns the state of a message, and what comes next, as sentences.
func conclusion(c *store.Campaign, state schemas.Precedence, deals []analytics.Deal) string {
	info, _ := schemas.LookupCode(state.Code())
	detail := ""
	if info.Description != "" {
		detail = " " + info.Description
	}
	switch state.Bucket() {
	case schemas.BucketDelivered:
		return "It was delivered; nothing follows." + detail
	case schemas.BucketUndelivered:
		return "It was not delivered, and is not tried again." + detail
	case schemas.BucketNotSent, schemas.BucketSkipped:
		return "It was not sent, and is not tried again." + detail
	case schemas.BucketAmbiguous:
		return "It is unknown whether the carrier has it. A receipt, the carrier or a person decides; until then it is not tried again." + detail
	case schemas.BucketAwaiting:
		switch {
		case state.Kind() == schemas.KindUnconfirmed:
			return "It was handed over, and no receipt came in time." + detail
		case state.Kind() == schemas.KindBounced && !schemas.Terminal(c.State):
			return "The last try failed; it is tried again if the campaign's retries allow." + detail
		}
		return "It was handed over; the final receipt has not come." + detail
	default: // pending
	}
	switch {
	case c.Hidden:
		return "It was accepted; no outcome is known yet."
	case c.State == schemas.StatePaused || c.State == schemas.StateSuspended:
		return fmt.Sprintf("It waits: the campaign is %s.", schemas.StateName(c.State)) + detail
	case state != 0:
		return "It was held back, and is dealt again." + detail
	case len(deals) > 0:
		return "It was dealt and is on its way to the carrier; no outcome is known yet."
	}
	return fmt.Sprintf("It has not been dealt yet: the campaign is %s.", schemas.StateName(c.State))
}
