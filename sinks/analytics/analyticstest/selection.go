package analyticstest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// randomSelection returns a random selection, as it is decoded from JSON.
func randomSelection(depth int) map[string]any {
	out := map[string]any{}
	for range 1 + rand.IntN(2) {
		name, value := randomCondition(depth)
		out[name] = value
	}
	return out
}

func randomCondition(depth int) (string, any) {
	several := func(one func() any) any {
		if rand.IntN(3) > 0 {
			return one()
		}
		return []any{one(), one()}
	}
	if depth > 0 && rand.IntN(2) == 0 {
		switch rand.IntN(3) {
		case 0:
			return "not", randomSelection(depth - 1)
		case 1:
			return "and", []any{randomSelection(depth - 1), randomSelection(depth - 1)}
		default:
			return "or", []any{randomSelection(depth - 1), randomSelection(depth - 1)}
		}
	}
	of := func(values ...any) func() any { return func() any { return values[rand.IntN(len(values))] } }
	switch rand.IntN(11) {
	case 0, 1, 2:
		return "status", several(func() any { return analytics.SelectionStatuses[rand.IntN(len(analytics.SelectionStatuses))] })
	case 3:
		return "subStatus", several(of("BARRED", "HANDSET_OFF", "PAUSED", "INVALID_NUMBER", "DELIVERED", "NO_DLR"))
	case 4:
		return "channel", several(of("sms", "rcs", "voice"))
	case 5:
		return "variant", several(of(0.0, 1.0, 2.0, 9.0))
	case 6:
		return "country", several(of("IT", "DE", "SE"))
	case 7:
		return "try", several(of(1.0, 2.0, 3.0))
	case 8:
		return "leg", several(of(1.0, 2.0))
	case 9:
		return []string{"clicked", "replied", "optedOut"}[rand.IntN(3)], rand.IntN(2) == 0
	default:
		when := map[string]any{"event": of("sent", "delivered", "notSent", "clicked", "optedOut")()}
		if rand.IntN(3) > 0 {
			when["from"] = start.Add(time.Duration(rand.IntN(60)) * time.Minute).Format(time.RFC3339)
		}
		if when["from"] == nil || rand.IntN(2) == 0 {
			when["to"] = start.Add(time.Duration(61+rand.IntN(60)) * time.Minute).Format(time.RFC3339Nano)
		}
		return "time", when
	}
}

// Selected returns the recipients that a selection selects from an audience of total. It looks at one recipient at a
// time.
func (m *Model) Selected(tenant, campaign string, total uint32, selection map[string]any) []uint32 {
	everybody := roaring.New()
	everybody.AddRange(0, uint64(total))
	everybody.AddMany(m.Seqs(tenant, campaign))
	var out []uint32
	for _, seq := range everybody.ToArray() {
		if holds(m.campaigns[place{tenant, campaign}][seq], selection) {
			out = append(out, seq)
		}
	}
	return out
}

// holds reports whether all conditions hold for a recipient with these events.
func holds(events []analytics.Event, selection map[string]any) bool {
	for name, value := range selection {
		if !condition(events, name, value) {
			return false
		}
	}
	return true
}

