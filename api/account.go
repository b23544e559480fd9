package api

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

const accountTag = "Account"

// Account is what a tenant's own keys can see of the tenant.
type Account struct {
	TenantID         string        `json:"tenantId" doc:"Id of the tenant whose key this is."`
	Name             string        `json:"name" doc:"Name of the tenant."`
	Currency         string        `json:"currency" doc:"ISO 4217 code; every amount of money is in it." example:"EUR"`
	Timezone         string        `json:"timezone" doc:"IANA zone in which dates and times without an offset are read." example:"Europe/Rome"`
	Region           string        `json:"region" doc:"Country as which numbers without a country code are read." example:"IT"`
	Balance          *Money        `json:"balance" nullable:"true" doc:"Money that can still be spent; null: unlimited."`
	Reserved         Money         `json:"reserved" doc:"Money set aside for unfinished campaigns."`
	Spent            Money         `json:"spent" doc:"Money that was billed for messages, since ever."`
	Owed             Money         `json:"owed" doc:"Debt: credit that was withdrawn although unfinished campaigns had reserved it. Campaigns are suspended until a top-up pays it."`
	CampaignsEnabled bool          `json:"campaignsEnabled" doc:"False: campaigns can be neither created nor confirmed."`
	TestKey          bool          `json:"testKey" doc:"Whether the key of this request is a test key."`
	Scopes           []string      `json:"scopes" nullable:"false" doc:"Scopes of the key of this request."`
	DefaultRoute     string        `json:"defaultRoute" doc:"Route of campaigns and single sends that name none."`
	DefaultSender    string        `json:"defaultSender" doc:"Sender of SMS that name none; empty: there is none."`
	Limits           AccountLimits `json:"limits" doc:"What the tenant and the key of this request are held to."`
}

// AccountLimits are the limits of a tenant.
type AccountLimits struct {
	ActiveCampaigns   uint32 `json:"activeCampaigns" doc:"Active campaigns at the same time."`
	Contacts          uint32 `json:"contacts" doc:"Per campaign."`
	Segments          uint32 `json:"segments" doc:"Per rendered text."`
	Rate              uint32 `json:"rate" doc:"Messages a second over all campaigns; 0: no own limit."`
	RequestsPerMinute int    `json:"requestsPerMinute" doc:"Limit of the key of this request."`
	RequestsPerSecond int    `json:"requestsPerSecond" doc:"Limit of the key of this request."`
}

// LedgerEntry is one movement of money. It takes an amount from one account and adds it to another, so the sum of all
// accounts is always 0.
type LedgerEntry struct {
	ID           uint64  `json:"id" doc:"Grows with each movement."`
	Time         string  `json:"time" format:"date-time" doc:"When the money was moved, in UTC."`
	From         string  `json:"from" enum:"outside,available,reserved,captured" doc:"Account that the amount was taken from. outside: money that is not in the installation."`
	To           string  `json:"to" enum:"outside,available,reserved,captured" doc:"Account that the amount was added to."`
	AmountMicros uint64  `json:"amountMicros" doc:"Millionths of the currency." example:"50000"`
	Amount       Money   `json:"amount" doc:"The same amount in the currency."`
	CampaignID   *string `json:"campaignId" doc:"Campaign that caused it; null for a top-up and a withdrawal."`
	Note         string  `json:"note" doc:"Why the money was moved, such as reserve, or what an operator wrote; may be empty."`
}

