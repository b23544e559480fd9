package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// X9: a campaign that is sent in batches.
func TestBatches(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 10, 0)
	create := func(batches string) *answer {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"Hello","contactList":%q,"batches":%s}`, list, batches))
	}
	const a, b, c = `"at":"2025-04-15T09:00:00Z"`, `"at":{"local":"2025-04-16T09:00"}`, `"at":"2025-04-17T09:00:00Z"`
	for batches, field := range map[string]string{
		`[]`:                         "batches",
		`[{` + a + `,"share":50}]`:   "batches",
		`[{"share":50},{` + b + `}]`: "batches[0].at",
		`[{` + a + `},{` + b + `}]`:  "batches[0].share",
		`[{` + a + `,"share":10,"count":3},{` + b + `}]`:              "batches[0].count",
		`[{` + a + `,"share":101},{` + b + `}]`:                       "batches[0].share",
		`[{` + a + `,"share":60},{` + b + `,"share":60}]`:             "batches[1].share",
		`[{` + b + `,"share":60},{` + a + `}]`:                        "batches[1].at",
		`[{"at":"2025-03-01T09:00:00Z","share":60},{` + b + `}]`:      "batches[0].at",
		`[{` + a + `,"count":10},{` + b + `}],"sendImmediately":true`: "batches",
	} {
		if got := create(batches).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want the field %s", batches, got.body, field)
		}
	}
	made := create(`[{` + a + `,"share":25},{` + b + `,"count":4},{` + c + `}]`).want(201)
	subset(t, "made", made.body, `{"scheduledTime":"2025-04-15T09:00:00Z"}`)
	if want := `"batches":[{"at":"2025-04-15T09:00:00Z","share":25,"count":null},{"at":"2025-04-16T07:00:00Z","share":null,"count":4},{"at":"2025-04-17T09:00:00Z","share":null,"count":null}]`; !strings.Contains(string(made.body), want) {
		t.Errorf("got %s, want %s", made.body, want)
	}
	path := "/api/campaigns/" + made.id()
	w.call("PUT", path, `{"scheduledTime":"2025-04-20T09:00:00Z"}`).problem(422, "invalid_value", "scheduledTime")
	// The forecast ends with the last batch.
	goal := w.call("POST", path+"/calculateGoal", `{"goalContactCount":1000}`).want(200).object()
	if got, least := goal["estimatedDurationSeconds"].(float64), (48 * time.Hour).Seconds(); got < least || got > least+60 {
		t.Errorf("forecast: got %v s, want a little more than %v", got, least)
	}
	w.call("PUT", path+"/confirm", "").want(200)
	w.call("POST", path+"/reschedule", `{"scheduledTime":"2025-04-25T09:00:00Z"}`).want(200)
	row, err := w.store.Campaign(t.Context(), w.tenant.ID, made.id())
	w.check(err)
	w.check(w.store.Freeze(t.Context(), w.tenant.ID, made.id(), row.Version))
	rows, err := w.store.Unpublished(t.Context(), 100)
	w.check(err)
	var got []string
	for _, r := range rows {
		if strings.HasSuffix(r.Key, made.id()) {
			var record fanfarev1.Campaign
			w.check(proto.Unmarshal(r.Value, &record))
			for _, b := range record.GetBatches() {
				got = append(got, fmt.Sprint(time.UnixMilli(b.GetAtMs()).UTC().Format(time.RFC3339), " ", b.GetEndSeq()))
			}
		}
	}
	if want := "2025-04-25T09:00:00Z 3, 2025-04-26T07:00:00Z 7, 2025-04-27T09:00:00Z 10"; strings.Join(got, ", ") != want {
		t.Errorf("record: got %s, want %s", strings.Join(got, ", "), want)
	}
	other := create(`[{` + a + `,"share":25},{` + b + `}]`).want(201)
	subset(t, "at once instead", w.call("PUT", "/api/campaigns/"+other.id(), `{"batches":null,"sendImmediately":true}`).want(200).body, `{"batches":[],"scheduledTime":null,"sendImmediately":true}`)
}
