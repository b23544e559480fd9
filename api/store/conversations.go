package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"fanfare/schemas"
)

// States of a conversation. A message from the recipient opens a closed conversation again.
const (
	ConversationOpen   = "open"
	ConversationClosed = "closed"
)

// States of the review of a message that may ask for an opt-out.
const (
	ReviewOpen      = "open"
	ReviewOptedOut  = "opted_out"
	ReviewDismissed = "dismissed"
)

// Conversation is all messages between one number and one sender of a tenant on one channel.
type Conversation struct {
	ID, Tenant    string
	Phone, Sender string
	Channel       schemas.Channel
	// Route is the route on which the last message came in.
	Route string
	// State is open or closed. Assigned is the e-mail address or the name of the person who answers, "" if there is
	// none.
	State, Assigned string
	// Unread counts the messages that came in after a user last read the conversation. Reviews counts the messages that
	// wait for a decision about an opt-out.
	Unread, Reviews int
	// Campaign is the campaign that the last message answered; "" if it is not known.
	Campaign string
	Test     bool
	LastText string
	LastOut  bool
	// Last is the time of the newest message, Came the time of the newest message from the recipient.
	Last, Came, Created time.Time
	Version             uint64
}

// ConversationMessage is one message of a conversation.
type ConversationMessage struct {
	ID           uint64
	Conversation string
	Out          bool
	Text         string
	Meaning      schemas.ReplyMeaning
	// Review is a state of a review, or "" if the message needs none.
	Review string
	// Message is, for a message that came in, the id of the message that it answers; for one that was sent, its own id.
	// Campaign is the campaign of the answered message.
	Message, Campaign string
	// By is the author of a message that was sent, or the person who decided about a review; "" if there is none.
	By       string
	Segments uint32
	Price    uint64 // price of one segment, in micro-units
	Time     time.Time
}

// Review is a message that waits for a decision about an opt-out, with its conversation.
type Review struct {
	ConversationMessage
	Phone, Sender string
	Channel       schemas.Channel
}

// OptOutNotice is a message that confirms an opt-out or its end.
type OptOutNotice struct {
	Conversation Conversation
	Text         string
	// OptedOut says that the person has opted out; false means that the opt-out has ended.
	OptedOut bool
	Created  time.Time
}

// ConversationFilter says which conversations to list. The list begins with the one that has the newest message.
type ConversationFilter struct {
	Page
	// State is open or closed; "" means both. Assigned lists only conversations of this person, Unassigned only those
	// of no person. Unread lists only conversations with unread messages, Review only those with a message that waits
	// for a decision.
	State, Assigned            string
	Unassigned, Unread, Review bool
	// Phone is a part of the phone number.
	Phone string
	// Before continues a page: only conversations before the one with this time and id.
	Before   time.Time
	BeforeID string
}

const conversationColumns = `id, tenant, phone, channel, sender, route, state, assigned, unread, reviews, campaign, test, last_text, last_out, last_ms, came_ms, created_ms, version`

func scanConversation(row interface{ Scan(...any) error }) (c Conversation, err error) {
	var channel, last, came, created, version int64
	err = row.Scan(&c.ID, &c.Tenant, &c.Phone, &channel, &c.Sender, &c.Route, &c.State, &c.Assigned, &c.Unread, &c.Reviews, &c.Campaign, &c.Test, &c.LastText, &c.LastOut,
		&last, &came, &created, &version)
	c.Channel, c.Last, c.Came, c.Created, c.Version = schemas.Channel(channel), fromMS(last), fromMS(came), fromMS(created), uint64(version)
	return c, err
}

const messageColumns = `m.id, m.conversation, m.outgoing, m.body, m.meaning, m.review, m.message, m.campaign, m.by_whom, m.segments, m.price_micros, m.time_ms`

func scanMessage(row interface{ Scan(...any) error }, more ...any) (m ConversationMessage, err error) {
	var meaning, segments, price, at int64
	err = row.Scan(append([]any{&m.ID, &m.Conversation, &m.Out, &m.Text, &meaning, &m.Review, &m.Message, &m.Campaign, &m.By, &segments, &price, &at}, more...)...)
	m.Meaning, m.Segments, m.Price, m.Time = schemas.ReplyMeaning(meaning), uint32(segments), uint64(price), fromMS(at)
	return m, err
}

