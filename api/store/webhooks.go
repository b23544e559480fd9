package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// KindWebhook is an endpoint to which the webhook stage posts a tenant's events. Its document is
// [schemas.WebhookSettings].
const KindWebhook Kind = "webhook"

// Statuses of a webhook. The webhook stage disables an endpoint that answers 410 Gone or fails for a long time.
const (
	WebhookActive   = "active"
	WebhookPaused   = "paused"
	WebhookDisabled = "disabled"
)

// How long events of webhooks are kept.
const (
	// webhookEndedLife is how long an event is kept after it was delivered or given up. Until then it is listed, and
	// recognised when it is queued again.
	webhookEndedLife = 7 * 24 * time.Hour
	// webhookLife is how long an event is kept that waits for a paused or disabled endpoint: as long as topic
	// deliveries keeps it.
	webhookLife = 35 * 24 * time.Hour
)

// webhookID returns the public id of an endpoint.
func webhookID(number uint64) string {
	return (&Resource{Kind: KindWebhook, Number: number}).ID()
}

// noteWebhook updates the row that the webhook stage reads for a resource of kind webhook, in the transaction that
// writes the resource.
func (t *tx) noteWebhook(ctx context.Context, was string, r *Resource) error {
	if r.Kind != KindWebhook {
		return nil
	}
	if err := t.AddWebhookHealth(ctx, int64(r.Number), r.Tenant); err != nil {
		return err
	}
	if r.Status == WebhookActive && was != WebhookActive { // it starts again without old failures
		if err := t.ResetWebhookHealth(ctx, int64(r.Number)); err != nil {
			return err
		}
	}
	_, err := t.Counter(ctx, 1, "webhook_change")
	return err
}

// WebhookChanges returns a number that changes with each change of an endpoint.
func (s *Store) WebhookChanges(ctx context.Context) (int64, error) {
	n, err := s.q.CounterValue(ctx, "webhook_change")
	if err != nil {
		return 0, fmt.Errorf("read changes of webhooks: %w", err)
	}
	return n, nil
}

// Webhooks returns the active endpoints of all tenants.
func (s *Store) Webhooks(ctx context.Context) ([]schemas.Webhook, error) {
	rows, err := s.q.WebhookResources(ctx)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	out := make([]schemas.Webhook, len(rows))
	for i, r := range rows {
		out[i] = schemas.Webhook{Tenant: r.Tenant, Number: uint64(r.Number), Created: fromMS(r.CreatedMs)}
		if err := json.Unmarshal([]byte(r.Doc), &out[i].WebhookSettings); err != nil {
			return nil, fmt.Errorf("read the settings of %s: %w", webhookID(out[i].Number), err)
		}
	}
	return out, nil
}

// queuedAtOnce is how many events one statement writes. Prepared statements are kept, so there are only two sizes: this
// one and 1.
const queuedAtOnce = 32

