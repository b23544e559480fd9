package api_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// The fields of E's campaigns, with what holds when they are not given.
func TestCampaignFields(t *testing.T) {
	w := newEnv(t)
	list := w.list("customers", 3, 0)
	w.agent("Acme")
	w.way("WA", "whatsapp", "+393331234567")
	card, hello := w.template("card", "rcs", "Hi"), w.template("hello", "whatsapp", "Ciao")
	w.sender(`"name":"ACME"`)

	// R1, R2, R8, R10, R11, R13, R14: an SMS campaign has a name of any characters, its message is the text, and it goes
	// to one list; it begins as a draft when its author says so, and is neither immediate nor falls back.
	made := w.call("POST", "/api/campaigns", `{"name":"Été \"50 %\" <b> 🎉","channel":"sms","message":"Hello","draft":true}`).want(201)
	subset(t, "defaults", made.body, `{"name":"Été \"50 %\" <b> 🎉","channel":"sms","message":"Hello","contactList":null,"status":"draft","sendImmediately":false,"scheduledTime":null,"fallback":false}`)
	// R5, R46, R47, R49, R54, R71: a draft is saved, its fields are changed, and it ends as a draft or whole.
	path := "/api/campaigns/" + made.id()
	subset(t, "named", w.call("PUT", path, `{"name":"Summer"}`).want(200).body, `{"name":"Summer","status":"draft","message":"Hello"}`)
	subset(t, "saved", w.call("PUT", path, `{"notes":"n","draft":true}`).want(200).body, `{"name":"Summer","status":"draft","notes":"n"}`)
	// R67: configured: contacts, channel and message are there.
	subset(t, "whole", w.call("PUT", path, `{"contactList":"customers"}`).want(200).body, `{"status":"configured","contactList":"customers"}`)
	subset(t, "renamed", w.call("PUT", path, `{"name":"Autumn"}`).want(200).body, `{"name":"Autumn","status":"configured"}`)

	// R6, R8, R12, R15, R16: RCS and WhatsApp name a template and the resource they go out by.
	create := func(more string) *answer {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","contactList":%q,"scheduledTime":"2025-04-15T09:00:00Z",%s}`, list, more))
	}
	subset(t, "rcs", create(fmt.Sprintf(`"channel":"rcs","message":%q`, card)).want(201).body, `{"channel":"rcs","templateName":"card","senderName":"Acme","scheduledTime":"2025-04-15T09:00:00Z","sendImmediately":false}`)
	subset(t, "whatsapp", create(fmt.Sprintf(`"channel":"whatsapp","message":%q`, hello)).want(201).body, `{"channel":"whatsapp","templateName":"hello","senderName":"WA"}`)
	subset(t, "sms", create(`"channel":"sms","message":"M","sender":"ACME"`).want(201).body, `{"channel":"sms","sender":"ACME"}`)
	create(`"channel":"sms","message":"M","sender":"NOBODY"`).problem(422, "invalid_value", "sender")
	create(`"channel":"fax","message":"M"`).problem(422, "invalid_value", "channel")
}

// What a person can change in each state, and the order of the states.
func TestStatesOfACampaign(t *testing.T) {
	w := newEnv(t)
	states := w.states()
	// R52 to R55, C12: drafts, rejected and configured campaigns can be edited, and nothing that is confirmed.
	editable := []schemas.State{schemas.StateDraft, schemas.StateRejected, schemas.StateConfigured, schemas.StateCostCalculated}
	for state, id := range states {
		want := 409
		if slices.Contains(editable, state) {
			want = 200
		}
		if got := w.call("PUT", "/api/campaigns/"+id, `{"notes":"n"}`); got.status != want {
			t.Errorf("edit of one that is %s: got %d, want %d", schemas.StateName(state), got.status, want)
		}
	}
	// R66 to R70, R72 to R76, R80 to R83: each state has its word of E.
	for state, want := range map[schemas.State]string{
		schemas.StateReady: `{"status":"confirmed","state":"ready"}`, schemas.StateScheduled: `{"status":"confirmed","state":"scheduled"}`,
		schemas.StatePreparing: `{"status":"confirmed","state":"preparing"}`, schemas.StateSending: `{"status":"sending","state":"sending"}`,
		schemas.StatePaused: `{"state":"paused"}`, schemas.StateSuspended: `{"state":"suspended"}`,
		schemas.StateCompleted: `{"status":"completed","state":"completed"}`, schemas.StateAborted: `{"status":"cancelled","state":"aborted"}`,
		schemas.StateCancelled: `{"status":"cancelled","state":"cancelled"}`,
	} {
		subset(t, schemas.StateName(state), w.call("GET", "/api/campaigns/"+states[state], "").want(200).body, want)
	}
	// R88: and C has six words for all of them.
	words := map[string]bool{}
	for state, id := range states {
		var c struct{ Status string }
		w.call("GET", "/api/campaigns/"+id+"?vocab=c", "").want(200).into(&c)
		if !slices.Contains([]string{"Draft", "Scheduled", "Running", "Paused", "Completed", "Cancelled"}, c.Status) {
			t.Errorf("%s in the words of C: got %q, want one of its six", schemas.StateName(state), c.Status)
		}
		words[c.Status] = true
	}
	if len(words) != 6 {
		t.Errorf("got the words %v of C, want all six", words)
	}
	// R78: why the guard suspended it.
	subset(t, "suspended", w.call("GET", "/api/campaigns/"+states[schemas.StateSuspended], "").body, `{"reason":"route_down"}`)
	// R68, R158: the cost is looked at before the confirm.
	priced := w.campaign(3, "")
	subset(t, "price", w.call("GET", "/api/campaigns/"+priced+"/price", "").want(200).body, `{"totalContacts":3,"estimatedCost":0.15}`)
	subset(t, "cost calculated", w.call("GET", "/api/campaigns/"+priced, "").body, `{"status":"cost_calculated"}`)
	// R161, R162: statistics count from the first minute, and what has no receipt yet is awaited, not failed.
	running := w.campaign(10, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+running+"/confirm", "").want(200)
	w.freeze(running, 10)
	w.happened(w.tenant.ID, running, 0, 4, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, running, 4, 6, schemas.KindSent, schemas.CodeAwaitingDLR)
	subset(t, "first minutes", w.call("GET", "/api/campaigns/"+running+"/stats", "").want(200).body, `{"totalMessages":10,"sent":6,"delivered":4,"failed":0,"pending":4,"awaiting":2}`)
}

