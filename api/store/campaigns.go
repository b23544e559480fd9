package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/hours"
)

// Limits of the fields of a campaign.
const (
	maxName  = 200 // characters
	maxLists = 50
	maxBody  = 64 << 10
	maxTags  = 50
)

func campaignOf(r db.Campaign) Campaign {
	c := Campaign{
		Tenant: r.Tenant, Number: uint64(r.Number), Version: uint64(r.Version), State: schemas.State(r.State), Reason: r.Reason,
		Hidden: r.Hidden, Test: r.Test, Region: r.Region, Currency: r.Currency,
		Quote:    Quote{Version: r.QuoteVersion, Cost: uint64(r.QuoteCost), Contacts: uint32(r.QuoteContacts)},
		FreezeID: r.FreezeID, Total: uint32(r.Total), Reserved: uint64(r.Reserved), Captured: uint64(r.Captured),
		CreatedBy: r.CreatedBy, ConfirmedBy: r.ConfirmedBy, Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs),
		Confirmed: fromMS(r.ConfirmedMs), Scheduled: fromMS(r.ScheduledMs), Started: fromMS(r.StartedMs),
		Completed: fromMS(r.CompletedMs), Settled: fromMS(r.SettledMs), Ended: fromMS(r.EndedMs), Deleted: fromMS(r.DeletedMs),
		Removed: r.Removed,
	}
	// Written by this package from the same types; a field that a newer version added is ignored.
	_ = json.Unmarshal([]byte(r.Spec), &c.Spec)
	_ = json.Unmarshal([]byte(r.Legs), &c.Legs)
	return c
}

// documents returns spec and legs as they are stored.
func (c *Campaign) documents() (spec, legs string, err error) {
	s, err := json.Marshal(&c.Spec)
	if err != nil {
		return "", "", fmt.Errorf("encode campaign: %w", err)
	}
	l, err := json.Marshal(c.Legs)
	if err != nil {
		return "", "", fmt.Errorf("encode legs: %w", err)
	}
	return string(s), string(l), nil
}

// tagText returns tags as they are stored: `|a|b|`, so that a search for `|a|` finds only the whole tag.
func tagText(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	return "|" + fold(strings.Join(tags, "|")) + "|"
}

func campaignRow(ctx context.Context, q *db.Queries, tenant, id string) (db.Campaign, error) {
	n, err := schemas.CampaignNumber(id)
	if err != nil || n > math.MaxInt64 {
		return db.Campaign{}, notFound("campaign", id)
	}
	r, err := q.GetCampaign(ctx, tenant, int64(n))
	return r, found(err, "campaign", id)
}

// insert writes a new campaign under the next number.
func (t *tx) insert(ctx context.Context, c *Campaign, hiddenDay string) error {
	next, err := t.Counter(ctx, 1, "campaign")
	if err != nil {
		return fmt.Errorf("campaign number: %w", err)
	}
	c.Number, c.Version, c.Created, c.Updated = uint64(next)-1, 1, t.at, t.at
	spec, legs, err := c.documents()
	if err != nil {
		return err
	}
	t.publish = true
	err = t.InsertCampaign(ctx, db.InsertCampaignParams{
		Number: int64(c.Number), Tenant: c.Tenant, State: int64(c.State), Reason: c.Reason, Hidden: c.Hidden, HiddenDay: hiddenDay,
		Test: c.Test, Name: c.Name, Search: fold(c.Name), Tags: tagText(c.Tags), Channel: int64(c.Channel()), Region: c.Region,
		Currency: c.Currency, Spec: spec, Legs: legs, QuoteVersion: c.Quote.Version, QuoteCost: int64(c.Quote.Cost),
		QuoteContacts: int64(c.Quote.Contacts), FreezeID: c.FreezeID, Total: int64(c.Total), Reserved: int64(c.Reserved),
		Captured: int64(c.Captured), CreatedBy: c.CreatedBy, ConfirmedBy: c.ConfirmedBy, CreatedMs: ms(c.Created), UpdatedMs: ms(c.Updated),
		ConfirmedMs: ms(c.Confirmed), ScheduledMs: ms(c.Scheduled), StartedMs: ms(c.Started), CompletedMs: ms(c.Completed),
		SettledMs: ms(c.Settled), EndedMs: ms(c.Ended), DeletedMs: ms(c.Deleted), Removed: c.Removed,
	})
	if err != nil {
		return err
	}
	return t.keep(ctx, nil, c)
}