// QueueWebhooks queues events for endpoints, and stores the clients' references of messages. An event that is already
// queued for an endpoint does not change. Items with the same Order keep their order.
func (s *Store) QueueWebhooks(ctx context.Context, items []schemas.WebhookItem, refs []schemas.WebhookReference) error {
	err := s.write(ctx, func(tx *tx) error {
		for _, r := range refs {
			_, err := tx.raw.ExecContext(ctx, `INSERT INTO webhook_references (tenant, message, reference, seen_ms) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, message) DO NOTHING`,
				r.Tenant, r.Message, r.Reference, tx.now)
			if err != nil {
				return err
			}
		}
		if len(items) == 0 {
			return nil
		}
		next, err := tx.Counter(ctx, int64(len(items)), "webhook_item")
		if err != nil {
			return err
		}
		id := next - int64(len(items))
		for part := range slices.Chunk(items, queuedAtOnce) {
			if len(part) < queuedAtOnce {
				for i := range part {
					if err := tx.queueWebhooks(ctx, part[i:i+1], id); err != nil {
						return err
					}
					id++
				}
				continue
			}
			if err := tx.queueWebhooks(ctx, part, id); err != nil {
				return err
			}
			id += queuedAtOnce
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue events of webhooks: %w", err)
	}
	return nil
}

func (t *tx) queueWebhooks(ctx context.Context, items []schemas.WebhookItem, id int64) error {
	const row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, 0, 0, '', '', 0)"
	query := `INSERT INTO webhook_items (id, tenant, endpoint, event_id, type, ordering, data, time_ms, due_ms, state, tries, queued_ms, tried_ms, status, answer, failure, took_ms)
VALUES ` + strings.Repeat(row+", ", len(items)-1) + row + ` ON CONFLICT (endpoint, event_id) DO NOTHING`
	args := make([]any, 0, 10*len(items))
	for i := range items {
		it := &items[i]
		due := ms(it.Due)
		if it.Due.IsZero() {
			due = t.now
		}
		args = append(args, id+int64(i), it.Tenant, int64(it.Endpoint), it.EventID, it.Type, it.Order, string(it.Data), ms(it.Time), due, t.now)
	}
	_, err := t.raw.ExecContext(ctx, query, args...)
	return err
}

// ClaimWebhooks makes owner the process that delivers to endpoints without an owner, until it has at most most of them,
// and prolongs the leases it has. When a lease expires, another process can claim the endpoint.
func (s *Store) ClaimWebhooks(ctx context.Context, owner string, lease time.Duration, most int) error {
	err := s.write(ctx, func(tx *tx) error {
		until := tx.now + lease.Milliseconds()
		if err := tx.RenewWebhooks(ctx, until, owner, tx.now); err != nil {
			return err
		}
		have, err := tx.CountOwnedWebhooks(ctx, owner, tx.now)
		if err != nil || have >= int64(most) {
			return err
		}
		return tx.ClaimWebhooks(ctx, db.ClaimWebhooksParams{Owner: owner, Until: until, Now: tx.now, Max: int64(most) - have})
	})
	if err != nil {
		return fmt.Errorf("claim webhooks: %w", err)
	}
	return nil
}

// ReleaseWebhooks ends all leases of owner.
func (s *Store) ReleaseWebhooks(ctx context.Context, owner string) error {
	return s.write(ctx, func(tx *tx) error { return tx.ReleaseWebhooks(ctx, owner) })
}

// OwnedWebhooks returns the health of owner's endpoints, and when the next event of each is due.
func (s *Store) OwnedWebhooks(ctx context.Context, owner string) ([]schemas.WebhookHealth, error) {
	rows, err := s.q.OwnedWebhooks(ctx, owner, s.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read webhooks of this process: %w", err)
	}
	return all(rows, nil, func(r db.OwnedWebhooksRow) schemas.WebhookHealth {
		return schemas.WebhookHealth{
			Endpoint: uint64(r.Endpoint), NotBefore: fromMS(r.NotBeforeMs), Failures: int(r.Failures), Failing: fromMS(r.FailingMs),
			Succeeded: fromMS(r.SucceededMs), Recover: fromMS(r.RecoverMs), Due: fromMS(r.DueMs),
		}
	})
}

// WebhookHealth returns the health of a tenant's endpoint, and how many events wait for it, counted up to 10,000.
func (s *Store) WebhookHealth(ctx context.Context, tenant string, number uint64) (h schemas.WebhookHealth, pending int, err error) {
	r, err := s.q.WebhookHealth(ctx, int64(number), tenant)
	if err != nil {
		return h, 0, found(err, string(KindWebhook), webhookID(number))
	}
	n, err := s.q.CountPendingWebhooks(ctx, int64(number))
	if err != nil {
		return h, 0, fmt.Errorf("count events of %s: %w", webhookID(number), err)
	}
	return schemas.WebhookHealth{
		Endpoint: number, NotBefore: fromMS(r.NotBeforeMs), Failures: int(r.Failures), Failing: fromMS(r.FailingMs), Succeeded: fromMS(r.SucceededMs),
		Recover: fromMS(r.RecoverMs),
	}, int(n), nil
}

func webhookItemOf(r db.WebhookItem, reference string) schemas.WebhookItem {
	return schemas.WebhookItem{
		ID: uint64(r.ID), Tenant: r.Tenant, Endpoint: uint64(r.Endpoint), EventID: r.EventID, Type: r.Type, Order: r.Ordering, Data: []byte(r.Data),
		Reference: reference, Time: fromMS(r.TimeMs), Due: fromMS(r.DueMs), State: schemas.WebhookItemState(r.State), Tries: int(r.Tries),
		Tried: fromMS(r.TriedMs), Status: int(r.Status), Answer: r.Answer, Error: r.Failure, Took: millis(r.TookMs),
	}
}

// DueWebhooks returns the events that are due for an endpoint now: the first pending one of each Order.
func (s *Store) DueWebhooks(ctx context.Context, endpoint uint64, most int) ([]schemas.WebhookItem, error) {
	rows, err := s.q.DueWebhooks(ctx, int64(endpoint), s.now().UnixMilli(), int64(most))
	if err != nil {
		return nil, fmt.Errorf("read events due for %s: %w", webhookID(endpoint), err)
	}
	return all(rows, nil, func(r db.DueWebhooksRow) schemas.WebhookItem { return webhookItemOf(r.WebhookItem, r.Reference) })
}

// SettleWebhooks records the results of tries to post events.
func (s *Store) SettleWebhooks(ctx context.Context, outcomes []schemas.WebhookOutcome) error {
	err := s.write(ctx, func(tx *tx) error {
		for i := range outcomes {
			for j := range outcomes[i].Items {
				it := &outcomes[i].Items[j]
				data := string(it.Data)
				if it.State == schemas.WebhookDone {
					data = ""
				}
				err := tx.SettleWebhook(ctx, db.SettleWebhookParams{
					State: int64(it.State), Data: data, Tries: int64(it.Tries), DueMs: ms(it.Due), TriedMs: ms(it.Tried), Status: int64(it.Status),
					Answer: it.Answer, Failure: it.Error, TookMs: it.Took.Milliseconds(), ID: int64(it.ID),
				})
				if err != nil {
					return err
				}
			}
			h := &outcomes[i].Health
			err := tx.SettleWebhookHealth(ctx, db.SettleWebhookHealthParams{
				NotBeforeMs: ms(h.NotBefore), Failures: int64(h.Failures), FailingMs: ms(h.Failing), SucceededMs: ms(h.Succeeded), Endpoint: int64(outcomes[i].Endpoint),
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record results of webhooks: %w", err)
	}
	return nil
}

// DisableWebhook disables an active endpoint, with the reason that its tenant reads.
func (s *Store) DisableWebhook(ctx context.Context, tenant string, number uint64, reason string) error {
	_, err := s.ChangeResource(ctx, tenant, KindWebhook, number, 0, func(r *Resource) error {
		if r.Status != WebhookActive {
			return nil
		}
		var set schemas.WebhookSettings
		if err := json.Unmarshal(r.Doc, &set); err != nil {
			return err
		}
		set.Reason, set.Disabled = reason, s.now().UTC().Truncate(time.Millisecond)
		doc, err := json.Marshal(&set)
		r.Status, r.Doc = WebhookDisabled, doc
		return err
	})
	if isNotFound(err) {
		return nil // deleted meanwhile
	}
	return err
}

// RecoverWebhook orders that the events of an endpoint since a time are posted again: those that failed, and those that
// were never queued. It returns how many failed events it has queued again. The webhook stage later reads those that
// were never queued from topic deliveries.
func (s *Store) RecoverWebhook(ctx context.Context, tenant string, number uint64, since time.Time) (int, error) {
	var n int64
	err := s.write(ctx, func(tx *tx) error {
		var err error
		n, err = tx.RecoverWebhookItems(ctx, db.RecoverWebhookItemsParams{Now: tx.now, Tenant: tenant, Endpoint: int64(number), Since: ms(since)})
		if err != nil {
			return err
		}
		known, err := tx.RecoverWebhook(ctx, ms(since), int64(number), tenant)
		if err == nil && known == 0 {
			return notFound(string(KindWebhook), webhookID(number))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("recover %s: %w", webhookID(number), err)
	}
	return int(n), nil
}

// RecoveredWebhook records that the stage has queued all events that [Store.RecoverWebhook] asked for since that time.
func (s *Store) RecoveredWebhook(ctx context.Context, number uint64, since time.Time) error {
	return s.write(ctx, func(tx *tx) error { return tx.RecoveredWebhook(ctx, int64(number), ms(since)) })
}

// HurryWebhook makes the next try of a tenant's endpoint due now.
func (s *Store) HurryWebhook(ctx context.Context, tenant string, number uint64) error {
	return s.write(ctx, func(tx *tx) error { return tx.HurryWebhook(ctx, int64(number), tenant) })
}

// WebhookFilter says which events of an endpoint to list, newest first.
type WebhookFilter struct {
	State *schemas.WebhookItemState // nil: any
	Limit int                       // at most 1,000; default 10
	After uint64                    // the id of the last event of the page before; 0: from the newest
}

// WebhookItems lists the events of a tenant's endpoint.
func (s *Store) WebhookItems(ctx context.Context, tenant string, number uint64, f WebhookFilter) ([]schemas.WebhookItem, error) {
	limit, _ := Page{Limit: f.Limit}.bounds()
	state := int64(-1)
	if f.State != nil {
		state = int64(*f.State)
	}
	rows, err := s.q.ListWebhookItems(ctx, db.ListWebhookItemsParams{Endpoint: int64(number), Tenant: tenant, State: state, Below: int64(f.After), Max: limit})
	if err != nil {
		return nil, fmt.Errorf("list events of %s: %w", webhookID(number), err)
	}
	return all(rows, nil, func(r db.ListWebhookItemsRow) schemas.WebhookItem { return webhookItemOf(r.WebhookItem, r.Reference) })
}

// WebhookItem returns one event of a tenant's endpoint. The error is [schemas.ErrNotFound] when there is none.
func (s *Store) WebhookItem(ctx context.Context, tenant string, number uint64, event string) (schemas.WebhookItem, error) {
	r, err := s.q.WebhookItem(ctx, tenant, int64(number), event)
	return webhookItemOf(r, ""), found(err, "event", event)
}

// CampaignMoves returns the changes of state of a campaign, oldest first; none when there is no such campaign.
func (s *Store) CampaignMoves(ctx context.Context, tenant, id string) ([]schemas.CampaignMove, error) {
	events, err := s.CampaignEvents(ctx, tenant, id)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []schemas.CampaignMove
	for i := range events {
		e := &events[i]
		if e.From != e.To {
			out = append(out, schemas.CampaignMove{ID: strconv.FormatUint(e.ID, 10), From: e.From, To: e.To, Reason: e.Reason, Time: e.Time})
		}
	}
	return out, nil
}

// collectWebhooks removes events that ended a week ago, events that have waited longer than [webhookLife], all events
// of deleted endpoints, and references of messages that can have no receipt any more.
func (s *Store) collectWebhooks(ctx context.Context) error {
	const atOnce = 2000
	now := s.now()
	endpoints, err := s.q.WebhookEndpointsOfItems(ctx)
	if err != nil {
		return fmt.Errorf("find events of webhooks: %w", err)
	}
	for _, e := range endpoints {
		unfetched, ended := now.Add(-webhookLife).UnixMilli(), now.Add(-webhookEndedLife).UnixMilli()
		if e.DeletedMs > 0 {
			unfetched = now.UnixMilli() + 1
		}
		for more := true; more; {
			oldest, err := s.q.OldestWebhookItems(ctx, e.Endpoint, atOnce)
			if err != nil {
				return fmt.Errorf("find old events of webhooks: %w", err)
			}
			if len(oldest) == 0 {
				if e.DeletedMs > 0 {
					err = s.write(ctx, func(tx *tx) error { return tx.DropWebhookHealth(ctx, e.Endpoint) })
				}
				if err != nil {
					return err
				}
				break
			}
			if oldest[0].QueuedMs >= max(unfetched, ended) {
				break
			}
			var gone int64
			if err := s.write(ctx, func(tx *tx) error {
				gone, err = tx.DropWebhookItems(ctx, db.DropWebhookItemsParams{Endpoint: e.Endpoint, Last: oldest[len(oldest)-1].ID, AllBefore: unfetched, EndedBefore: ended})
				return err
			}); err != nil {
				return fmt.Errorf("drop old events of webhooks: %w", err)
			}
			// More may be left; after the last event of a deleted endpoint, its health row is removed too
			more = gone == atOnce || gone > 0 && e.DeletedMs > 0
		}
	}
	return s.write(ctx, func(tx *tx) error {
		_, err := tx.DropWebhookReferences(ctx, now.Add(-webhookLife).UnixMilli())
		return err
	})
}
