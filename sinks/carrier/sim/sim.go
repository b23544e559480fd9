package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"

	"golang.org/x/sync/errgroup"
)

// Bounds and defaults.
const (
	// DefaultMaxOwed is how many receipts the carrier may owe before its queue is full: about 300 MB.
	DefaultMaxOwed = 5_000_000
	// DefaultLease is how long a consumer in another process has to acknowledge receipts before another consumer gets
	// them.
	DefaultLease = 10 * time.Second
	// DefaultAnswerTimeout is how long a connector waits for an answer.
	DefaultAnswerTimeout = 10 * time.Second
	// MaxBatch is how many messages one Send and one request may have.
	MaxBatch = 1000
	// MaxReceipts is how many receipts one emit and one request may have.
	MaxReceipts = 1000

	maxAccounts = 1000

	answerWidth  = 1  // milliseconds: answers pace the sender
	receiptWidth = 10 // milliseconds: no test depends on when a receipt comes, and greater batches cost less
)

// Config of a simulated carrier.
type Config struct {
	// Keys find the message of a submission. Required.
	Keys *schemas.Keys
	// Profile is the behaviour of the carrier; the zero value accepts and delivers everything at once.
	Profile Profile
	// Seed of every draw.
	Seed uint64
	// Truth is the path of the ground truth. If it is empty, there is no such file, and receipts that are owed are lost
	// at the end of the process.
	Truth string
	// MaxOwed is how many receipts the carrier may owe; beyond that it throttles submissions. 0: DefaultMaxOwed.
	MaxOwed int
	// Lease is how long a consumer in another process has to acknowledge. 0: DefaultLease.
	Lease time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

// Carrier is a simulated carrier. It answers and sends receipts while Run runs.
type Carrier struct {
	cfg      Config
	log      *slog.Logger
	journal  *journal // nil if there is no truth file
	backlog  ackedSet // acknowledged before the start, until the truth file is read again
	readFrom int64    // where the carrier starts to read the truth file again
	readTo   int64    // and where it stops: what follows was written by this run
	wake     chan struct{}
	quiet    chan struct{} // closed by Quiesce
	done     chan struct{} // closed by Close
	work     sync.Pool
	written  mailbox

	mu       sync.Mutex
	quieted  bool
	closed   bool
	refs     uint64 // last id that was used
	virtual  int64  // offset in the truth file if there is none
	bucket   bucket
	accounts map[string]*account
	list     []*account // by index
	answers  *wheel[answer]
	receipts *wheel[owed]
	armed    int64 // when Run will look next; 0: it is looking
	owed     int   // receipts not acknowledged
	counts   outstanding
	loaded   bool
	loadedTo int64
	mark     int64 // last watermark written
	keys     keyMemory
	passed   passing
	stats    Stats
}

// account is one customer of the carrier: the receipts owed to it go to any consumer of this account.
type account struct {
	name   string
	index  uint32
	due    deque[owed]
	leases map[uint64]*lease
	last   uint64        // the last lease
	more   chan struct{} // closed when receipts become due
}

// lease is a set of receipts that one consumer has got and not acknowledged.
type lease struct {
	receipts []owed
	expires  int64 // Unix milliseconds; 0: never, the consumer lives in this process
}

// owed is a receipt that the carrier must send.
type owed struct {
	id      uint64
	key     carrier.Key
	ref     uint64
	to      uint64
	at      int64
	account uint32 // by index: the garbage collector does not scan memory without pointers
	code    uint16
	status  uint8
	part    uint8
	parts   uint8
}

// answer is an answer that the carrier must give.
type answer struct {
	to     answerer
	i      int
	result carrier.Result
}

// answerer takes the answers to one batch. Its methods must not block.
type answerer interface {
	// expect says before the first answer how many answers will come, and whether the connection breaks after the last
	// one.
	expect(answers int, broken bool)
	answer(i int, r carrier.Result)
}

// Stats counts what has happened since the carrier was opened.
type Stats struct {
	// Submissions by outcome, with the words of the truth file.
	Submissions map[string]uint64 `json:"submissions"`
	// Owed receipts, of this run and of earlier ones, are not acknowledged yet. Acknowledged counts those of this run.
	Owed         int    `json:"owed"`
	Acknowledged uint64 `json:"acknowledged"`
	// Loaded says that the truth of earlier runs has been read to its end.
	Loaded bool `json:"loaded"`
}

// Open returns a carrier that continues where the last carrier with the same truth file stopped. Open reads only the
// end of that file; Run reads the rest.
func Open(cfg Config) (*Carrier, error) {
	if cfg.Keys == nil {
		return nil, errors.New("carrier simulator: keys are missing")
	}
	if err := cfg.Profile.Validate(); err != nil {
		return nil, fmt.Errorf("carrier simulator: profile %q: %w", cfg.Profile.Name, err)
	}
	if cfg.MaxOwed == 0 {
		cfg.MaxOwed = DefaultMaxOwed
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Carrier{
		cfg: cfg, log: cfg.Logger, loaded: true,
		wake: make(chan struct{}, 1), quiet: make(chan struct{}), done: make(chan struct{}),
		accounts: map[string]*account{},
		answers:  newWheel[answer](answerWidth), receipts: newWheel[owed](receiptWidth),
		stats: Stats{Submissions: map[string]uint64{}}, passed: passing{},
	}
	c.work.New = func() any { return &work{dice: newDice()} }
	now := time.Now()
	c.bucket = newBucket(cfg.Profile.Rate, cfg.Profile.Burst, now)
	// The provider's ids grow by one. No id is used twice, because a later run begins at a later millisecond or in a
	// longer file.
	c.refs = uint64(now.UnixMilli()) << 20
	if cfg.Truth != "" {
		var err error
		if c.journal, c.backlog, c.readFrom, err = openJournal(cfg.Truth); err != nil {
			return nil, err
		}
		c.refs += uint64(c.journal.size)
		c.mark, c.readTo = c.readFrom, c.journal.size
		c.counts.first = c.readFrom / segment
		c.loaded, c.loadedTo = c.readFrom >= c.readTo, c.readFrom
	}
	c.keys = newKeyMemory(c.refs)
	if err := c.loadKeys(); err != nil {
		return nil, errors.Join(err, c.journal.close())
	}
	return c, nil
}

// Run gives answers and sends receipts when they are due, until ctx ends. The next run with the same truth file sends
// the receipts that are still owed.
func (c *Carrier) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.load(ctx) })
	g.Go(func() error {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			case <-c.wake:
			}
			timer.Reset(c.turn())
		}
	})
	return g.Wait()
}

