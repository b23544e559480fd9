package analytics_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// R144: the parser is strict, and an error names the part that is wrong.
func TestSelectionErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                "",
		`{"status":"a"`:                     "",
		`{"status":"sent","status":"sent"}`: "",
		`{"stat":"sent"}`:                   "stat",
		`{"status":"Sent"}`:                 "status",
		`{"status":[]}`:                     "status",
		`{"status":null}`:                   "status",

		`{"or":[{"status":"sent"},{"not":{"subStatus":["BARRED","X"]}}]}`: "or[1].not.subStatus[1]",

		`{"and":[]}`:                "and",
		`{"and":{"status":"sent"}}`: "and",
		`{"or":[1]}`:                "or[0]",
		`{"not":[]}`:                "not",
		`{"channel":"pigeon"}`:      "channel",
		`{"country":"Italy"}`:       "country",
		`{"country":"it"}`:          "country",
		`{"variant":1.5}`:           "variant",
		`{"variant":256}`:           "variant",
		`{"try":0}`:                 "try",
		`{"leg":[1,"2"]}`:           "leg[1]",
		`{"clicked":"yes"}`:         "clicked",
		`{"clicked":[true]}`:        "clicked",
		`{"link":1}`:                "link",
		`{"time":"now"}`:            "time",
		`{"time":{"event":"sent"}}`: "time",

		`{"time":{"from":"2025-04-01T09:00:00Z"}}`: "time.event",

		`{"time":{"event":"send","from":"2025-04-01T09:00:00Z"}}`:                             "time.event",
		`{"time":{"event":"sent","from":"yesterday"}}`:                                        "time.from",
		`{"time":{"event":"sent","since":"2025-04-01T09:00:00Z"}}`:                            "time.since",
		`{"time":{"event":"sent","from":"2025-04-01T09:00:00Z","to":"2025-04-01T09:00:00Z"}}`: "time.to",
		strings.Repeat(`{"not":`, 22) + `{}` + strings.Repeat(`}`, 22):                        strings.TrimSuffix(strings.Repeat("not.", 21), "."),
		`{"or":[` + strings.TrimSuffix(strings.Repeat(`{"try":1},`, 600), ",") + `]}`:         "or[499]",
		`{"link":"` + strings.Repeat("x", 70_000) + `"}`:                                      "",
	} {
		_, err := analytics.ParseSelection([]byte(text))
		bad, ok := errors.AsType[*analytics.SelectionError](err)
		if !ok {
			t.Errorf("%.80s: got %v, want a SelectionError", text, err)
			continue
		}
		if bad.Path != want || bad.Detail == "" {
			t.Errorf("%.80s: got path %q (%s), want %q", text, bad.Path, bad.Detail, want)
		}
	}
}

// R142 to R144: a selection of one status, of several, of all, and of sub-statuses that belong to different statuses.
func TestSelectionOfStatuses(t *testing.T) {
	set := func(kind schemas.Kind, try uint8, code schemas.Code, seqs ...uint32) analytics.StatusSet {
		return analytics.StatusSet{Precedence: schemas.PrecedenceOf(kind, uint32(try), code), Try: try, Members: roaring.BitmapOf(seqs...)}
	}
	sets := &analytics.Sets{Statuses: []analytics.StatusSet{
		set(schemas.KindSent, 1, 0, 1, 2, 3, 4, 5), set(schemas.KindDelivered, 1, schemas.CodeDelivered, 1), set(schemas.KindRead, 1, schemas.CodeRead, 2),
		// Recipient 1 counts as delivered, although its try 2 failed
		set(schemas.KindUndelivered, 1, schemas.CodeBarred, 3), set(schemas.KindUndelivered, 2, schemas.CodeHandsetOff, 4, 1),
		set(schemas.KindNotSent, 1, schemas.CodeInvalidNumber, 6), set(schemas.KindReturned, 1, schemas.CodePaused, 7),
		{Precedence: analytics.FactClicked, LinkID: "a", Members: roaring.BitmapOf(1)},
	}}
	for text, want := range map[string][]uint32{
		`{}`:                                  {0, 1, 2, 3, 4, 5, 6, 7, 8},
		`{"status":"delivered"}`:              {1, 2},
		`{"status":["delivered","awaiting"]}`: {1, 2, 5},
		`{"status":"sent"}`:                   {1, 2, 3, 4, 5},
		`{"status":"failed"}`:                 {3, 4, 6},
		`{"status":"pending"}`:                {0, 7, 8},
		`{"not":{"status":"pending"}}`:        {1, 2, 3, 4, 5, 6},
		`{"or":[{"subStatus":"BARRED"},{"subStatus":"READ"}]}`: {2, 3},
		`{"status":"undelivered","try":2}`:                     {4},
		`{"clicked":false,"status":"delivered"}`:               {2},
		`{"link":["a","b"]}`:                                   {1},
	} {
		selection, err := analytics.ParseSelection([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := selection.Evaluate(t.Context(), sets, 9, func(context.Context, schemas.Kind, int64, int64) (*roaring.Bitmap, error) { return roaring.New(), nil })
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got.ToArray()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// For any input, the parser returns a selection or an error, and it accepts the text of a selection that it has
// returned.
func FuzzParseSelection(f *testing.F) {
	f.Add([]byte(`{"and":[{"status":["sent"]},{"not":{"time":{"event":"sent","from":"2025-04-01T09:00:00Z"}}}]}`))
	f.Add([]byte(`{"variant":1e300}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		selection, err := analytics.ParseSelection(text)
		if err != nil {
			return
		}
		again, err := analytics.ParseSelection([]byte(selection.String()))
		if err != nil || again.String() != selection.String() {
			t.Errorf("%s: read again: %v, %v", selection, again, err)
		}
	})
}
