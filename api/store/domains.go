package store

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Domains of links (R39, R40). The count of a domain's messages is in the store, because a domain is shared by all
// campaigns of a tenant or of the installation, and because its limit is for ever. The scheduler, which alone deals
// recipients, reserves a part of the limits for the next recipients of a blob ([Store.AllotDomains]) before it deals
// them. The reservation is a row that is never changed: it says how many of those recipients get which domain, and the
// expander derives each recipient's domain from it. So many expanders need no count of their own. A recipient whose
// chunk is expanded twice, or who is tried again, has the same domain and is counted once. When the campaign settles,
// the store gives back what it had reserved for recipients for whom no message was made.

// Statuses of a domain.
const (
	DomainActive = "active"
	DomainPaused = "paused" // its links are still answered, but it gets no further recipients
)

// Health of a domain, as last checked.
const (
	DomainUnchecked   = "unchecked"
	DomainOK          = "ok"
	DomainUnresolved  = "unresolved"  // the name does not resolve, or does not answer
	DomainCertificate = "certificate" // no valid certificate
	DomainBlocked     = "blocked"     // a DNS blocklist lists the domain
)

// DomainDoc is the document of a resource of [KindDomain]. Its name is the host.
type DomainDoc struct {
	Kind   string // short or opt_out
	Daily  uint64 `json:",omitempty"` // messages per UTC day, 0: no limit
	Total  uint64 `json:",omitempty"` // messages in all, 0: no limit
	Weight uint32 // 1 to 100
}

// Domain is a host of links with its counts.
type Domain struct {
	Host   string
	Tenant string // "" of a domain of the installation, which all tenants may use
	Number uint64
	Kind   string
	Status string
	Weight uint32
	Daily  uint64 // limit of messages per UTC day, 0: none
	Total  uint64 // limit of messages in all, 0: none
	Used   uint64 // messages that count against Total
	Today  uint64 // messages that count against Daily
	Health string
	Reason string // of Health
	// Certificate is when the certificate expires, Checked when the health was last checked; zero: not known.
	Certificate, Checked time.Time
}

// ID is the public id, such as domain_10001.
func (d *Domain) ID() string { return (&Resource{Kind: KindDomain, Number: d.Number}).ID() }

// Usable reports whether the domain may get recipients, if its limits have room.
func (d *Domain) Usable() bool {
	return d.Status == DomainActive && (d.Health == DomainOK || d.Health == DomainUnchecked)
}

// Room is how many messages the limits have room for; [math.MaxUint64] without limits.
func (d *Domain) Room() uint64 {
	room := uint64(math.MaxUint64)
	if d.Total > 0 {
		room = d.Total - min(d.Used, d.Total)
	}
	if d.Daily > 0 {
		room = min(room, d.Daily-min(d.Today, d.Daily))
	}
	return room
}

func domainOf(r db.Domain, nowMS int64) Domain {
	d := Domain{
		Host: r.Host, Tenant: r.Tenant, Number: uint64(r.Number), Kind: r.Kind, Status: r.Status, Weight: uint32(r.Weight), Daily: uint64(r.DailyLimit),
		Total: uint64(r.TotalLimit), Used: uint64(r.Used), Health: r.Health, Reason: r.HealthReason, Certificate: fromMS(r.CertificateMs), Checked: fromMS(r.CheckedMs),
	}
	if r.Day == nowMS/dayMS {
		d.Today = uint64(r.UsedDay)
	}
	return d
}

// followDomain writes a domain to the row that has its counts and that is published to the edge.
func (t *tx) followDomain(ctx context.Context, r *Resource) error {
	if r.Kind != KindDomain {
		return nil
	}
	var doc DomainDoc
	if err := json.Unmarshal(r.Doc, &doc); err != nil {
		return fmt.Errorf("read the document of %s: %w", r.Name, err)
	}
	t.publish = true
	if !r.Deleted.IsZero() {
		_, err := t.DeleteDomain(ctx, t.now, r.Name, int64(r.Number))
		return err
	}
	n, err := t.PutDomain(ctx, db.PutDomainParams{
		Host: r.Name, Tenant: r.Tenant, Number: int64(r.Number), Kind: doc.Kind, Status: r.Status, Weight: int64(doc.Weight),
		DailyLimit: int64(doc.Daily), TotalLimit: int64(doc.Total), Now: t.now,
	})
	if err == nil && n == 0 { // another tenant, or the installation, has the host
		return &NameError{string(KindDomain), r.Name}
	}
	return err
}

