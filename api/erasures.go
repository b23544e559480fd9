package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Erasure is the removal of a person. Its record never holds the number.
type Erasure struct {
	ID         string         `json:"id" doc:"Names the erasure in paths." example:"era_4k2m…"`
	Status     string         `json:"status" enum:"running,done,failed" doc:"done: nothing is left in the places that removed counts."`
	Error      *string        `json:"error" doc:"Why it failed. It may have removed something: order it again."`
	NumberHash string         `json:"numberHash" doc:"Keyed hash of tenant and number, as the topic suppressions has it: the same number has the same hash."`
	Removed    ErasureRemoved `json:"removed" doc:"What was removed so far, counted."`
	Stays      []string       `json:"stays" nullable:"false" doc:"Where the number still is, and until when."`
	OrderedBy  string         `json:"orderedBy" doc:"Id of the key or person that ordered it."`
	ByName     string         `json:"orderedByName" doc:"Name of that key or person."`
	RequestID  string         `json:"requestId" doc:"Id of the request that ordered it."`
	OrderedAt  string         `json:"orderedAt" format:"date-time" doc:"When it was ordered, in UTC."`
	FinishedAt *string        `json:"finishedAt" format:"date-time" doc:"When everything was removed, in UTC; null before, and of one that has failed."`
}

// ErasureRemoved counts what was removed.
type ErasureRemoved struct {
	Contacts   int    `json:"contacts" doc:"Contacts, with their attributes and their places in lists."`
	OptOuts    int    `json:"optOuts" doc:"Opt-outs and changes of them that now hold the hash in place of the number."`
	Audiences  int    `json:"audiences" doc:"Places in frozen audiences. Who was not sent to yet is skipped as OPTED_OUT."`
	Recipients uint64 `json:"recipients" doc:"Recipients of campaigns and single sends, in the statistics. They count as before."`
	Exports    int    `json:"exports" doc:"Exports that were ordered before; a file cannot be changed, so order it again."`
	Uploads    int    `json:"uploads" doc:"Files that were uploaded and not imported yet."`
	Rejects    int    `json:"rejects" doc:"Lists of rows that imports refused."`
	Answers    int    `json:"answers" doc:"Answers kept for repeated requests; a repeated request is still not run again."`
	Webhooks   int    `json:"webhooks" doc:"Events that waited for an endpoint, and your references of messages."`
	Messages   int    `json:"messages" doc:"Messages of conversations: what the person wrote, and what was answered."`
}

// erasureStays says what an erasure cannot remove.
var erasureStays = []string{
	"The topics deliveries, replies and inbound: events of messages to the number and what it wrote, for 35 days.",
	"The topics messages.<route>, held and receipts: messages and receipts that were written before, for up to 7 days.",
	"Messages made ready before that are handed over later, such as those of a paused campaign, and receipts that come later: their events have the number, also in the statistics. Erase again when the campaign is settled.",
	"The topics callbacks, inbound and replies: what the person wrote, and raw receipts, until their retention (7 days; replies 35 days). One of them that is read again brings the conversation back.",
	"The index of recent messages in Redis: a keyed hash of the number, up to 30 days.",
	"Dead letters, if there are any of the number: 30 days.",
	"The opt-out of the number, if there is one: as a keyed hash, in the store and in the topic suppressions, so that senders go on refusing it.",
	"What webhooks and consumers of the topics have received.",
	"Backups, until they are deleted; the record of the simulated carrier (carrier-sim.ndjson); on ClickHouse, parts on disk that were replaced, for about eight minutes.",
}

// ErasureInput names the person.
type ErasureInput struct {
	PhoneNumber string `json:"phoneNumber" doc:"Number of the person, with country code or as dialled in the tenant's region. There need not be a contact with it." example:"+393331234567"`
}

type (
	erasureCreateIn struct {
		Body problem.Body[ErasureInput]
	}
	erasureCreateOut struct {
		Location string `header:"Location"`
		Body     *Erasure
	}
	erasureIn struct {
		ID string `path:"id" doc:"Id of the erasure." example:"era_4k2m…"`
	}
	erasureOut struct{ Body *Erasure }
	erasuresIn struct {
		Page  int `query:"page" minimum:"0"`
		Limit int `query:"limit" minimum:"1" maximum:"1000" default:"10"`
	}
	erasuresOut struct{ Body *Page[*Erasure] }
)

func (s *server) registerErasures() {
	const tag = "Contacts"
	register(s, operation{
		id: "createErasure", method: http.MethodPost, path: "/api/erasures", summary: "Erase a person", status: http.StatusAccepted,
		scope: store.ScopeContacts, errors: []int{400, 409, 422}, tag: tag,
		describe: "Removes a number, and what is known of the person behind it, from contacts, lists, frozen audiences, statistics, exports, uploads, refused rows of imports, " +
			"answers kept for repeated requests, and waiting webhook events of the tenant. Counts stay as they are. It runs in the background, also after a restart; " +
			"GET /api/erasures/{id} says when it is done, what was removed and what stays where. Its record stays for ever, with a keyed hash in place of the number. " +
			"Refused while an import runs, which could bring the person back.",
	}, s.createErasure)
	register(s, operation{
		id: "getErasure", method: http.MethodGet, path: "/api/erasures/{id}", summary: "What an erasure has removed, and what stays",
		scope: store.ScopeRead, errors: []int{404}, tag: tag,
		describe: "Its status is done once nothing of the person is left in the places that the answer lists as removed. It is failed when the statistics, or another " +
			"service that it needs, did not answer for a day; the number is forgotten then, so order it again.",
	}, func(ctx context.Context, in *erasureIn) (*erasureOut, error) {
		e, err := s.Store.Erasure(ctx, requestOf(ctx).who.tenant.ID, in.ID)
		if errors.Is(err, schemas.ErrNotFound) {
			return nil, problem.New(problem.CodeNotFound, "There is no erasure %q.", problem.Truncate(in.ID, 40))
		}
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return &erasureOut{s.viewErasure(ctx, &e)}, nil
	})
	register(s, operation{
		id: "listErasures", method: http.MethodGet, path: "/api/erasures", summary: "List erasures, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: tag,
		describe: "The records stay for ever. They hold a keyed hash in place of the number.",
	}, func(ctx context.Context, in *erasuresIn) (*erasuresOut, error) {
		rows, total, err := s.Store.Erasures(ctx, requestOf(ctx).who.tenant.ID, store.Page{Number: in.Page, Limit: in.Limit})
		if err != nil {
			return nil, s.storeProblem(err)
		}
		out := &Page[*Erasure]{Data: []*Erasure{}, Page: in.Page, Limit: in.Limit, Total: total}
		for i := range rows {
			out.Data = append(out.Data, s.viewErasure(ctx, &rows[i]))
		}
		return &erasuresOut{out}, nil
	})
}

