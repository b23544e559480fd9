package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/sinks/analytics"
)

// queryNumbered finds the recipients with one of the numbers, by the index of recipients.
const queryNumbered = `
SELECT DISTINCT campaign_id, seq FROM events WHERE tenant_id = {tenant:String} AND recipient IN {numbers:Array(String)}`

// eraseEvents removes the fields that identify a person from the events of recipients. It rewrites the parts that have
// these events, and returns when every replica has done so. ClickHouse removes the old parts from disk after
// old_parts_lifetime, by default eight minutes.
const eraseEvents = `
ALTER TABLE events UPDATE recipient = '', contact_id = 0, provider_id = '', customer_ref = ''
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND seq IN {seqs:Array(UInt32)}
SETTINGS mutations_sync = 2`

// Erase removes from the events what identifies a person.
func (s *Store) Erase(ctx context.Context, tenant string, numbers []string, recipients map[string]*roaring.Bitmap) (map[string]*roaring.Bitmap, error) {
	if s.closed.Load() {
		return nil, analytics.ErrClosed
	}
	out := map[string]*roaring.Bitmap{}
	for campaign, seqs := range recipients {
		if !seqs.IsEmpty() {
			out[campaign] = seqs.Clone()
		}
	}
	args := []any{chgo.Named("tenant", tenant), chgo.Named("numbers", numbers)}
	err := s.rows(ctx, "recipients to erase", queryNumbered, args, func(rows driver.Rows) error {
		var campaign string
		var seq uint32
		if err := rows.Scan(&campaign, &seq); err != nil {
			return err
		}
		if out[campaign] == nil {
			out[campaign] = roaring.New()
		}
		out[campaign].Add(seq)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, campaign := range slices.Sorted(maps.Keys(out)) {
		if err := s.conn.Exec(ctx, eraseEvents, of(tenant, campaign, chgo.Named("seqs", out[campaign].ToArray()))...); err != nil {
			return nil, fmt.Errorf("erase from %s: %w", campaign, err)
		}
	}
	return out, nil
}
