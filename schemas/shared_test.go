package schemas_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// TestSharedHeaders: headers made for many records are the same as those of a single record, with and without a trace.
func TestSharedHeaders(t *testing.T) {
	for _, trace := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		e := schemas.Event{Topic: "t", Key: "k", Tenant: "tn_a", Type: schemas.TypeMessage, Source: "expander", Time: time.UnixMilli(1_700_000_000_123), Traceparent: trace}
		shared := e.Shared()
		h := make([]kgo.RecordHeader, 0, 2*shared.Len())
		for _, id := range []string{"one", "two"} {
			e.ID = id
			n := len(h)
			h = shared.Append(h, []byte(id))
			if d := cmp.Diff(e.Raw(nil).Headers, h[n:]); d != "" {
				t.Errorf("headers of %s (-want +got):\n%s", id, d)
			}
		}
		if got := string(h[3].Value); got != "one" {
			t.Errorf("the first record's id after the second was made: got %q, want %q", got, "one")
		}
	}
}