// save writes the row if its version is still the one given, and increments the version.
func (t *tx) save(ctx context.Context, c *Campaign, version uint64) error {
	spec, legs, err := c.documents()
	if err != nil {
		return err
	}
	old, err := t.CampaignKey(ctx, c.Tenant, int64(c.Number))
	if err != nil {
		return found(err, "campaign", c.ID())
	}
	c.Version, c.Updated, t.publish = version+1, t.at, true
	n, err := t.UpdateCampaign(ctx, db.UpdateCampaignParams{
		State: int64(c.State), Reason: c.Reason, Test: c.Test, Name: c.Name, Search: fold(c.Name), Tags: tagText(c.Tags),
		Channel: int64(c.Channel()), Spec: spec, Legs: legs, QuoteVersion: c.Quote.Version, QuoteCost: int64(c.Quote.Cost),
		QuoteContacts: int64(c.Quote.Contacts), FreezeID: c.FreezeID, Total: int64(c.Total), Reserved: int64(c.Reserved),
		Captured: int64(c.Captured), ConfirmedBy: c.ConfirmedBy, UpdatedMs: ms(c.Updated), ConfirmedMs: ms(c.Confirmed),
		ScheduledMs: ms(c.Scheduled), StartedMs: ms(c.Started), CompletedMs: ms(c.Completed), SettledMs: ms(c.Settled),
		EndedMs: ms(c.Ended), DeletedMs: ms(c.Deleted), Removed: c.Removed,
		Tenant: c.Tenant, Number: int64(c.Number), Version: int64(version),
	})
	if err := one(n, err, "campaign", version); err != nil {
		return err
	}
	return t.keep(ctx, &old, c) // the row still had old's version, else the update would have written nothing
}

// event adds a line to the history of a campaign that was just written.
func (t *tx) event(ctx context.Context, c *Campaign, from schemas.State, trigger schemas.Trigger, cause Cause) error {
	return t.InsertEvent(ctx, db.InsertEventParams{
		Tenant: c.Tenant, Campaign: int64(c.Number), Version: int64(c.Version), FromState: int64(from), ToState: int64(c.State),
		Cause: string(trigger), Actor: string(cause.Actor), ByWhom: cause.By, RequestID: cause.RequestID, Reason: cause.Reason, TimeMs: t.now,
	})
}

// allowed returns a [StateError] when the state machine has no such move for that actor. An operator may do what a user
// may.
func allowed(from, to schemas.State, trigger schemas.Trigger, actor schemas.Actor) error {
	for _, tr := range schemas.Transitions {
		if tr.From == from && tr.To == to && tr.Trigger == trigger &&
			(slices.Contains(tr.Actors, actor) || actor == schemas.ActorOperator && slices.Contains(tr.Actors, schemas.ActorUser)) {
			return nil
		}
	}
	return &StateError{State: from, To: to, Trigger: trigger}
}

