// Package dlrindex finds the submission that a receipt (DLR) is about when the carrier does not echo our id: an index
// in Redis from the carrier's own id (the provider id) to our submission, and the receipts that came before their
// entry.
//
// The sender, when such a carrier has answered a hand-over with its id:
//
//	parked, err := index.Put(ctx, entries)     // retry until it succeeds: else its receipts never match
//	publish every receipt of parked to `receipts` and await the acknowledgement
//	err = index.Clear(ctx, entries)            // of the entries that had any
//
// The tracker, for a receipt without our id:
//
//	found, err := index.Find(ctx, sightings)   // a zero value: the receipt is parked
//
// A receipt may overtake the answer to its hand-over, so either side may come first. Each call is one Lua script, and
// scripts do not interleave: the second call finds what the first has stored. Repeating a call changes nothing. Redis
// may lose the whole index: [Index.Ready] says whether it has, and the tracker then rebuilds it from `deliveries` and
// `receipts`.
package dlrindex

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// mostParked is how many receipts may be parked under one provider id: a carrier that gives all messages the same id
// must not fill Redis.
const mostParked = 64

// aliasLife is how long a receipt stays parked under a guessed spelling of its id. The answer to a hand-over normally
// comes within seconds; only the carrier's own spelling stays parked for longer, for a sender that is down meanwhile.
const aliasLife = time.Hour

// Index is safe for concurrent use.
type Index struct {
	rdb   redis.UniversalClient
	names schemas.Names
}

// New returns the index of the installation that names describes. It is kept in rdb.
func New(rdb redis.UniversalClient, names schemas.Names) (*Index, error) {
	if rdb == nil {
		return nil, errors.New("dlr index: a Redis client is needed")
	}
	return &Index{rdb, names}, nil
}

// Entry is the provider id that a carrier gave to a submission.
type Entry struct {
	Route, ProviderID string
	// To is the phone number in E.164 with +, or empty. It distinguishes messages with the same provider id.
	To         string
	Submission schemas.ID
	// Part is which of Parts has the id, if a part of a long text has its own id; 0 for the whole message.
	Part, Parts uint8
	// Life of the entry: the rest of the message's validity plus [schemas.DLRIndexTTL].
	Life time.Duration
}

// WithParts appends the entries of a submission: e itself, or one for each part that has its own id. If the ids are the
// same for all parts, the entry is for the whole message. A part without an id has no entry.
func (e Entry) WithParts(to []Entry, ids []string) []Entry {
	for i, id := range ids {
		if id != "" && slices.Contains(ids[:i], id) {
			ids = nil
			break
		}
	}
	if len(ids) == 0 || len(ids) > math.MaxUint8 {
		return append(to, e)
	}
	for i, id := range ids {
		if id != "" {
			e.ProviderID, e.Part, e.Parts = id, uint8(i+1), uint8(len(ids))
			to = append(to, e)
		}
	}
	return to
}

// value returns the entry as Redis has it: the submission, then the part if it is for one.
func (e *Entry) value() []byte {
	if e.Parts == 0 {
		return e.Submission[:]
	}
	return append(e.Submission[:len(e.Submission):len(e.Submission)], e.Part, e.Parts)
}

// Found is the submission of a provider id. The zero value means that it is not known.
type Found struct {
	Submission schemas.ID
	// Part is which of Parts has the id; 0 for the whole message.
	Part, Parts uint8
}

// IsZero reports whether nothing was found.
func (f Found) IsZero() bool { return f.Submission.IsZero() }

// Sighting is a receipt that names its message by the carrier's id.
type Sighting struct {
	Route string
	// IDs are the spellings of the provider id, the carrier's own first; see [Spellings].
	IDs []string
	// To is the phone number in E.164 with +, or empty.
	To string
	// Receipt is the encoded record, as in the topic.
	Receipt []byte
	// Life is how long the receipt may stay parked.
	Life time.Duration
}

// Part is what a receipt says about one part of a long message.
type Part struct {
	Tenant     string
	Submission schemas.ID
	Part       uint32 // from 1
	State      schemas.PartState
	Life       time.Duration
}

