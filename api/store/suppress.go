package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

func suppressionOf(r db.Suppression) Suppression {
	return Suppression{
		Tenant: r.Tenant, Phone: r.Phone, Source: r.Source, Reason: r.Reason, Lifted: r.Lifted, Channels: ChannelSet(r.Channels), Version: uint64(r.Version), Updated: fromMS(r.UpdatedMs),
	}
}

// OptOut is one change of an opt-out: a number in E.164 with +, a reason in words, and a channel (unspecified: all
// channels).
type OptOut struct {
	Phone, Reason string
	Channel       schemas.Channel
}

// ChannelSet is the set of channels that a number has opted out of: every channel, or single ones. The zero value is
// empty.
type ChannelSet int64

// EveryChannel is the opt-out of all channels, including channels that are added to Fanfare later.
const EveryChannel ChannelSet = 1

// SingleChannels are the channels that a number may opt out of separately.
var SingleChannels = []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice}

// Has reports whether a channel is in the set; of [schemas.ChannelUnspecified], whether all are.
func (s ChannelSet) Has(c schemas.Channel) bool { return s&(EveryChannel|1<<c) != 0 }

// Channels returns the channels of the set one by one; none when it is empty, or when it is [EveryChannel].
func (s ChannelSet) Channels() (out []schemas.Channel) {
	for _, c := range SingleChannels {
		if s&EveryChannel == 0 && s.Has(c) {
			out = append(out, c)
		}
	}
	return out
}

// with returns the set with a channel added; unspecified adds all.
func (s ChannelSet) with(c schemas.Channel) ChannelSet {
	switch {
	case c == schemas.ChannelUnspecified:
		return EveryChannel
	case s.Has(c):
		return s
	default:
		return s | 1<<c
	}
}

// without returns the set without a channel; unspecified removes all.
func (s ChannelSet) without(c schemas.Channel) ChannelSet {
	if c == schemas.ChannelUnspecified {
		return 0
	}
	if s&EveryChannel != 0 { // the opt-outs of the other channels stay
		s = 0
		for _, other := range SingleChannels {
			s |= 1 << other
		}
	}
	return s &^ (1 << c)
}

// OptOutCause says where opt-outs come from (Source: api, import, keyword, link or carrier) and who reported them (By).
type OptOutCause struct{ Source, By string }

// factOf is the fact that a change of an opt-out comes from; the zero value: a request, which is answered once.
type factOf struct {
	id string
	ms int64
}

// errNoKeys is the error of a program that was given no keys and so cannot hash numbers.
var errNoKeys = errors.New("opt-outs need the keys of this installation")

// Suppress records opt-outs of numbers in E.164 with +. An opt-out applies to all forms of a number
// ([schemas.NumberKey]). The opt-out of a number that has opted out already does not change and is published again.
// Confirm an opt-out to the client only after [Store.WaitPublished] has returned: until then senders may hand over
// another message.
func (s *Store) Suppress(ctx context.Context, tenant, source string, phones ...string) error {
	_, err := s.putSuppressions(ctx, tenant, OptOutCause{Source: source}, factOf{}, plainOptOuts(phones), false)
	return err
}

// OptOuts is [Store.Suppress] with reasons. It returns how many numbers had not opted out before.
func (s *Store) OptOuts(ctx context.Context, tenant string, cause OptOutCause, numbers ...OptOut) (changed int, err error) {
	return s.putSuppressions(ctx, tenant, cause, factOf{}, numbers, false)
}

// LiftOptOuts is [Store.Lift] with reasons. It returns how many numbers had opted out.
func (s *Store) LiftOptOuts(ctx context.Context, tenant string, cause OptOutCause, numbers ...OptOut) (changed int, err error) {
	return s.putSuppressions(ctx, tenant, cause, factOf{}, numbers, true)
}

// maxOptOutText is the most characters that the proof of an opt-out keeps of what was written.
const maxOptOutText = 1000