// checkSpec refuses values that no channel allows. The api package checks what a single channel requires.
func (t *tx) checkSpec(ctx context.Context, c *Campaign) error {
	switch {
	case strings.TrimSpace(c.Name) == "" || utf8.RuneCountInString(c.Name) > maxName:
		return &FieldError{"Name", "", fmt.Sprintf("want 1 to %d characters", maxName)}
	case len(c.Chain) == 0 || slices.Contains(c.Chain, schemas.ChannelUnspecified):
		return &FieldError{"Chain", "", "want at least one of sms, rcs, whatsapp, voice"}
	case len(c.Lists) > maxLists:
		return &FieldError{"Lists", "", fmt.Sprintf("want at most %d", maxLists)}
	case len(c.Body) > maxBody || slices.ContainsFunc(c.Variants, func(v Variant) bool { return len(v.Body) > maxBody }):
		return &FieldError{"Body", "", fmt.Sprintf("want at most %d bytes", maxBody)}
	case len(c.Tags) > maxTags || slices.ContainsFunc(c.Tags, func(tag string) bool { return tag == "" || strings.Contains(tag, "|") }):
		return &FieldError{"Tags", "", fmt.Sprintf("want at most %d, none empty, none with a bar", maxTags)}
	case c.Weight > 100:
		return &FieldError{"Weight", fmt.Sprint(c.Weight), "want 1 to 100"}
	}
	if h := c.CallingHours; h != nil {
		if _, err := hours.New(int(h.Start), int(h.End), h.Zone); err != nil {
			return &FieldError{"CallingHours", "", err.Error()}
		}
	}
	for i, list := range c.Lists {
		if slices.Contains(c.Lists[:i], list) {
			return &FieldError{"Lists", ListID(list), "is named twice"}
		}
		row, err := t.GetList(ctx, c.Tenant, int64(list))
		if err != nil {
			return found(err, "contact list", ListID(list))
		}
		if row.DeletedMs > 0 {
			return notFound("contact list", ListID(list))
		}
	}
	var err error
	c.Test, err = t.isTest(ctx, c)
	return err
}

// isTest reports whether a campaign is a test: the client said so, or one of its lists is a test list.
func (t *tx) isTest(ctx context.Context, c *Campaign) (bool, error) {
	if c.TestRun {
		return true, nil
	}
	for _, list := range c.Lists {
		row, err := t.GetList(ctx, c.Tenant, int64(list))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
		if row.Test {
			return true, nil
		}
	}
	return false, nil
}

// CreateCampaign makes a campaign in state draft or configured, with the Spec and Quote of c. The store sets all other
// fields.
func (s *Store) CreateCampaign(ctx context.Context, c Campaign, cause Cause) (Campaign, error) {
	return s.createCampaign(ctx, c, cause, func(*tx, *Campaign) error { return nil })
}

// createCampaign makes a campaign and calls also in the same transaction.
func (s *Store) createCampaign(ctx context.Context, c Campaign, cause Cause, also func(*tx, *Campaign) error) (Campaign, error) {
	if err := allowed(schemas.StateUnspecified, c.State, schemas.TriggerCreate, cause.Actor); err != nil {
		return Campaign{}, err
	}
	var out Campaign
	err := s.write(ctx, func(tx *tx) error {
		t, err := tx.enabled(ctx, c.Tenant)
		if err != nil {
			return err
		}
		out = Campaign{
			Tenant: c.Tenant, State: c.State, Spec: c.Spec, Quote: c.Quote,
			Region: t.Region, Currency: t.Currency, CreatedBy: cause.By,
		}
		if err := tx.checkSpec(ctx, &out); err != nil {
			return err
		}
		if err := tx.insert(ctx, &out, ""); err != nil {
			return err
		}
		if err := also(tx, &out); err != nil {
			return err
		}
		return tx.event(ctx, &out, schemas.StateUnspecified, schemas.TriggerCreate, cause)
	})
	if err != nil {
		return Campaign{}, fmt.Errorf("create campaign: %w", err)
	}
	return out, nil
}

// enabled returns a tenant that may have campaigns (R45).
func (t *tx) enabled(ctx context.Context, tenant string) (Tenant, error) {
	row, err := t.GetTenant(ctx, tenant)
	if err != nil {
		return Tenant{}, found(err, "tenant", tenant)
	}
	if !row.CampaignsEnabled || !row.Enabled {
		return Tenant{}, &FeatureError{Feature: "campaigns_enabled"}
	}
	return tenantOf(row), nil
}

