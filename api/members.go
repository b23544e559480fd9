package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/text"
	"fanfare/sinks/analytics"
)

// Member is one recipient of a campaign with its status (R124 to R129). Number and name come from the frozen audience.
type Member struct {
	Seq         uint32  `json:"seq" doc:"Number of the recipient within the audience, from 0."`
	MessageID   string  `json:"messageId" doc:"Id of the message to the recipient; all tries and channels share it." example:"msg_…"`
	ContactID   *string `json:"contactId" doc:"Id of the contact; null when it is not known any more." example:"contact_17"`
	Name        *string `json:"name" doc:"First and last name; null if the contact has none, or the campaign ended so long ago that its audience was removed."`
	Phone       *string `json:"phone" doc:"E.164; null when the audience was removed and nothing was sent."`
	Email       *string `json:"email" doc:"The contact's e-mail address when the audience was frozen; null if it had none, or the audience was removed."`
	Country     *string `json:"country" doc:"ISO 3166-1 alpha-2, of the number; null when it is not known."`
	Status      string  `json:"status" enum:"pending,sent,delivered,failed" doc:"sent covers the states awaiting and ambiguous; failed covers undelivered, notSent and skipped."`
	State       string  `json:"state" enum:"pending,ambiguous,notSent,skipped,awaiting,undelivered,delivered" doc:"The status in more detail."`
	Attempts    int     `json:"attempts" doc:"How often the message was handed over to a carrier."`
	SentAt      *string `json:"sentAt" format:"date-time" doc:"When a carrier first accepted the message, in UTC; null before."`
	DeliveredAt *string `json:"deliveredAt" format:"date-time" doc:"When it was delivered, in UTC; null before."`
	UpdatedAt   *string `json:"updatedAt" format:"date-time" doc:"When the event that decides the status happened, in UTC; null before the first event."`
	Disposition *string `json:"disposition" doc:"The sub-status." example:"ABSENT_SUBSCRIBER"`
	Description *string `json:"description" doc:"The disposition in a sentence."`
	Error       *string `json:"error" doc:"Why it failed; null when it has not failed."`
	RawCode     *string `json:"rawCode" doc:"The carrier's own code."`
	Variant     int     `json:"variant" doc:"Number of the text that the recipient gets, from 1; 0: the campaign has one text."`
	Channel     *string `json:"channel" doc:"Channel of the try that decides the status; null before the first event."`
	Route       *string `json:"route" doc:"Route of that try; null before the first event."`
	Sender      *string `json:"sender" doc:"Sender of that try; null before the first event."`
	Try         int     `json:"try" doc:"Number of the try whose event decides the status; 0: none yet."`
	Leg         int     `json:"leg" doc:"Number of the channel in the chain, from 1; 0 before the first event."`
	Segments    int     `json:"segments" doc:"Segments of the last message; 0: none yet."`
	Cost        Money   `json:"cost" doc:"Billed cost, over all tries."`
	Clicked     bool    `json:"clicked" doc:"The recipient opened a link of the message."`
	Replied     bool    `json:"replied" doc:"The recipient answered the message."`
	OptedOut    bool    `json:"optedOut" doc:"The recipient opted out in reply to this campaign."`
}

// MemberDetail is a member with everything that happened to it.
type MemberDetail struct {
	Member
	Events []MessageEvent `json:"events" nullable:"false" doc:"Oldest first, with the carriers' own codes."`
	Deals  []MemberDeal   `json:"deals" nullable:"false" doc:"When the scheduler dealt the recipient, that is, ordered a try; oldest first."`
}

// MemberDeal is one deal of a recipient.
type MemberDeal struct {
	Number    uint64 `json:"number" doc:"Counts the deals of the campaign, from 1."`
	Try       int    `json:"try" doc:"Number of the try, from 1."`
	Leg       int    `json:"leg" doc:"Number of the channel in the chain, from 1; 0 for a deal that sends nothing."`
	Cancelled bool   `json:"cancelled" doc:"The deal only ends the recipient; no message is sent."`
	Time      string `json:"time" format:"date-time" doc:"When the recipient was dealt, in UTC."`
}

// Members is a page of members.
type Members struct {
	Data  []*Member `json:"data" nullable:"false" doc:"The members of this page."`
	Limit int       `json:"limit" doc:"Most members of a page."`
	Total *uint64   `json:"total" doc:"Members that the filters select; null with search."`
	Next  *string   `json:"next" doc:"Cursor of the members after these; null on the last page."`
	AsOf  *string   `json:"as_of" format:"date-time" doc:"Every event up to this time is counted."`
}

