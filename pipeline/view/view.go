// Package view is the control plane as every process knows it: campaigns, routes, tenants, sender ids, domains and
// opt-outs, kept in memory from the topics `campaigns`, `control` and `suppressions`.
//
// A view knows how old it is ([View.Age], [View.SuppressionsAge]). Its readers decide what is too old.
package view

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Config of a [View].
type Config struct {
	Cluster stream.Cluster
	// Keys hash numbers; needed with Suppressions.
	Keys *schemas.Keys
	// Suppressions keeps the opt-outs too.
	Suppressions bool
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// View is the control plane as this process knows it: topics `campaigns` and `control`, and `suppressions` if asked
// for, followed from their beginnings. The view ignores a record whose version is not above the known one; a tombstone
// removes the row. All methods are safe for concurrent use and never block. Returned values are shared: do not change
// them.
type View struct {
	cfg     Config
	control *stream.Tail
	optOut  *stream.Tail // nil without suppressions
	ready   chan struct{}
	metrics *metrics

	campaigns [campaignShards]atomic.Pointer[map[uint64]*fanfarev1.Campaign]
	rows      atomic.Pointer[controlRows]
	versions  map[string]uint64 // by key of topic control; only the control tail uses it
	changed   atomic.Pointer[chan struct{}]

	numbers  optOuts
	perOwner map[string]int                      // number of opt-outs by tenant; only the suppressions tail uses it
	owners   atomic.Pointer[map[string]struct{}] // tenants that have any
}

// campaignShards is the number of parts of the map of campaigns: a change copies only one part.
const campaignShards = 64

type controlRows struct {
	routes  map[string]*fanfarev1.Route
	tenants map[string]*fanfarev1.Tenant
	senders map[senderKey]*fanfarev1.Sender
	domains map[string]*fanfarev1.Domain // by host
}

type senderKey struct{ tenant, id string }

// How often the ends of the topics are looked up: more often for opt-outs, whose age is a promise (P4).
const (
	askControl      = time.Second
	askSuppressions = 500 * time.Millisecond
)

// New returns a view that [View.Run] fills.
func New(cfg Config) (*View, error) {
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
	v.control, err = stream.NewTail(stream.TailConfig{
		Cluster: cfg.Cluster.Named("view"), Topics: []string{names.Campaigns(), names.Control()}, Every: askControl, Now: cfg.Now,
	}, v.applyControl)
	if err != nil {
		return nil, fmt.Errorf("view: %w", err)
	}
	if cfg.Suppressions {
		v.optOut, err = stream.NewTail(stream.TailConfig{
			Cluster: cfg.Cluster.Named("suppressions"), Topics: []string{names.Suppressions()}, Every: askSuppressions, Now: cfg.Now,
		}, v.applySuppressions)
		if err != nil {
			return nil, fmt.Errorf("view: %w", err)
		}
	}
	v.metrics = newMetrics(cfg.Cluster.Registry, v)
	return v, nil
}

// Run follows the topics until ctx ends.
func (v *View) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.control.Run(ctx) })
	tails := []*stream.Tail{v.control}
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

// Age is how long ago `campaigns` and `control` were last known to be read to their ends; [stream.Never] before they
// were.
func (v *View) Age() time.Duration { return v.control.Age() }

