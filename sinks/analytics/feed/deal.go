package feed

import (
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// decodeDeal reads a record of topic chunks, except for the deal's campaign, offset and time. Every error wraps
// errRecord. There is one such record for up to 5,000 recipients, so the protobuf library is fast enough.
func decodeDeal(value []byte) (d analytics.Deal, env envelope, err error) {
	var c fanfarev1.Chunk
	if err := proto.Unmarshal(value, &c); err != nil {
		return d, env, fmt.Errorf("%w: %w", errRecord, err)
	}
	env = envelope{tenant: c.GetTenant(), campaign: c.GetCampaignId(), number: c.GetCampaignNumber()}
	if env.campaign == "" || c.GetTry() == 0 || c.GetTry() > schemas.MaxTry || c.GetLeg() > math.MaxUint8 {
		return d, env, fmt.Errorf("%w: chunk of campaign %q, try %d, leg %d", errRecord, env.campaign, c.GetTry(), c.GetLeg())
	}
	members := roaring.New()
	if b := c.GetSeqs(); len(b) > 0 {
		err := members.UnmarshalBinary(b)
		if err == nil { // Roaring reads some bytes that are no set without an error
			err = members.Validate()
		}
		if err != nil {
			return d, env, fmt.Errorf("%w: recipients of deal %d: %w", errRecord, c.GetDeal(), err)
		}
	} else if c.GetFirstSeq() < c.GetEndSeq() && c.GetEndSeq() <= schemas.MaxSeq+1 {
		members.AddRange(uint64(c.GetFirstSeq()), uint64(c.GetEndSeq()))
	}
	if members.IsEmpty() || members.Maximum() > schemas.MaxSeq {
		return d, env, fmt.Errorf("%w: deal %d has no recipients, or one above %d", errRecord, c.GetDeal(), schemas.MaxSeq)
	}
	return analytics.Deal{
		Number: c.GetDeal(), Try: uint8(c.GetTry()), Leg: uint8(c.GetLeg()), Cancel: c.GetPurpose() == schemas.PurposeCancel, Members: members,
	}, env, nil
}
