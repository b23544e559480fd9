package expander

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// slowCampaigns returns an env with n campaigns, each with one blob of 5,000 recipients, and a function that returns
// the chunks of the next second: 10 recipients of each campaign.
func slowCampaigns(tb testing.TB, n int) (*env, func() []*kgo.Record) {
	tb.Helper()
	w := newEnv(tb, people(4))
	entries := make([]audience.Entry, audience.BlobSize)
	for i := range entries {
		entries[i] = realisticEntry(i)
	}
	base := w.Campaign(campaign)
	for i := range n {
		c := proto.CloneOf(base)
		c.Number = uint64(20_000 + i)
		c.Id, c.FreezeId, c.Total = fmt.Sprint("camp_", c.GetNumber()), fmt.Sprint("fz_slow_", i), audience.BlobSize
		c.Content.Body = realisticBody
		w.freeze(c.GetFreezeId(), entries, audience.BlobSize)
		w.put(c)
	}
	second := uint32(0)
	return w, func() []*kgo.Record {
		out := make([]*kgo.Record, 0, n)
		for i := range n {
			out = append(out, record(tb, chunk(func(ch *fanfarev1.Chunk) {
				ch.CampaignNumber = uint64(20_000 + i)
				ch.CampaignId, ch.FreezeId = fmt.Sprint("camp_", ch.GetCampaignNumber()), fmt.Sprint("fz_slow_", i)
				ch.FirstSeq = second * 10 % audience.BlobSize
				ch.EndSeq = ch.GetFirstSeq() + 10
			})))
		}
		second++
		return out
	}
}

// TestSlowCampaignsReadBlobsOnce: many slow campaigns are dealt in turn, one second of each at a time. Every blob is
// read from the store once, and is dropped from memory when its last recipient was expanded.
func TestSlowCampaignsReadBlobsOnce(t *testing.T) {
	const campaigns = 40
	w, next := slowCampaigns(t, campaigns)
	h := w.handler(t)
	for range 5 {
		records := next()
		for len(records) > 0 {
			n := min(4, len(records))
			if _, err := h.Handle(t.Context(), records[:n]); err != nil {
				t.Fatal(err)
			}
			records = records[n:]
		}
	}
	if w.reads != campaigns {
		t.Errorf("%d blobs were read from the store, want each of the %d once", w.reads, campaigns)
	}
	before := h.blobs.blobs.used
	last := record(t, chunk(func(ch *fanfarev1.Chunk) {
		ch.CampaignNumber, ch.CampaignId, ch.FreezeId = 20_000, "camp_20000", "fz_slow_0"
		ch.FirstSeq, ch.EndSeq = audience.BlobSize-10, audience.BlobSize
	}))
	if _, err := h.Handle(t.Context(), []*kgo.Record{last}); err != nil {
		t.Fatal(err)
	}
	if h.blobs.blobs.used >= before {
		t.Errorf("%d bytes of blobs in memory after the last recipient of one, want less than %d", h.blobs.blobs.used, before)
	}
}

// BenchmarkSlowCampaigns measures the cost of a message in the expander, without Kafka, when one of two workers gets
// the chunks of 50 campaigns of 10/s in turn; a chunk is one second of one campaign.
func BenchmarkSlowCampaigns(b *testing.B) {
	w, next := slowCampaigns(b, 50)
	h := w.handler(b)
	messages := 0
	for b.Loop() {
		records := next()
		for len(records) > 0 {
			n := min(4, len(records))
			res, err := h.Handle(b.Context(), records[:n])
			if err != nil {
				b.Fatal(err)
			}
			messages += len(res.Publish)
			records = records[n:]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(messages), "µs/message")
	b.ReportMetric(float64(w.reads), "reads")
}