// Parts counts the delivered parts of a message, and how many of these are read.
type Parts struct{ Delivered, Read int }

var (
	//go:embed put.lua
	putSource string
	//go:embed find.lua
	findSource string
	//go:embed clear.lua
	clearSource string
	//go:embed unpark.lua
	unparkSource string
	//go:embed forget.lua
	forgetSource string
	//go:embed hold.lua
	holdSource string
	//go:embed filled.lua
	filledSource string
	//go:embed join_parts.lua
	joinPartsSource string

	scriptPut       = redis.NewScript(putSource)
	scriptFind      = redis.NewScript(findSource)
	scriptClear     = redis.NewScript(clearSource)
	scriptUnpark    = redis.NewScript(unparkSource)
	scriptForget    = redis.NewScript(forgetSource)
	scriptHold      = redis.NewScript(holdSource)
	scriptFilled    = redis.NewScript(filledSource)
	scriptJoinParts = redis.NewScript(joinPartsSource)
)

// call is one run of a script.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
}

// atOnce is how many calls go in one round trip. On a busy machine the embedded Redis needs so much time for a script
// that a thousand of them would exceed the client's read time-out, at every repetition.
const atOnce = 100

// run makes all calls and returns their answers, [atOnce] in one round trip. If Redis does not have a script any more,
// run loads it and repeats the round trip, so every script may run twice.
func (x *Index) run(ctx context.Context, calls []call) ([]*redis.Cmd, error) {
	var out []*redis.Cmd
	for some := range slices.Chunk(calls, atOnce) {
		cmds, err := x.roundTrip(ctx, some)
		if err != nil {
			return nil, err
		}
		out = append(out, cmds...)
	}
	return out, nil
}

func (x *Index) roundTrip(ctx context.Context, calls []call) ([]*redis.Cmd, error) {
	for attempt := 0; ; attempt++ {
		pipe := x.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(calls))
		for i, c := range calls {
			cmds[i] = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
		}
		_, err := pipe.Exec(ctx)
		unknown := false
		for _, cmd := range cmds {
			if e := cmd.Err(); e != nil && !errors.Is(e, redis.Nil) {
				unknown = unknown || redis.HasErrorPrefix(e, "NOSCRIPT")
				if err == nil || errors.Is(err, redis.Nil) {
					err = e
				}
			}
		}
		if err == nil || errors.Is(err, redis.Nil) {
			return cmds, nil
		}
		if !unknown || attempt > 0 {
			return nil, fmt.Errorf("dlr index: %w", err)
		}
		loaded := map[*redis.Script]bool{}
		for _, c := range calls {
			if loaded[c.script] {
				continue
			}
			loaded[c.script] = true
			if err := c.script.Load(ctx, x.rdb).Err(); err != nil {
				return nil, fmt.Errorf("dlr index: load script: %w", err)
			}
		}
	}
}

func (x *Index) keys(route, providerID string) []string {
	k := x.names.DLRIndexKeys(route, providerID)
	return k[:]
}

// Put stores entries and returns, for each one, the receipts that were parked for it, oldest first, with the submission
// filled in. The caller publishes them, then calls [Index.Clear].
func (x *Index) Put(ctx context.Context, entries []Entry) ([][]*fanfarev1.Receipt, error) {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptPut, x.keys(e.Route, e.ProviderID), []any{e.value(), milliseconds(e.Life), e.To}}
	}
	cmds, err := x.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	out := make([][]*fanfarev1.Receipt, len(entries))
	for i, cmd := range cmds {
		parked, err := cmd.StringSlice()
		if err != nil {
			return nil, fmt.Errorf("dlr index: parked receipts: %w", err)
		}
		for _, p := range parked {
			r := &fanfarev1.Receipt{}
			if err := proto.Unmarshal([]byte(p), r); err != nil {
				continue // cannot happen: the tracker decoded it before it parked it, and `receipts` has it anyway
			}
			r.SubmissionId = append([]byte(nil), entries[i].Submission[:]...)
			if r.GetParts() == 0 {
				r.Part, r.Parts = uint32(entries[i].Part), uint32(entries[i].Parts)
			}
			out[i] = append(out[i], r)
		}
	}
	return out, nil
}

