package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"fanfare/api"
	"fanfare/api/store"
)

// X2: tenants, keys, routes and tags are listed by page and by cursor, and searched, as all other lists.
func TestShortLists(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	for i := range 7 {
		w.call("POST", "/api/tenants", fmt.Sprintf(`{"name":"Shop %d"}`, i)).want(201)
		w.call("POST", "/api/keys", fmt.Sprintf(`{"name":"shop %d"}`, i)).want(201)
		w.call("POST", "/api/routes", fmt.Sprintf(`{"name":"shop-%d","connector":"sim","rate":10}`, i)).want(201)
		w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C%d","draft":true,"channel":"sms","tags":["shop %d"]}`, i, i)).want(201)
	}
	for list, id := range map[string]string{"tenants": "id", "keys": "id", "routes": "name", "tags": "tag"} {
		read := func(query string) (page api.Page[map[string]any], ids []string) {
			w.call("GET", "/api/"+list+query, "").want(200).into(&page)
			for _, row := range page.Data {
				ids = append(ids, fmt.Sprint(row[id]))
			}
			return page, ids
		}
		whole, want := read("")
		if whole.Total < 7 || len(want) != whole.Total || whole.Next != nil {
			t.Errorf("%s: got %d of %d rows, next %v, want all", list, len(want), whole.Total, whole.Next)
		}
		var pages, cursors []string
		for n := 0; ; n++ {
			page, ids := read(fmt.Sprintf("?limit=3&page=%d", n))
			if pages = append(pages, ids...); len(ids) == 0 || page.Total != whole.Total || page.Page != n {
				break
			}
		}
		for cursor := ""; ; {
			page, ids := read("?limit=3&cursor=" + url.QueryEscape(cursor))
			if cursors = append(cursors, ids...); page.Next == nil {
				break
			}
			cursor = *page.Next
		}
		if !slices.Equal(pages, want) || !slices.Equal(cursors, want) {
			t.Errorf("%s: got %v by page and %v by cursor, want %v", list, pages, cursors, want)
		}
		if page, _ := read("?search=SHOP&limit=2"); page.Total != 7 || len(page.Data) != 2 || page.Next == nil {
			t.Errorf("%s: the search found %d, showed %d, want 2 of 7 and a cursor", list, page.Total, len(page.Data))
		}
		if page, _ := read("?page=9223372036854775807"); len(page.Data) != 0 || page.Total != whole.Total {
			t.Errorf("%s: got %d rows on a page behind the last", list, len(page.Data))
		}
		w.call("GET", "/api/"+list+"?cursor=x", "").problem(422, "invalid_value", "cursor")
		other, _ := read("?limit=3")
		w.call("GET", "/api/exports?cursor="+*other.Next, "").problem(422, "invalid_value", "cursor")
	}
}
