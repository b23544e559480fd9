package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// mostParked is how many receipts wait for one provider id and, within it, for any number: a carrier that gives every message
// the same id must not fill Redis.
const mostParked = 64

// aliasLife is how long a receipt stays parked under a spelling that the carrier did not use. The answer to a hand-over comes
// within seconds; only what was parked as it was spelt outlives a sender that is gone for longer.
const aliasLife = time.Hour

// Table is the rendezvous in Redis. It may be used by many at once.
type Table struct {
	rdb   redis.UniversalClient
	names schemas.Names
}

// New returns the table of an installation.
func New(rdb redis.UniversalClient, names schemas.Names) (*Table, error) {
	if rdb == nil {
		return nil, errors.New("rendezvous: a Redis client is needed")
	}
	return &Table{rdb, names}, nil
}

// Entry says that a carrier gave a submission this id.
type Entry struct {
	Route, ProviderID string
	// To is the number in E.164 with +. It keeps messages apart that have one id; may be empty.
	To         string
	Submission schemas.ID
	// Life of the entry: what is left of the message's validity and [schemas.RendezvousTTL].
	Life time.Duration
}

// Sighting is a receipt that names its message by the carrier's id.
type Sighting struct {
	Route string
	// IDs are the spellings of the provider id, the carrier's own first.
	IDs []string
	// To is the number in E.164 with +; may be empty.
	To string
	// Receipt is encoded, as it lies in the topic.
	Receipt []byte
	// Life while it is parked.
	Life time.Duration
}

// Part is what a receipt says of one part of a long message.
type Part struct {
	Tenant     string
	Submission schemas.ID
	Part       uint32 // 1 and up
	State      schemas.PartState
	Life       time.Duration
}

// Parts is what is known of all parts of a message: how many are delivered, and how many of these are read.
type Parts struct{ Delivered, Read int }

var (
	scriptPut    = redis.NewScript(schemas.RendezvousPut)
	scriptFind   = redis.NewScript(schemas.RendezvousFind)
	scriptClear  = redis.NewScript(schemas.RendezvousClear)
	scriptUnpark = redis.NewScript(schemas.RendezvousUnpark)
	scriptForget = redis.NewScript(schemas.RendezvousForget)
	scriptHold   = redis.NewScript(schemas.RendezvousHold)
	scriptFilled = redis.NewScript(schemas.RendezvousFilled)
	scriptParts  = redis.NewScript(schemas.PartsJoin)
)

// call is one run of a script.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
}

// run makes all calls in one round trip and returns their answers. Scripts that Redis has forgotten are loaded and everything is
// run again: no call does harm twice.
func (t *Table) run(ctx context.Context, calls []call) ([]*redis.Cmd, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	for attempt := 0; ; attempt++ {
		pipe := t.rdb.Pipeline()
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
			return nil, fmt.Errorf("rendezvous: %w", err)
		}
		loaded := map[*redis.Script]bool{}
		for _, c := range calls {
			if loaded[c.script] {
				continue
			}
			loaded[c.script] = true
			if err := c.script.Load(ctx, t.rdb).Err(); err != nil {
				return nil, fmt.Errorf("rendezvous: load script: %w", err)
			}
		}
	}
}

func (t *Table) keys(route, providerID string) []string {
	k := t.names.RendezvousKeys(route, providerID)
	return k[:]
}

// Put notes whose each provider id is and returns, for each entry, the receipts that were parked for it, oldest first, with
// the submission filled in: publish them, then [Table.Clear].
func (t *Table) Put(ctx context.Context, entries []Entry) ([][]*fanfarev1.Receipt, error) {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptPut, t.keys(e.Route, e.ProviderID), []any{e.Submission[:], milliseconds(e.Life), e.To}}
	}
	cmds, err := t.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	out := make([][]*fanfarev1.Receipt, len(entries))
	for i, cmd := range cmds {
		parked, err := cmd.StringSlice()
		if err != nil {
			return nil, fmt.Errorf("rendezvous: parked receipts: %w", err)
		}
		for _, p := range parked {
			r := &fanfarev1.Receipt{}
			if err := proto.Unmarshal([]byte(p), r); err != nil {
				continue // it lies in `receipts` all the same, and the tracker had decoded it
			}
			r.SubmissionId = append([]byte(nil), entries[i].Submission[:]...)
			out[i] = append(out[i], r)
		}
	}
	return out, nil
}

// Clear forgets the receipts that [Table.Put] returned, once they have been published.
func (t *Table) Clear(ctx context.Context, entries []Entry) error {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptClear, t.keys(e.Route, e.ProviderID), []any{e.To}}
	}
	_, err := t.run(ctx, calls)
	return err
}

// Find returns the submission of each sighting; a zero id means that it is not known yet and the receipt is parked, under every
// spelling, so that whichever the sender uses it meets it.
func (t *Table) Find(ctx context.Context, sightings []Sighting) ([]schemas.ID, error) {
	ids := make([]schemas.ID, len(sightings))
	if err := t.look(ctx, sightings, ids); err != nil {
		return nil, err
	}
	// What was put between the two is found by the script that parks.
	if err := t.park(ctx, sightings, ids); err != nil {
		return nil, err
	}
	return ids, nil
}

