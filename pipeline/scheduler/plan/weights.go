package plan

import (
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
)

// The variant of a recipient follows from the weights that its first deal names (R38, R57). The weights of a campaign
// may change while it runs, so the planner remembers the weights of each recipient's first deal: a retry names them
// too.

// newestWeights is the index of the campaign's weights as they are now.
func (c *Campaign) newestWeights() uint32 { return uint32(max(len(c.record.GetWeights()), 1) - 1) }

// dealtByWeights notes that recipients had their first deal by weights n.
func (c *Campaign) dealtByWeights(n uint32, seqs *roaring.Bitmap) {
	if n == 0 || n > maxWeights {
		return // recipients in no set were dealt by the first weights
	}
	for len(c.byWeights) < int(n) {
		c.byWeights = append(c.byWeights, roaring.New())
	}
	c.byWeights[n-1].Or(seqs)
}

// maxWeights bounds an index that comes from a record: the API allows 200 changes.
const maxWeights = 1000

// weightsOf is the index of the weights by which seq had its first deal.
func (c *Campaign) weightsOf(seq uint32) uint32 {
	for i, b := range c.byWeights {
		if b.Contains(seq) {
			return uint32(i + 1)
		}
	}
	return 0
}

// sameWeights returns those of seqs that had their first deal by the same weights as the first of them: a deal names
// one.
func (c *Campaign) sameWeights(seqs *roaring.Bitmap) *roaring.Bitmap {
	if len(c.byWeights) == 0 || seqs.IsEmpty() {
		return seqs
	}
	if n := c.weightsOf(seqs.Minimum()); n > 0 {
		return roaring.And(seqs, c.byWeights[n-1])
	}
	out := seqs.Clone()
	for _, b := range c.byWeights {
		out.AndNot(b)
	}
	return out
}

// encodeWeights encodes byWeights for the cursor.
func (c *Campaign) encodeWeights() [][]byte {
	out := make([][]byte, len(c.byWeights))
	for i, b := range c.byWeights {
		out[i] = encodeSet(b)
	}
	return out
}

func (c *Campaign) restoreWeights(sets [][]byte) error {
	for i, raw := range sets {
		b, err := decodeSet(raw)
		if err != nil {
			return fmt.Errorf("cursor of %s: dealt by weights %d: %w", c.id, i+1, err)
		}
		c.byWeights = append(c.byWeights, b)
	}
	return nil
}
