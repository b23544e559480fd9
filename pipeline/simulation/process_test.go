package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/expander"
	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/relay"
	"fanfare/pipeline/scheduler"
	"fanfare/pipeline/sender"
	"fanfare/pipeline/tracker"
	"fanfare/pipeline/view"
	"fanfare/pipeline/window"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/feed"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// roles are the roles that a process may run.
var roles = []string{"relay", "scheduler", "expander", "sender", "tracker", "analytics"}

// process runs roles as cmd/fanfare does, and all its traffic goes through its network.
type process struct {
	w    *world
	name string
	run  []string // its roles
	net  *network

	view   *view.View
	quit   chan struct{} // closed by cancel
	cancel func()        // stops the process gracefully, and returns at once
	done   chan struct{} // closed when every role has ended

	mu       sync.Mutex
	killed   bool
	restarts bool // the plan will start it again; only the plan's goroutine uses this field
	atDeath  []func()
	active   []string  // roles that have not ended
	pausedAt time.Time // time of the last freeze of the whole process
	paused   bool
	skew     time.Duration // error of its wall clock
}

// start starts a process.
func (w *world) start(name string, run []string) *process {
	p := &process{w: w, name: name, run: run, net: &network{}, quit: make(chan struct{}), done: make(chan struct{})}
	p.net.hit = func(at point) {
		w.tracef("%s dies %s", name, at)
		p.kill()
	}
	p.cancel = sync.OnceFunc(func() { close(p.quit) })
	w.tracef("%s starts: %v", name, run)
	if err := p.begin(); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return p
}

// begin wires and runs the roles. They stop in the order of cmd/fanfare: first the roles that deal, last the view.
func (p *process) begin() error {
	w := p.w
	cluster := w.cluster
	cluster.Logger = w.log.With(slog.String("process", p.name))
	cluster.Options = []kgo.Opt{kgo.Dialer(p.net.kafka(w.network.DialContext))}
	rdb := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:1", MaxRetries: -1, Dialer: p.net.redis(func(context.Context, string, string) (net.Conn, error) { return w.dialRedis() }),
	})
	control := port{w.plane, p.net}
	var err error
	if p.view, err = view.New(view.Config{Cluster: cluster, Keys: w.keys, Suppressions: true}); err != nil {
		return err
	}
	limits, err := ratelimit.New(rdb, ratelimit.Config{Names: cluster.Names, Instance: p.name, Logger: cluster.Logger})
	if err != nil {
		return err
	}
	index, err := dlrindex.New(rdb, cluster.Names)
	if err != nil {
		return err
	}
	run := map[string]func(context.Context) error{}
	build := map[string]func() (func(context.Context) error, error){
		"relay": func() (func(context.Context) error, error) {
			r, err := relay.New(relay.Config{Cluster: cluster}, &outbox{port: control, p: p})
			if err != nil {
				return nil, err
			}
			return r.Run, nil
		},
		"scheduler": func() (func(context.Context) error, error) {
			s, err := scheduler.New(scheduler.Config{Cluster: cluster, Keys: w.keys, View: p.view, Audience: control, Store: control, Domains: control, Now: p.now, Pace: w.plan.pace})
			if err != nil {
				return nil, err
			}
			return s.Run, nil
		},
		"expander": func() (func(context.Context) error, error) {
			e, err := expander.New(expander.Config{Cluster: cluster, Now: p.now}, expander.Deps{Keys: w.keys, Campaigns: p.view, Audience: control})
			if err != nil {
				return nil, err
			}
			return e.Run, nil
		},
		"sender": func() (func(context.Context) error, error) {
			var seen sender.View = p.view
			var tokens sender.Tokens = limits
			if w.plant.view != nil {
				seen = w.plant.view(seen)
			}
			if w.plant.tokens != nil {
				tokens = w.plant.tokens(tokens)
			}
			s, err := sender.New(sender.Config{Cluster: cluster, Keys: w.keys, Replication: 1}, sender.Deps{
				View: seen, Tokens: tokens, Rendezvous: index, Connect: p.connect,
				Suspended: func(e *window.SuspendedError) { w.violate("P5", "%s: %v", p.name, e) },
			})
			if err != nil {
				return nil, err
			}
			return s.Run, nil
		},
		"tracker": func() (func(context.Context) error, error) {
			s, err := tracker.New(tracker.Config{Cluster: cluster, Now: p.now}, tracker.Deps{
				Keys: w.keys, Campaigns: p.view, Index: index, Indexed: func(*fanfarev1.Route) bool { return w.plan.profile.HidesKey },
			})
			if err != nil {
				return nil, err
			}
			return s.Run, nil
		},
		"analytics": func() (func(context.Context) error, error) {
			var events store = statistics{w.analytics, p.net}
			if w.plant.statistics != nil {
				events = w.plant.statistics(events)
			}
			f, err := feed.New(feed.Config{Cluster: cluster, Store: events, Campaigns: p.view, Lookup: control.CampaignRecord, Now: p.now})
			if err != nil {
				return nil, err
			}
			return f.Run, nil
		},
	}
	for _, role := range p.run {
		if run[role], err = build[role](); err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
	}
	go p.work(run, rdb)
	return nil
}