type (
	recipientsIn struct {
		ID        string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
		Cursor    string `query:"cursor" doc:"The value of next in an earlier answer. Members are in the order of seq, so there is no gap and no repetition."`
		Status    string `query:"status" doc:"A status or state of members; several separated by commas."`
		SubStatus string `query:"subStatus" doc:"Several separated by commas." example:"ABSENT_SUBSCRIBER"`
		Channel   string `query:"channel" doc:"Channel of a try; several separated by commas."`
		Variant   string `query:"variant" doc:"Several separated by commas."`
		Country   string `query:"country" doc:"Country of the message; several separated by commas." example:"IT"`
		Clicked   string `query:"clicked" enum:"true,false" doc:"true: only members who opened a link; false: only the others."`
		Selection string `query:"selection" doc:"A selection as JSON; see POST /api/campaigns/{id}/selection."`
		Search    string `query:"search" doc:"Within name, number and e-mail address." example:"rossi"`
	}
	recipientsOut struct{ Body *Members }
	memberIn      struct {
		ID  string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		Seq uint32 `path:"seq" doc:"Number of the recipient within the audience, from 0."`
	}
	memberOut struct{ Body *MemberDetail }
)

func (s *server) registerMembers() {
	register(s, operation{
		id: "listMembers", method: http.MethodGet, path: "/api/campaigns/{id}/members", summary: "List the recipients of a campaign with their status",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: campaignTag,
	}, s.listMembers)
	register(s, operation{
		id: "getMember", method: http.MethodGet, path: "/api/campaigns/{id}/members/{seq}", summary: "Get a recipient with its whole history",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.getMember)
	register(s, operation{
		id: "explainMessage", method: http.MethodGet, path: "/api/messages/{id}/why", summary: "Explain what happened to a message, and why",
		scope: store.ScopeRead, errors: []int{404}, tag: "Messages",
		describe: "Each decision about the message with its evidence, oldest first: the list that the recipient is from, when the scheduler dealt it, what delayed it, its route, and what the carrier answered.",
	}, s.why)
}

// statesOfWord maps each status of C to our states.
var statesOfWord = func() map[string][]string {
	out := map[string][]string{}
	for b := range schemas.BucketFact {
		out[bucketWords[b]] = append(out[bucketWords[b]], b.String())
		if b.String() != bucketWords[b] {
			out[b.String()] = []string{b.String()}
		}
	}
	return out
}()

// selection combines the filters of a query.
func (in *recipientsIn) selection() (*analytics.Selection, *problem.Problem) {
	all := map[string]any{}
	for field, given := range map[string]string{"subStatus": in.SubStatus, "channel": in.Channel, "variant": in.Variant, "country": in.Country} {
		if given == "" {
			continue
		}
		var values []any
		for v := range strings.SplitSeq(given, ",") {
			v = strings.TrimSpace(v)
			if n := 0.0; field == "variant" && json.Unmarshal([]byte(v), &n) == nil {
				values = append(values, n)
				continue
			}
			values = append(values, v)
		}
		all[field] = values
	}
	if in.Status != "" {
		var states []any
		for v := range strings.SplitSeq(in.Status, ",") {
			found := statesOfWord[strings.TrimSpace(v)]
			if found == nil {
				return nil, problem.Field(problem.CodeInvalid, "status", "%q is not a status of a member.", problem.Truncate(v, 40)).
					WithFix("Use pending, sent, delivered, failed, or a state: ambiguous, notSent, skipped, awaiting, undelivered.")
			}
			for _, state := range found {
				states = append(states, state)
			}
		}
		all["status"] = states
	}
	if in.Clicked != "" {
		all["clicked"] = in.Clicked == "true"
	}
	if in.Selection != "" {
		if _, p := parseSelection([]byte(in.Selection)); p != nil {
			return nil, p
		}
		var given any
		_ = json.Unmarshal([]byte(in.Selection), &given) // it was already parsed, so it is valid
		all["and"] = []any{given}
	}
	combined, err := json.Marshal(all)
	if err != nil {
		return nil, problem.From(err)
	}
	sel, p := parseSelection(combined)
	if p != nil { // the problem is in a filter: use the name of its query parameter
		p.Field, _, _ = strings.Cut(strings.TrimPrefix(p.Field, "selection."), "[")
	}
	return sel, p
}

func (s *server) listMembers(ctx context.Context, in *recipientsIn) (*recipientsOut, error) {
	who := requestOf(ctx).who
	sel, p := in.selection()
	if p != nil {
		return nil, p
	}
	after, p := readNumberCursor("members", in.Cursor) // the seq to begin at
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	out := &Members{Data: []*Member{}, Limit: in.Limit, AsOf: stampOrNull(s.figures.asOf(ctx))}
	if c.FreezeID == "" { // the campaign has no audience yet
		out.Total = new(uint64)
		return &recipientsOut{out}, nil
	}
	chosen, sets, err := s.selected(ctx, c, sel)
	if err != nil {
		return nil, err
	}
	who2, err := s.peopleOf(ctx, c)
	if err != nil {
		return nil, err
	}
	var page []uint32
	search := plusInQuery(in.Search)
	if strings.TrimSpace(search) == "" {
		n := chosen.GetCardinality()
		out.Total = &n
		it := chosen.Iterator()
		it.AdvanceIfNeeded(uint32(after))
		for it.HasNext() && len(page) <= in.Limit {
			page = append(page, it.Next())
		}
	} else if page, err = who2.search(ctx, newNeedle(search), chosen, uint32(after), in.Limit+1); err != nil {
		return nil, s.storeProblem(err)
	}
	if len(page) > in.Limit {
		next := page[in.Limit]
		page = page[:in.Limit]
		out.Next = nextCursor("members", 1, 1, numberCursor(uint64(next)))
	}
	if out.Data, err = s.membersOf(ctx, c, who2, sets, page); err != nil {
		return nil, err
	}
	return &recipientsOut{out}, nil
}

// search returns the first limit recipients at or after a seq that are in chosen and match the search.
func (p *people) search(ctx context.Context, n needle, chosen *roaring.Bitmap, from uint32, limit int) (out []uint32, err error) {
	var without map[uint32]bool
	if len(p.index) > fewBlobs {
		if without, err = p.store.BlobsWithout(ctx, p.id, n.texts()...); err != nil {
			return nil, err
		}
	}
	for i, x := range p.index {
		if x.First+x.Count <= from || len(out) >= limit || without[x.Blob] {
			continue
		}
		it := chosen.Iterator()
		it.AdvanceIfNeeded(max(x.First, from))
		if !it.HasNext() || it.PeekNext() >= x.First+x.Count {
			continue
		}
		if err := p.load(ctx, i); err != nil {
			return nil, err
		}
		if p.reader == nil || !n.mayBeIn(p.reader) {
			continue
		}
		for it.HasNext() && it.PeekNext() < x.First+x.Count && len(out) < limit {
			seq := it.Next()
			e, err := p.of(ctx, seq)
			if err != nil {
				return nil, err
			}
			if e != nil && n.matches(e) {
				out = append(out, seq)
			}
		}
	}
	return out, nil
}

// membersOf returns the members with these seqs, which are in order.
func (s *server) membersOf(ctx context.Context, c *store.Campaign, who *people, sets *analytics.Sets, seqs []uint32) ([]*Member, error) {
	out := make([]*Member, 0, len(seqs))
	err := s.eachMember(ctx, c, who, sets, seqs, func(_ *analytics.Member, _ *audience.Entry, v *Member) { out = append(out, v) })
	return out, err
}

// eachMember calls yield for the members with these seqs, which are in order. The entry of the audience is nil if the
// audience was removed; it is valid until yield returns.
func (s *server) eachMember(ctx context.Context, c *store.Campaign, who *people, sets *analytics.Sets, seqs []uint32,
	yield func(*analytics.Member, *audience.Entry, *Member),
) error {
	known, err := s.knownMembers(ctx, c, seqs)
	if err != nil {
		return err
	}
	spent := sets.Spent(roaring.BitmapOf(seqs...))
	for _, seq := range seqs {
		m, ok := known[seq]
		if !ok {
			m = analytics.Member{Seq: seq}
		}
		m.MessageID = s.Keys.Message(c.Number, seq)
		e, err := who.of(ctx, seq)
		if err != nil {
			return s.storeProblem(err)
		}
		yield(&m, e, viewMemberOf(&m, e, spent[seq], c.Test))
	}
	return nil
}

// knownMembers returns the members that the statistics have, by seq.
func (s *server) knownMembers(ctx context.Context, c *store.Campaign, seqs []uint32) (map[uint32]analytics.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, setsTimeout)
	defer cancel()
	members, err := s.Analytics.Members(ctx, c.Tenant, c.ID(), seqs)
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	out := make(map[uint32]analytics.Member, len(members))
	for i := range members {
		out[members[i].Seq] = members[i]
	}
	return out, nil
}

