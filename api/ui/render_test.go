package ui

import (
	"bytes"
	"testing"
	"time"

	"fanfare/api/store"
)

func TestPagesRender(t *testing.T) {
	a, err := loadAssets()
	if err != nil {
		t.Fatal(err)
	}
	p, err := loadPages(a)
	if err != nil {
		t.Fatal(err)
	}
	u := &UI{assets: a, pages: p}
	for name, v := range map[string]page{
		"login":    {Data: loginForm{Link: "x"}},
		"error":    {Data: &Problem{Title: "x"}},
		"grid":     {Person: &Person{Role: store.RoleOperator}, Now: time.Now(), Data: &grid{States: states, Channels: channels, Rows: []campaign{{State: "sending", Stats: &figures{}}}}},
		"campaign": {Person: &Person{Role: store.RoleOperator}, Now: time.Now(), Data: &panel{Person: &Person{Role: store.RoleOperator}, Tab: "stats", Tabs: panelTabs, campaignDetail: campaignDetail{campaign: campaign{State: "sending"}}, Figures: &panelStats{}}},
	} {
		var out bytes.Buffer
		if err := u.execute(&out, name, "layout", v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