// Clear deletes the parked receipts that [Index.Put] returned. Call it once they are published.
func (x *Index) Clear(ctx context.Context, entries []Entry) error {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptClear, x.keys(e.Route, e.ProviderID), []any{e.To}}
	}
	_, err := x.run(ctx, calls)
	return err
}

// Find returns the submission of each sighting, and which part of it. A zero value means that the submission is not
// known yet: the receipt is then parked under every spelling of its id, so that [Index.Put] finds it under the one that
// the sender uses.
func (x *Index) Find(ctx context.Context, sightings []Sighting) ([]Found, error) {
	ids := make([]Found, len(sightings))
	for n := 0; n < len(sightings); n += atOnce {
		end := min(n+atOnce, len(sightings))
		if err := x.look(ctx, sightings[n:end], ids[n:end]); err != nil {
			return nil, err
		}
	}
	// The script that parks looks again, so an entry that was put after look is not missed.
	if err := x.park(ctx, sightings, ids); err != nil {
		return nil, err
	}
	return ids, nil
}

// look fills in the ids that are known. If several spellings have an entry the first one wins.
func (x *Index) look(ctx context.Context, sightings []Sighting, ids []Found) error {
	pipe := x.rdb.Pipeline()
	type asked struct {
		sighting int
		// Sighting with a phone number: the entry of that number, and the one without a number
		both   *redis.SliceCmd
		single *redis.StringSliceCmd // sighting without: all entries, of which there must be exactly one
	}
	var all []asked
	for i := range sightings {
		s := &sightings[i]
		for _, id := range s.IDs {
			a := asked{sighting: i}
			if key := x.keys(s.Route, id)[0]; s.To != "" {
				a.both = pipe.HMGet(ctx, key, s.To, "")
			} else {
				a.single = pipe.HVals(ctx, key)
			}
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("dlr index: look up: %w", err)
	}
	for _, a := range all {
		found := ""
		if a.both != nil {
			for _, v := range a.both.Val() {
				if s, ok := v.(string); ok && found == "" {
					found = s
				}
			}
		} else if v := a.single.Val(); len(v) == 1 {
			found = v[0]
		}
		if err := note(ids, a.sighting, found); err != nil {
			return err
		}
	}
	return nil
}

// note fills in the id of sighting i, unless it is known already.
func note(ids []Found, i int, found string) error {
	if found == "" || !ids[i].IsZero() {
		return nil
	}
	var f Found
	if size := len(f.Submission); len(found) == size+2 {
		f.Part, f.Parts, found = found[size], found[size+1], found[:size]
	}
	var err error
	if f.Submission, err = schemas.IDFromBytes([]byte(found)); err != nil {
		return fmt.Errorf("dlr index: submission: %w", err)
	}
	ids[i] = f
	return nil
}

// park parks the receipts whose id is not known, under every spelling.
func (x *Index) park(ctx context.Context, sightings []Sighting, ids []Found) error {
	var calls []call
	var sighting []int // of each call
	for i := range sightings {
		s := &sightings[i]
		if !ids[i].IsZero() {
			continue
		}
		for n, id := range s.IDs {
			life := s.Life
			if n > 0 {
				life = min(life, aliasLife)
			}
			calls = append(calls, call{scriptFind, x.keys(s.Route, id), []any{s.Receipt, milliseconds(life), mostParked, s.To}})
			sighting = append(sighting, i)
		}
	}
	cmds, err := x.run(ctx, calls)
	if err != nil {
		return err
	}
	var unpark []call
	for n, cmd := range cmds {
		found, err := cmd.Text()
		if err != nil {
			return fmt.Errorf("dlr index: submission: %w", err)
		}
		i := sighting[n]
		if found != "" && ids[i].IsZero() {
			for _, id := range sightings[i].IDs {
				unpark = append(unpark, call{scriptUnpark, x.keys(sightings[i].Route, id), []any{sightings[i].Receipt, sightings[i].To}})
			}
		}
		if err := note(ids, i, found); err != nil {
			return err
		}
	}
	_, err = x.run(ctx, unpark)
	return err
}

// Forget makes entries expire after their Life. The caller has seen the last receipt of each.
func (x *Index) Forget(ctx context.Context, entries []Entry) error {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptForget, x.keys(e.Route, e.ProviderID), []any{e.value(), e.To, milliseconds(e.Life)}}
	}
	_, err := x.run(ctx, calls)
	return err
}

