package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// walk reads a list by its cursor, two rows at a time, and calls between after each page. It returns the ids in the
// order they came.
func (w *env) walk(path, key string, between func(page int)) []string {
	w.Helper()
	var out []string
	cursor := ""
	for page := 0; ; page++ {
		var got struct {
			Data []map[string]json.RawMessage
			Next *string
		}
		join := "?"
		if strings.Contains(path, "?") {
			join = "&"
		}
		w.call("GET", path+join+"limit=2&cursor="+url.QueryEscape(cursor), "").want(200).into(&got)
		for _, row := range got.Data {
			out = append(out, strings.Trim(string(row[key]), `"`))
		}
		if got.Next == nil || page > 50 {
			return out
		}
		cursor = *got.Next
		between(page)
	}
}

// A cursor skips and repeats no row that is there all the time, while others come and go. A page number would: each row
// that comes before moves all that follow.
func TestCursors(t *testing.T) {
	w := newEnv(t)
	w.relay()
	list := w.list("walked", 9, 0)
	var members struct{ Data []struct{ ID string } }
	w.call("GET", "/api/contacts/list/walked/contacts?limit=100", "").want(200).into(&members)
	n := 0
	another := func() string { n++; return phoneOf(7000 + n) }
	var campaigns []string
	for i := range 9 {
		w.list(fmt.Sprintf("another %d", i), 0, 0)
		campaigns = append(campaigns, w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C%d","channel":"sms","draft":true,"tags":["walk"]}`, i)).want(201).id())
		w.call("POST", "/api/suppressions", fmt.Sprintf(`{"phoneNumber":%q}`, phoneOf(6000+2*i))).want(201)
	}
	for _, c := range []struct {
		path, key string
		come      func() // a row that comes at the beginning of the list, and one at its end
		leave     func(page int)
	}{
		{"/api/campaigns", "id", func() {
			w.call("POST", "/api/campaigns", `{"name":"new","channel":"sms","draft":true,"tags":["walk"]}`).want(201)
		}, func(page int) {
			w.call("DELETE", "/api/campaigns/"+campaigns[8-2*page], "")
			w.call("DELETE", "/api/campaigns/"+campaigns[8-2*page]+"?remove=true", "").want(200)
		}},
		{"/api/campaigns?direction=ASC", "id", func() { w.call("POST", "/api/campaigns", `{"name":"new","channel":"sms","draft":true}`).want(201) }, nil},
		{"/api/campaigns?tag=walk", "id", func() {
			w.call("POST", "/api/campaigns", `{"name":"new","channel":"sms","draft":true,"tags":["walk"]}`).want(201)
		}, nil},
		{"/api/campaigns?search=c", "id", func() { w.call("POST", "/api/campaigns", `{"name":"c","channel":"sms","draft":true}`).want(201) }, nil},
		{"/api/contacts/list", "id", func() { w.list(fmt.Sprint("new ", another()), 0, 0) }, nil},
		{"/api/contacts", "id", func() { w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q}`, another())).want(201) }, nil},
		{"/api/contacts?search=name", "id", func() {
			w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"firstName":"Name"}`, another())).want(201)
		}, nil},
		{"/api/contacts/list/" + list + "/contacts", "id", func() {
			w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"listIds":[%q]}`, another(), list)).want(201)
		}, func(page int) {
			w.call("DELETE", "/api/contacts/list/contacts", fmt.Sprintf(`{"listId":%q,"contactIds":[%q]}`, list, members.Data[2*page].ID)).want(200)
		}},
		{"/api/suppressions", "phoneNumber", func() {
			n++
			w.call("POST", "/api/suppressions", fmt.Sprintf(`{"phoneNumber":%q}`, phoneOf(5000+n))).want(201)
		}, func(page int) {
			w.call("DELETE", "/api/suppressions?phoneNumber="+url.QueryEscape(phoneOf(6000+4*page)), "").want(200)
		}},
	} {
		before := w.walk(c.path, c.key, func(int) {})
		got := w.walk(c.path, c.key, func(page int) {
			if page < 4 {
				c.come()
				if c.leave != nil {
					c.leave(page)
				}
			}
		})
		after := w.walk(c.path, c.key, func(int) {})
		seen := map[string]int{}
		for _, id := range got {
			seen[id]++
			if seen[id] > 1 {
				t.Errorf("%s: got %s twice", c.path, id)
			}
		}
		stayed := 0
		for _, id := range before {
			if slices.Contains(after, id) {
				stayed++
				if seen[id] == 0 {
					t.Errorf("%s: got %v, want %s in it: it was there all the time", c.path, got, id)
				}
			}
		}
		if stayed < 4 {
			t.Errorf("%s: only %d rows stayed", c.path, stayed)
		}
	}
	for path, cursor := range map[string]string{"/api/contacts": "Y2FtcGFpZ25zOjE", "/api/campaigns": "%%%", "/api/contacts/list": "x", "/api/suppressions": "bGlzdHM6MQ"} {
		w.call("GET", path+"?cursor="+url.QueryEscape(cursor), "").problem(422, "invalid_value", "cursor")
	}
}

// X5: several references, one by one or separated by commas.
func TestSeveralReferences(t *testing.T) {
	w := newEnv(t)
	for _, ref := range []string{"a", "b", "c"} {
		w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":"+393331234567","message":"hi","messageId":%q}`, ref)).want(200)
	}
	for _, query := range []string{"customerMessageIds=a,b,c,z", "customerMessageIds=a&customerMessageIds=b&customerMessageIds=c&customerMessageIds=z", "customerMessageIds=a,b&customerMessageIds=c,z"} {
		var got struct {
			Data     []struct{ CustomerMessageID string }
			NotFound []string
		}
		w.call("GET", "/api/messages/status?"+query, "").want(200).into(&got)
		if len(got.Data) != 3 || !slices.Equal(got.NotFound, []string{"z"}) {
			t.Errorf("%s: got %+v", query, got)
		}
	}
	w.call("GET", "/api/messages/status", "").problem(422, "required", "customerMessageIds")
}
