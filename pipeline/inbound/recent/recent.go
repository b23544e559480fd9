// Package recent knows the last message that each sender sent to each number, so that the stage finds which message a
// recipient answers, and whose recipient it is. The index is kept in Redis for 30 days.
//
// For each channel and number there is a hash: tenant and sender → the last message. The key contains a keyed hash of
// the number, not the number. The index has only senders that recipients can write to ([schemas.MayReceive]). A stage
// of the role inbound fills it from `deliveries`. After Redis has lost its data, the index has only messages that were
// sent since. An answer to an older message is then matched to a tenant by the sender alone.
package recent

import (
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"fanfare/schemas"
)

// Life is how long an entry is kept after the last message to the number.
const Life = 30 * 24 * time.Hour

// Sent is the last message from a sender to a number.
type Sent struct {
	Tenant, Sender, Route string
	Channel               schemas.Channel
	// To is E.164 with +.
	To      string
	Message schemas.ID
	Time    time.Time
}

// Index is safe for concurrent use.
type Index struct {
	rdb    redis.UniversalClient
	keys   *schemas.Keys
	prefix string
}

// New returns the index in rdb. Its keys begin with the prefix of the installation.
func New(rdb redis.UniversalClient, keys *schemas.Keys, prefix string) (*Index, error) {
	if rdb == nil || keys == nil {
		return nil, errors.New("index of recent messages: Redis and keys are needed")
	}
	return &Index{rdb, keys, prefix}, nil
}

//go:embed put.lua
var putSource string

var put = redis.NewScript(putSource)

// atOnce is how many entries Put sends in one round trip.
const atOnce = 100

// key returns the key of a number. The hash is not tied to a tenant: all tenants of one number are in one entry.
func (x *Index) key(channel schemas.Channel, phone string) string {
	hash := x.keys.NumberHash("", phone)
	return x.prefix + "last:" + strconv.Itoa(int(channel)) + ":" + hex.EncodeToString(hash[:])
}

const fieldSeparator = "\x00"

// Put notes messages that were sent. Of two messages from one sender to one number the later one stays, in whatever
// order they are put.
func (x *Index) Put(ctx context.Context, list []Sent) error {
	for some := range slices.Chunk(list, atOnce) {
		for attempt := 0; ; attempt++ {
			pipe := x.rdb.Pipeline()
			for i := range some {
				s := &some[i]
				left := Life - time.Since(s.Time)
				if left <= 0 { // too old: the group reads the beginning of the topic
					continue
				}
				put.EvalSha(ctx, pipe, []string{x.key(s.Channel, s.To)}, s.Tenant+fieldSeparator+s.Sender,
					fmt.Sprintf("%013d", s.Time.UnixMilli()), s.Message.String()+"/"+s.Route, left.Milliseconds())
			}
			_, err := pipe.Exec(ctx)
			if err == nil {
				break
			}
			if attempt > 0 || !redis.HasErrorPrefix(err, "NOSCRIPT") {
				return fmt.Errorf("note recent messages: %w", err)
			}
			if err := put.Load(ctx, x.rdb).Err(); err != nil {
				return fmt.Errorf("load a script: %w", err)
			}
		}
	}
	return nil
}

// Find returns the last messages to a number on a channel, one for each tenant and sender, newest first.
func (x *Index) Find(ctx context.Context, channel schemas.Channel, phone string) ([]Sent, error) {
	rows, err := x.rdb.HGetAll(ctx, x.key(channel, phone)).Result()
	if err != nil {
		return nil, fmt.Errorf("find recent messages: %w", err)
	}
	var out []Sent
	for field, value := range rows {
		tenant, sender, ok := strings.Cut(field, fieldSeparator)
		at, rest, ok2 := strings.Cut(value, "/")
		message, route, _ := strings.Cut(rest, "/")
		ms, err := strconv.ParseInt(at, 10, 64)
		id, err2 := schemas.ParseID(message)
		if !ok || !ok2 || err != nil || err2 != nil {
			continue // not written by Fanfare
		}
		out = append(out, Sent{Tenant: tenant, Sender: sender, Route: route, Channel: channel, To: phone, Message: id, Time: time.UnixMilli(ms)})
	}
	slices.SortFunc(out, func(a, b Sent) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Tenant+a.Sender, b.Tenant+b.Sender)
	})
	return out, nil
}