type (
	accountIn  struct{}
	accountOut struct{ Body *Account }
	ledgerIn   struct {
		Page       int    `query:"page" minimum:"0"`
		Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		CampaignID string `query:"campaignId" doc:"Only of this campaign."`
		Cursor     string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	ledgerOut      struct{ Body *Page[*LedgerEntry] }
	ledgerExportIn struct {
		CampaignID string `query:"campaignId" doc:"Only of this campaign."`
	}
)

func (s *server) registerAccount() {
	register(s, operation{
		id: "getAccount", method: http.MethodGet, path: "/api/account", summary: "The account: money, currency, zone, limits, flags",
		scope: store.ScopeRead, tag: accountTag,
	}, s.account)
	register(s, operation{
		id: "listLedger", method: http.MethodGet, path: "/api/account/ledger", summary: "List the movements of money, newest first",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: accountTag,
		describe: "Double entry, in millionths of the currency: each movement takes an amount from one account and adds it to another. outside is where top-ups " +
			"come from; available can be spent; reserved is set aside for unfinished campaigns; captured was spent.",
	}, s.ledger)
	register(s, operation{
		id: "exportLedger", method: http.MethodGet, path: "/api/account/ledger/export", summary: "The movements of money as CSV, newest first",
		scope: store.ScopeRead, errors: []int{404}, tag: accountTag,
	}, s.exportLedger)
	describeCSV(s.api.OpenAPI().Paths["/api/account/ledger/export"].Get,
		"id,time,from,to,amountMicros,campaignId,note\n2,2025-04-15T09:00:00Z,available,reserved,50000,camp_10001,reserve\n")
}

func (s *server) account(ctx context.Context, _ *accountIn) (*accountOut, error) {
	who := requestOf(ctx).who
	t, err := s.Store.Tenant(ctx, who.tenant.ID) // read from the store, because the principal's copy may be old
	if err != nil {
		return nil, s.storeProblem(err)
	}
	b, err := s.Store.Balance(ctx, t.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := &Account{
		TenantID: t.ID, Name: t.Name, Currency: t.Currency, Timezone: t.Timezone, Region: t.Region, Reserved: Money(b.Reserved), Spent: Money(b.Captured), Owed: Money(b.Owed),
		CampaignsEnabled: t.CampaignsEnabled, TestKey: who.key.Test, Scopes: []string{}, DefaultRoute: t.DefaultRoute, DefaultSender: t.DefaultSender,
		Limits: AccountLimits{ActiveCampaigns: t.MaxActive, Contacts: t.MaxContacts, Segments: t.MaxSegments, Rate: t.Rate},
	}
	if !b.Unlimited {
		v.Balance = new(Money(b.Available))
	}
	for _, scope := range who.key.Scopes {
		v.Scopes = append(v.Scopes, string(scope))
	}
	if who.quota != nil {
		limits := who.quota.get()
		v.Limits.RequestsPerMinute, v.Limits.RequestsPerSecond = limits.PerMinute, limits.PerSecond
	}
	return &accountOut{v}, nil
}

func viewLedger(e *store.LedgerEntry) *LedgerEntry {
	v := &LedgerEntry{
		ID: e.ID, Time: stamp(e.Time), From: string(e.From), To: string(e.To), AmountMicros: e.Micros, Amount: Money(min(e.Micros, math.MaxInt64)), Note: e.Note,
	}
	if e.Campaign != 0 {
		v.CampaignID = orNull(schemas.CampaignID(e.Campaign))
	}
	return v
}

func (s *server) ledger(ctx context.Context, in *ledgerIn) (*ledgerOut, error) {
	name := "ledger"
	if in.CampaignID != "" {
		name += " of " + in.CampaignID
	}
	before, p := readNumberCursor(name, in.Cursor)
	if p != nil {
		return nil, p
	}
	if before != 0 {
		in.Page = 0
	}
	rows, total, err := s.Store.NewestLedger(ctx, requestOf(ctx).who.tenant.ID, store.LedgerFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Campaign: in.CampaignID, Before: before,
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*LedgerEntry]{Data: []*LedgerEntry{}, Page: in.Page, Limit: in.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewLedger(&rows[i]))
	}
	if n := len(rows); n > 0 {
		out.Next = nextCursor(name, n, in.Limit, numberCursor(rows[n-1].ID))
	}
	return &ledgerOut{out}, nil
}

// exportRows is how many rows an export reads at a time.
const exportRows = 1000

func (s *server) exportLedger(ctx context.Context, in *ledgerExportIn) (*huma.StreamResponse, error) {
	tenant := requestOf(ctx).who.tenant.ID
	f := store.LedgerFilter{Page: store.Page{Limit: exportRows}, Campaign: in.CampaignID}
	// The first page is read before the answer begins, so that an error can still set the status
	rows, _, err := s.Store.NewestLedger(ctx, tenant, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answerCSV(ctx, "ledger.csv", []string{"id", "time", "from", "to", "amountMicros", "campaignId", "note"}, func(ctx context.Context, write func(...string) error) error {
		for {
			for i := range rows {
				e := &rows[i]
				campaign := ""
				if e.Campaign != 0 {
					campaign = schemas.CampaignID(e.Campaign)
				}
				if err := write(strconv.FormatUint(e.ID, 10), stamp(e.Time), string(e.From), string(e.To), strconv.FormatUint(e.Micros, 10), campaign, e.Note); err != nil {
					return err
				}
			}
			if len(rows) < exportRows {
				return nil
			}
			f.Before = rows[len(rows)-1].ID
			if rows, _, err = s.Store.NewestLedger(ctx, tenant, f); err != nil {
				return err
			}
		}
	}), nil
}

// Tag is a tag of campaigns.
type Tag struct {
	Tag       string `json:"tag" doc:"In lower case: tags are compared without regard to case."`
	Campaigns int    `json:"campaigns" doc:"How many campaigns have it."`
}

// TagInput renames a tag.
type TagInput struct {
	Tag string `json:"tag" example:"spring" doc:"The new name: 1 to 50 characters."`
}

// TagChange counts the campaigns that were changed.
type TagChange struct {
	Changed int `json:"changed" doc:"How many campaigns had the tag."`
}

type (
	tagsOut struct{ Body *Page[*Tag] }
	tagIn   struct {
		Tag string `path:"tag" doc:"The tag, in any case."`
	}
	tagRenameIn struct {
		Tag  string `path:"tag" doc:"The tag as it is now, in any case."`
		Body problem.Body[TagInput]
	}
	tagOut struct{ Body *TagChange }
)

func (s *server) registerTags() {
	register(s, operation{
		id: "listTags", method: http.MethodGet, path: "/api/tags", summary: "List the tags of campaigns, with how many have each",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
	}, func(ctx context.Context, in *shortIn) (*tagsOut, error) {
		rows, err := s.Store.Tags(ctx, requestOf(ctx).who.tenant.ID)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		page, err := pageOf("tags", in, rows, func(t *store.TagCount) []string { return []string{t.Tag} },
			func(t *store.TagCount) (*Tag, error) { return &Tag{t.Tag, t.Campaigns}, nil })
		return &tagsOut{page}, err
	})
	register(s, operation{
		id: "renameTag", method: http.MethodPut, path: "/api/tags/{tag}", summary: "Rename a tag in all campaigns",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 422}, tag: campaignTag,
		describe: "A campaign that already has the new tag has it only once afterwards.",
	}, func(ctx context.Context, in *tagRenameIn) (*tagOut, error) {
		name := strings.TrimSpace(in.Body.Value.Tag)
		if !validTag(name) {
			return nil, problem.Field(problem.CodeInvalid, "tag", "Want 1 to %d characters without | and control characters.", maxTag)
		}
		return s.replaceTag(ctx, in.Tag, name)
	})
	register(s, operation{
		id: "deleteTag", method: http.MethodDelete, path: "/api/tags/{tag}", summary: "Remove a tag from all campaigns",
		scope: store.ScopeCampaigns, errors: []int{404}, tag: campaignTag,
	}, func(ctx context.Context, in *tagIn) (*tagOut, error) { return s.replaceTag(ctx, in.Tag, "") })
}

func (s *server) replaceTag(ctx context.Context, tag, by string) (*tagOut, error) {
	req := requestOf(ctx)
	n, err := s.Store.ReplaceTag(ctx, req.who.tenant.ID, tag, by, store.Cause{Actor: schemas.ActorUser, By: req.who.key.ID, RequestID: req.id})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if n == 0 {
		return nil, problem.New(problem.CodeNotFound, "No campaign has the tag %q.", problem.Truncate(tag, 60))
	}
	return &tagOut{&TagChange{n}}, nil
}
