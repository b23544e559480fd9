package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/sinks/analytics"
)

// exportKind is something that can be exported.
type exportKind struct {
	name      string // as in the path
	operation string
	what      string
	describe  string
	columns   []string
	cells     map[string]cellKind // what the cells of each column are
	takes     []string            // fields of ExportInput that apply, besides format and columns
	// open returns the reader of the rows. It is called again when another process continues the job.
	open func(ctx context.Context, s *server, run *store.JobRun, o *exportOrder) (exportReader, error)
}

// exportReader writes some rows behind a cursor ("" at the beginning) and returns the cursor behind them, "" after the
// last row.
type exportReader func(ctx context.Context, cursor string, w *rowWriter) (next string, err error)

// reportsExport is the name of the export of delivery reports.
const reportsExport = "delivery-reports"

// attributePrefix begins the columns of contacts that hold one attribute.
const attributePrefix = "attributes."

func (k *exportKind) has(name string) bool {
	attribute, ok := strings.CutPrefix(name, attributePrefix)
	return slices.Contains(k.columns, name) || k == exportContactsKind && ok && attribute != ""
}

var (
	exportReportsKind = &exportKind{
		name: reportsExport, operation: "exportDeliveryReports", what: "delivery reports",
		describe: "One row for each message with an event, of one campaign (campaignId) or of all campaigns and single sends (from, to). " +
			"selection filters them. The set of messages is fixed when the export begins.",
		columns: names(reportColumns), cells: cellsOf(reportColumns), takes: []string{"campaignId", "selection", "from", "to"}, open: openRecipients,
	}
	exportMembersKind = &exportKind{
		name: "members", operation: "exportMembers", what: "the members of a campaign",
		describe: "One row for each recipient of the campaign that selection selects; without selection, for all. The set of recipients is fixed when the export begins.",
		columns:  names(memberColumns), cells: cellsOf(memberColumns), takes: []string{"campaignId", "selection"}, open: openRecipients,
	}
	exportContactsKind = &exportKind{
		name: "contacts", operation: "exportContacts", what: "contacts",
		describe: "All contacts, those of a list, or those of the recipients of a campaign (campaignId) that selection selects, all without it, once each. " +
			"attributes.town is a column with the attribute town alone.",
		columns: names(contactColumns), cells: cellsOf(contactColumns), takes: []string{"contactList", "search", "campaignId", "selection"}, open: openContacts,
	}
	exportLedgerKind = &exportKind{
		name: "ledger", operation: "exportLedgerFile", what: "the movements of money",
		describe: "Newest first; all movements, or those of one campaign.",
		columns:  names(ledgerColumns), cells: cellsOf(ledgerColumns), takes: []string{"campaignId"}, open: openLedger,
	}
	exportSuppressionsKind = &exportKind{
		name: "suppressions", operation: "exportSuppressionsFile", what: "the numbers that have opted out",
		describe: "The numbers that are opted out now.",
		columns:  names(suppressionColumns), cells: cellsOf(suppressionColumns), open: openSuppressions,
	}
	exportKinds = []*exportKind{exportReportsKind, exportContactsKind, exportMembersKind, exportLedgerKind, exportSuppressionsKind}
)

// exportKindOf returns the kind with this name, or nil.
func exportKindOf(name string) *exportKind {
	for _, k := range exportKinds {
		if k.name == name {
			return k
		}
	}
	return nil
}

// recipientRow is a recipient of a campaign.
type recipientRow struct {
	*Member
	campaign *store.Campaign
	ref      string
}

var memberColumns = []column[recipientRow]{
	{"seq", intCell, func(r *recipientRow) any { return r.Seq }},
	{"messageId", textCell, func(r *recipientRow) any { return r.MessageID }},
	{"contactId", textCell, func(r *recipientRow) any { return r.ContactID }},
	{"name", textCell, func(r *recipientRow) any { return r.Name }},
	{"phone", textCell, func(r *recipientRow) any { return r.Phone }},
	{"email", textCell, func(r *recipientRow) any { return r.Email }},
	{"country", textCell, func(r *recipientRow) any { return r.Country }},
	{"status", textCell, func(r *recipientRow) any { return r.Status }},
	{"state", textCell, func(r *recipientRow) any { return r.State }},
	{"disposition", textCell, func(r *recipientRow) any { return r.Disposition }},
	{"error", textCell, func(r *recipientRow) any { return r.Error }},
	{"rawCode", textCell, func(r *recipientRow) any { return r.RawCode }},
	{"attempts", intCell, func(r *recipientRow) any { return r.Attempts }},
	{"sentAt", timeCell, func(r *recipientRow) any { return r.SentAt }},
	{"deliveredAt", timeCell, func(r *recipientRow) any { return r.DeliveredAt }},
	{"updatedAt", timeCell, func(r *recipientRow) any { return r.UpdatedAt }},
	{"variant", intCell, func(r *recipientRow) any { return r.Variant }},
	{"channel", textCell, func(r *recipientRow) any { return r.Channel }},
	{"route", textCell, func(r *recipientRow) any { return r.Route }},
	{"sender", textCell, func(r *recipientRow) any { return r.Sender }},
	{"segments", intCell, func(r *recipientRow) any { return r.Segments }},
	{"cost", moneyCell, func(r *recipientRow) any { return r.Cost }},
	{"clicked", boolCell, func(r *recipientRow) any { return r.Clicked }},
	{"replied", boolCell, func(r *recipientRow) any { return r.Replied }},
	{"optedOut", boolCell, func(r *recipientRow) any { return r.OptedOut }},
}