// viewMemberOf converts a member for the answer; e is nil if the audience was removed.
func viewMemberOf(m *analytics.Member, e *audience.Entry, spent analytics.Spent, test bool) *Member {
	bucket := m.State.Bucket()
	v := &Member{
		Seq: m.Seq, MessageID: m.MessageID.String(), Phone: orNull(m.To), Country: orNull(m.Country), Status: bucketWords[bucket], State: bucket.String(),
		Attempts: m.Attempts, SentAt: stampOrNull(m.SentAt), DeliveredAt: stampOrNull(m.DeliveredAt), UpdatedAt: stampOrNull(m.Time), RawCode: orNull(m.RawCode),
		Variant: int(m.Variant), Route: orNull(m.Route), Sender: orNull(m.Sender), Try: int(m.Try), Leg: int(m.Leg), Segments: int(spent.Segments),
		Cost: Money(spent.Micros), Clicked: m.Clicked, Replied: m.Replied, OptedOut: m.OptedOut,
	}
	if test { // a test costs nothing
		v.Cost = 0
	}
	if m.ContactID != 0 {
		v.ContactID = orNull(store.ContactID(m.ContactID))
	}
	if m.Channel != 0 {
		v.Channel = orNull(schemas.ChannelName(m.Channel))
	}
	if m.State != 0 {
		info, _ := schemas.LookupCode(m.State.Code())
		v.Disposition, v.Description = orNull(schemas.CodeName(m.State.Code())), orNull(info.Description)
		if v.Status == "failed" {
			v.Error = orNull(failure(m, info.Description))
		}
	}
	if e == nil {
		return v
	}
	v.ContactID, v.Phone, v.Name = orNull(store.ContactID(e.ContactID)), orNull(e.To), orNull(nameOf(e))
	if e.Country != "" {
		v.Country = orNull(e.Country)
	}
	if email, ok := e.Value(text.FieldEmail); ok {
		v.Email = orNull(email)
	}
	return v
}