// look fills in the ids that are known. The spelling that came first wins.
func (t *Table) look(ctx context.Context, sightings []Sighting, ids []schemas.ID) error {
	pipe := t.rdb.Pipeline()
	type asked struct {
		whose  int
		both   *redis.SliceCmd       // with a number: the one of that number, or of none
		single *redis.StringSliceCmd // without: the only one there is
	}
	var all []asked
	for i := range sightings {
		s := &sightings[i]
		for _, id := range s.IDs {
			a := asked{whose: i}
			if key := t.keys(s.Route, id)[0]; s.To != "" {
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
		return fmt.Errorf("rendezvous: look up: %w", err)
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
		if err := note(ids, a.whose, found); err != nil {
			return err
		}
	}
	return nil
}

// note fills in an id that was not known.
func note(ids []schemas.ID, i int, found string) error {
	if found == "" || !ids[i].IsZero() {
		return nil
	}
	id, err := schemas.IDFromBytes([]byte(found))
	if err != nil {
		return fmt.Errorf("rendezvous: submission: %w", err)
	}
	ids[i] = id
	return nil
}

// park parks what is not known, under every spelling.
func (t *Table) park(ctx context.Context, sightings []Sighting, ids []schemas.ID) error {
	var calls []call
	var whose []int
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
			calls = append(calls, call{scriptFind, t.keys(s.Route, id), []any{s.Receipt, milliseconds(life), mostParked, s.To}})
			whose = append(whose, i)
		}
	}
	cmds, err := t.run(ctx, calls)
	if err != nil {
		return err
	}
	var unpark []call
	for n, cmd := range cmds {
		found, err := cmd.Text()
		if err != nil {
			return fmt.Errorf("rendezvous: submission: %w", err)
		}
		i := whose[n]
		if found != "" && ids[i].IsZero() {
			for _, id := range sightings[i].IDs {
				unpark = append(unpark, call{scriptUnpark, t.keys(sightings[i].Route, id), []any{sightings[i].Receipt, sightings[i].To}})
			}
		}
		if err := note(ids, i, found); err != nil {
			return err
		}
	}
	_, err = t.run(ctx, unpark)
	return err
}

// Forget lets entries go whose last receipt has come, after the life that they say.
func (t *Table) Forget(ctx context.Context, entries []Entry) error {
	calls := make([]call, len(entries))
	for i := range entries {
		e := &entries[i]
		calls[i] = call{scriptForget, t.keys(e.Route, e.ProviderID), []any{e.Submission[:], e.To, milliseconds(e.Life)}}
	}
	_, err := t.run(ctx, calls)
	return err
}

// Join notes what receipts say of parts and returns what is then known of each one's message.
func (t *Table) Join(ctx context.Context, parts []Part) ([]Parts, error) {
	calls := make([]call, len(parts))
	for i := range parts {
		p := &parts[i]
		calls[i] = call{scriptParts, []string{t.names.PartsKey(p.Tenant, p.Submission)}, []any{p.Part, int(p.State), milliseconds(p.Life)}}
	}
	cmds, err := t.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	out := make([]Parts, len(parts))
	for i, cmd := range cmds {
		n, err := cmd.Int64Slice()
		if err != nil || len(n) != 2 {
			return nil, fmt.Errorf("rendezvous: parts: got %d figures, want 2: %w", len(n), err)
		}
		out[i] = Parts{int(n[0]), int(n[1])}
	}
	return out, nil
}

// Ready reports whether the table holds what it was given: false after Redis has lost it, and before it was ever filled.
func (t *Table) Ready(ctx context.Context) (bool, error) {
	marker, _ := t.names.RendezvousState()
	n, err := t.rdb.Exists(ctx, marker).Result()
	if err != nil {
		return false, fmt.Errorf("rendezvous: marker: %w", err)
	}
	return n == 1, nil
}

// Lock makes the caller the one who fills the table, until life is over or [Table.Hold] extends it; false: somebody does already.
func (t *Table) Lock(ctx context.Context, who string, life time.Duration) (bool, error) {
	_, lock := t.names.RendezvousState()
	err := t.rdb.SetArgs(ctx, lock, who, redis.SetArgs{Mode: "NX", TTL: life}).Err()
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, redis.Nil):
		return false, nil
	default:
		return false, fmt.Errorf("rendezvous: lock: %w", err)
	}
}

// Hold keeps the lock; false: Redis was lost again, or another took over, and the filling must begin anew.
func (t *Table) Hold(ctx context.Context, who string, life time.Duration) (bool, error) {
	return t.own(ctx, scriptHold, who, milliseconds(life))
}

// Filled says that the table is whole again, and lets go of the lock; false as for [Table.Hold].
func (t *Table) Filled(ctx context.Context, who string) (bool, error) {
	return t.own(ctx, scriptFilled, who)
}

func (t *Table) own(ctx context.Context, script *redis.Script, args ...any) (bool, error) {
	marker, lock := t.names.RendezvousState()
	cmds, err := t.run(ctx, []call{{script, []string{marker, lock}, args}})
	if err != nil {
		return false, err
	}
	return cmds[0].Bool()
}

// milliseconds is a life as Redis wants it, at least one.
func milliseconds(d time.Duration) int64 { return max(1, d.Milliseconds()) }

// Spellings returns the ways in which one provider id is known to be written: as it came, the others that the receipt names,
// and, if guess is set, hexadecimal for decimal and the reverse: the same message is `000000001a` in a carrier's answer and `26`
// in its receipt. Guess only when the receipt has a number, which keeps 26 and 0x26 apart.
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