// Quiesce ends the HTTP requests that wait for receipts and refuses further submissions with a passing error. The
// carrier still answers the messages that it took before.
func (c *Carrier) Quiesce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quieted {
		c.quieted = true
		close(c.quiet)
	}
}

// Close closes the files. Later submissions get a temporary error.
func (c *Carrier) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.done)
	if c.journal == nil {
		return nil
	}
	if err := c.journal.close(); err != nil {
		return fmt.Errorf("close the carrier's truth: %w", err)
	}
	return nil
}

// Stats returns what the carrier has seen.
func (c *Carrier) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Submissions = maps.Clone(s.Submissions)
	s.Owed, s.Loaded = c.owed, c.loaded
	return s
}

// errClosed is the answer to a query once the carrier stops.
var errClosed = errors.New("the carrier simulator is closed")

// idle is how long Run sleeps at most, because leases expire and the watermark moves.
const idle = time.Second

// turn gives the answers and sends the receipts that are due, and returns the time until the next one is due.
func (c *Carrier) turn() time.Duration {
	var due []answer
	c.mu.Lock()
	now := time.Now().UnixMilli()
	c.answers.expire(now, func(a []answer) { due = append(due, a...) })
	c.receipts.expire(now, func(r []owed) {
		for _, o := range r {
			c.list[o.account].due.push(o)
		}
	})
	for _, a := range c.accounts {
		a.expire(now)
		a.announce()
	}
	c.advance()
	wait := idle
	for _, next := range []func() (int64, bool){c.answers.next, c.receipts.next} {
		if at, ok := next(); ok {
			wait = min(wait, time.Duration(at-now)*time.Millisecond)
		}
	}
	c.armed = now + wait.Milliseconds()
	c.mu.Unlock()
	for _, a := range due {
		a.to.answer(a.i, a.result)
	}
	return wait
}

