package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// tombstoneAfter is how long after its end the record of a campaign stays in topic campaigns.
const tombstoneAfter = 7 * 24 * time.Hour

// Unpublished returns at most limit rows whose newest version has not been published, each as the record to publish.
// Routes, tenants and senders come first, because campaigns name them. Opt-outs and campaigns share the rest of the
// limit, so that many of one kind do not delay the other. The error is [ErrNoLead] when this process has lost the lead.
func (s *Store) Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error) {
	if found, err := s.anyUnpublished(ctx); err != nil || !found {
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

// anyUnpublished reports whether there is anything to publish. On Postgres it asks through the session that holds the
// lead, so that a process that has lost the session gets [ErrNoLead] at its next poll.
func (s *Store) anyUnpublished(ctx context.Context) (bool, error) {
	before := s.now().Add(-tombstoneAfter).UnixMilli()
	s.mu.Lock()
	conn := s.lead.conn
	s.mu.Unlock()
	if conn == nil {
		n, err := s.q.AnyUnpublished(ctx, before)
		if err != nil {
			return false, fmt.Errorf("look for unpublished rows: %w", err)
		}
		return n > 0, nil
	}
	n, err := db.New(rewriter{conn, &s.d.known}).AnyUnpublished(ctx, before)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoLead, err)
	}
	return n > 0, nil
}

// encode returns the outbox row of a record. A nil value gives a tombstone.
func encode(typ schemas.EventType, key, tenant string, version, at int64, value proto.Message) (schemas.OutboxRow, error) {
	row := schemas.OutboxRow{Type: typ, Key: key, Tenant: tenant, Version: uint64(version), Time: fromMS(at)}
	if value == nil {
		return row, nil
	}
	var err error
	row.Value, err = proto.Marshal(value)
	return row, err
}

// unpublishedControl returns unpublished routes, tenants, senders and domains.
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
		var value proto.Message
		if !r.Deleted {
			value = routeRecord(r)
		}
		err = errors.Join(err, add(schemas.RouteKey(r.Name), "", r.Version, r.UpdatedMs, value))
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
	if err != nil {
		return nil, err
	}
	domains, err := s.q.UnpublishedDomains(ctx, limit)
	for _, r := range domains {
		var value proto.Message
		if !r.Deleted {
			value = domainRecord(r)
		}
		err = errors.Join(err, add(schemas.DomainKey(r.Host), r.Tenant, r.Version, r.UpdatedMs, value))
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
	tombstone := func(tenant string, number, version int64) {
		row, _ := encode(schemas.TypeCampaign, schemas.CampaignKey(tenant, schemas.CampaignID(uint64(number))), tenant, version, now.UnixMilli(), nil)
		out = append(out, row)
	}
	again, err := s.q.RepublishedTombstones(ctx, limit)
	for _, r := range again {
		tombstone(r.Tenant, r.Number, r.Version)
	}
	if err != nil {
		return nil, err
	}
	ended, err := s.q.DueTombstones(ctx, now.Add(-tombstoneAfter).UnixMilli(), limit)
	for _, r := range ended {
		tombstone(r.Tenant, r.Number, r.Version)
	}
	return out, err
}