func condition(events []analytics.Event, name string, value any) bool {
	list, isList := value.([]any)
	switch name {
	case "and":
		return !slices.ContainsFunc(list, func(v any) bool { return !holds(events, v.(map[string]any)) })
	case "or":
		return slices.ContainsFunc(list, func(v any) bool { return holds(events, v.(map[string]any)) })
	case "not":
		return !holds(events, value.(map[string]any))
	}
	if isList {
		return slices.ContainsFunc(list, func(v any) bool { return condition(events, name, v) })
	}
	some := func(f func(e *analytics.Event) bool) bool {
		return slices.ContainsFunc(events, func(e analytics.Event) bool { return f(&e) })
	}
	message := func(by analytics.Dimension) bool {
		return some(func(e *analytics.Event) bool { return e.DescribesMessage() && by.Value(e) == fmt.Sprint(value) })
	}
	switch p := state(events); name {
	case "status":
		bucket := p.Bucket().String()
		switch value {
		case "sent":
			return slices.Contains([]string{"awaiting", "undelivered", "delivered"}, bucket)
		case "failed":
			return slices.Contains([]string{"notSent", "undelivered"}, bucket)
		case "read":
			return p.Kind() == schemas.KindRead
		case "unconfirmed":
			return p.Kind() == schemas.KindUnconfirmed
		}
		return bucket == value
	case "subStatus":
		return p != 0 && schemas.CodeName(p.Code()) == value
	case "channel":
		return message(analytics.ByChannel)
	case "variant":
		return message(analytics.ByVariant)
	case "country":
		return message(analytics.ByCountry)
	case "leg":
		return message(analytics.ByLeg)
	case "try":
		return some(func(e *analytics.Event) bool {
			return e.Precedence() < schemas.PrecedenceFacts && fmt.Sprint(e.Try) == fmt.Sprint(value)
		})
	case "clicked":
		return has(events, analytics.FactClicked) == value
	case "replied":
		return some(func(e *analytics.Event) bool { return e.Kind == schemas.KindReplied }) == value
	case "optedOut":
		return some(func(e *analytics.Event) bool { return e.Kind == schemas.KindOptedOut }) == value
	default: // time
		when := value.(map[string]any)
		return some(func(e *analytics.Event) bool {
			word := strings.ToLower(fmt.Sprint(when["event"]))
			kind, _ := schemas.LookupKind(e.Kind)
			if strings.ReplaceAll(kind.Name, "_", "") != word || e.Kind == schemas.KindClicked && e.Code != schemas.CodeUnspecified {
				return false
			}
			if from, err := time.Parse(time.RFC3339, fmt.Sprint(when["from"])); err == nil && e.Time().Before(from) {
				return false
			}
			to, err := time.Parse(time.RFC3339, fmt.Sprint(when["to"]))
			return err != nil || e.Time().Before(to)
		})
	}
}

// Spent returns what a recipient cost, and the segments of the message of its last try; ok is false if no event
// describes a message.
func (m *Model) Spent(tenant, campaign string, seq uint32) (out analytics.Spent, ok bool) {
	events := m.campaigns[place{tenant, campaign}][seq]
	last := uint8(0)
	for i := range events {
		if e := &events[i]; e.DescribesMessage() && e.Try >= last {
			out.Segments, last, ok = e.Segments, e.Try, true
		}
	}
	for _, e := range billed(events) {
		out.Micros += max(uint64(e.Segments), 1) * uint64(e.PriceMicros)
	}
	return out, ok
}

// compareSets evaluates selections on the sets of a store, and asks what each recipient cost.
func compareSets(t *testing.T, s analytics.Store, m *Model, tenant, campaign string) {
	t.Helper()
	sets, err := s.Sets(t.Context(), tenant, campaign)
	if err != nil {
		t.Fatalf("sets of %s/%s: %v", tenant, campaign, err)
	}
	happened := func(ctx context.Context, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error) {
		return s.Happened(ctx, tenant, campaign, kind, from, to)
	}
	const total = 250
	expressions := []map[string]any{{}, {"link": "lnk_1"}}
	for range 12 {
		expressions = append(expressions, randomSelection(3))
	}
	for _, expression := range expressions {
		text, err := json.Marshal(expression)
		if err != nil {
			t.Fatal(err)
		}
		selection, err := analytics.ParseSelection(text)
		if err != nil {
			t.Fatalf("parse %s: %v", text, err)
		}
		got, err := selection.Evaluate(t.Context(), sets, total, happened)
		if err != nil {
			t.Fatalf("evaluate %s of %s/%s: %v", text, tenant, campaign, err)
		}
		if expression["link"] != nil {
			continue // the model is asked by links already
		}
		want := m.Selected(tenant, campaign, total, expression)
		if diff := cmp.Diff(want, got.ToArray()); diff != "" && len(want)+int(got.GetCardinality()) > 0 {
			t.Fatalf("%s of %s/%s (-want +got):\n%s", text, tenant, campaign, diff)
		}
		got.Clear() // the caller may change it; the sets must not show it
	}
	seqs := m.Seqs(tenant, campaign)
	spent := sets.Spent(roaring.BitmapOf(seqs...))
	for _, seq := range seqs {
		want, wantOK := m.Spent(tenant, campaign, seq)
		if got, ok := spent[seq]; got != want || ok != wantOK {
			t.Fatalf("what recipient %d of %s/%s cost: got %+v %v, want %+v %v", seq, tenant, campaign, got, ok, want, wantOK)
		}
	}
}