// Domains returns the domains that a tenant may use, its own and the shared ones, by host.
func (s *Store) Domains(ctx context.Context, tenant string) ([]Domain, error) {
	rows, err := s.q.ListDomains(ctx, tenant)
	now := s.now().UnixMilli()
	return all(rows, err, func(r db.Domain) Domain { return domainOf(r, now) })
}

// AllDomains returns the domains of all tenants, by host.
func (s *Store) AllDomains(ctx context.Context) ([]Domain, error) {
	rows, err := s.q.AllDomains(ctx)
	now := s.now().UnixMilli()
	return all(rows, err, func(r db.Domain) Domain { return domainOf(r, now) })
}

// DomainChecked writes the result of a check of a domain: d's Health, Reason and Certificate.
func (s *Store) DomainChecked(ctx context.Context, d *Domain) error {
	return s.write(ctx, func(tx *tx) error {
		_, err := tx.DomainChecked(ctx, db.DomainCheckedParams{
			Health: d.Health, Reason: d.Reason, CertificateMs: ms(d.Certificate), Now: tx.now, Host: d.Host, Number: int64(d.Number),
		})
		return err
	})
}

// CandidateDomains returns the domains on which a campaign may put its links of a kind, with or without room: the
// domains that it names, or all if it names none of the kind. It omits domains whose address is longer than the one
// with which the campaign's texts were measured.
func CandidateDomains(c *Campaign, kind string, pool []Domain) []Domain {
	named := func(d Domain) bool { return slices.Contains(c.Domains, d.Number) }
	out := slices.DeleteFunc(slices.Clone(pool), func(d Domain) bool { return d.Kind != kind })
	if slices.ContainsFunc(out, named) {
		out = slices.DeleteFunc(out, func(d Domain) bool { return !named(d) })
	}
	if c.LinkTable != nil {
		out = slices.DeleteFunc(out, func(d Domain) bool { return len(schemas.DomainBase(d.Host)) > len(c.LinkBase) })
	}
	return out
}

// withRoom returns the domains that can get a recipient now, and the sum of their room.
func withRoom(domains []Domain) (out []Domain, room uint64) {
	for _, d := range domains {
		if n := d.Room(); d.Usable() && n > 0 {
			out = append(out, d)
			room += min(n, math.MaxUint32)
		}
	}
	return out, room
}

// DomainKinds returns the kinds of domains that the links of a confirmed campaign need.
func DomainKinds(c *Campaign) (kinds []string) {
	if t := c.LinkTable; t != nil && t.ShortDomains {
		kinds = append(kinds, schemas.DomainShort)
	}
	if t := c.LinkTable; t != nil && t.OptOutDomains {
		kinds = append(kinds, schemas.DomainOptOut)
	}
	return kinds
}