// reportColumns are the columns of a member without the contact's identity, plus the campaign.
var reportColumns = func() []column[recipientRow] {
	out := []column[recipientRow]{
		{"messageId", textCell, func(r *recipientRow) any { return r.MessageID }},
		{"campaignId", textCell, func(r *recipientRow) any { return pick(r.campaign.Hidden, "", r.campaign.ID()) }},
		{"campaignName", textCell, func(r *recipientRow) any { return r.campaign.Name }},
		{"customerRef", textCell, func(r *recipientRow) any { return r.ref }},
	}
	for _, c := range memberColumns {
		if !slices.Contains([]string{"seq", "messageId", "contactId", "name", "email"}, c.name) {
			out = append(out, c)
		}
	}
	return append(out, column[recipientRow]{"currency", textCell, func(r *recipientRow) any { return r.campaign.Currency }})
}()

var contactColumns = []column[Contact]{
	{"id", textCell, func(c *Contact) any { return c.ID }},
	{"phoneNumber", textCell, func(c *Contact) any { return c.PhoneNumber }},
	{"firstName", textCell, func(c *Contact) any { return c.FirstName }},
	{"lastName", textCell, func(c *Contact) any { return c.LastName }},
	{"email", textCell, func(c *Contact) any { return c.Email }},
	{"country", textCell, func(c *Contact) any { return c.Country }},
	{"timezone", textCell, func(c *Contact) any { return c.Timezone }},
	{"numberType", textCell, func(c *Contact) any { return c.NumberType }},
	{"valid", boolCell, func(c *Contact) any { return c.Valid }},
	{"optedInAt", timeCell, func(c *Contact) any {
		if c.OptIn == nil {
			return (*string)(nil)
		}
		return c.OptIn.Time
	}},
	{"createdAt", timeCell, func(c *Contact) any { return c.CreatedAt }},
	{"updatedAt", timeCell, func(c *Contact) any { return c.UpdatedAt }},
	{"attributes", jsonCell, func(c *Contact) any { return c.Attributes }},
}

var ledgerColumns = []column[LedgerEntry]{
	{"id", intCell, func(e *LedgerEntry) any { return e.ID }},
	{"time", timeCell, func(e *LedgerEntry) any { return e.Time }},
	{"from", textCell, func(e *LedgerEntry) any { return e.From }},
	{"to", textCell, func(e *LedgerEntry) any { return e.To }},
	{"amountMicros", intCell, func(e *LedgerEntry) any { return e.AmountMicros }},
	{"amount", moneyCell, func(e *LedgerEntry) any { return e.Amount }},
	{"campaignId", textCell, func(e *LedgerEntry) any { return e.CampaignID }},
	{"note", textCell, func(e *LedgerEntry) any { return e.Note }},
}

var suppressionColumns = []column[store.Suppression]{
	{"phone", textCell, func(r *store.Suppression) any { return r.Phone }},
	{"channels", textCell, func(r *store.Suppression) any { return strings.Join(optedOutOf(r.Channels), " ") }},
	{"source", textCell, func(r *store.Suppression) any { return r.Source }},
	{"reason", textCell, func(r *store.Suppression) any { return r.Reason }},
	{"since", timeCell, func(r *store.Suppression) any { return stamp(r.Updated) }},
}

// exportStep is about how many rows one step of an export writes: as many as a blob of an audience, which the
// statistics also store together.
const exportStep = 5_000

