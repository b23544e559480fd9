package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// tombstoneAfter is how long after its end a campaign stays on its topic.
const tombstoneAfter = 7 * 24 * time.Hour

// Unpublished returns at most limit rows whose newest version has not been published, each as the record to publish. Routes,
// tenants and senders come first, for campaigns name them; opt-outs and campaigns share what is left, so that a flood of one
// does not hold up the other. [ErrNoLead] when this process led and does no more.
func (s *Store) Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error) {
	if err := s.leads(ctx); err != nil {
		return nil, err
	}
	out, err := s.unpublishedControl(ctx, int64(limit))
	if err != nil {
		return nil, fmt.Errorf("unpublished rows: %w", err)
	}
	left := int64(limit - len(out))
	campaigns, err := s.unpublishedCampaigns(ctx, left)
	if err != nil {
		return nil, fmt.Errorf("unpublished campaigns: %w", err)
	}
	suppressions, err := s.unpublishedSuppressions(ctx, left)
	if err != nil {
		return nil, fmt.Errorf("unpublished opt-outs: %w", err)
	}
	if over := int64(len(campaigns)+len(suppressions)) - left; over > 0 {
		half := int(left+1) / 2
		keep := max(half, int(left)-len(suppressions))
		campaigns = campaigns[:min(len(campaigns), keep)]
		suppressions = suppressions[:int(left)-len(campaigns)]
	}
	return append(append(out, suppressions...), campaigns...), nil
}

// encode is the row of a record; nil is a tombstone.
func encode(typ schemas.EventType, key, tenant string, version, at int64, value proto.Message) (schemas.OutboxRow, error) {
	row := schemas.OutboxRow{Type: typ, Key: key, Tenant: tenant, Version: uint64(version), Time: fromMS(at)}
	if value == nil {
		return row, nil
	}
	var err error
	row.Value, err = proto.Marshal(value)
	return row, err
}

// unpublishedControl are routes, tenants and senders.
func (s *Store) unpublishedControl(ctx context.Context, limit int64) (out []schemas.OutboxRow, err error) {
	add := func(key, tenant string, version, at int64, value proto.Message) error {
		if int64(len(out)) == limit {
			return nil
		}
		row, err := encode(schemas.TypeControl, key, tenant, version, at, value)
		out = append(out, row)
		return err
	}
	routes, err := s.q.UnpublishedRoutes(ctx, limit)
	for _, r := range routes {
		err = errors.Join(err, add(schemas.RouteKey(r.Name), "", r.Version, r.UpdatedMs, routeRecord(r)))
	}
	if err != nil {
		return nil, err
	}
	tenants, err := s.q.UnpublishedTenants(ctx, limit)
	for _, r := range tenants {
		err = errors.Join(err, add(schemas.TenantKey(r.ID), r.ID, r.Version, r.UpdatedMs, tenantRecord(r)))
	}
	if err != nil {
		return nil, err
	}
	senders, err := s.q.UnpublishedSenders(ctx, limit)
	for _, r := range senders {
		var value proto.Message
		if !r.Deleted {
			value = senderRecord(r)
		}
		err = errors.Join(err, add(schemas.SenderKey(r.Tenant, r.ID), r.Tenant, r.Version, r.UpdatedMs, value))
	}
	return out, err
}

func (s *Store) unpublishedCampaigns(ctx context.Context, limit int64) (out []schemas.OutboxRow, err error) {
	rows, err := s.q.UnpublishedCampaigns(ctx, limit)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		row, err := encode(schemas.TypeCampaign, schemas.CampaignKey(r.Tenant, schemas.CampaignID(uint64(r.Number))), r.Tenant,
			r.Version, r.UpdatedMs, campaignRecord(campaignOf(r)))
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	now := s.now()
	ended, err := s.q.DueTombstones(ctx, now.Add(-tombstoneAfter).UnixMilli(), limit)
	for _, r := range ended {
		row, _ := encode(schemas.TypeCampaign, schemas.CampaignKey(r.Tenant, schemas.CampaignID(uint64(r.Number))), r.Tenant,
			r.Version, now.UnixMilli(), nil)
		out = append(out, row)
	}
	return out, err
}

func (s *Store) unpublishedSuppressions(ctx context.Context, limit int64) (out []schemas.OutboxRow, err error) {
	rows, err := s.q.UnpublishedSuppressions(ctx, limit)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		hash, err := hex.DecodeString(r.Hash)
		if err != nil || len(hash) != 8 {
			return nil, fmt.Errorf("hash of an opt-out of %s is damaged", r.Tenant)
		}
		var value proto.Message
		if !r.Lifted {
			value = &fanfarev1.Suppression{Tenant: r.Tenant, NumberHash: hash, TimeMs: r.UpdatedMs, Source: r.Source}
		}
		row, err := encode(schemas.TypeSuppression, schemas.SuppressionKey(r.Tenant, [8]byte(hash)), r.Tenant, r.Version, r.UpdatedMs, value)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

func routeRecord(r db.Route) *fanfarev1.Control {
	return &fanfarev1.Control{Version: uint64(r.Version), Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{
		Name: r.Name, Channels: parseChannels(r.Channels), Connector: r.Connector, Rate: uint32(r.Rate), Burst: uint32(r.Burst),
		P99Ms: r.P99Ms, ReceiptWindowMs: r.ReceiptWindowMs, Enabled: r.Enabled,
	}}}
}

func tenantRecord(r db.Tenant) *fanfarev1.Control {
	return &fanfarev1.Control{Version: uint64(r.Version), Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{
		Id: r.ID, Rate: uint32(r.Rate), Weight: uint32(r.Weight), Enabled: r.Enabled, Timezone: r.Timezone, Region: r.Region,
	}}}
}

