package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Links on domains (R39, R40). The store counts the messages of a domain. Before recipients of a blob are dealt, it
// reserves room for the next recipients: a block. The scheduler deals a recipient only together with the recipient's
// block. So no limit is exceeded, however often the leader changes, and a recipient has the same domain at every try.
// If the store has no more room, the campaign is suspended as soon as none of its recipients is in flight.

const (
	// blockDeals is for how many deals a block is. It is large enough that the planner seldom asks the store, and small
	// enough that a slow campaign reserves little room while others wait.
	blockDeals = 16
	// leastBlock is the smallest number of recipients for which the planner requests a block.
	leastBlock = 100
)

// domainState is what the planner knows about the domains of a campaign. After a change of leader, the planner asks the
// store again.
type domainState struct {
	blocks map[uint32][]*fanfarev1.DomainBlock // by blob, in order of seq
	want   *schemas.DomainRequest              // the next request
	asked  bool
	again  int64 // earliest time of the next request
	spent  bool  // the store has no room for the next recipient
}

// onDomains reports whether the links of a campaign are on domains.
func (c *Campaign) onDomains() bool {
	l := c.record.GetLinks()
	return l.GetShortDomains() || l.GetOptOutDomains()
}

// block returns the block of a recipient, nil if none is known.
func (d *domainState) block(blob, seq uint32) *fanfarev1.DomainBlock {
	for _, b := range d.blocks[blob] {
		if seq >= b.GetFirstSeq() && seq < b.GetEndSeq() {
			return b
		}
	}
	return nil
}

// of returns the blocks of recipients of a blob; false if one of them has none that is known.
func (d *domainState) of(blob uint32, seqs *roaring.Bitmap) (out []*fanfarev1.DomainBlock, ok bool) {
	var found uint64
	for _, b := range d.blocks[blob] {
		in := roaring.New()
		in.AddRange(uint64(b.GetFirstSeq()), uint64(b.GetEndSeq()))
		if n := in.AndCardinality(seqs); n > 0 {
			out, found = append(out, b), found+n
		}
	}
	return out, found == seqs.GetCardinality()
}

// needDomains notes that the next recipients of a blob need a block: as many as several deals of size deal may have.
func (pl *Planner) needDomains(c *Campaign, b audience.Index, deal, now int64) {
	pl.requestDomains(c, b, uint32(min(max(deal*blockDeals, leastBlock), audience.BlobSize)), now)
}

// needDomainsAgain notes that the blocks of recipients who were dealt before must be read. A store that was restored
// from an older copy may lack them. Then it reserves again, up to the last of these recipients.
func (pl *Planner) needDomainsAgain(c *Campaign, b audience.Index, seqs *roaring.Bitmap, now int64) {
	want := uint32(0)
	if blocks, read := c.domains.blocks[b.Blob]; read {
		reserved := b.First
		if len(blocks) > 0 {
			reserved = blocks[len(blocks)-1].GetEndSeq()
		}
		if end := seqs.Maximum() + 1; end > reserved {
			want = end - reserved
		}
	}
	pl.requestDomains(c, b, want, now)
}

// requestDomains requests the blocks of a blob, and one more for up to want recipients, unless a request is under way.
func (pl *Planner) requestDomains(c *Campaign, b audience.Index, want uint32, now int64) {
	if c.domains.asked || c.domains.want != nil || now < c.domains.again {
		return
	}
	c.domains.want = &schemas.DomainRequest{
		Tenant: c.tenant, Campaign: c.id, Number: c.number, FreezeID: c.record.GetFreezeId(), Blob: b.Blob, First: b.First, Want: want,
	}
	pl.wantDomains = append(pl.wantDomains, c)
}

// DomainRequests returns the requests for blocks that the store must answer. Each request is returned once, until
// [Planner.DomainsAnswered] has the answer.
func (pl *Planner) DomainRequests() []schemas.DomainRequest {
	var out []schemas.DomainRequest
	for _, c := range pl.wantDomains {
		if c.domains.want != nil && pl.tracks(c) {
			out = append(out, *c.domains.want)
			c.domains.want, c.domains.asked = nil, true
		}
	}
	pl.wantDomains = nil
	return out
}

// DomainsAnswered applies the store's answer: all blocks of the blob.
func (pl *Planner) DomainsAnswered(r schemas.DomainRequest, blocks []*fanfarev1.DomainBlock, err error, now time.Time) {
	c := pl.campaigns[r.Number]
	if c == nil || !pl.tracks(c) || c.record.GetFreezeId() != r.FreezeID {
		return
	}
	d := &c.domains
	d.asked = false
	pl.wake(c)
	if err != nil {
		d.again = ms(now.Add(moveAgain))
		return
	}
	if d.blocks == nil {
		d.blocks = map[uint32][]*fanfarev1.DomainBlock{}
	}
	grown := len(blocks) > len(d.blocks[r.Blob])
	d.blocks[r.Blob] = blocks
	if !grown { // ask again soon: a domain may be added before the campaign is suspended
		d.again = ms(now.Add(moveAgain))
	}
	if r.Want > 0 {
		d.spent = !grown
	}
}

// unsent returns the recipients for whom no message was made, if the links are on domains.
func (c *Campaign) unsent() (out []schemas.SeqRange) {
	if !c.onDomains() || c.total == 0 {
		return nil
	}
	left := roaring.New()
	left.AddRange(0, uint64(c.total))
	for _, t := range c.tries {
		for _, d := range t.dealt {
			if d.leg > 0 { // leg 0 is a cancel
				left.AndNot(&d.seqs)
			}
		}
	}
	for seq := nextPresent(left, 0, c.total); seq < c.total; {
		end := nextAbsent(left, seq, c.total)
		out = append(out, schemas.SeqRange{First: seq, End: end})
		seq = nextPresent(left, end, c.total)
	}
	return out
}
