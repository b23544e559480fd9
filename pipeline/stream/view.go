package stream

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// ViewConfig of a [View].
type ViewConfig struct {
	Cluster Cluster
	// Keys hash numbers; needed with Suppressions.
	Keys *schemas.Keys
	// Suppressions keeps the opt-outs too.
	Suppressions bool
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// View is the control plane as this process knows it: topics `campaigns` and `control`, and `suppressions` if asked for,
// followed from their beginnings. A version not above the one known is ignored, a tombstone removes. Every method may be
// called by many at once and none waits. What is returned is shared: never change it.
type View struct {
	cfg     ViewConfig
	control *Tail
	optOut  *Tail // nil without suppressions
	ready   chan struct{}
	metrics *viewMetrics

	campaigns [campaignShards]atomic.Pointer[map[uint64]*fanfarev1.Campaign]
	rows      atomic.Pointer[controlRows]
	versions  map[string]uint64 // by key of control; of the control tail alone
	changed   atomic.Pointer[chan struct{}]

	numbers  optOuts
	perOwner map[string]int                      // opt-outs by tenant; of the suppressions tail alone
	owners   atomic.Pointer[map[string]struct{}] // tenants that have any
}

// campaignShards is how many parts the campaigns are in: a change copies one of them.
const campaignShards = 64

type controlRows struct {
	routes  map[string]*fanfarev1.Route
	tenants map[string]*fanfarev1.Tenant
	senders map[senderKey]*fanfarev1.Sender
}

type senderKey struct{ tenant, id string }

// How often ends are asked for: the age of an opt-out counts more.
const (
	askControl      = time.Second
	askSuppressions = 500 * time.Millisecond
)

// NewView returns a view that [View.Run] fills.
func NewView(cfg ViewConfig) (*View, error) {
	if cfg.Suppressions && cfg.Keys == nil {
		return nil, errors.New("view: suppressions need the keys that hash numbers")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	v := &View{cfg: cfg, ready: make(chan struct{}), versions: map[string]uint64{}, perOwner: map[string]int{}}
	for i := range v.campaigns {
		v.campaigns[i].Store(&map[uint64]*fanfarev1.Campaign{})
	}
	v.rows.Store(&controlRows{})
	v.owners.Store(&map[string]struct{}{})
	v.changed.Store(new(make(chan struct{})))
	names := cfg.Cluster.Names
	var err error
	v.control, err = NewTail(TailConfig{
		Cluster: cfg.Cluster.Named("view"), Topics: []string{names.Campaigns(), names.Control()}, Every: askControl, Now: cfg.Now,
	}, v.applyControl)
	if err != nil {
		return nil, fmt.Errorf("view: %w", err)
	}
	if cfg.Suppressions {
		v.optOut, err = NewTail(TailConfig{
			Cluster: cfg.Cluster.Named("suppressions"), Topics: []string{names.Suppressions()}, Every: askSuppressions, Now: cfg.Now,
		}, v.applySuppressions)
		if err != nil {
			return nil, fmt.Errorf("view: %w", err)
		}
	}
	v.metrics = newViewMetrics(cfg.Cluster.Registry, v)
	return v, nil
}

// Run follows the topics until ctx ends.
func (v *View) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.control.Run(ctx) })
	tails := []*Tail{v.control}
	if v.optOut != nil {
		g.Go(func() error { return v.optOut.Run(ctx) })
		tails = append(tails, v.optOut)
	}
	g.Go(func() error {
		for _, t := range tails {
			select {
			case <-ctx.Done():
				return nil
			case <-t.Ready():
			}
		}
		close(v.ready)
		return nil
	})
	return g.Wait()
}

// Ready is closed once everything has been read to its end.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Age is how long ago `campaigns` and `control` were last known to be read to their ends; [Never] before they were.
func (v *View) Age() time.Duration { return v.control.Age() }

// SuppressionsAge is [View.Age] of `suppressions`; [Never] when they are not followed.
func (v *View) SuppressionsAge() time.Duration {
	if v.optOut == nil {
		return Never
	}
	return v.optOut.Age()
}