func senderRecord(r db.Sender) *fanfarev1.Control {
	return &fanfarev1.Control{Version: uint64(r.Version), Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{
		Tenant: r.Tenant, Id: r.ID, Rate: uint32(r.Rate),
	}}}
}

// campaignRecord is the whole current state of a campaign.
func campaignRecord(c Campaign) *fanfarev1.Campaign {
	r := &fanfarev1.Campaign{
		Tenant: c.Tenant, Id: c.ID(), Number: c.Number, Version: c.Version, State: c.State, Reason: c.Reason, Settled: !c.Settled.IsZero(),
		Name: c.Name, Tags: c.Tags,
		Content:     &fanfarev1.Content{Body: c.Body, TemplateId: c.TemplateID, Missing: c.Missing, MissingDefault: c.MissingDefault},
		MaxSegments: c.MaxSegments, ValidityMs: c.Validity.Milliseconds(), ReceiptWindowMs: c.ReceiptWindow.Milliseconds(),
		Rate: c.Rate, Weight: c.Weight, FreezeId: c.FreezeID, Total: c.Total, Test: c.Test, Hidden: c.Hidden, Region: c.Region,
		Currency: c.Currency, CreatedMs: ms(c.Created), ConfirmedMs: ms(c.Confirmed), ScheduledMs: ms(c.Scheduled),
		StartedMs: ms(c.Started), CompletedMs: ms(c.Completed), SettledMs: ms(c.Settled),
		Stopped: c.State == fanfarev1.State_STATE_COMPLETED && c.Reason == ReasonAborted,
	}
	for _, l := range c.Legs {
		leg := &fanfarev1.Leg{Channel: l.Channel, Route: l.Route, Sender: l.Sender, PriceMicros: l.Price, MaxHandovers: l.MaxHandovers}
		for _, b := range l.Backoff {
			leg.BackoffMs = append(leg.BackoffMs, b.Milliseconds())
		}
		r.Legs = append(r.Legs, leg)
	}
	if h := c.CallingHours; h != nil {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: h.Start, EndMinute: h.End, Timezone: h.Zone}
	}
	for _, list := range c.Lists {
		r.Lists = append(r.Lists, ListID(list))
	}
	if c.ReplayOf != 0 {
		r.ReplayOf = schemas.CampaignID(c.ReplayOf)
	}
	return r
}

// target is a row that a record is about.
type target struct {
	kind, tenant, id string
	number           int64
}

// targetOf reads the key of a record.
func targetOf(typ schemas.EventType, key string) (target, error) {
	parts := strings.SplitN(key, "/", 3)
	switch {
	case typ == schemas.TypeCampaign && len(parts) == 2:
		if n, err := schemas.CampaignNumber(parts[1]); err == nil {
			return target{kind: "campaign", tenant: parts[0], number: int64(n)}, nil
		}
	case typ == schemas.TypeSuppression && len(parts) == 2:
		return target{kind: "suppression", tenant: parts[0], id: parts[1]}, nil
	case typ == schemas.TypeControl && len(parts) == 2 && (parts[0] == "route" || parts[0] == "tenant"):
		return target{kind: parts[0], id: parts[1]}, nil
	case typ == schemas.TypeControl && len(parts) == 3 && parts[0] == "sender":
		return target{kind: "sender", tenant: parts[1], id: parts[2]}, nil
	}
	return target{}, fmt.Errorf("key %q of a %s record is none of ours", key, typ)
}

// MarkPublished notes that rows have been published, as far as they are still of the version that was.
func (s *Store) MarkPublished(ctx context.Context, rows []schemas.OutboxRow) error {
	if len(rows) == 0 {
		return nil
	}
	err := s.write(ctx, func(tx *tx) error {
		for _, row := range rows {
			t, err := targetOf(row.Type, row.Key)
			if err != nil {
				return err
			}
			switch version := int64(row.Version); {
			case t.kind == "campaign" && row.Value == nil:
				err = tx.PublishedTombstone(ctx, t.tenant, t.number)
			case t.kind == "campaign":
				err = tx.PublishedCampaign(ctx, t.tenant, t.number, version)
			case t.kind == "suppression":
				err = tx.PublishedSuppression(ctx, t.tenant, t.id, version)
			case t.kind == "route":
				err = tx.PublishedRoute(ctx, t.id, version)
			case t.kind == "tenant":
				err = tx.PublishedTenant(ctx, t.id, version)
			case t.kind == "sender":
				err = tx.PublishedSender(ctx, t.tenant, t.id, version)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark as published: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.marked)
	s.marked = make(chan struct{})
	return nil
}

// Republish makes a row unpublished again: what its topic says last differs from the row. [schemas.ErrNotFound] when there is
// no such row.
func (s *Store) Republish(ctx context.Context, typ schemas.EventType, key string) error {
	t, err := targetOf(typ, key)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *tx) error {
		var n int64
		var err error
		switch t.kind {
		case "campaign":
			n, err = tx.RepublishCampaign(ctx, t.tenant, t.number)
		case "suppression":
			n, err = tx.RepublishSuppression(ctx, t.tenant, t.id)
		case "route":
			n, err = tx.RepublishRoute(ctx, t.id)
		case "tenant":
			n, err = tx.RepublishTenant(ctx, t.id)
		case "sender":
			n, err = tx.RepublishSender(ctx, t.tenant, t.id)
		}
		if err == nil && n == 0 {
			return notFound("row of record", key)
		}
		tx.publish = true
		return err
	})
}
