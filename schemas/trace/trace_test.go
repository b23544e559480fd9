package trace_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"fanfare/schemas"
	"fanfare/schemas/trace"
)

func keys(t *testing.T, secret string) *schemas.Keys {
	t.Helper()
	k, err := schemas.NewKeys([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// One in a hundred of each campaign's recipients is traced, and the same ones in every process.
func TestSamples(t *testing.T) {
	a := trace.New(noop.NewTracerProvider(), 100, keys(t, "0123456789abcdef"))
	b := trace.New(noop.NewTracerProvider(), 100, keys(t, "another secret of it"))
	for campaign := range uint64(50) {
		n := 0
		for seq := range uint32(100_000) {
			if a.Samples(campaign, seq) != b.Samples(campaign, seq) {
				t.Fatalf("campaign %d, seq %d: two processes do not agree", campaign, seq)
			}
			if a.Samples(campaign, seq) {
				n++
			}
		}
		if n < 800 || n > 1200 {
			t.Errorf("campaign %d: %d of 100,000 are traced, want about 1,000", campaign, n)
		}
	}
	var none *trace.Tracer
	if none.Samples(1, 1) {
		t.Error("no tracer samples a recipient")
	}
	none.Record(trace.Span{})
}

// Spans have different ids, the same in every process of an installation and others in another one.
func TestIDs(t *testing.T) {
	k := keys(t, "0123456789abcdef")
	a, b := trace.New(noop.NewTracerProvider(), 1, k), trace.New(noop.NewTracerProvider(), 9, k)
	other := trace.New(noop.NewTracerProvider(), 1, keys(t, "another secret of it"))
	points := func(x *trace.Tracer) (out []trace.Point) {
		for campaign := uint64(1); campaign < 4; campaign++ {
			w := x.OfCampaign(campaign)
			out = append(out, w.Root())
			for n := uint64(1); n < 100; n++ {
				id := k.Submission(campaign, uint32(n), 1)
				next := k.Submission(campaign, uint32(n), 2)
				out = append(out, w.Deal(n), w.Expand(n), w.Submit(id, false), w.Submit(id, true), w.Submit(next, false),
					w.Receipt(id, schemas.KindDelivered, schemas.CodeDelivered), w.Receipt(id, schemas.KindRead, schemas.CodeRead), x.OfSingle(campaign, uint32(n)).Root())
			}
		}
		return out
	}
	seen := map[trace.Point]bool{}
	foreign := points(other)
	same := points(b)
	for i, p := range points(a) {
		if seen[p] {
			t.Errorf("two spans have the id %v", p)
		}
		seen[p] = true
		if same[i] != p {
			t.Errorf("got %v and %v in two processes", p, same[i])
		}
		if foreign[i].Trace == p.Trace {
			t.Errorf("two installations have the trace %v", p.Trace)
		}
	}
}

func TestParent(t *testing.T) {
	x := trace.New(noop.NewTracerProvider(), 1, keys(t, "0123456789abcdef"))
	w := x.OfCampaign(7)
	if p, ok := trace.Parse(w.Deal(3).Traceparent()); !ok || p != w.Deal(3) {
		t.Errorf("got %v, %v, want the deal", p, ok)
	}
	if got := w.Parent([]byte(w.Deal(3).Traceparent()), w.Root()); got != w.Deal(3) {
		t.Errorf("got %v, want what the header says", got)
	}
	for _, header := range []string{
		"", "00-aa-bb-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", x.OfCampaign(8).Deal(3).Traceparent(),
		"00-00000000000000000000000000000000-0000000000000000-01", "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if got := w.Parent([]byte(header), w.Root()); got != w.Root() {
			t.Errorf("%q: got %v, want the default", header, got)
		}
	}
}