// Campaign returns a campaign by its public id, nil when it is unknown.
func (v *View) Campaign(id string) *fanfarev1.Campaign {
	digits, ok := strings.CutPrefix(id, "camp_")
	if !ok || len(digits) == 0 || len(digits) > 15 { // 2^48 has 15 digits
		return nil
	}
	var n uint64
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return nil
		}
		n = n*10 + uint64(d)
	}
	if c := v.CampaignByNumber(n); c != nil && c.GetId() == id {
		return c
	}
	return nil
}

// CampaignByNumber returns a campaign by its number, nil when it is unknown.
func (v *View) CampaignByNumber(n uint64) *fanfarev1.Campaign {
	return (*v.campaigns[n%campaignShards].Load())[n]
}

// Campaigns returns all campaigns, in no order.
func (v *View) Campaigns() []*fanfarev1.Campaign {
	var out []*fanfarev1.Campaign
	for i := range v.campaigns {
		for _, c := range *v.campaigns[i].Load() {
			out = append(out, c)
		}
	}
	return out
}

// Route returns a route, nil when it is unknown.
func (v *View) Route(name string) *fanfarev1.Route { return v.rows.Load().routes[name] }

// Routes returns all routes, in no order.
func (v *View) Routes() []*fanfarev1.Route {
	rows := v.rows.Load().routes
	out := make([]*fanfarev1.Route, 0, len(rows))
	for _, r := range rows {
		out = append(out, r)
	}
	return out
}

// Tenant returns a tenant, nil when it is unknown.
func (v *View) Tenant(id string) *fanfarev1.Tenant { return v.rows.Load().tenants[id] }

// Sender returns a sender id of a tenant, nil when it is unknown.
func (v *View) Sender(tenant, id string) *fanfarev1.Sender {
	return v.rows.Load().senders[senderKey{tenant, id}]
}

// OptedOut reports whether a tenant must not write to a number, given in E.164 with +. It is false of everything when the
// suppressions are not followed.
func (v *View) OptedOut(tenant, e164 string) bool {
	if _, any := (*v.owners.Load())[tenant]; !any {
		return false
	}
	h := v.cfg.Keys.NumberHash(tenant, e164)
	return v.numbers.has(binary.BigEndian.Uint64(h[:]))
}

// Changed is closed at the next change of a campaign or of a row of control, once it can be read. Take it before reading, or
// a change is missed.
func (v *View) Changed() <-chan struct{} { return *v.changed.Load() }

// applyControl takes campaigns and rows of control in; what does not decode is logged and left out.
func (v *View) applyControl(batch []*kgo.Record) {
	campaigns := map[uint64]*fanfarev1.Campaign{} // nil: gone
	var rows *controlRows
	for _, r := range batch {
		var err error
		if r.Topic == v.cfg.Cluster.Names.Campaigns() {
			err = v.campaign(campaigns, r)
		} else {
			err = v.row(&rows, r)
		}
		if err != nil {
			v.refuse(r, err)
		}
	}
	v.storeCampaigns(campaigns)
	if rows != nil {
		v.rows.Store(rows)
	}
	if len(campaigns) > 0 || rows != nil {
		close(*v.changed.Swap(new(make(chan struct{}))))
	}
}