// SpentDomains returns the kinds of domains that a confirmed campaign needs but of which no domain has room for another
// recipient.
func SpentDomains(c *Campaign, pool []Domain) (kinds []string) {
	for _, kind := range DomainKinds(c) {
		if _, room := withRoom(CandidateDomains(c, kind, pool)); room == 0 {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// DomainUse returns how many recipients of a campaign each domain was reserved for, by the number of the domain.
func (s *Store) DomainUse(ctx context.Context, tenant string, campaign uint64) (map[uint64]uint64, error) {
	rows, err := s.q.CampaignShares(ctx, tenant, int64(campaign))
	if err != nil {
		return nil, fmt.Errorf("domains of %s: %w", schemas.CampaignID(campaign), err)
	}
	out := map[uint64]uint64{}
	for _, r := range rows {
		block, err := blockOf(r)
		if err != nil {
			return nil, err
		}
		for _, share := range slices.Concat(block.GetShort(), block.GetOptOut()) {
			out[share.GetDomain()] += uint64(share.GetCount())
		}
	}
	return out, nil
}

func blockOf(r db.DomainShare) (*fanfarev1.DomainBlock, error) {
	block := &fanfarev1.DomainBlock{}
	if err := protojson.Unmarshal([]byte(r.Shares), block); err != nil {
		return nil, fmt.Errorf("domains of %s from %d: %w", schemas.CampaignID(uint64(r.Campaign)), r.FirstSeq, err)
	}
	return block, nil
}

// errRoomTaken means that another transaction has taken the room of a domain since it was read.
var errRoomTaken = errors.New("the room of a domain was taken meanwhile")

// AllotDomains returns the blocks of a blob in order. It also reserves one block more for the next recipients: for up
// to r.Want that may be sent to, or as many as the limits allow. If the result does not reach further than before, the
// domains are spent. A completed campaign may still have next tries. The blob is read before the transaction, because it never changes.
func (s *Store) AllotDomains(ctx context.Context, r schemas.DomainRequest) (blocks []*fanfarev1.DomainBlock, err error) {
	sendable, err := s.sendable(ctx, r.FreezeID, r.Blob)
	if err != nil {
		return nil, fmt.Errorf("domains of %s: %w", r.Campaign, err)
	}
	for range 20 {
		err = s.write(ctx, func(tx *tx) (err error) {
			blocks, err = tx.allotDomains(ctx, r, sendable)
			return err
		})
		if !errors.Is(err, errRoomTaken) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("domains of %s: %w", r.Campaign, err)
	}
	return blocks, nil
}

// sendable reports for each recipient of a blob whether it may be sent to.
func (s *Store) sendable(ctx context.Context, freezeID string, blob uint32) ([]bool, error) {
	raw, err := s.Blob(ctx, freezeID, blob)
	if err != nil {
		return nil, err
	}
	return sendableOf(raw)
}

func sendableOf(blob []byte) ([]bool, error) {
	entries, err := audience.NewReader(blob)
	if err != nil {
		return nil, err
	}
	out := make([]bool, 0, entries.Len())
	var e audience.Entry
	for entries.Next(&e) {
		out = append(out, e.Flag == audience.OK)
	}
	return out, entries.Err()
}

func (t *tx) allotDomains(ctx context.Context, r schemas.DomainRequest, sendable []bool) ([]*fanfarev1.DomainBlock, error) {
	// Reservations of one tenant take turns, so that no two are made for the same recipients.
	if _, err := t.LockBalance(ctx, r.Tenant); err != nil {
		return nil, err
	}
	row, err := campaignRow(ctx, t.Queries, r.Tenant, r.Campaign)
	if err != nil {
		return nil, err
	}
	rows, err := t.DomainShares(ctx, row.Number, int64(r.Blob))
	if err != nil {
		return nil, err
	}
	blocks := make([]*fanfarev1.DomainBlock, 0, len(rows)+1)
	first := r.First
	for _, row := range rows {
		block, err := blockOf(row)
		if err != nil {
			return nil, err
		}
		blocks, first = append(blocks, block), block.GetEndSeq()
	}
	c := campaignOf(row)
	if c.FreezeID != r.FreezeID || c.State != schemas.StateSending && c.State != schemas.StateCompleted || r.Want == 0 || first < r.First || first >= r.First+uint32(len(sendable)) {
		return blocks, nil
	}
	block, err := t.nextBlock(ctx, &c, first, sendable[first-r.First:], r.Want)
	if err != nil || block == nil {
		return blocks, err
	}
	raw, err := protojson.Marshal(block)
	if err != nil {
		return nil, err
	}
	err = t.InsertDomainShare(ctx, db.InsertDomainShareParams{
		Tenant: c.Tenant, Campaign: int64(c.Number), Blob: int64(r.Blob), FirstSeq: int64(first), EndSeq: int64(block.GetEndSeq()), Day: t.now / dayMS, Shares: string(raw),
	})
	return append(blocks, block), err
}

// nextBlock reserves room for up to want of the recipients from first on. It returns nil if there is no room.
func (t *tx) nextBlock(ctx context.Context, c *Campaign, first uint32, sendable []bool, want uint32) (*fanfarev1.DomainBlock, error) {
	rows, err := t.ListDomains(ctx, c.Tenant)
	pool, err := all(rows, err, func(r db.Domain) Domain { return domainOf(r, t.now) })
	if err != nil {
		return nil, err
	}
	left := uint32(0)
	for _, ok := range sendable {
		if ok {
			left++
		}
	}
	n := min(want, left)
	usable := map[string][]Domain{}
	for _, kind := range DomainKinds(c) {
		var room uint64
		usable[kind], room = withRoom(CandidateDomains(c, kind, pool))
		n = uint32(min(uint64(n), room))
	}
	if n == 0 && left > 0 {
		return nil, nil
	}
	block := &fanfarev1.DomainBlock{FirstSeq: first, EndSeq: first + uint32(len(sendable)), Recipients: n}
	if n < left {
		block.EndSeq = first + endOf(sendable, n)
	}
	counts := map[string]uint32{} // by host
	share := func(kind string) (out []*fanfarev1.DomainBlock_Share) {
		for i, count := range apportion(usable[kind], n, c.Number, first) {
			if d := &usable[kind][i]; count > 0 {
				out = append(out, &fanfarev1.DomainBlock_Share{Domain: d.Number, Host: d.Host, Count: count})
				counts[d.Host] += count
			}
		}
		return out
	}
	block.Short, block.OptOut = share(schemas.DomainShort), share(schemas.DomainOptOut)
	for _, host := range sortedHosts(counts) { // always in the same order, so that two transactions do not wait for each other
		got, err := t.UseDomain(ctx, int64(counts[host]), t.now/dayMS, host)
		if err != nil {
			return nil, err
		}
		if got == 0 {
			return nil, errRoomTaken
		}
	}
	return block, nil
}

func sortedHosts(counts map[string]uint32) []string {
	out := make([]string, 0, len(counts))
	for host := range counts {
		out = append(out, host)
	}
	slices.Sort(out)
	return out
}

// endOf returns the position after the n-th recipient that may be sent to.
func endOf(sendable []bool, n uint32) uint32 {
	for i, ok := range sendable {
		if n == 0 {
			return uint32(i)
		}
		if ok {
			n--
		}
	}
	return uint32(len(sendable))
}

// apportion divides n recipients among domains by weight, within the room of each, and returns the count of each. The
// next recipient goes to the domain whose count is smallest for its weight. Each domain starts at an exponential
// variate of (campaign, first, domain), so that also in many small blocks its share follows its weight.
func apportion(domains []Domain, n uint32, campaign uint64, first uint32) []uint32 {
	counts := make([]uint32, len(domains))
	q := &turns{}
	for i := range domains {
		q.of = append(q.of, turn{i, variate(campaign, first, domains[i].Number) / float64(max(domains[i].Weight, 1))})
	}
	heap.Init(q)
	for ; n > 0 && len(q.of) > 0; n-- {
		at := &q.of[0]
		d := &domains[at.domain]
		counts[at.domain]++
		at.next += 1 / float64(max(d.Weight, 1))
		if uint64(counts[at.domain]) >= d.Room() {
			heap.Pop(q)
		} else {
			heap.Fix(q, 0)
		}
	}
	return counts
}

// turn is the time at which a domain gets its next recipient.
type turn struct {
	domain int
	next   float64
}

// turns is a heap: the earliest is first.
type turns struct{ of []turn }

func (q *turns) Len() int { return len(q.of) }
func (q *turns) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q.of[i].next, q.of[j].next), cmp.Compare(q.of[i].domain, q.of[j].domain)) < 0
}
func (q *turns) Swap(i, j int) { q.of[i], q.of[j] = q.of[j], q.of[i] }