// reader reads pages of the console as a person who has logged in, without a browser.
type reader struct {
	*env
	client *http.Client
}

func (w *env) reader() *reader {
	w.Helper()
	user, err := w.store.CreateUser(w.Context(), store.User{Email: "anna@example.com", Name: "Anna Rossi"})
	w.check(err)
	w.check(w.store.SetMembership(w.Context(), user.ID, w.tenant.ID, store.RoleApprover))
	secret, err := w.store.CreateLoginLink(w.Context(), user.ID, time.Hour)
	w.check(err)
	jar, err := cookiejar.New(nil)
	w.check(err)
	r := &reader{w, &http.Client{Jar: jar}}
	res, err := r.client.PostForm(w.url+"/login/"+secret, url.Values{})
	w.check(err)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || res.Request.URL.Path != "/" {
		w.Fatalf("log in: got %s at %s", res.Status, res.Request.URL)
	}
	return r
}

// page returns a page, with the entities of its text decoded.
func (r *reader) page(path string) string {
	r.Helper()
	res, err := r.client.Get(r.url + path)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	r.check(err)
	if res.StatusCode != http.StatusOK {
		r.Errorf("GET %s: got %s, want 200", path, res.Status)
	}
	return html.UnescapeString(string(body))
}

// holds checks that a page has texts, in this order.
func (r *reader) holds(path string, texts ...string) {
	r.Helper()
	page := r.page(path)
	for _, text := range texts {
		at := strings.Index(page, text)
		if at < 0 {
			r.Errorf("%s: got no %q where it should be", path, text)
			return
		}
		page = page[at+len(text):]
	}
}

func TestConsolePages(t *testing.T) {
	w := newEnvOf(t, func(w *env) { w.deps.Console = true })
	w.list("customers", 2, 0)
	w.agent("Acme")
	card := w.template("card", "rcs", "Hi")
	draft := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"Spring card","channel":"rcs","draft":true,"sender":"Acme","message":%q,"contactList":"customers"}`, card)).want(201).id()
	sms := w.campaign(2, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+sms+"/confirm", "").want(200)
	w.freeze(sms, 2)
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, sms)
	w.check(err)
	_, err = w.store.Apply(t.Context(), schemas.Change{Tenant: w.tenant.ID, Campaign: sms, Version: c.Version, To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend, Actor: schemas.ActorGuard, Reason: "route_down", At: w.clock.now()})
	w.check(err)
	r := w.reader()
	// R89: the wizard has its steps in order.
	r.holds("/campaigns/new?channel=rcs", "Type", "Audience", "Content", "When", "Review")
	// R4, C5: the name of an RCS campaign is locked on the page, and R5: not by the API.
	r.holds("/campaigns/"+draft+"/edit", `value="Spring card" disabled`, "The name of an RCS campaign can't be changed.")
	w.call("PUT", "/api/campaigns/"+draft, `{"name":"Spring card 2"}`).want(200)
	// R18 to R20: changing the agent asks first.
	r.holds("/campaigns/"+draft+"/edit?step=content", `data-ask="Change the agent?`, `selected>Acme<`)
	// R28, R29: the time is chosen in the tenant's zone, which the page shows.
	r.holds("/campaigns/"+draft+"/edit?step=when", "Time zone: Europe/Rome", `name="year"`, `name="minute"`)
	// R44, R51, R56, R42: the grid has a menu in each row, for a draft Edit and Delete first, and the time of creation in UTC.
	r.holds("/", "Spring card 2", "09:00 UTC", `href="/campaigns/`+draft+`/edit"`, "/campaigns/"+draft+"/delete")
	// R77, R78: why a campaign is suspended.
	r.holds("/", "C</a>", "Suspended", `class="why"`)
	// R131, R132, R135, R136: columns, the tone of a state, the progress of the recipients; search and clear, pages by links.
	r.holds("/?search=C&limit=1", `role="search"`, ">Search</button>", ">Clear</a>", "Name", "Type", "Status", "Recipients", "CTR", "From", "Cost", "Scheduled",
		"data-tone=", `class="bar"`, "0%")
	r.holds("/?limit=1", `href="/?`)
	// R134: how many campaigns there are, and R133, R87: pages of what runs and of the statistics of what has started.
	r.holds("/", "2 campaigns")
	r.holds("/realtime", "<h1>")
	r.holds("/campaigns/"+sms+"/analytics", "<h1>", "Delivered")
}