func (v *View) refuse(r *kgo.Record, err error) {
	v.metrics.refused.Inc()
	v.cfg.Cluster.Logger.Error("view: a record is left out", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
}

// errKey is returned for a record whose key is not that of its row: it would put a row in another one's place.
var errKey = errors.New("the key is not that of the row")

// campaign puts the campaign of r into changes, unless a version as new is known.
func (v *View) campaign(changes map[uint64]*fanfarev1.Campaign, r *kgo.Record) error {
	_, id, _ := strings.Cut(string(r.Key), "/")
	n, err := schemas.CampaignNumber(id)
	if err != nil {
		return errKey
	}
	known, changing := changes[n]
	if !changing {
		known = v.CampaignByNumber(n)
	}
	if r.Value == nil {
		if known != nil {
			changes[n] = nil
		}
		return nil
	}
	c := &fanfarev1.Campaign{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if c.GetNumber() != n || schemas.CampaignKey(c.GetTenant(), c.GetId()) != string(r.Key) {
		return errKey
	}
	if known == nil || c.GetVersion() > known.GetVersion() {
		changes[n] = c
	}
	return nil
}

func (v *View) storeCampaigns(changes map[uint64]*fanfarev1.Campaign) {
	var parts [campaignShards]map[uint64]*fanfarev1.Campaign
	for n, c := range changes {
		i := n % campaignShards
		if parts[i] == nil {
			parts[i] = maps.Clone(*v.campaigns[i].Load())
		}
		if c == nil {
			delete(parts[i], n)
		} else {
			parts[i][n] = c
		}
	}
	for i := range parts {
		if parts[i] != nil {
			v.campaigns[i].Store(&parts[i])
		}
	}
}

// row takes one row of control in, into a copy of the rows that is made when the first one changes.
func (v *View) row(rows **controlRows, r *kgo.Record) error {
	key := string(r.Key)
	kind, rest, _ := strings.Cut(key, "/")
	own, id, _ := strings.Cut(rest, "/")
	if kind != "route" && kind != "tenant" && kind != "sender" {
		return errKey
	}
	row := &fanfarev1.Control{}
	if r.Value != nil {
		if err := proto.Unmarshal(r.Value, row); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		var want string
		switch {
		case row.GetRoute() != nil:
			want = schemas.RouteKey(row.GetRoute().GetName())
		case row.GetTenant() != nil:
			want = schemas.TenantKey(row.GetTenant().GetId())
		case row.GetSender() != nil:
			want = schemas.SenderKey(row.GetSender().GetTenant(), row.GetSender().GetId())
		}
		if want != key {
			return errKey
		}
		if known, ok := v.versions[key]; ok && row.GetVersion() <= known {
			return nil
		}
		v.versions[key] = row.GetVersion()
	} else {
		delete(v.versions, key)
	}
	if *rows == nil {
		old := v.rows.Load()
		*rows = &controlRows{cloned(old.routes), cloned(old.tenants), cloned(old.senders)}
	}
	switch kind {
	case "route":
		set((*rows).routes, rest, row.GetRoute())
	case "tenant":
		set((*rows).tenants, rest, row.GetTenant())
	default:
		set((*rows).senders, senderKey{own, id}, row.GetSender())
	}
	return nil
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// set puts v under k, or takes k out when v is nil.
func set[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// applySuppressions takes opt-outs in. Only the key is read: a tombstone has nothing else.
func (v *View) applySuppressions(batch []*kgo.Record) {
	owners := false
	for _, r := range batch {
		tenant, h, err := suppressionKey(r.Key)
		if err != nil {
			v.refuse(r, err)
			continue
		}
		switch {
		case r.Value != nil && v.numbers.add(h):
			v.perOwner[tenant]++
			owners = owners || v.perOwner[tenant] == 1
		case r.Value == nil && v.numbers.remove(h):
			v.perOwner[tenant]--
			if v.perOwner[tenant] == 0 {
				delete(v.perOwner, tenant)
				owners = true
			}
		}
	}
	v.metrics.optOuts.Set(float64(v.numbers.len()))
	if owners {
		m := make(map[string]struct{}, len(v.perOwner))
		for tenant := range v.perOwner {
			m[tenant] = struct{}{}
		}
		v.owners.Store(&m)
	}
}

func suppressionKey(key []byte) (tenant string, hash uint64, err error) {
	tenant, digits, ok := strings.Cut(string(key), "/")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 8 {
		return "", 0, errKey
	}
	return tenant, binary.BigEndian.Uint64(b), nil
}

// viewMetrics of the control view.
type viewMetrics struct {
	refused prometheus.Counter
	optOuts prometheus.Gauge
}

func newViewMetrics(reg prometheus.Registerer, v *View) *viewMetrics {
	age := func(name, help string, of func() time.Duration) {
		register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of().Seconds() }))
	}
	age("fanfare_view_age_seconds", "How long ago campaigns and control were last known to be read to their ends.", v.Age)
	if v.optOut != nil {
		age("fanfare_view_suppressions_age_seconds", "How long ago the suppressions were last known to be read to their ends.", v.SuppressionsAge)
	}
	return &viewMetrics{
		refused: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_view_refused_records_total", Help: "Records of the control plane that could not be taken in."})),
		optOuts: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_view_suppressions", Help: "Opt-outs in memory."})),
	}
}