// runExport makes the parts of an export.
func (s *server) runExport(ctx context.Context, run *store.JobRun) error {
	var o exportOrder
	if err := json.Unmarshal(run.Options, &o); err != nil {
		return &store.JobError{Reason: "the options of the job cannot be read"}
	}
	kind := exportKindOf(o.Kind)
	if kind == nil {
		return &store.JobError{Reason: fmt.Sprintf("%s cannot be exported", o.Kind)}
	}
	next, err := kind.open(ctx, s, run, &o)
	if err != nil {
		return err
	}
	if run.Cursor == exportEnd { // the process stopped between the last step and the end of the job
		return nil
	}
	w := &rowWriter{}
	for cursor := run.Cursor; ; {
		w.buf, w.rows = w.buf[:0], 0
		if cursor, err = next(ctx, cursor, w); err != nil {
			return err
		}
		at := cursor
		if at == "" {
			at = exportEnd
		}
		if w.rows > 0 {
			if err := run.Step(ctx, at, w.rows, w.buf); err != nil {
				return err
			}
			s.metrics.jobRows.WithLabelValues(string(run.Kind)).Add(float64(w.rows))
		}
		if cursor == "" {
			return nil
		}
	}
}

// exportEnd is the cursor of a job that has written all its rows.
const exportEnd = "end"

// plannedCampaign has the recipients of one campaign that a job exports, fixed when the job began.
type plannedCampaign struct {
	number uint64
	chosen *roaring.Bitmap
}

func encodePlan(plan []plannedCampaign) ([]byte, uint64, error) {
	var out []byte
	var total uint64
	for _, p := range plan {
		p.chosen.RunOptimize()
		b, err := p.chosen.ToBytes()
		if err != nil {
			return nil, 0, err
		}
		out = binary.AppendUvarint(out, p.number)
		out = binary.AppendUvarint(out, uint64(len(b)))
		out = append(out, b...)
		total += p.chosen.GetCardinality()
	}
	return out, total, nil
}