// stopOrder is the order in which roles stop; the relay goes last.
var stopOrder = []string{"scheduler", "expander", "sender", "tracker", "analytics", "relay"}

// work runs the roles until the process stops.
func (p *process) work(run map[string]func(context.Context) error, rdb *redis.Client) {
	defer close(p.done)
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	start := func(role string, f func(context.Context) error) running {
		ctx, cancel := context.WithCancel(context.Background())
		r := running{cancel, make(chan struct{})}
		p.note(role, true)
		go func() {
			defer close(r.done)
			defer p.note(role, false)
			if err := f(ctx); err != nil && !p.isKilled() {
				p.w.violate("P5", "%s: role %s ended by itself: %v", p.name, role, err)
			}
		}()
		return r
	}
	seen := start("view", p.view.Run)
	all := map[string]running{}
	for role, f := range run {
		all[role] = start(role, f)
	}
	<-p.quit
	if p.isKilled() {
		for _, r := range all {
			r.cancel()
		}
	}
	for _, role := range stopOrder {
		if r, ok := all[role]; ok {
			r.cancel()
			<-r.done
		}
	}
	seen.cancel()
	<-seen.done
	_ = rdb.Close()
}

// note notes that a role runs or has ended.
func (p *process) note(role string, runs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if runs {
		p.active = append(p.active, role)
	} else {
		p.active = slices.DeleteFunc(p.active, func(x string) bool { return x == role })
	}
}

// stillRuns returns the roles that have not ended.
func (p *process) stillRuns() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.active)
}

// now is the wall clock of the process, for its stages that compare times of records. Sender, limiter and view keep the
// right clock. They measure by the monotonic clock, which does not jump, and a function in place of time.Now cannot
// make the wall clock jump without the monotonic one.
func (p *process) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Add(p.skew)
}

// setSkew makes the wall clock of the process jump.
func (p *process) setSkew(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skew = d
}

// stop ends the process gracefully.
func (p *process) stop() {
	p.thaw()
	p.cancel()
	<-p.done
}

// kill ends the process as kill -9 does: from now on it does nothing that others can see.
func (p *process) kill() {
	p.mu.Lock()
	if p.killed {
		p.mu.Unlock()
		return
	}
	p.killed = true
	deaths := p.atDeath
	p.atDeath = nil
	p.mu.Unlock()
	p.net.die()
	for _, f := range deaths {
		f()
	}
	p.cancel()
}

func (p *process) isKilled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// running reports whether the process was neither killed nor told to stop.
func (p *process) running() bool {
	select {
	case <-p.quit:
		return false
	default:
		return true
	}
}

// onDeath runs f when the process is killed. The returned function cancels this.
func (p *process) onDeath(f func()) {
	p.mu.Lock()
	dead := p.killed
	if !dead {
		p.atDeath = append(p.atDeath, f)
	}
	p.mu.Unlock()
	if dead {
		f()
	}
}

// freeze freezes the process as SIGSTOP does: it sends and receives nothing.
func (p *process) freeze() {
	p.mu.Lock()
	p.paused, p.pausedAt = true, time.Now()
	p.mu.Unlock()
	p.net.freeze()
}

// thaw lets the process continue.
func (p *process) thaw() {
	p.mu.Lock()
	if p.paused {
		p.w.notePause(p.pausedAt, time.Now())
	}
	p.paused = false
	p.mu.Unlock()
	p.net.thaw()
}

// connect connects to the carrier.
func (p *process) connect(_ context.Context, r *fanfarev1.Route) (sender.Line, error) {
	var c handedOver = &line{Connector: p.w.carrier.Connector(sim.Options{Account: r.GetName(), AnswerTimeout: 5 * time.Second}), p: p}
	if p.w.plant.line != nil {
		c = p.w.plant.line(c)
	}
	return sender.Line{Live: c, Test: c}, nil
}

// line is the process's connection to the carrier.
type line struct {
	*sim.Connector
	p *process
}

// handedOver is what the sender uses of a line.
type handedOver interface {
	carrier.Connector
	carrier.ReceiptSource
	carrier.Querier
}

// Query implements [carrier.Querier].
func (l *line) Query(ctx context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	return call(l.p.net, "carrier", "query", func() ([]carrier.Result, error) { return l.Connector.Query(ctx, keys) })
}

// Send hands messages over unless the process is dead. If the process dies meanwhile, it gets no answers.
func (l *line) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	if err := l.p.net.reached("carrier", "send", false); err != nil {
		return err
	}
	if down := l.p.w.carrierDown(); down != 0 {
		switch down {
		case refusing:
			for i := range batch {
				done(i, carrier.Result{Outcome: carrier.Retryable, Code: "0x00000008", Sub: schemas.CodeProviderError})
			}
			return nil
		case throttling:
			for i := range batch {
				done(i, carrier.Result{Outcome: carrier.Throttled, Code: "0x00000058", Sub: schemas.CodeThrottled, RetryAfter: time.Second})
			}
			return nil
		case resetting: // the carrier takes it; the connection breaks before the answer
			err := l.Connector.Send(ctx, batch, func(int, carrier.Result) {})
			if err != nil {
				return err
			}
			for i := range batch {
				done(i, carrier.Result{Outcome: carrier.Unknown})
			}
			return nil
		}
	}
	if err := l.Connector.Send(ctx, batch, func(i int, r carrier.Result) {
		if l.p.net.isFrozen() { // the answer waits in the socket's buffer
			go func() {
				if l.p.net.pass() == nil {
					done(i, r)
				}
			}()
		} else if l.p.net.pass() == nil {
			done(i, r)
		}
	}); err != nil {
		return err
	}
	return l.p.net.reached("carrier", "send", true)
}