// Push implements [heap.Interface].
func (q *turns) Push(x any) { q.of = append(q.of, x.(turn)) } //nolint:forcetypeassert // heap.Push is not called

// Pop implements [heap.Interface].
func (q *turns) Pop() any {
	last := q.of[len(q.of)-1]
	q.of = q.of[:len(q.of)-1]
	return last
}

// variate is exponentially distributed with mean 1, the same for the same arguments.
func variate(campaign uint64, first uint32, domain uint64) float64 {
	var b [20]byte
	binary.BigEndian.PutUint64(b[:], campaign)
	binary.BigEndian.PutUint32(b[8:], first)
	binary.BigEndian.PutUint64(b[12:], domain)
	h := fnv.New64a()
	_, _ = h.Write(b[:])
	x := h.Sum64() // FNV mixes its last bytes badly, so murmur's finalizer follows
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return -math.Log((float64(x>>11) + 0.5) / (1 << 53))
}

// freeDomains gives back what is reserved for recipients for whom no message was made.
func (t *tx) freeDomains(ctx context.Context, c *Campaign, unsent []schemas.SeqRange) error {
	if len(unsent) == 0 || len(DomainKinds(c)) == 0 {
		return nil
	}
	rows, err := t.CampaignShares(ctx, c.Tenant, int64(c.Number))
	if err != nil || len(rows) == 0 {
		return err
	}
	index, err := t.ListIndex(ctx, c.FreezeID)
	if err != nil {
		return err
	}
	firstOf := map[int64]uint32{}
	for _, r := range index {
		firstOf[r.Blob] = uint32(r.FirstSeq)
	}
	for _, row := range rows {
		if !slices.ContainsFunc(unsent, func(u schemas.SeqRange) bool {
			return u.First < uint32(row.EndSeq) && u.End > uint32(row.FirstSeq)
		}) {
			continue
		}
		first, known := firstOf[row.Blob]
		raw, err := t.GetBlob(ctx, c.FreezeID, row.Blob)
		if err != nil || !known {
			continue // the audience was removed: its part of the limits stays spent
		}
		if err := t.freeBlock(ctx, row, raw, first, unsent); err != nil {
			return err
		}
	}
	return nil
}