// failure returns why a member failed: the meaning of the sub-status, and the carrier's own code.
func failure(m *analytics.Member, description string) string {
	if description == "" {
		description = "It failed without a known reason."
	}
	if m.RawCode == "" {
		return description
	}
	return fmt.Sprintf("%s (The carrier's code: %s)", description, m.RawCode)
}

func (s *server) getMember(ctx context.Context, in *memberIn) (*memberOut, error) {
	c, err := s.campaign(ctx, requestOf(ctx).who, in.ID)
	if err != nil {
		return nil, err
	}
	if in.Seq >= c.Total {
		return nil, problem.New(problem.CodeNotFound, "%s has no recipient %d: it has %d, from 0.", c.ID(), in.Seq, c.Total)
	}
	sets, err := s.sets.of(ctx, c.Tenant, c.ID())
	if err != nil {
		return nil, err
	}
	people, err := s.peopleOf(ctx, c)
	if err != nil {
		return nil, err
	}
	members, err := s.membersOf(ctx, c, people, sets, []uint32{in.Seq})
	if err != nil {
		return nil, err
	}
	h, err := s.historyOf(ctx, c, in.Seq)
	if err != nil {
		return nil, err
	}
	out := &MemberDetail{Member: *members[0], Events: viewEvents(h.events), Deals: []MemberDeal{}}
	for i := range h.deals {
		d := &h.deals[i]
		out.Deals = append(out.Deals, MemberDeal{d.Number, int(d.Try), int(d.Leg), d.Cancel, stamp(d.Time())})
	}
	return &memberOut{out}, nil
}

// history has the events and deals of one recipient from the statistics.
type history struct {
	events []analytics.Event
	deals  []analytics.Deal
}

func (s *server) historyOf(ctx context.Context, c *store.Campaign, seq uint32) (h history, err error) {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	if h.events, err = s.Analytics.History(ctx, c.Tenant, c.ID(), seq); err == nil {
		h.deals, err = s.Analytics.Deals(ctx, c.Tenant, c.ID(), seq)
	}
	if err != nil {
		return h, problem.Unavailable(5*time.Second, err, "The history cannot be read now.")
	}
	return h, nil
}
