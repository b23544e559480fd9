package expander

import (
	"fmt"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// domains gives the domain of the links of each recipient of a chunk. The domain follows from the chunk and the frozen
// blob alone, so it is the same when the chunk is expanded again and at every later try of the recipient.
type domains struct {
	table  *fanfarev1.LinkTable
	blocks []block
}

// block is a block of the chunk with the rank of each of its recipients among those that may be sent to.
type block struct {
	*fanfarev1.DomainBlock
	ranks []uint32
}

// read reads the blocks of a chunk. Every recipient of the chunk must be in one, if the links of the campaign are on
// domains.
func (d *domains) read(x *expansion) error {
	d.table = x.campaign.GetLinks()
	if !d.table.GetShortDomains() && !d.table.GetOptOutDomains() {
		return nil
	}
	for _, b := range x.chunk.GetDomains() {
		if b.GetEndSeq() < b.GetFirstSeq() || b.GetEndSeq()-b.GetFirstSeq() > audience.BlobSize {
			return fmt.Errorf("domains of the recipients %d to %d: want at most %d recipients", b.GetFirstSeq(), b.GetEndSeq(), audience.BlobSize)
		}
		got := block{b, make([]uint32, 0, b.GetEndSeq()-b.GetFirstSeq())}
		if b.GetFirstSeq() < x.first || !x.entries.Seek(int(b.GetFirstSeq()-x.first)) {
			return fmt.Errorf("domains of the recipients from %d: the blob begins at %d", b.GetFirstSeq(), x.first)
		}
		var e audience.Entry
		rank := uint32(0)
		for seq := b.GetFirstSeq(); seq < b.GetEndSeq(); seq++ {
			if !x.entries.Next(&e) {
				return fmt.Errorf("domains of the recipients %d to %d: the blob ends at %d", b.GetFirstSeq(), b.GetEndSeq(), seq)
			}
			got.ranks = append(got.ranks, rank)
			if e.Flag == audience.OK {
				rank++
			}
		}
		d.blocks = append(d.blocks, got)
	}
	for _, seq := range x.seqs {
		b := d.of(seq)
		if b == nil {
			return fmt.Errorf("recipient %d: the chunk names no domain for its links", seq)
		}
		// Ranks end before the number of recipients unless the last ones may not be sent to.
		if rank := min(b.ranks[seq-b.GetFirstSeq()], max(b.GetRecipients(), 1)-1); b.GetRecipients() > 0 &&
			(d.table.GetShortDomains() && schemas.PickDomain(b.GetShort(), rank, b.GetRecipients()) == nil ||
				d.table.GetOptOutDomains() && schemas.PickDomain(b.GetOptOut(), rank, b.GetRecipients()) == nil) {
			return fmt.Errorf("recipient %d: the chunk has domains for fewer recipients than its block", seq)
		}
	}
	return nil
}

// of returns the block of a recipient, nil if there is none.
func (d *domains) of(seq uint32) *block {
	for i := range d.blocks {
		if b := &d.blocks[i]; seq >= b.GetFirstSeq() && seq < b.GetEndSeq() {
			return b
		}
	}
	return nil
}

// base returns the address before the token of a link of a recipient that may be sent to.
func (d *domains) base(seq uint32, number uint8) string {
	on := d.table.GetShortDomains()
	if number == schemas.LinkOptOut {
		on = d.table.GetOptOutDomains()
	}
	b := d.of(seq)
	if !on || b == nil {
		return d.table.GetBase()
	}
	shares := b.GetShort()
	if number == schemas.LinkOptOut {
		shares = b.GetOptOut()
	}
	return schemas.DomainBase(schemas.PickDomain(shares, b.ranks[seq-b.GetFirstSeq()], b.GetRecipients()).GetHost())
}