// Campaign returns a campaign by its public id, also a hidden one.
func (s *Store) Campaign(ctx context.Context, tenant, id string) (Campaign, error) {
	r, err := campaignRow(ctx, s.q, tenant, id)
	if err != nil {
		return Campaign{}, err
	}
	return campaignOf(r), nil
}

// UpdateCampaign changes a campaign if its version is want, 0 for any. mutate changes Spec, Quote, Test, Reason and
// State, and Scheduled while the campaign waits for its time. It returns the trigger of the change of state, or "" when
// the state stays (C4's live patch, the tags of an ended campaign). It may run more than once. UpdateCampaign also
// does, in the same transaction, what follows from the change of state: cancelling releases the money and marks the
// campaign deleted (C2); unscheduling releases the money and drops the frozen audience (C30); an edit voids the quote.
// To confirm, call [Store.Confirm].
func (s *Store) UpdateCampaign(ctx context.Context, tenant, id string, want uint64, cause Cause, mutate func(*Campaign) (schemas.Trigger, error)) (Campaign, error) {
	var out Campaign
	err := s.write(ctx, func(tx *tx) error {
		row, err := campaignRow(ctx, tx.Queries, tenant, id)
		if err != nil {
			return err
		}
		if row.Hidden {
			return notFound("campaign", id)
		}
		before, c := campaignOf(row), campaignOf(row)
		if want != 0 && want != before.Version {
			return &VersionError{"campaign", want, before.Version}
		}
		trigger, err := mutate(&c)
		if err != nil {
			return err
		}
		out = before
		out.Spec, out.Quote, out.Reason, out.State = c.Spec, c.Quote, c.Reason, c.State
		if before.State == schemas.StateScheduled || before.State == schemas.StateReady {
			out.Scheduled = c.Scheduled // rescheduled
		}
		if err := tx.checkMove(ctx, &before, &out, trigger, cause.Actor); err != nil {
			return err
		}
		if trigger == schemas.TriggerResume {
			// With the balance locked, no transaction can take credit back between this check and the commit.
			if _, err := tx.LockBalance(ctx, tenant); err != nil {
				return err
			}
			if err := tx.covered(ctx, &before); err != nil {
				return err
			}
		}
		if err := tx.follow(ctx, &before, &out, trigger, cause.Reason, tx.at); err != nil {
			return err
		}
		if err := tx.save(ctx, &out, before.Version); err != nil {
			return err
		}
		return tx.event(ctx, &out, before.State, trigger, cause)
	})
	if err != nil {
		return Campaign{}, err
	}
	return out, nil
}

// checkMove refuses a change of state that the state machine does not have, and a spec that is no longer valid.
func (t *tx) checkMove(ctx context.Context, before, after *Campaign, trigger schemas.Trigger, actor schemas.Actor) error {
	if trigger == schemas.TriggerConfirm {
		return errors.New("update campaign: use Confirm to confirm a campaign")
	}
	if trigger == schemas.TriggerPause && !before.Settled.IsZero() {
		return &StateError{State: before.State, To: after.State, Trigger: trigger} // no try can follow
	}
	if trigger != "" || after.State != before.State {
		if err := allowed(before.State, after.State, trigger, actor); err != nil {
			return err
		}
	}
	old, _, err := before.documents()
	if err != nil {
		return err
	}
	spec, _, err := after.documents()
	if err != nil || spec == old {
		return err
	}
	// Deleted lists stay in the spec of a campaign whose audience was frozen from them.
	if slices.Equal(before.Lists, after.Lists) && !schemas.Editable(before.State) {
		lists, test := after.Lists, after.Test
		after.Lists = nil
		err := t.checkSpec(ctx, after)
		after.Lists, after.Test = lists, test
		return err
	}
	return t.checkSpec(ctx, after)
}