func (s *Store) unpublishedSuppressions(ctx context.Context, limit int64) (out []schemas.OutboxRow, err error) {
	rows, err := s.q.UnpublishedSuppressions(ctx, limit)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.Hash == "" {
			if r.Hash, err = s.hashSuppression(ctx, r); err != nil {
				return nil, err
			}
		}
		hash, err := suppressionHash(r.Tenant, r.Hash)
		if err != nil {
			return nil, err
		}
		var value proto.Message
		if !r.Lifted {
			value = &fanfarev1.Suppression{Tenant: r.Tenant, NumberHash: hash[:], TimeMs: r.UpdatedMs, Source: r.Source, Channels: ChannelSet(r.Channels).Channels()}
		}
		row, err := encode(schemas.TypeSuppression, schemas.SuppressionKey(r.Tenant, hash), r.Tenant, r.Version, r.UpdatedMs, value)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// suppressionHash parses the stored hash of an opt-out.
func suppressionHash(tenant, text string) ([8]byte, error) {
	hash, err := hex.DecodeString(text)
	if err != nil || len(hash) != 8 {
		return [8]byte{}, fmt.Errorf("hash of an opt-out of %s is damaged", tenant)
	}
	return [8]byte(hash), nil
}

// hashSuppression computes and stores the hash of an opt-out that a migration left without one, because migrations have
// no keys.
func (s *Store) hashSuppression(ctx context.Context, r db.Suppression) (string, error) {
	if s.keys == nil {
		return "", errNoKeys
	}
	sum := s.keys.NumberHash(r.Tenant, r.NumberKey)
	hash := hex.EncodeToString(sum[:])
	err := s.write(ctx, func(tx *tx) error {
		return tx.HashSuppression(ctx, hash, r.Tenant, r.NumberKey)
	})
	return hash, err
}

func routeRecord(r db.Route) *fanfarev1.Control {
	route := routeOf(r)
	return &fanfarev1.Control{Version: uint64(r.Version), Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{
		Name: r.Name, Channels: route.Channels, Connector: r.Connector, Rate: uint32(r.Rate), Burst: uint32(r.Burst),
		P99Ms: r.P99Ms, ReceiptWindowMs: r.ReceiptWindowMs, Enabled: r.Enabled,
		Configuration: []byte(route.Configuration), SealedCredentials: route.Credentials,
		Care: &fanfarev1.RouteCare{
			DownAfterMs: r.DownAfterMs, FailurePercent: route.Care.FailurePercent, FailureSample: route.Care.FailureSample, AutoResume: r.AutoResume,
			NoFailover: r.NoFailover,
		},
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

func domainRecord(r db.Domain) *fanfarev1.Control {
	return &fanfarev1.Control{Version: uint64(r.Version), Row: &fanfarev1.Control_Domain{Domain: &fanfarev1.Domain{Host: r.Host, Tenant: r.Tenant}}}
}

// campaignRecord returns the record of a campaign: its whole current state.
func campaignRecord(c Campaign) *fanfarev1.Campaign {
	r := &fanfarev1.Campaign{
		Tenant: c.Tenant, Id: c.ID(), Number: c.Number, Version: c.Version, State: c.State, Reason: c.Reason, Settled: !c.Settled.IsZero(),
		Name: c.Name, Tags: c.Tags,
		Content:     &fanfarev1.Content{Body: c.Body, TemplateId: c.TemplateID, Missing: c.Missing, MissingDefault: c.MissingDefault},
		MaxSegments: c.MaxSegments, ValidityMs: c.Validity.Milliseconds(), ReceiptWindowMs: c.ReceiptWindow.Milliseconds(),
		Rate: c.Rate, Weight: c.Weight, FreezeId: c.FreezeID, Total: c.Total, Test: c.Test, Hidden: c.Hidden, Region: c.Region,
		Currency: c.Currency, CreatedMs: ms(c.Created), ConfirmedMs: ms(c.Confirmed), ScheduledMs: ms(c.Scheduled),
		StartedMs: ms(c.Started), CompletedMs: ms(c.Completed), SettledMs: ms(c.Settled),
		Stopped: c.State == schemas.StateCompleted && c.Reason == ReasonAborted,
	}
	for _, l := range c.Legs {
		leg := &fanfarev1.Leg{Channel: l.Channel, Route: l.Route, Sender: l.Sender, PriceMicros: l.Price, MaxHandovers: l.MaxHandovers}
		for _, b := range l.Backoff {
			leg.BackoffMs = append(leg.BackoffMs, b.Milliseconds())
		}
		leg.MaxConcurrent, leg.OtherRoutes = l.MaxConcurrent, l.OtherRoutes
		for _, country := range slices.Sorted(maps.Keys(l.Prices)) {
			leg.Prices = append(leg.Prices, &fanfarev1.CountryPrice{Country: country, Micros: l.Prices[country]})
		}
		if len(l.Content) > 0 {
			leg.Content = &fanfarev1.Content{}
			_ = proto.Unmarshal(l.Content, leg.Content) // written by proto.Marshal
		}
		r.Legs = append(r.Legs, leg)
	}
	for _, w := range c.Weights {
		r.Weights = append(r.Weights, &fanfarev1.Weights{Of: w})
	}
	if c.FreezeID != "" {
		for i, end := range c.BatchEnds(c.Total) {
			r.Batches = append(r.Batches, &fanfarev1.Batch{AtMs: ms(c.Batches[i].At), EndSeq: end})
		}
	}
	if t := c.LinkTable; t != nil {
		r.Links = &fanfarev1.LinkTable{Base: t.Base, ValidAfterEndMs: t.ValidAfterEnd.Milliseconds(), ShortDomains: t.ShortDomains, OptOutDomains: t.OptOutDomains}
		for _, l := range t.Links {
			r.Links.Links = append(r.Links.Links, &fanfarev1.Link{Number: l.Number, Id: l.ID, Url: l.URL, Target: l.Target, Variant: l.Variant})
		}
	}
	if h := c.CallingHours; h != nil {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: h.Start, EndMinute: h.End, Timezone: h.Zone, RecipientZone: h.Recipients}
	}
	if o := c.Ambiguous; o != nil {
		r.AmbiguousOrder = &fanfarev1.AmbiguousOrder{Id: o.ID, Action: o.Action, TimeMs: o.AtMs}
	}
	for _, list := range c.Lists {
		r.Lists = append(r.Lists, ListID(list))
	}
	if c.ReplayOf != 0 {
		r.ReplayOf = schemas.CampaignID(c.ReplayOf)
	}
	return r
}

// target identifies the row that a record was made from.
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
	case typ == schemas.TypeControl && len(parts) == 2 && (parts[0] == "route" || parts[0] == "tenant" || parts[0] == "domain"):
		return target{kind: parts[0], id: parts[1]}, nil
	case typ == schemas.TypeControl && len(parts) == 3 && parts[0] == "sender":
		return target{kind: "sender", tenant: parts[1], id: parts[2]}, nil
	}
	return target{}, fmt.Errorf("key %q is not the key of a %s record", key, typ)
}

// MarkPublished notes that rows have been published. A row that has a newer version meanwhile stays unpublished.
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
			case t.kind == "domain":
				err = tx.PublishedDomain(ctx, t.id, version)
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

// Republish marks rows as unpublished again, because the topic does not have their newest version. It skips keys
// without a row; when no key has a row, the error is [schemas.ErrNotFound].
func (s *Store) Republish(ctx context.Context, typ schemas.EventType, keys ...string) error {
	targets := make([]target, len(keys))
	for i, key := range keys {
		var err error
		if targets[i], err = targetOf(typ, key); err != nil {
			return err
		}
	}
	return s.write(ctx, func(tx *tx) error {
		var found int64
		for _, t := range targets {
			n, err := tx.republish(ctx, t)
			if err != nil {
				return fmt.Errorf("publish again: %w", err)
			}
			found += n
		}
		if found == 0 && len(keys) > 0 {
			return notFound("row of record", keys[0])
		}
		tx.publish = true
		return nil
	})
}

// republish marks one row as unpublished and returns how many rows it changed: 1, or 0 when there is no such row.
func (t *tx) republish(ctx context.Context, of target) (int64, error) {
	switch of.kind {
	case "campaign":
		return t.RepublishCampaign(ctx, of.tenant, of.number)
	case "suppression":
		return t.RepublishSuppression(ctx, of.tenant, of.id)
	case "route":
		return t.RepublishRoute(ctx, of.id)
	case "tenant":
		return t.RepublishTenant(ctx, of.id)
	case "domain":
		return t.RepublishDomain(ctx, of.id)
	default:
		return t.RepublishSender(ctx, of.tenant, of.id)
	}
}