func (s *server) viewErasure(ctx context.Context, e *store.Erasure) *Erasure {
	status := pick(e.Finished.IsZero(), "running", "done")
	if e.Failed != "" {
		status = "failed"
	}
	return &Erasure{
		ID: e.ID, Status: status, Error: orNull(e.Failed), NumberHash: e.NumberHash, Removed: ErasureRemoved(e.Removed), Stays: erasureStays,
		OrderedBy: e.By, ByName: s.whoNames.of(ctx, e.Tenant, e.By), RequestID: e.RequestID, OrderedAt: stamp(e.Ordered), FinishedAt: stampOrNull(e.Finished),
	}
}

func (s *server) createErasure(ctx context.Context, in *erasureCreateIn) (*erasureCreateOut, error) {
	phone, p := s.number(requestOf(ctx).who, in.Body.Value.PhoneNumber)
	if p != nil {
		return nil, p
	}
	j, err := s.jobOf(ctx, store.JobErase, nil)
	if err != nil {
		return nil, err
	}
	j, err = s.Store.OrderErasure(ctx, j, phone, requestOf(ctx).id)
	if errors.Is(err, store.ErrImportRuns) {
		return nil, problem.New(problem.CodeConflict, "An import is running, which could bring the person back.").WithFix("Wait until it has ended, or cancel it.")
	}
	if err != nil {
		return nil, s.jobProblem(err)
	}
	e, err := s.Store.Erasure(ctx, j.Tenant, j.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &erasureCreateOut{"/api/erasures/" + j.ID, s.viewErasure(ctx, &e)}, nil
}

const (
	// erasureSettle is how long a run of an erasure waits for the statistics; it begins again then.
	erasureSettle = time.Minute
	erasurePoll   = 200 * time.Millisecond
)

// runErasure erases a person. Each step may be repeated: another process goes on from the beginning. Exports come after
// what they are made of. The files are rewritten last, when no row holds the number any more.
func (s *server) runErasure(ctx context.Context, run *store.JobRun) error {
	phone, recipients, err := run.EraseNumber(ctx)
	if err != nil {
		return err
	}
	if phone == "" { // the process ended when everything was removed
		return run.EndErasure(ctx)
	}
	removed, found, err := s.Store.EraseRows(ctx, run.Tenant, phone, keptAnswers)
	if err != nil {
		return err
	}
	for campaign, set := range found {
		if recipients[campaign] == nil {
			recipients[campaign] = roaring.New()
		}
		recipients[campaign].Or(set)
	}
	if err := run.KeepErasure(ctx, phone, removed, recipients); err != nil {
		return err
	}
	if err := s.awaitStatistics(ctx, s.Now()); err != nil {
		return err
	}
	numbers := []string{phone}
	if key := schemas.NumberKey(phone); key != phone {
		numbers = append(numbers, key)
	}
	erased, err := s.Analytics.Erase(ctx, run.Tenant, numbers, recipients)
	if err != nil {
		return err
	}
	removed.Recipients = countAll(erased)
	references, err := s.Store.EraseReferences(ctx, run.Tenant, erased)
	if err != nil {
		return err
	}
	late, err := s.Store.EraseWebhooks(ctx, run.Tenant, phone)
	if err != nil {
		return err
	}
	removed.Webhooks += references + late
	if removed.Exports, err = s.Store.EraseExports(ctx, run.Tenant); err != nil {
		return err
	}
	if err := run.CountErasure(ctx, removed); err != nil {
		return err
	}
	return run.EndErasure(ctx)
}

// awaitStatistics waits until the statistics have everything that happened before a time: an event that comes later
// would bring the number back.
func (s *server) awaitStatistics(ctx context.Context, until time.Time) error {
	for deadline := time.Now().Add(erasureSettle); ; {
		asOf, err := s.Analytics.AsOf(ctx)
		if err != nil {
			return err
		}
		if asOf.After(until) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the statistics have not read the topic yet")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(erasurePoll):
		}
	}
}

// keptAnswers are the answers of this package. One that is emptied is still of the same request.
var keptAnswers = store.Answers{
	Open: func(response []byte) ([]byte, error) {
		a, body, err := decodeStored(response)
		return append(body, a.Location...), err
	},
	Erased: func(response []byte) ([]byte, error) {
		a, _, err := decodeStored(response)
		if err != nil {
			return nil, err
		}
		return stored{ContentType: "application/json", Packed: pack([]byte(`{"erased":true}`)), Sum: a.Sum}.encode()
	},
}

func countAll(sets map[string]*roaring.Bitmap) (n uint64) {
	for _, set := range sets {
		n += set.GetCardinality()
	}
	return n
}