// freeBlock gives back the unsent part of one block.
func (t *tx) freeBlock(ctx context.Context, row db.DomainShare, blob []byte, first uint32, unsent []schemas.SeqRange) error {
	sendable, err := sendableOf(blob)
	if err != nil {
		return err
	}
	block, err := blockOf(row)
	if err != nil {
		return err
	}
	type key struct {
		host   string
		number uint64
	}
	counts := map[key]int64{}
	rank := uint32(0)
	for seq := block.GetFirstSeq(); seq < block.GetEndSeq(); seq++ {
		if at := seq - first; at >= uint32(len(sendable)) || !sendable[at] {
			continue
		}
		if slices.ContainsFunc(unsent, func(u schemas.SeqRange) bool { return seq >= u.First && seq < u.End }) {
			for _, shares := range [][]*fanfarev1.DomainBlock_Share{block.GetShort(), block.GetOptOut()} {
				if share := schemas.PickDomain(shares, rank, block.GetRecipients()); share != nil {
					counts[key{share.GetHost(), share.GetDomain()}]++
				}
			}
		}
		rank++
	}
	keys := make([]key, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.number, b.number)) })
	for _, k := range keys {
		if err := t.FreeDomain(ctx, db.FreeDomainParams{N: counts[k], Day: row.Day, Host: k.host, Number: int64(k.number)}); err != nil {
			return fmt.Errorf("give back %s messages of %s: %w", strconv.FormatInt(counts[k], 10), k.host, err)
		}
	}
	return nil
}

// DomainUses counts the campaigns because of which a domain must not be deleted: they were confirmed, have not ended
// and name it; or their messages have links on it, and they ended after since or have not ended.
func (s *Store) DomainUses(ctx context.Context, number uint64, since time.Time) (int64, error) {
	linked, err := s.q.DomainUses(ctx, ms(since), strconv.Quote(strconv.FormatUint(number, 10)))
	if err != nil {
		return 0, err
	}
	rows, err := s.q.NamingDomains(ctx)
	naming, err := all(rows, err, campaignOf)
	for i := range naming {
		if c := &naming[i]; !c.Confirmed.IsZero() && slices.Contains(c.Domains, number) && !slices.Contains(linked, int64(c.Number)) {
			linked = append(linked, int64(c.Number))
		}
	}
	return int64(len(linked)), err
}

// CampaignsWithoutDomains returns the campaigns of all tenants that are suspended with [schemas.ReasonNoDomains],
// oldest first.
func (s *Store) CampaignsWithoutDomains(ctx context.Context) ([]Campaign, error) {
	rows, err := s.q.WithoutDomains(ctx, int64(schemas.StateSuspended))
	return all(rows, err, campaignOf)
}