// RecordOptOut opts a person out who asked for it himself. A fact that was recorded before changes nothing, whatever
// has happened since. An error that is [schemas.ErrNotFound] is permanent: there is no such tenant.
func (s *Store) RecordOptOut(ctx context.Context, o *schemas.OptOutFact) error {
	if o.ID == "" {
		return errors.New("opt-out: the fact has no id")
	}
	cause, fact := OptOutCause{Source: o.Source, By: o.By}, factOf{o.ID, o.Time.UnixMilli()}
	change := OptOut{Phone: o.Phone, Reason: cutText(o.Text, maxOptOutText), Channel: o.Channel}
	if o.Phone != "" {
		_, err := s.putSuppressions(ctx, o.Tenant, cause, fact, []OptOut{change}, false)
		return err
	}
	if b, err := hex.DecodeString(o.Hash); err != nil || len(b) != 8 {
		return errors.New("opt-out: the fact has no number")
	}
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, o.Tenant); err != nil {
			return found(err, "tenant", o.Tenant)
		}
		if err := tx.lockMembers(ctx, o.Tenant); err != nil {
			return err
		}
		// The person may have come back with the number since.
		key, phone := erasedMark+o.Hash, ""
		err := tx.raw.QueryRowContext(ctx, "SELECT number_key, phone FROM suppressions WHERE tenant = ? AND hash = ?", o.Tenant, o.Hash).Scan(&key, &phone)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if phone == "" {
			change.Reason = "" // the text of an erased person
		}
		change.Phone = phone
		_, err = s.putSuppression(ctx, tx, o.Tenant, cause, fact, change, key, o.Hash, false)
		return err
	})
	if err != nil {
		return fmt.Errorf("opt-out of an erased person: %w", err)
	}
	return nil
}

func plainOptOuts(phones []string) []OptOut {
	out := make([]OptOut, len(phones))
	for i, phone := range phones {
		out[i].Phone = phone
	}
	return out
}

// Lift lifts opt-outs. A number that has no opt-out does not change; if it had one before, its record is published
// again.
func (s *Store) Lift(ctx context.Context, tenant, source string, phones ...string) error {
	_, err := s.putSuppressions(ctx, tenant, OptOutCause{Source: source}, factOf{}, plainOptOuts(phones), true)
	return err
}