func decodePlan(b []byte) (out []plannedCampaign, err error) {
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		number, err1 := binary.ReadUvarint(r)
		size, err2 := binary.ReadUvarint(r)
		if err := errors.Join(err1, err2); err != nil || size > uint64(r.Len()) {
			return nil, fmt.Errorf("the plan of a job cannot be read: %w", err)
		}
		raw := make([]byte, size)
		_, _ = r.Read(raw)
		p := plannedCampaign{number, roaring.New()}
		if err := p.chosen.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("the plan of a job cannot be read: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// maxExportCampaigns is the most campaigns of one export.
const maxExportCampaigns = 20_000

// recipientsOf plans an export of recipients.
func (s *server) recipientsOf(ctx context.Context, tenant string, o *exportOrder) ([]plannedCampaign, error) {
	text := o.Selection
	if text == "" {
		text = "{}"
	}
	if o.From != 0 {
		stampOf := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
		text = fmt.Sprintf(`{"and":[%s,{"time":{"event":"sent","from":%q,"to":%q}}]}`, text, stampOf(o.From), stampOf(o.To))
	}
	sel, p := parseSelection([]byte(text))
	if p != nil {
		return nil, &store.JobError{Reason: p.Detail}
	}
	numbers := make([]uint64, 0, 1)
	if o.Campaign != "" {
		n, err := schemas.CampaignNumber(o.Campaign)
		if err != nil {
			return nil, &store.JobError{Reason: err.Error()}
		}
		numbers = append(numbers, n)
	} else {
		var err error
		if numbers, err = s.Store.CampaignsSending(ctx, tenant, time.UnixMilli(o.From), time.UnixMilli(o.To), maxExportCampaigns+1); err != nil {
			return nil, err
		}
		if len(numbers) > maxExportCampaigns {
			return nil, &store.JobError{Reason: fmt.Sprintf("more than %d campaigns sent in that period: choose a shorter period", maxExportCampaigns)}
		}
	}
	var plan []plannedCampaign
	for _, n := range numbers {
		c, err := s.Store.Campaign(ctx, tenant, schemas.CampaignID(n))
		if errors.Is(err, schemas.ErrNotFound) {
			return nil, &store.JobError{Reason: "the campaign does not exist any more"}
		}
		if err != nil {
			return nil, err
		}
		if c.FreezeID == "" && !c.Hidden { // it has no audience yet
			continue
		}
		chosen, sets, err := s.selected(ctx, &c, sel)
		if err != nil {
			return nil, err
		}
		if o.Kind == reportsExport { // a recipient without an event has no report
			chosen.And(sets.Everybody(0))
		}
		if !chosen.IsEmpty() {
			plan = append(plan, plannedCampaign{n, chosen})
		}
	}
	return plan, nil
}

// recipientReader reads recipients of campaigns in the order of campaign and seq.
type recipientReader struct {
	s       *server
	tenant  string
	plan    []plannedCampaign
	columns []column[recipientRow]

	at     int // index into plan
	c      *store.Campaign
	people *people
}

// planOf returns which recipients an export is about, as it was decided when it began.
func (s *server) planOf(ctx context.Context, run *store.JobRun, o *exportOrder) ([]plannedCampaign, error) {
	raw, err := run.Plan(ctx)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		plan, err := s.recipientsOf(ctx, run.Tenant, o)
		if err != nil {
			return nil, err
		}
		var total uint64
		if raw, total, err = encodePlan(plan); err != nil {
			return nil, err
		}
		if err := run.Begin(ctx, raw, total); err != nil {
			return nil, err
		}
	}
	return decodePlan(raw)
}

func openRecipients(ctx context.Context, s *server, run *store.JobRun, o *exportOrder) (exportReader, error) {
	plan, err := s.planOf(ctx, run, o)
	if err != nil {
		return nil, err
	}
	all := memberColumns
	if o.Kind == reportsExport {
		all = reportColumns
	}
	r := &recipientReader{s: s, tenant: run.Tenant, plan: plan, columns: chosen(all, o.Columns), at: -1}
	return r.next, nil
}

// next writes about exportStep rows. The cursor has the index into the plan and the seq to begin at.
func (r *recipientReader) next(ctx context.Context, cursor string, w *rowWriter) (string, error) {
	at, from, _ := strings.Cut(cursor, " ")
	i, _ := strconv.Atoi(at) // we wrote it; 0 at the beginning
	seq, _ := strconv.ParseUint(from, 10, 32)
	for i < len(r.plan) && w.rows < exportStep {
		seqs, rest, more := batchOf(r.plan[i].chosen, uint32(seq))
		if len(seqs) > 0 {
			if err := r.write(ctx, i, seqs, w); err != nil {
				return "", err
			}
		}
		if seq = uint64(rest); !more {
			i, seq = i+1, 0
		}
	}
	if i >= len(r.plan) {
		return "", nil
	}
	return strconv.Itoa(i) + " " + strconv.FormatUint(seq, 10), nil
}

// batchOf returns at least exportStep members of a set from a seq on, up to the end of a blob. more reports whether
// others follow, and rest where they begin.
func batchOf(set *roaring.Bitmap, from uint32) (seqs []uint32, rest uint32, more bool) {
	it := set.Iterator()
	it.AdvanceIfNeeded(from)
	for it.HasNext() {
		if n := it.PeekNext(); len(seqs) >= exportStep && n/exportStep != seqs[len(seqs)-1]/exportStep {
			return seqs, n, true
		}
		seqs = append(seqs, it.Next())
	}
	return seqs, math.MaxUint32, false
}

// write writes recipients of one campaign.
func (r *recipientReader) write(ctx context.Context, i int, seqs []uint32, w *rowWriter) error {
	if r.at != i {
		c, err := r.s.Store.Campaign(ctx, r.tenant, schemas.CampaignID(r.plan[i].number))
		if err != nil {
			return err
		}
		if r.people, err = r.s.peopleOf(ctx, &c); err != nil {
			return err
		}
		r.at, r.c = i, &c
	}
	sets, err := r.s.sets.of(ctx, r.tenant, r.c.ID())
	if err != nil {
		return err
	}
	row := recipientRow{campaign: r.c}
	return r.s.eachMember(ctx, r.c, r.people, sets, seqs, func(m *analytics.Member, _ *audience.Entry, v *Member) {
		row.Member, row.ref = v, m.CustomerRef
		put(w, r.columns, &row)
	})
}

// openPages returns a reader of rows that the store returns in pages of exportRows: read gets the rows behind a cursor.
func openPages[T, V any](ctx context.Context, run *store.JobRun, columns []column[V], view func(*T) *V,
	read func(ctx context.Context, cursor string, limit int) (rows []T, total int, err error), cursorOf func(*T) string,
) (exportReader, error) {
	if !run.Known {
		_, total, err := read(ctx, "", 1)
		if err != nil {
			return nil, goneForGood(err)
		}
		if err := run.Begin(ctx, nil, uint64(max(total, 0))); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, cursor string, w *rowWriter) (string, error) {
		for w.rows < exportStep {
			rows, _, err := read(ctx, cursor, exportRows)
			if err != nil {
				return "", goneForGood(err)
			}
			for i := range rows {
				put(w, columns, view(&rows[i]))
			}
			if len(rows) < exportRows {
				return "", nil
			}
			cursor = cursorOf(&rows[len(rows)-1])
		}
		return cursor, nil
	}, nil
}

// goneForGood turns a "not found" error into a permanent one: the list or campaign of the job was deleted.
func goneForGood(err error) error {
	if errors.Is(err, schemas.ErrNotFound) {
		return &store.JobError{Reason: "the data to export was deleted"}
	}
	return err
}

func afterNumber(cursor string) uint64 {
	n, _ := strconv.ParseUint(cursor, 10, 64) // we wrote it; 0 at the beginning
	return n
}

func openContacts(ctx context.Context, s *server, run *store.JobRun, o *exportOrder) (exportReader, error) {
	all := slices.Clone(contactColumns)
	for _, name := range o.Columns {
		if attribute, ok := strings.CutPrefix(name, attributePrefix); ok {
			all = append(all, column[Contact]{name, textCell, func(c *Contact) any { return orNull(c.Attributes[attribute]) }})
		}
	}
	if o.Campaign != "" {
		return openRecipientContacts(ctx, s, run, o, chosen(all, o.Columns))
	}
	return openPages(ctx, run, chosen(all, o.Columns), viewContact, func(ctx context.Context, cursor string, limit int) ([]store.Contact, int, error) {
		return s.Store.Contacts(ctx, run.Tenant, store.ContactFilter{Page: store.Page{Limit: limit}, List: o.List, Search: o.Search, After: afterNumber(cursor)})
	}, func(c *store.Contact) string { return strconv.FormatUint(c.Position, 10) })
}

// openRecipientContacts reads the contacts behind the recipients of a campaign. Who is twice in the audience comes
// once; a contact that was deleted since does not come.
func openRecipientContacts(ctx context.Context, s *server, run *store.JobRun, o *exportOrder, columns []column[Contact]) (exportReader, error) {
	plan, err := s.planOf(ctx, run, o)
	if err != nil {
		return nil, err
	}
	if len(plan) == 0 {
		return func(context.Context, string, *rowWriter) (string, error) { return "", nil }, nil
	}
	c, err := s.Store.Campaign(ctx, run.Tenant, schemas.CampaignID(plan[0].number))
	if err != nil {
		return nil, goneForGood(err)
	}
	people, err := s.peopleOf(ctx, &c)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, cursor string, w *rowWriter) (string, error) {
		for {
			seqs, next, more := batchOf(plan[0].chosen, uint32(afterNumber(cursor))) //nolint:gosec // we wrote it
			numbers := make([]uint64, 0, len(seqs))
			for _, seq := range seqs {
				e, err := people.of(ctx, seq)
				if err != nil {
					return "", err
				}
				if people.gone {
					return "", &store.JobError{Reason: "the audience of the campaign was removed"}
				}
				if e != nil && e.ContactID != 0 && e.Flag != audience.Duplicate {
					numbers = append(numbers, e.ContactID)
				}
			}
			for part := range slices.Chunk(numbers, exportRows) {
				rows, err := s.Store.ContactsByNumber(ctx, run.Tenant, part)
				if err != nil {
					return "", err
				}
				for i := range rows {
					put(w, columns, viewContact(&rows[i]))
				}
			}
			if !more {
				return "", nil
			}
			if cursor = strconv.FormatUint(uint64(next), 10); w.rows > 0 {
				return cursor, nil
			}
		}
	}, nil
}

func openLedger(ctx context.Context, s *server, run *store.JobRun, o *exportOrder) (exportReader, error) {
	return openPages(ctx, run, chosen(ledgerColumns, o.Columns), viewLedger, func(ctx context.Context, cursor string, limit int) ([]store.LedgerEntry, int, error) {
		return s.Store.NewestLedger(ctx, run.Tenant, store.LedgerFilter{Page: store.Page{Limit: limit}, Campaign: o.Campaign, Before: afterNumber(cursor)})
	}, func(e *store.LedgerEntry) string { return strconv.FormatUint(e.ID, 10) })
}

func openSuppressions(ctx context.Context, s *server, run *store.JobRun, o *exportOrder) (exportReader, error) {
	return openPages(ctx, run, chosen(suppressionColumns, o.Columns), func(r *store.Suppression) *store.Suppression { return r },
		func(ctx context.Context, cursor string, limit int) ([]store.Suppression, int, error) {
			return s.Store.Suppressions(ctx, run.Tenant, store.Page{Limit: limit}, cursor)
		}, func(r *store.Suppression) string { return schemas.NumberKey(r.Phone) })
}