// rouse wakes Run if something is due earlier than Run planned to look. The caller holds the lock.
func (c *Carrier) rouse(at int64) {
	if at >= c.armed {
		return
	}
	c.armed = 0
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// advance moves the watermark. The caller holds the lock.
func (c *Carrier) advance() {
	if c.journal == nil || c.closed {
		return
	}
	limit := c.journal.size
	if !c.loaded {
		limit = c.loadedTo
	}
	if mark := c.counts.advance(limit); mark > c.mark {
		c.mark = mark
		if err := c.journal.ack([]uint64{watermarkBit | uint64(mark)}); err != nil {
			c.log.Error("write of the watermark failed", "err", err)
		}
	}
}

// account returns the account with a name. It creates the account if there is none; it returns nil if there are too
// many. The caller holds the lock.
func (c *Carrier) account(name string) *account {
	a := c.accounts[name]
	if a == nil && len(c.list) < maxAccounts {
		a = &account{name: name, index: uint32(len(c.list)), leases: map[uint64]*lease{}, more: make(chan struct{})}
		a.last = c.refs // so that leases of an earlier run are not taken for leases of this run
		c.accounts[name] = a
		c.list = append(c.list, a)
	}
	return a
}

// announce wakes the consumers that wait for receipts of the account, if there are any.
func (a *account) announce() {
	if a.due.len() > 0 {
		close(a.more)
		a.more = make(chan struct{})
	}
}

// expire takes back receipts that a consumer has not acknowledged in time.
func (a *account) expire(now int64) {
	for id, l := range a.leases {
		if l.expires != 0 && l.expires <= now {
			a.due.pushFront(l.receipts...)
			delete(a.leases, id)
		}
	}
}

// take leases up to limit receipts that are due. If there are none, it returns a channel that is closed when there may
// be some.
func (c *Carrier) take(name string, limit int, ttl time.Duration) (id uint64, receipts []owed, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.account(name)
	if a == nil {
		return 0, nil, nil
	}
	if a.due.len() == 0 {
		return 0, nil, a.more
	}
	l := &lease{receipts: a.due.pop(nil, limit)}
	if ttl > 0 {
		l.expires = time.Now().Add(ttl).UnixMilli()
	}
	a.last++
	a.leases[a.last] = l
	return a.last, l.receipts, nil
}

// settle ends a lease: the receipts are acknowledged, or another consumer gets them. An unknown lease has expired, and
// its receipts come again.
func (c *Carrier) settle(name string, id uint64, ok bool) {
	c.mu.Lock()
	a := c.account(name)
	if a == nil {
		c.mu.Unlock()
		return
	}
	l := a.leases[id]
	delete(a.leases, id)
	if l == nil {
		c.mu.Unlock()
		return
	}
	if !ok {
		a.due.pushFront(l.receipts...)
		a.announce()
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()

	// This write needs no lock, but it must come before the watermark passes the receipts.
	if c.journal != nil {
		ids := make([]uint64, len(l.receipts))
		for i := range l.receipts {
			ids[i] = l.receipts[i].id
		}
		if err := c.journal.ack(ids); err != nil {
			// These receipts count as acknowledged while this process lives. The next process sends them again.
			c.log.Error("write of acknowledged receipts failed", "err", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed -= len(l.receipts)
	c.stats.Acknowledged += uint64(len(l.receipts))
	for i := range l.receipts {
		c.counts.add(int64(l.receipts[i].id/maxReceipts), -1)
	}
}

// owe queues a receipt until it is due, or for a consumer if it is due already. The caller holds the lock.
func (c *Carrier) owe(o owed, due, now int64) {
	c.owed++
	c.counts.add(int64(o.id/maxReceipts), 1)
	if due <= now {
		c.list[o.account].due.push(o)
		return
	}
	c.receipts.add(due, o)
}

// bucket is a token bucket.
type bucket struct {
	rate, burst, tokens float64
	last                time.Time
}

func newBucket(rate float64, burst int, now time.Time) bucket {
	b := bucket{rate: rate, burst: float64(burst), last: now}
	if burst == 0 {
		b.burst = max(1, rate/10)
	}
	b.tokens = b.burst
	return b
}

// take takes one token, or returns how long until there is one.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b.rate <= 0 {
		return 0, true
	}
	if d := now.Sub(b.last); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.last = now
	}
	if b.tokens >= 1 {
		b.tokens--
		return 0, true
	}
	return time.Duration((1 - b.tokens) / b.rate * float64(time.Second)), false
}

// work is the data of one batch while it is being submitted.
type work struct {
	dice  dice
	fates []fate
	plan  []planned
	lines []byte
	ends  []int // ends of the lines
}