func (s *Store) putSuppressions(
	ctx context.Context, tenant string, cause OptOutCause, fact factOf, numbers []OptOut, lifted bool,
) (changed int, err error) {
	if s.keys == nil {
		return 0, errNoKeys
	}
	err = s.write(ctx, func(tx *tx) error {
		changed = 0
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		if err := tx.lockMembers(ctx, tenant); err != nil {
			return err
		}
		for _, o := range numbers {
			wrote, err := s.changeOptOut(ctx, tx, tenant, cause, fact, o, lifted)
			if err != nil {
				return err
			}
			if wrote {
				changed++
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("opt-out: %w", err)
	}
	return changed, nil
}

// changeOptOut changes the opt-out of one number, and reports whether it was another before. The caller has locked the
// tenant's members.
func (s *Store) changeOptOut(ctx context.Context, tx *tx, tenant string, cause OptOutCause, fact factOf, o OptOut, lifted bool) (wrote bool, err error) {
	key := schemas.NumberKey(o.Phone)
	if err := s.adoptErased(ctx, tx, tenant, o.Phone, key); err != nil {
		return false, err
	}
	hash := s.keys.NumberHash(tenant, o.Phone)
	put := func() error {
		wrote, err = s.putSuppression(ctx, tx, tenant, cause, fact, o, key, hex.EncodeToString(hash[:]), lifted)
		return err
	}
	c, err := tx.GetContactByKey(ctx, tenant, key)
	switch {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return false, err
	case err != nil || c.DeletedMs > 0: // the contact is in no list
		err = put()
	default:
		err = tx.recount(ctx, tenant, c.Number, put)
	}
	return wrote, err
}

// A fact that changes nothing is written to the log of a number only while the log has fewer than sameStateMost entries
// of a day: a form that is sent every second must not fill it. The first ones are written, so that they are known when
// they are read again after the opt-out was lifted.
const (
	sameStateWithin = 24 * time.Hour
	sameStateMost   = 5
)

func (s *Store) putSuppression(
	ctx context.Context, tx *tx, tenant string, cause OptOutCause, fact factOf, o OptOut, key, hash string, lifted bool,
) (wrote bool, err error) {
	if fact.id != "" {
		if n, err := tx.CountSuppressionFact(ctx, tenant, fact.id); err != nil || n > 0 {
			return false, err
		}
	}
	row, err := tx.GetSuppression(ctx, tenant, key) // the writers of a tenant take turns
	never := errors.Is(err, sql.ErrNoRows)
	switch {
	case never && lifted: // there is nothing to lift, and no record that a tombstone would delete
		return false, nil
	case err != nil && !never:
		return false, err
	}
	before := ChannelSet(row.Channels)
	after := before.with(o.Channel)
	if lifted {
		after = before.without(o.Channel)
	}
	entry := db.InsertSuppressionLogParams{
		Tenant: tenant, NumberKey: key, Phone: o.Phone, Source: cause.Source, Lifted: lifted, Version: row.Version, TimeMs: tx.now, Reason: o.Reason, ByWhom: cause.By,
		Channels: int64(after), Scope: int64(o.Channel), Fact: fact.id,
	}
	if fact.id != "" {
		entry.TimeMs = fact.ms
	}
	if after == before { // nothing changed: publish it again, in case its topic has lost it
		if fact.id != "" {
			var recent int
			if err := tx.raw.QueryRowContext(ctx, "SELECT COUNT(*) FROM suppression_log WHERE tenant = ? AND number_key = ? AND time_ms > ?",
				tenant, key, entry.TimeMs-sameStateWithin.Milliseconds()).Scan(&recent); err != nil {
				return false, err
			}
			if recent >= sameStateMost {
				return false, nil
			}
			if err := tx.InsertSuppressionLog(ctx, entry); err != nil {
				return false, err
			}
		}
		if _, err := tx.RepublishSuppression(ctx, tenant, hash); err != nil {
			return false, err
		}
		tx.publish = true
		return false, nil
	}
	entry.Version, err = tx.PutSuppression(ctx, db.PutSuppressionParams{
		Tenant: tenant, NumberKey: key, Phone: o.Phone, Hash: hash, Source: cause.Source, Lifted: after == 0, Reason: o.Reason, Now: tx.now,
		Channels: int64(after),
	})
	if err != nil {
		return false, err
	}
	tx.publish = true
	return true, tx.InsertSuppressionLog(ctx, entry)
}

// waitPoll is how often a wait asks the database whether another process has published. A relay in this process wakes
// the wait.
const waitPoll = 20 * time.Millisecond

// WaitPublished returns when the current rows of these numbers have been published, or when ctx ends. It does not wait
// for a number that never had an opt-out.
func (s *Store) WaitPublished(ctx context.Context, tenant string, phones ...string) error {
	want := map[string]int64{}
	for _, phone := range phones {
		key := schemas.NumberKey(phone)
		row, err := s.q.GetSuppression(ctx, tenant, key)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for an opt-out: %w", err)
		}
		if row.PublishedVersion < row.Version {
			want[key] = row.Version
		}
	}
	for len(want) > 0 {
		s.mu.Lock()
		marked := s.marked
		s.mu.Unlock()
		for key, version := range want {
			row, err := s.q.GetSuppression(ctx, tenant, key)
			if err != nil {
				return fmt.Errorf("wait for an opt-out: %w", err)
			}
			if row.PublishedVersion >= version {
				delete(want, key)
			}
		}
		if len(want) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for an opt-out to be published: %w", ctx.Err())
		case <-marked:
		case <-time.After(waitPoll):
		}
	}
	return nil
}

// Suppressed reports whether a number has opted out of a channel; of [schemas.ChannelUnspecified], of all.
func (s *Store) Suppressed(ctx context.Context, tenant, phone string, channel schemas.Channel) (bool, error) {
	row, err := s.q.GetSuppression(ctx, tenant, schemas.NumberKey(phone))
	if errors.Is(err, sql.ErrNoRows) && s.keys != nil { // or that of a person who was erased
		row, err = s.q.GetSuppression(ctx, tenant, erasedMark+s.erasureHash(tenant, phone))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opt-out: %w", err)
	}
	return ChannelSet(row.Channels).Has(channel), nil
}

// Suppressions returns a page of the numbers that have opted out of anything, and how many they are. after continues
// after the key of a number ([schemas.NumberKey]), instead of at a page; "" does not.
func (s *Store) Suppressions(ctx context.Context, tenant string, page Page, after string) ([]Suppression, int, error) {
	total, err := s.q.CountSuppressions(ctx, tenant)
	if err != nil {
		return nil, 0, fmt.Errorf("count opt-outs: %w", err)
	}
	limit, offset := page.bounds()
	if after != "" {
		offset = 0
	}
	rows, err := s.q.ListSuppressions(ctx, db.ListSuppressionsParams{Tenant: tenant, Above: after, Max: limit, Skip: offset})
	out, err := all(rows, err, suppressionOf)
	if err != nil {
		return nil, 0, fmt.Errorf("opt-outs: %w", err)
	}
	return out, int(total), nil
}

// SuppressionLog returns every change of a number's opt-out, oldest first: the proof of it (X10).
func (s *Store) SuppressionLog(ctx context.Context, tenant, phone string) ([]Suppression, error) {
	rows, err := s.q.ListSuppressionLog(ctx, tenant, schemas.NumberKey(phone))
	return all(rows, err, func(r db.SuppressionLog) Suppression {
		return Suppression{
			Tenant: r.Tenant, Phone: r.Phone, Source: r.Source, Reason: r.Reason, By: r.ByWhom, Lifted: r.Lifted, Channels: ChannelSet(r.Channels), Scope: schemas.Channel(r.Scope), Version: uint64(r.Version), Updated: fromMS(r.TimeMs),
		}
	})
}
