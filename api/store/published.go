package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"fanfare/schemas"
)

// publishedKinds are the kinds of rows that [Store.Published] returns, in its order.
var publishedKinds = []string{"route", "tenant", "sender", "domain", "campaign", "suppression"}

// Published returns rows whose newest version has been published, in the order of their keys, at most limit at once.
// after is the cursor: "" begins; next is the cursor of the following call, "" when there are no more rows. A page may
// be shorter than limit, or empty, without being the last one.
func (s *Store) Published(ctx context.Context, after string, limit int) (rows []schemas.PublishedRow, next string, err error) {
	kind, last, _ := strings.Cut(after, " ")
	if after == "" {
		kind = publishedKinds[0]
	}
	rows, last, err = s.publishedOf(ctx, kind, last, int64(limit))
	if err != nil {
		return nil, "", fmt.Errorf("published rows: %w", err)
	}
	if last != "" {
		return rows, kind + " " + last, nil
	}
	for i, k := range publishedKinds {
		if k == kind && i+1 < len(publishedKinds) {
			return rows, publishedKinds[i+1] + " ", nil
		}
	}
	return rows, "", nil
}

// publishedOf returns the rows of one kind with keys greater than last. end is the key of the last one, "" when there
// are no more rows.
func (s *Store) publishedOf(ctx context.Context, kind, last string, limit int64) (out []schemas.PublishedRow, end string, err error) {
	tenant, id, _ := strings.Cut(last, "/")
	add := func(typ schemas.EventType, key string, version int64, tombstone bool, at string) {
		if out = append(out, schemas.PublishedRow{Type: typ, Key: key, Version: uint64(version), Tombstone: tombstone}); int64(len(out)) == limit {
			end = at
		}
	}
	switch kind {
	case "route":
		rows, err := s.q.PublishedRoutes(ctx, last, limit)
		for _, r := range rows {
			add(schemas.TypeControl, schemas.RouteKey(r.Name), r.Version, false, r.Name)
		}
		return out, end, err
	case "tenant":
		rows, err := s.q.PublishedTenants(ctx, last, limit)
		for _, r := range rows {
			add(schemas.TypeControl, schemas.TenantKey(r.ID), r.Version, false, r.ID)
		}
		return out, end, err
	case "sender":
		rows, err := s.q.PublishedSenders(ctx, tenant, id, limit)
		for _, r := range rows {
			add(schemas.TypeControl, schemas.SenderKey(r.Tenant, r.ID), r.Version, r.Deleted, r.Tenant+"/"+r.ID)
		}
		return out, end, err
	case "domain":
		rows, err := s.q.PublishedDomains(ctx, last, limit)
		for _, r := range rows {
			add(schemas.TypeControl, schemas.DomainKey(r.Host), r.Version, r.Deleted, r.Host)
		}
		return out, end, err
	case "campaign":
		above, _ := strconv.ParseInt(last, 10, 64) // "" begins at 0
		rows, err := s.q.PublishedCampaigns(ctx, above, limit)
		for _, r := range rows {
			key := schemas.CampaignKey(r.Tenant, schemas.CampaignID(uint64(r.Number)))
			add(schemas.TypeCampaign, key, r.Version, r.Tombstone != 0, strconv.FormatInt(r.Number, 10))
		}
		return out, end, err
	case "suppression":
		rows, err := s.q.PublishedSuppressions(ctx, tenant, id, limit)
		for _, r := range rows {
			hash, err := suppressionHash(r.Tenant, r.Hash)
			if err != nil {
				return nil, "", err
			}
			add(schemas.TypeSuppression, schemas.SuppressionKey(r.Tenant, hash), r.Version, r.Lifted, r.Tenant+"/"+r.NumberKey)
		}
		return out, end, err
	default:
		return nil, "", fmt.Errorf("%q is not a cursor of Published", kind+" "+last)
	}
}
