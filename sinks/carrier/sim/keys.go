package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

const (
	// KeyWindow is how long a carrier with carrier.DoubtKeyHeader claims to remember a key.
	KeyWindow = time.Hour
	// QuerySettles is how long after a hand-over the answer "not here" of a carrier with carrier.DoubtQuery is final.
	QuerySettles = 2 * time.Second

	// maxKeys is how many keys one generation of the memory has, and maxKeyPages how many pages of 4 KB.
	maxKeys     = 4_000_000
	maxKeyPages = 8192
	// keysFromTruth is how much of the end of the truth file the carrier reads at its start to learn the keys: about
	// 200,000 submissions.
	keysFromTruth = 64 << 20
)

// keyMemory maps the keys of accepted submissions to the provider's ids. It has at least the newest 4,000,000 if
// campaigns send to most seqs, in 8 bytes each, and at most twice as many. Only above a thousand submissions a second
// does it remember less than [KeyWindow] promises.
type keyMemory struct {
	now, before map[keyPage]*keyRefs
	records     int // in now
	origin      uint64
	odd         map[oddKey]uint64 // ids that do not fit into a page; of now
	oddBefore   map[oddKey]uint64
}

// keyPage names 512 seqs of one try of a campaign of an account.
type keyPage struct {
	account     uint32
	page        uint32
	campaignTry uint64
}

type oddKey struct {
	account uint32
	key     carrier.Key
}

// keyRefs has an entry for each seq: 24 bits of the key's signature, and 40 bits of the provider's id from origin on;
// 0: none.
type keyRefs [512]uint64

const refBits = 40

func newKeyMemory(origin uint64) keyMemory {
	return keyMemory{now: map[keyPage]*keyRefs{}, odd: map[oddKey]uint64{}, origin: origin}
}

func pageOf(account uint32, key carrier.Key) (keyPage, uint32, uint64) {
	seq := key.Seq()
	tag := binary.BigEndian.Uint64(key[8:]) & 0xffffff << refBits // the end of the signature
	return keyPage{account, seq >> 9, key.CampaignNumber()<<8 | uint64(key.Try())}, seq & 511, tag
}

// get returns the provider's id of an accepted submission.
func (m *keyMemory) get(account uint32, key carrier.Key) (ref uint64, ok bool) {
	page, i, tag := pageOf(account, key)
	for _, pages := range []map[keyPage]*keyRefs{m.now, m.before} {
		if p := pages[page]; p != nil && p[i] != 0 && p[i]>>refBits<<refBits == tag {
			return m.origin + p[i]&(1<<refBits-1) - 1, true
		}
	}
	for _, odd := range []map[oddKey]uint64{m.odd, m.oddBefore} {
		if ref, ok = odd[oddKey{account, key}]; ok {
			return ref, true
		}
	}
	return 0, false
}

// put remembers an accepted submission.
func (m *keyMemory) put(account uint32, key carrier.Key, ref uint64) {
	if m.records >= maxKeys || len(m.now) >= maxKeyPages {
		m.before, m.oddBefore = m.now, m.odd
		m.now, m.odd, m.records = map[keyPage]*keyRefs{}, map[oddKey]uint64{}, 0
	}
	m.records++
	page, i, tag := pageOf(account, key)
	p := m.now[page]
	if p == nil {
		p = new(keyRefs)
		m.now[page] = p
	}
	delta := ref - m.origin + 1
	if have := p[i]; delta == 0 || delta >= 1<<refBits || have != 0 && have>>refBits<<refBits != tag {
		m.odd[oddKey{account, key}] = ref
		return
	}
	p[i] = tag | delta
}

// forget removes a submission.
func (m *keyMemory) forget(account uint32, key carrier.Key) {
	page, i, tag := pageOf(account, key)
	if p := m.now[page]; p != nil && p[i]>>refBits<<refBits == tag {
		p[i] = 0
	}
	delete(m.odd, oddKey{account, key})
}

// passing counts how often each submission was lost or refused temporarily. The count changes the random numbers of the
// next try with the same key. Without it, a message that was lost once would be lost at every try. Old counts are
// dropped from time to time.
type passing map[oddKey]uint64

const maxPassing = 65_536

func (m passing) add(a *account, key carrier.Key) {
	if a == nil {
		return
	}
	if len(m) >= maxPassing {
		clear(m)
	}
	m[oddKey{a.index, key}]++
}

// draws returns the number that the next draw for a submission adds to the seed.
func (m passing) draws(a *account, key carrier.Key) uint64 {
	if a == nil || len(m) == 0 {
		return 0
	}
	return m[oddKey{a.index, key}] << 32
}

// remembers reports whether the carrier remembers the keys of accepted submissions.
func (p *Profile) remembers() bool { return p.Doubt != carrier.DoubtNone }

// ignores reports whether the carrier ignores a key that it has accepted before.
func (p *Profile) ignores() bool {
	return p.Doubt == carrier.DoubtKeyHeader || p.Doubt == carrier.DoubtNaturalID
}

// loadKeys reads the keys of the newest submissions of earlier runs from the truth file, because senders repeat their
// last hand-overs as soon as the carrier is back.
func (c *Carrier) loadKeys() error {
	if c.journal == nil || !c.cfg.Profile.remembers() || c.journal.size == 0 {
		return nil
	}
	file, err := os.Open(c.cfg.Truth)
	if err != nil {
		return fmt.Errorf("read the keys in the carrier's truth: %w", err)
	}
	defer func() { _ = file.Close() }()
	from := max(0, c.journal.size-keysFromTruth)
	skip := from > 0 // from may be in the middle of a line
	err = scanLines(io.NewSectionReader(file, from, c.journal.size-from), from, func(_ int64, line []byte) error {
		if skip {
			skip = false
			return nil
		}
		if id, account, ref, ok := takenIn(line); ok {
			if a := c.account(account); a != nil {
				c.keys.put(a.index, id, ref)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the keys in the carrier's truth: %w", err)
	}
	return nil
}

// takenIn reads the account and the submission from a line of the truth file, if the line says that the carrier took
// the submission. It does not decode the line: a text cannot imitate a field, for a quote within a text is escaped.
func takenIn(line []byte) (id carrier.Key, account string, ref uint64, ok bool) {
	field := func(name string) (string, bool) {
		_, rest, found := bytes.Cut(line, []byte(`"`+name+`":"`))
		value, _, ended := bytes.Cut(rest, []byte(`"`))
		return string(value), found && ended
	}
	if outcome, _ := field("outcome"); outcome != Accepted {
		return id, "", 0, false
	}
	text, ok1 := field("submission_id")
	account, ok2 := field("account")
	spelled, ok3 := field("ref")
	id, err := schemas.ParseID(text)
	ref, ok4 := parseRef(spelled)
	return id, account, ref, ok1 && ok2 && ok3 && ok4 && err == nil
}

// query returns the outcome of each submission.
func (c *Carrier) query(name string, keys []carrier.Key) ([]carrier.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.quieted {
		return nil, errClosed
	}
	a := c.account(name)
	out := make([]carrier.Result, len(keys))
	for i, key := range keys {
		out[i] = carrier.Result{Outcome: carrier.Retryable, Code: "not here"}
		if a == nil {
			continue
		}
		if ref, ok := c.keys.get(a.index, key); ok {
			out[i] = c.result(&fate{outcome: carrier.Accepted, ref: ref})
		}
	}
	return out, nil
}

// Query implements [carrier.Querier].
func (n *Connector) Query(ctx context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return n.carrier.query(n.opts.Account, keys)
}