// Receipts emits the carrier's receipts. A process that dies acknowledges none.
func (l *line) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.p.onDeath(cancel)
	dead := ctx.Done()
	return l.Connector.Receipts(ctx, func(list []carrier.Receipt) error {
		if err := l.p.net.reached("carrier", "receipt", false); err != nil {
			return err
		}
		result := make(chan error, 1)
		list = slices.Clone(list)
		go func() { result <- emit(list) }()
		select {
		case err := <-result:
			if dead := l.p.net.reached("carrier", "receipt", true); dead != nil {
				return dead
			}
			return err
		case <-dead:
			return errDead
		}
	})
}

// port is the store as a process reaches it.
type port struct {
	*plane
	net *network
}

func (s port) AudienceSize(ctx context.Context, owner, campaign string) (uint64, error) {
	return call(s.net, "store", "size", func() (uint64, error) { return s.plane.AudienceSize(ctx, owner, campaign) })
}

func (s port) Freeze(ctx context.Context, owner, campaign string, rowVersion uint64) error {
	_, err := call(s.net, "store", "freeze", func() (struct{}, error) { return struct{}{}, s.plane.Freeze(ctx, owner, campaign, rowVersion) })
	return err
}

func (s port) Blobs(ctx context.Context, freezeID string) ([]audience.Index, error) {
	return call(s.net, "store", "blobs", func() ([]audience.Index, error) { return s.plane.Blobs(ctx, freezeID) })
}

func (s port) Blob(ctx context.Context, freezeID string, blob uint32) ([]byte, error) {
	return call(s.net, "store", "blob", func() ([]byte, error) { return s.plane.Blob(ctx, freezeID, blob) })
}

func (s port) Apply(ctx context.Context, ch schemas.Change) (uint64, error) {
	return call(s.net, "store", "apply", func() (uint64, error) { return s.plane.Apply(ctx, ch) })
}

func (s port) CampaignRecord(ctx context.Context, id string) (*fanfarev1.Campaign, error) {
	return call(s.net, "store", "lookup", func() (*fanfarev1.Campaign, error) { return s.plane.CampaignRecord(ctx, id) })
}

// outbox is the relay's side of the store. The database releases the lock when the process dies.
type outbox struct {
	port
	p *process
}

func (o *outbox) Lead(ctx context.Context) (func(), bool, error) {
	if err := o.net.pass(); err != nil {
		return nil, false, err
	}
	release, ok, err := o.plane.Lead(ctx)
	if ok {
		o.p.onDeath(release)
	}
	return release, ok, err
}

func (o *outbox) Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error) {
	return call(o.net, "store", "unpublished", func() ([]schemas.OutboxRow, error) { return o.plane.Unpublished(ctx, limit) })
}

func (o *outbox) MarkPublished(ctx context.Context, rows []schemas.OutboxRow) error {
	_, err := call(o.net, "store", "mark", func() (struct{}, error) { return struct{}{}, o.plane.MarkPublished(ctx, rows) })
	return err
}

func (o *outbox) Republish(ctx context.Context, typ schemas.EventType, keys ...string) error {
	_, err := call(o.net, "store", "republish", func() (struct{}, error) { return struct{}{}, o.plane.Republish(ctx, typ, keys...) })
	return err
}

// statistics is the store of analytics as a process reaches it.
type statistics struct {
	store
	net *network
}

// store is the analytics store as the feed uses it: it also keeps positions.
type store interface {
	analytics.Store
	analytics.Positioner
}

func (s statistics) Append(ctx context.Context, batches ...analytics.Batch) error {
	_, err := call(s.net, "analytics", "append", func() (struct{}, error) { return struct{}{}, s.store.Append(ctx, batches...) })
	return err
}

func (s statistics) Mark(ctx context.Context, topic analytics.TopicID, marks []analytics.Mark) error {
	_, err := call(s.net, "analytics", "mark", func() (struct{}, error) { return struct{}{}, s.store.Mark(ctx, topic, marks) })
	return err
}

func (s statistics) Positions(ctx context.Context, topic analytics.TopicID) (map[int32]int64, error) {
	return call(s.net, "analytics", "positions", func() (map[int32]int64, error) { return s.store.Positions(ctx, topic) })
}

// AllotDomains returns no domains, because the campaigns of the simulation have no links on domains.
func (s port) AllotDomains(context.Context, schemas.DomainRequest) ([]*fanfarev1.DomainBlock, error) {
	return nil, errors.New("the simulation has no domains")
}