// follow does what follows from a change of state: see [Store.UpdateCampaign].
func (t *tx) follow(ctx context.Context, before, after *Campaign, trigger schemas.Trigger, reason string, at time.Time) error {
	switch trigger {
	case schemas.TriggerCancel:
		after.Ended, after.Deleted = at, at
		return t.releaseAll(ctx, after)
	case schemas.TriggerFail:
		after.Reason, after.Ended = orElse(reason, after.Reason), at
		return t.releaseAll(ctx, after)
	case schemas.TriggerUnschedule:
		after.FreezeID, after.Total, after.Legs, after.ConfirmedBy, after.ListEnds, after.Counted = "", 0, nil, "", nil, time.Time{}
		after.Weights, after.Countries, after.LinkTable, after.Forecast = nil, nil, nil, nil
		after.Confirmed, after.Scheduled, after.Reason = fromMS(0), fromMS(0), ""
		return t.releaseAll(ctx, after)
	case schemas.TriggerSuspend, schemas.TriggerMissed, schemas.TriggerReject:
		after.Reason = orElse(reason, after.Reason)
	case schemas.TriggerResume, schemas.TriggerPause, schemas.TriggerStart:
		after.Reason = ""
	case schemas.TriggerEdit, schemas.TriggerIncomplete:
		after.Reason, after.Quote = "", Quote{}
	case schemas.TriggerAbort:
		// A completed campaign keeps its state. The reason tells the scheduler to make no further try.
		if before.State == schemas.StateCompleted {
			after.Reason = ReasonAborted
		}
	case schemas.TriggerDeal:
		if after.Started.IsZero() {
			after.Started = at
		}
	case schemas.TriggerComplete:
		// A campaign that was completed, paused and resumed keeps its Completed time
		if after.Reason = ""; after.Completed.IsZero() {
			after.Completed = at
		}
	case schemas.TriggerCreate, schemas.TriggerConfigure, schemas.TriggerPrice, schemas.TriggerConfirm, schemas.TriggerReschedule, schemas.TriggerResend, schemas.TriggerGiveUp, "":
	}
	return nil
}

// ReasonAborted is the reason of a campaign that was aborted after it had completed.
const ReasonAborted = "aborted"

// RemoveCampaign removes an ended campaign from the campaign list (C2). It can still be read by its id, and listed with
// the deleted ones.
func (s *Store) RemoveCampaign(ctx context.Context, tenant, id string, want uint64, cause Cause) (Campaign, error) {
	var out Campaign
	err := s.write(ctx, func(tx *tx) error {
		row, err := campaignRow(ctx, tx.Queries, tenant, id)
		if err != nil {
			return err
		}
		if row.Hidden {
			return notFound("campaign", id)
		}
		out = campaignOf(row)
		switch {
		case want != 0 && want != out.Version:
			return &VersionError{"campaign", want, out.Version}
		case !schemas.Terminal(out.State):
			return &StateError{State: out.State, To: out.State, Trigger: "remove"}
		case out.Removed:
			return nil
		}
		out.Removed = true
		if out.Deleted.IsZero() {
			out.Deleted = tx.at
		}
		if err := tx.save(ctx, &out, out.Version); err != nil {
			return err
		}
		return tx.event(ctx, &out, out.State, "", Cause{Actor: cause.Actor, By: cause.By, RequestID: cause.RequestID, Reason: "removed"})
	})
	return out, err
}

// CampaignEvents returns the history of a campaign, oldest first.
func (s *Store) CampaignEvents(ctx context.Context, tenant, id string) ([]CampaignEvent, error) {
	c, err := campaignRow(ctx, s.q, tenant, id)
	if err != nil {
		return nil, err
	}
	rows, err := s.q.ListEvents(ctx, tenant, c.Number)
	return all(rows, err, func(r db.CampaignEvent) CampaignEvent {
		return CampaignEvent{
			ID: uint64(r.ID), Tenant: r.Tenant, Campaign: uint64(r.Campaign), Version: uint64(r.Version),
			From: schemas.State(r.FromState), To: schemas.State(r.ToState), Trigger: schemas.Trigger(r.Cause),
			Cause: Cause{Actor: schemas.Actor(r.Actor), By: r.ByWhom, RequestID: r.RequestID, Reason: r.Reason}, Time: fromMS(r.TimeMs),
		}
	})
}
