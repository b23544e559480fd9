package scheduler

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	testTenant    = "tn_a"
	sentKind      = schemas.KindSent
	returnedKind  = schemas.KindReturned
	bouncedKind   = schemas.KindBounced
	ambiguousKind = schemas.KindAmbiguous
	deliveredKind = schemas.KindDelivered
	noCode        = schemas.CodeUnspecified
)

type submission struct {
	campaign uint64
	seq      uint32
	try, leg uint8
}

func ms(t time.Time) int64 { return t.UnixMilli() }

func cloneRecord(r *fanfarev1.Campaign) *fanfarev1.Campaign { return proto.CloneOf(r) }

// membersOf returns the recipients of a chunk.
func membersOf(ch *fanfarev1.Chunk) (*roaring.Bitmap, error) {
	b := roaring.New()
	if len(ch.GetSeqs()) > 0 {
		return b, b.UnmarshalBinary(ch.GetSeqs())
	}
	b.AddRange(uint64(ch.GetFirstSeq()), uint64(ch.GetEndSeq()))
	return b, nil
}
