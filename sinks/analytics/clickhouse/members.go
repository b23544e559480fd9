package clickhouse

import (
	"context"
	"slices"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// scanMember reads a row of columnsOfMember.
func scanMember(rows driver.Rows) (campaign string, m analytics.Member, err error) {
	var state uint32
	var at, sentAt, deliveredAt time.Time
	var channel string
	var message uuid.UUID
	var attempts uint64
	var clicked, replied, optedOut uint8
	err = rows.Scan(&campaign, &m.Seq, &state, &m.RawCode, &at, &m.Try, &m.Leg, &channel, &m.Route, &m.Sender, &m.ProviderID, &message,
		&m.To, &m.Country, &m.Variant, &m.ContactID, &m.CustomerRef, &attempts, &sentAt, &deliveredAt, &clicked, &replied, &optedOut)
	if err != nil {
		return "", m, err
	}
	m.State, m.Channel, m.MessageID, m.Attempts = schemas.Precedence(state), parseChannel(channel), schemas.ID(message), int(attempts)
	m.Time, m.SentAt, m.DeliveredAt = instant(at), instant(sentAt), instant(deliveredAt)
	m.OrderTimes()
	m.Clicked, m.Replied, m.OptedOut = clicked != 0, replied != 0, optedOut != 0
	return campaign, m, nil
}

// instant returns the zero time for the epoch, which stands for "no time" in ClickHouse.
func instant(t time.Time) time.Time {
	if t.UnixMilli() == 0 {
		return time.Time{}
	}
	return t.UTC()
}

// Members returns what is known about the given recipients.
func (s *Store) Members(ctx context.Context, tenant, campaign string, seqs []uint32) (out []analytics.Member, err error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	err = s.rows(ctx, "members", queryMembers, of(tenant, campaign, chgo.Named("seqs", seqs)), func(rows driver.Rows) error {
		_, m, err := scanMember(rows)
		out = append(out, m)
		return err
	})
	return out, err
}

// ByCustomerRef returns the messages that carry a client's reference.
func (s *Store) ByCustomerRef(ctx context.Context, tenant, ref string, since time.Time) (out []analytics.Referred, err error) {
	if ref == "" {
		return nil, nil
	}
	return s.messages(ctx, "messages by reference", queryByRef, tenant, since, chgo.Named("ref", ref))
}

// ByNumber returns the messages to any of the numbers.
func (s *Store) ByNumber(ctx context.Context, tenant string, numbers []string, since time.Time) ([]analytics.Referred, error) {
	numbers = slices.DeleteFunc(slices.Clone(numbers), func(n string) bool { return n == "" })
	return s.messages(ctx, "messages by number", queryByNumber, tenant, since, chgo.Named("numbers", numbers))
}

func (s *Store) messages(ctx context.Context, name, query, tenant string, since time.Time, by any) (out []analytics.Referred, err error) {
	month := analytics.MonthOf(since)
	if month.Before(time.Unix(0, 0)) {
		month = time.Unix(0, 0).UTC() // the first date that ClickHouse has
	}
	args := []any{chgo.Named("tenant", tenant), by, chgo.Named("month", month.Format(time.DateOnly))}
	err = s.rows(ctx, name, query, args, func(rows driver.Rows) error {
		campaign, m, err := scanMember(rows)
		out = append(out, analytics.Referred{Campaign: campaign, Member: m})
		return err
	})
	return out, err
}

// History returns all events of one recipient.
func (s *Store) History(ctx context.Context, tenant, campaign string, seq uint32) (out []analytics.Event, err error) {
	c := &analytics.Campaign{Tenant: tenant, ID: campaign}
	err = s.rows(ctx, "history", queryHistory, of(tenant, campaign, chgo.Named("seq", seq)), func(rows driver.Rows) error {
		e := analytics.Event{Campaign: c, Seq: seq}
		var offset uint64
		var at time.Time
		var kind int8
		var p uint32
		var channel string
		var message uuid.UUID
		if err := rows.Scan(&c.Month, &offset, &at, &kind, &p, &channel, &e.Try, &e.Leg, &e.Variant, &e.Segments, &e.PriceMicros, &e.ContactID, &message,
			&e.Route, &e.Sender, &e.Country, &e.Currency, &e.RawCode, &e.LinkID, &e.To, &e.ProviderID, &e.CustomerRef); err != nil {
			return err
		}
		c.Month = c.Month.UTC()
		e.Offset, e.TimeMS, e.Kind, e.Code = int64(offset), at.UnixMilli(), schemas.Kind(kind), schemas.Precedence(p).Code()
		e.Channel, e.MessageID = parseChannel(channel), schemas.ID(message)
		out = append(out, e)
		return nil
	})
	return out, err
}

// FindRecipient returns the first 100 seqs with a number.
func (s *Store) FindRecipient(ctx context.Context, tenant, campaign, to string) (out []uint32, err error) {
	if to == "" {
		return nil, nil
	}
	err = s.rows(ctx, "recipients", queryFindRecipient, of(tenant, campaign, chgo.Named("recipient", to)), func(rows driver.Rows) error {
		var seq uint32
		err := rows.Scan(&seq)
		out = append(out, seq)
		return err
	})
	return out, err
}