// The longest texts that the store keeps, in characters. A longer text is cut. A text of ten segments has up to 1,530.
const (
	maxMessageText = 4000
	maxPreview     = 200
)

func cutText(s string, most int) string {
	r := []rune(strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD"))
	if len(r) > most {
		r = r[:most]
	}
	return string(r)
}

// Queries on conversations.
const (
	insertConversation = `INSERT INTO conversations (id, tenant, phone, number_key, channel, sender, route, state, assigned, unread, reviews, campaign, test,
  last_text, last_out, last_ms, came_ms, created_ms, version) VALUES (?, ?, ?, ?, ?, ?, ?, 'open', '', 0, 0, '', ?, '', FALSE, 0, 0, ?, 0) ON CONFLICT (id) DO NOTHING`
	cameIn = `UPDATE conversations SET route = ?, state = 'open', unread = unread + 1, reviews = reviews + ?, campaign = CASE WHEN ? <> '' THEN ? ELSE campaign END, test = ?,
  last_text = ?, last_out = FALSE, last_ms = CASE WHEN last_ms > ? THEN last_ms ELSE ? END, came_ms = CASE WHEN came_ms > ? THEN came_ms ELSE ? END, version = version + 1
WHERE tenant = ? AND id = ?`
	wentOut = `UPDATE conversations SET last_text = ?, last_out = TRUE, last_ms = CASE WHEN last_ms > ? THEN last_ms ELSE ? END, version = version + 1
WHERE tenant = ? AND id = ?`
	insertMessage = `INSERT INTO conversation_messages (tenant, conversation, fact, outgoing, body, meaning, review, message, campaign, by_whom, segments, price_micros, time_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

// RecordMessage writes a message of a recipient and its effects in one transaction: the opt-out or its end with the
// proof, and, if that changed something, a confirmation to be sent. If the message is recorded already, nothing
// changes. RecordMessage returns the id of the conversation. The error [schemas.ErrNotFound] is permanent: the tenant
// does not exist.
func (s *Store) RecordMessage(ctx context.Context, f *schemas.MessageFact) (conversation string, err error) {
	if s.keys == nil {
		return "", errNoKeys
	}
	if f.ID == "" || f.Phone == "" || f.Sender == "" {
		return "", errors.New("record a message: the fact has no id, no number or no sender")
	}
	conversation = schemas.ConversationID(f.Tenant, f.Channel, f.Sender, f.Phone)
	text := cutText(f.Text, maxMessageText)
	err = s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, f.Tenant); err != nil {
			return found(err, "tenant", f.Tenant)
		}
		if err := tx.lockMembers(ctx, f.Tenant); err != nil { // one writer per tenant at a time
			return err
		}
		var known int
		if err := tx.raw.QueryRowContext(ctx, "SELECT COUNT(*) FROM conversation_messages WHERE tenant = ? AND fact = ? AND fact <> ''", f.Tenant, f.ID).Scan(&known); err != nil || known > 0 {
			return err
		}
		at, review, reviews := ms(f.Time), "", 0
		if f.Meaning == schemas.ReplyMeaningReview {
			review, reviews = ReviewOpen, 1
		}
		for _, q := range []struct {
			query string
			args  []any
		}{
			{insertConversation, []any{conversation, f.Tenant, f.Phone, schemas.NumberKey(f.Phone), int64(f.Channel), f.Sender, f.Route, f.Test, tx.now}},
			{insertMessage, []any{f.Tenant, conversation, f.ID, false, text, int64(f.Meaning), review, f.Message, f.Campaign, "", 0, 0, at}},
			{cameIn, []any{f.Route, reviews, f.Campaign, f.Campaign, f.Test, cutText(text, maxPreview), at, at, at, at, f.Tenant, conversation}},
		} {
			if _, err := tx.raw.ExecContext(ctx, q.query, q.args...); err != nil {
				return err
			}
		}
		if f.Meaning != schemas.ReplyMeaningOptOut && f.Meaning != schemas.ReplyMeaningOptIn {
			return nil
		}
		lift := f.Meaning == schemas.ReplyMeaningOptIn
		if lift {
			// A START that the stage handles late or twice does not end an opt-out that the person made after it.
			var newest int64
			if err := tx.raw.QueryRowContext(ctx, "SELECT COALESCE(MAX(time_ms), 0) FROM suppression_log WHERE tenant = ? AND number_key = ? AND NOT lifted",
				f.Tenant, schemas.NumberKey(f.Phone)).Scan(&newest); err != nil || newest > at {
				return err
			}
		}
		changed, err := s.changeOptOut(ctx, tx, f.Tenant, OptOutCause{Source: "keyword", By: f.Message}, factOf{f.ID, at},
			OptOut{Phone: f.Phone, Reason: cutText(text, maxOptOutText), Channel: f.Channel}, lift)
		if err != nil || !changed || f.Confirmation == "" {
			return err
		}
		var asked int
		if err := tx.raw.QueryRowContext(ctx, "SELECT COUNT(*) FROM suppression_log WHERE tenant = ? AND number_key = ? AND source = 'keyword' AND time_ms > ?",
			f.Tenant, schemas.NumberKey(f.Phone), at-sameStateWithin.Milliseconds()).Scan(&asked); err != nil || asked > mostConfirmed {
			return err
		}
		return insertConfirmation(ctx, tx, f.Tenant, conversation, f.Confirmation, !lift, tx.now)
	})
	if err != nil {
		return "", fmt.Errorf("record a message: %w", err)
	}
	return conversation, nil
}

// mostConfirmed is how many opt-outs and opt-ins by keyword are confirmed for one number within 24 hours. Confirmations
// cost the tenant money, and a person can write STOP and START as often as they like.
const mostConfirmed = 4

func insertConfirmation(ctx context.Context, tx *tx, tenant, conversation, body string, optedOut bool, created int64) error {
	_, err := tx.raw.ExecContext(ctx, "INSERT INTO confirmations (tenant, conversation, body, opted_out, created_ms) VALUES (?, ?, ?, ?, ?)",
		tenant, conversation, body, optedOut, created)
	return err
}

// PutBackConfirmation stores a confirmation again that was taken and not sent, so that TakeConfirmations returns it
// again.
func (s *Store) PutBackConfirmation(ctx context.Context, n *OptOutNotice) error {
	err := s.write(ctx, func(tx *tx) error {
		return insertConfirmation(ctx, tx, n.Conversation.Tenant, n.Conversation.ID, n.Text, n.OptedOut, ms(n.Created))
	})
	if err != nil {
		return fmt.Errorf("put a confirmation back: %w", err)
	}
	return nil
}

// confirmationLife is how long a confirmation may wait. A later one would surprise the recipient.
const confirmationLife = time.Hour

// TakeConfirmations removes up to most confirmations from the store and returns them. Each is returned to one
// process, and again only after PutBackConfirmation. Confirmations that have waited for more than an hour are dropped.
func (s *Store) TakeConfirmations(ctx context.Context, most int) (out []OptOutNotice, err error) {
	var waiting int // usually none waits, and then nothing is written
	if err := s.d.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM (SELECT id FROM confirmations LIMIT 1) AS c").Scan(&waiting); err != nil || waiting == 0 {
		return nil, err
	}
	err = s.write(ctx, func(tx *tx) error {
		out = nil
		rows, err := tx.raw.QueryContext(ctx, `DELETE FROM confirmations WHERE id IN (SELECT c.id FROM confirmations c ORDER BY c.id LIMIT ?)
RETURNING tenant, conversation, body, opted_out, created_ms`, most)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		type taken struct {
			tenant, conversation, body string
			optedOut                   bool
			created                    int64
		}
		var list []taken
		for rows.Next() {
			var t taken
			if err := rows.Scan(&t.tenant, &t.conversation, &t.body, &t.optedOut, &t.created); err != nil {
				return err
			}
			list = append(list, t)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, t := range list {
			if tx.now-t.created > confirmationLife.Milliseconds() {
				continue
			}
			c, err := scanConversation(tx.raw.QueryRowContext(ctx, "SELECT "+conversationColumns+" FROM conversations WHERE tenant = ? AND id = ?", t.tenant, t.conversation))
			if errors.Is(err, sql.ErrNoRows) { // the person was erased
				continue
			}
			if err != nil {
				return err
			}
			out = append(out, OptOutNotice{c, t.body, t.optedOut, fromMS(t.created)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take confirmations: %w", err)
	}
	return out, nil
}

// AddReply adds a message that was sent to a conversation.
func (s *Store) AddReply(ctx context.Context, tenant string, m *ConversationMessage) error {
	err := s.write(ctx, func(tx *tx) error {
		at := ms(m.Time)
		n, err := affected(tx.raw.ExecContext(ctx, wentOut, cutText(m.Text, maxPreview), at, at, tenant, m.Conversation))
		if err != nil {
			return err
		}
		if n == 0 {
			return notFound("conversation", m.Conversation)
		}
		_, err = tx.raw.ExecContext(ctx, insertMessage, tenant, m.Conversation, "", true, cutText(m.Text, maxMessageText), 0, "", m.Message, m.Campaign, m.By, m.Segments, int64(m.Price), at)
		return err
	})
	if err != nil {
		return fmt.Errorf("add a reply: %w", err)
	}
	return nil
}

// Conversation returns a conversation.
func (s *Store) Conversation(ctx context.Context, tenant, id string) (Conversation, error) {
	c, err := scanConversation(s.d.read.QueryRowContext(ctx, "SELECT "+conversationColumns+" FROM conversations WHERE tenant = ? AND id = ?", tenant, id))
	return c, found(err, "conversation", id)
}

// ConversationCounts counts the conversations of a tenant that need a person.
type ConversationCounts struct {
	Open, Unread, Reviews int
}

// CountConversations counts the open conversations, those with unread messages, and the messages that wait for a
// decision.
func (s *Store) CountConversations(ctx context.Context, tenant string) (n ConversationCounts, err error) {
	err = s.d.read.QueryRowContext(ctx, `SELECT COALESCE(SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN unread > 0 THEN 1 ELSE 0 END), 0), COALESCE(SUM(reviews), 0)
FROM conversations WHERE tenant = ?`, tenant).Scan(&n.Open, &n.Unread, &n.Reviews)
	if err != nil {
		return n, fmt.Errorf("count conversations: %w", err)
	}
	return n, nil
}

// Conversations returns a page of a tenant's conversations, and how many conversations match the filter.
func (s *Store) Conversations(ctx context.Context, tenant string, f ConversationFilter) (out []Conversation, total int, err error) {
	where, args := "tenant = ?", []any{tenant}
	add := func(condition string, more ...any) {
		where += " AND " + condition
		args = append(args, more...)
	}
	if f.State != "" {
		add("state = ?", f.State)
	}
	if f.Unassigned {
		add("assigned = ''")
	} else if f.Assigned != "" {
		add("assigned = ?", f.Assigned)
	}
	if f.Unread {
		add("unread > 0")
	}
	if f.Review {
		add("reviews > 0")
	}
	if f.Phone != "" {
		add("INSTR(phone, ?) > 0", f.Phone)
	}
	if err := s.d.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM conversations WHERE "+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count conversations: %w", err)
	}
	limit, offset := f.bounds()
	if f.BeforeID != "" {
		offset = 0
		add("(last_ms < ? OR last_ms = ? AND id < ?)", ms(f.Before), ms(f.Before), f.BeforeID)
	}
	rows, err := s.d.read.QueryContext(ctx, "SELECT "+conversationColumns+" FROM conversations WHERE "+where+" ORDER BY last_ms DESC, id DESC LIMIT ? OFFSET ?", append(args, limit, offset)...)
	if err != nil {
		return nil, 0, fmt.Errorf("conversations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		c, err := scanConversation(rows)
		if err != nil {
			return nil, 0, fmt.Errorf("conversations: %w", err)
		}
		out = append(out, c)
	}
	return out, total, rows.Err()
}

// ConversationMessages returns up to limit messages of a conversation whose id is smaller than before (0: all), newest
// first.
func (s *Store) ConversationMessages(ctx context.Context, tenant, id string, before uint64, limit int) (out []ConversationMessage, err error) {
	where, args := "m.tenant = ? AND m.conversation = ?", []any{tenant, id}
	if before > 0 {
		where += " AND m.id < ?"
		args = append(args, int64(before))
	}
	rows, err := s.d.read.QueryContext(ctx, "SELECT "+messageColumns+" FROM conversation_messages m WHERE "+where+" ORDER BY m.id DESC LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("messages of a conversation: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		m, err := scanMessage(rows)
		if err != nil {
			return nil, fmt.Errorf("messages of a conversation: %w", err)
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// ConversationChange is a change of a conversation. A nil field does not change.
type ConversationChange struct {
	State, Assigned *string
	// Read marks the messages up to this id as read. Later ones stay unread.
	Read *uint64
}

// ChangeConversation changes a conversation. If version is not 0 and not the stored version, the error is
// [schemas.ErrConflict].
func (s *Store) ChangeConversation(ctx context.Context, tenant, id string, version uint64, change ConversationChange) (c Conversation, err error) {
	err = s.write(ctx, func(tx *tx) error {
		c, err = scanConversation(tx.raw.QueryRowContext(ctx, "SELECT "+conversationColumns+" FROM conversations WHERE tenant = ? AND id = ?", tenant, id))
		if err := found(err, "conversation", id); err != nil {
			return err
		}
		if version != 0 && version != c.Version {
			return schemas.ErrConflict
		}
		was := c
		if change.State != nil {
			c.State = *change.State
		}
		if change.Assigned != nil {
			c.Assigned = *change.Assigned
		}
		if change.Read != nil {
			var later int
			if err := tx.raw.QueryRowContext(ctx, "SELECT COUNT(*) FROM conversation_messages WHERE tenant = ? AND conversation = ? AND NOT outgoing AND id > ?",
				tenant, id, int64(*change.Read)).Scan(&later); err != nil {
				return err
			}
			c.Unread = min(c.Unread, later)
		}
		if c == was {
			return nil
		}
		n, err := affected(tx.raw.ExecContext(ctx, "UPDATE conversations SET state = ?, assigned = ?, unread = ?, version = version + 1 WHERE tenant = ? AND id = ? AND version = ?",
			c.State, c.Assigned, c.Unread, tenant, id, int64(was.Version)))
		if err == nil && n == 0 {
			err = schemas.ErrConflict
		}
		c.Version++
		return err
	})
	if err != nil {
		return Conversation{}, fmt.Errorf("change a conversation: %w", err)
	}
	return c, nil
}

const reviewsFrom = " FROM conversation_messages m JOIN conversations c ON c.tenant = m.tenant AND c.id = m.conversation WHERE m.tenant = ? AND m.review = 'open'"

// Reviews returns up to limit messages after an id that wait for a decision about an opt-out, oldest first.
func (s *Store) Reviews(ctx context.Context, tenant string, after uint64, limit int) (out []Review, total int, err error) {
	if err := s.d.read.QueryRowContext(ctx, "SELECT COUNT(*)"+reviewsFrom, tenant).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count reviews: %w", err)
	}
	rows, err := s.d.read.QueryContext(ctx, "SELECT "+messageColumns+", c.phone, c.sender, c.channel"+reviewsFrom+" AND m.id > ? ORDER BY m.id LIMIT ?", tenant, int64(after), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("reviews: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r Review
		var channel int64
		if r.ConversationMessage, err = scanMessage(rows, &r.Phone, &r.Sender, &channel); err != nil {
			return nil, 0, fmt.Errorf("reviews: %w", err)
		}
		r.Channel = schemas.Channel(channel)
		out = append(out, r)
	}
	return out, total, rows.Err()
}

// Review returns a message that waits for a decision, or had to wait for one. The error is [schemas.ErrNotFound] if the
// tenant has no such message with this id.
func (s *Store) Review(ctx context.Context, tenant string, id uint64) (Review, error) {
	return review(ctx, s.d.read, tenant, id)
}

func review(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, tenant string, id uint64,
) (r Review, err error) {
	var channel int64
	r.ConversationMessage, err = scanMessage(q.QueryRowContext(ctx, "SELECT "+messageColumns+`, c.phone, c.sender, c.channel FROM conversation_messages m
JOIN conversations c ON c.tenant = m.tenant AND c.id = m.conversation WHERE m.tenant = ? AND m.id = ? AND m.review <> ''`, tenant, int64(id)), &r.Phone, &r.Sender, &channel)
	r.Channel = schemas.Channel(channel)
	return r, found(err, "review", fmt.Sprint(id))
}

// DecideReview ends the review of a message. With optOut, the number opts out of the message's channel, and the proof
// names the text and the person who decided. The error is [schemas.ErrTransition] if the review has ended already.
func (s *Store) DecideReview(ctx context.Context, tenant string, id uint64, optOut bool, by string) (r Review, err error) {
	if s.keys == nil {
		return r, errNoKeys
	}
	err = s.write(ctx, func(tx *tx) error {
		if err := tx.lockMembers(ctx, tenant); err != nil {
			return err
		}
		if r, err = review(ctx, tx.raw, tenant, id); err != nil {
			return err
		}
		if r.Review != ReviewOpen {
			return schemas.ErrTransition
		}
		r.Review, r.By = ReviewDismissed, by
		if optOut {
			r.Review = ReviewOptedOut
			if _, err := s.changeOptOut(ctx, tx, tenant, OptOutCause{Source: "keyword", By: by}, factOf{}, OptOut{Phone: r.Phone, Reason: cutText(r.Text, maxOptOutText), Channel: r.Channel}, false); err != nil {
				return err
			}
		}
		if _, err := tx.raw.ExecContext(ctx, "UPDATE conversation_messages SET review = ?, by_whom = ? WHERE tenant = ? AND id = ?", r.Review, by, tenant, int64(id)); err != nil {
			return err
		}
		_, err := tx.raw.ExecContext(ctx, "UPDATE conversations SET reviews = CASE WHEN reviews > 0 THEN reviews - 1 ELSE 0 END, version = version + 1 WHERE tenant = ? AND id = ?", tenant, r.Conversation)
		return err
	})
	if err != nil {
		return Review{}, fmt.Errorf("decide a review: %w", err)
	}
	return r, nil
}

// OwnersOf returns the tenants that own an address to which recipients write: tenants with an approved two-way sender
// of that name, a WhatsApp channel with that number or phone number id, or an RCS agent with that id. If there is none
// on SMS, it returns the tenants whose default sender is this address.
func (s *Store) OwnersOf(ctx context.Context, channel schemas.Channel, address string) ([]string, error) {
	kind := map[schemas.Channel]Kind{schemas.ChannelSMS: KindSender, schemas.ChannelWhatsApp: KindChannel, schemas.ChannelRCS: KindAgent}[channel]
	rows, err := s.d.read.QueryContext(ctx, "SELECT tenant, name, status, doc FROM resources WHERE kind = ? AND deleted_ms = 0 AND tenant <> '' AND (name = ? OR INSTR(doc, ?) > 0) ORDER BY tenant",
		string(kind), address, address)
	if err != nil {
		return nil, fmt.Errorf("owners of a sender: %w", err)
	}
	defer func() { _ = rows.Close() }()
	seen := map[string]bool{}
	var out []string
	for rows.Next() {
		var tenant, name, status string
		var doc []byte
		if err := rows.Scan(&tenant, &name, &status, &doc); err != nil {
			return nil, fmt.Errorf("owners of a sender: %w", err)
		}
		var d struct {
			TwoWay                       bool
			Channel, Address, ProviderID string
		}
		if err := json.Unmarshal(doc, &d); err != nil {
			return nil, fmt.Errorf("owners of a sender: %w", err)
		}
		var owns bool
		switch kind {
		case KindSender:
			owns = name == address && d.TwoWay && status == "approved"
		case KindChannel:
			owns = d.Channel == schemas.ChannelName(channel) && (d.Address == address || d.ProviderID == address)
		default:
			owns = d.ProviderID == address
		}
		if owns && !seen[tenant] {
			seen[tenant] = true
			out = append(out, tenant)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(out) > 0 || channel != schemas.ChannelSMS {
		return out, err
	}
	defaults, err := s.d.read.QueryContext(ctx, "SELECT id FROM tenants WHERE default_sender = ? ORDER BY id", address)
	if err != nil {
		return nil, fmt.Errorf("owners of a sender: %w", err)
	}
	defer func() { _ = defaults.Close() }()
	for defaults.Next() {
		var tenant string
		if err := defaults.Scan(&tenant); err != nil {
			return nil, fmt.Errorf("owners of a sender: %w", err)
		}
		out = append(out, tenant)
	}
	return out, defaults.Err()
}