// Join stores the states of parts and returns, for each one, the figures of its message with that part.
func (x *Index) Join(ctx context.Context, parts []Part) ([]Parts, error) {
	calls := make([]call, len(parts))
	for i := range parts {
		p := &parts[i]
		calls[i] = call{scriptJoinParts, []string{x.names.PartsKey(p.Tenant, p.Submission)}, []any{p.Part, int(p.State), milliseconds(p.Life)}}
	}
	cmds, err := x.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	out := make([]Parts, len(parts))
	for i, cmd := range cmds {
		n, err := cmd.Int64Slice()
		if err != nil || len(n) != 2 {
			return nil, fmt.Errorf("dlr index: parts: got %d figures, want 2: %w", len(n), err)
		}
		out[i] = Parts{int(n[0]), int(n[1])}
	}
	return out, nil
}

// Ready reports whether the index is complete: false before it was first filled, and after Redis has lost it.
func (x *Index) Ready(ctx context.Context) (bool, error) {
	marker, _ := x.names.DLRIndexState()
	n, err := x.rdb.Exists(ctx, marker).Result()
	if err != nil {
		return false, fmt.Errorf("dlr index: marker: %w", err)
	}
	return n == 1, nil
}

// Lock takes the lock for rebuilding the index, for life or until [Index.Hold] extends it; false: another process has
// it.
func (x *Index) Lock(ctx context.Context, owner string, life time.Duration) (bool, error) {
	_, lock := x.names.DLRIndexState()
	err := x.rdb.SetArgs(ctx, lock, owner, redis.SetArgs{Mode: "NX", TTL: life}).Err()
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, redis.Nil):
		return false, nil
	default:
		return false, fmt.Errorf("dlr index: lock: %w", err)
	}
}

// Hold extends the lock; false: Redis lost it or another process took it, so the rebuild must start again.
func (x *Index) Hold(ctx context.Context, owner string, life time.Duration) (bool, error) {
	return x.withLock(ctx, scriptHold, owner, milliseconds(life))
}

// Filled marks the index as complete and releases the lock; false as for [Index.Hold].
func (x *Index) Filled(ctx context.Context, owner string) (bool, error) {
	return x.withLock(ctx, scriptFilled, owner)
}

func (x *Index) withLock(ctx context.Context, script *redis.Script, args ...any) (bool, error) {
	marker, lock := x.names.DLRIndexState()
	cmds, err := x.run(ctx, []call{{script, []string{marker, lock}, args}})
	if err != nil {
		return false, err
	}
	return cmds[0].Bool()
}

// milliseconds returns a lifetime in the form that Redis expects, at least one.
func milliseconds(d time.Duration) int64 { return max(1, d.Milliseconds()) }

// Spellings returns the spellings that carriers use for one provider id: the original one, the alternatives that the
// receipt names and, if guess is set, hexadecimal for decimal and the reverse. For example, a carrier answers
// `000000001a` and calls the same message `26` in its receipt. Set guess only if the receipt has a phone number, which
// distinguishes 26 from 0x26.
func Spellings(id string, others []string, guess bool) []string {
	const most = 8
	out := make([]string, 0, 4)
	add := func(s string) {
		if s = schemas.NormalProviderID(s); s != "" && len(out) < most && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	add(id)
	for _, o := range others {
		add(o)
	}
	if !guess {
		return out
	}
	for _, s := range slices.Clip(out) {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			add(strconv.FormatUint(n, 16))
		}
		if n, err := strconv.ParseUint(s, 16, 64); err == nil {
			add(strconv.FormatUint(n, 10))
		}
	}
	return out
}