// SuppressionsAge is [View.Age] of `suppressions`; [stream.Never] when they are not followed.
func (v *View) SuppressionsAge() time.Duration {
	if v.optOut == nil {
		return stream.Never
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

// Domain returns the domain of links with a host, in lower case and without a port; nil when it is unknown.
func (v *View) Domain(host string) *fanfarev1.Domain { return v.rows.Load().domains[host] }

// OptedOut reports whether a number, in E.164 with +, has opted out of a tenant's messages of a channel. Without
// suppressions it is always false.
func (v *View) OptedOut(tenant, e164 string, channel schemas.Channel) bool {
	if _, any := (*v.owners.Load())[tenant]; !any {
		return false
	}
	h := v.cfg.Keys.NumberHash(tenant, e164)
	number := binary.BigEndian.Uint64(h[:])
	return v.numbers.has(number) || v.numbers.has(ofChannel(number, channel))
}

// Changed returns a channel that is closed at the next change of a campaign or a row of control. Take it before
// reading, or you may miss a change.
func (v *View) Changed() <-chan struct{} { return *v.changed.Load() }

// applyControl applies records of campaigns and control; those that do not decode are logged and skipped.
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
	v.cfg.Cluster.Logger.Error("control-plane record skipped", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
}

// errKey is returned for a record whose key does not belong to the row in its value: it would replace another row.
var errKey = errors.New("the key is not that of the row")

// campaign adds the campaign of r to changes, unless its version is known already.
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

// row applies one record of control to a copy of the rows, which is made at the first change.
func (v *View) row(rows **controlRows, r *kgo.Record) error {
	key := string(r.Key)
	kind, rest, _ := strings.Cut(key, "/")
	own, id, _ := strings.Cut(rest, "/")
	if kind != "route" && kind != "tenant" && kind != "sender" && kind != "domain" {
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
		case row.GetDomain() != nil:
			want = schemas.DomainKey(row.GetDomain().GetHost())
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
		*rows = &controlRows{cloned(old.routes), cloned(old.tenants), cloned(old.senders), cloned(old.domains)}
	}
	switch kind {
	case "route":
		set((*rows).routes, rest, row.GetRoute())
	case "tenant":
		set((*rows).tenants, rest, row.GetTenant())
	case "domain":
		set((*rows).domains, rest, row.GetDomain())
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

// set sets k to v, or deletes k if v is nil.
func set[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// ofChannel is the place of an opt-out of one channel in the set of hashes: that of all channels is the hash of the
// number itself. The multiplier is odd and has no pattern (the fraction of the golden ratio), so that the hashes of two
// channels collide only by chance.
func ofChannel(number uint64, channel schemas.Channel) uint64 {
	return number ^ uint64(channel)*0x9e3779b97f4a7c15
}

// applySuppressions applies records of opt-outs. A tombstone has only a key. A value that cannot be read counts as an
// opt-out of all channels.
func (v *View) applySuppressions(batch []*kgo.Record) {
	owners := false
	for _, r := range batch {
		tenant, h, err := suppressionKey(r.Key)
		if err != nil {
			v.refuse(r, err)
			continue
		}
		var s fanfarev1.Suppression
		if err := proto.Unmarshal(r.Value, &s); err != nil {
			v.refuse(r, err)
			s.Reset()
		}
		owners = v.takeOptOut(tenant, h, r.Value != nil, s.GetChannels()) || owners
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

// takeOptOut stores which channels a number has opted out of; no channels: all of them. It adds before it removes, so
// that a reader never misses an opt-out that holds both before and after. It reports whether the tenant now has its
// first opt-out, or none any more.
func (v *View) takeOptOut(tenant string, number uint64, holds bool, channels []schemas.Channel) (owners bool) {
	before := v.perOwner[tenant]
	every := holds && len(channels) == 0
	places := map[uint64]bool{number: every}
	for n := range fanfarev1.Channel_name {
		if channel := schemas.Channel(n); channel != schemas.ChannelUnspecified {
			places[ofChannel(number, channel)] = holds && slices.Contains(channels, channel)
		}
	}
	for h, in := range places {
		if in && v.numbers.add(h) {
			v.perOwner[tenant]++
		}
	}
	for h, in := range places {
		if !in && v.numbers.remove(h) {
			v.perOwner[tenant]--
		}
	}
	if v.perOwner[tenant] == 0 {
		delete(v.perOwner, tenant)
	}
	return before == 0 != (v.perOwner[tenant] == 0)
}

func suppressionKey(key []byte) (tenant string, hash uint64, err error) {
	tenant, digits, ok := strings.Cut(string(key), "/")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 8 {
		return "", 0, errKey
	}
	return tenant, binary.BigEndian.Uint64(b), nil
}

// metrics of the control view.
type metrics struct {
	refused prometheus.Counter
	optOuts prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, v *View) *metrics {
	age := func(name, help string, of func() time.Duration) {
		stream.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of().Seconds() }))
	}
	age("fanfare_view_age_seconds", "How long ago campaigns and control were last known to be read to their ends.", v.Age)
	if v.optOut != nil {
		age("fanfare_view_suppressions_age_seconds", "How long ago the suppressions were last known to be read to their ends.", v.SuppressionsAge)
	}
	return &metrics{
		refused: stream.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_view_refused_records_total", Help: "Records of the control plane that could not be read."})),
		optOuts: stream.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_view_suppressions", Help: "Opt-outs in memory."})),
	}
}
