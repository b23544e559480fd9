package api_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
)

// console is an env with a person who is logged in, and campaigns in the states that screens show differently.
type console struct {
	*env
	user    store.User
	running string
	paused  string
	done    string
	draft   string
	voice   string
	compare string
	later   string
	batches string
	list    string
	hook    string
	talk    string // a conversation
	known   string // a contact with a history
	erased  string
	domain  string
}

// findings are what the doctor says in these tests.
func findings(context.Context) []api.Finding {
	return []api.Finding{
		{Service: "kafka", Level: "ok", Found: "3 brokers, version 4.1"},
		{Service: "redis", Level: "note", Found: "maxmemory-policy is allkeys-lru", Fix: "Set maxmemory-policy to noeviction."},
		{Service: "postgres", Level: "bad", Found: "the user may not create tables", Fix: "GRANT CREATE ON SCHEMA fanfare TO fanfare."},
	}
}

// alerts are what the process knows of the alerts in these tests.
func alerts(context.Context) []api.Alert {
	return []api.Alert{
		{Name: "FanfareBreakerOpen", Severity: "critical", Means: "Nothing is handed over on this route.", Do: "Ask the carrier.", Runbook: "deploy/README.md#fanfarebreakeropen", State: "holds", Where: []string{"route=it-1: 1"}},
		{Name: "FanfareDown", Severity: "critical", Means: "All processes are down.", Do: "Check the processes first.", Runbook: "deploy/README.md#fanfaredown", State: "unknown", Where: []string{}},
		{Name: "FanfareStageStuck", Severity: "warning", Means: "Campaigns do not advance.", Do: "Read the log.", Runbook: "deploy/README.md#fanfarestagestuck", State: "not_here", Where: []string{}},
	}
}

func newConsole(t *testing.T) *console {
	t.Helper()
	done := make(chan struct{})
	w := newEnvOf(t, func(w *env) {
		w.deps.Done, w.deps.Console, w.deps.Doctor = done, true, findings
		w.deps.Alerts = alerts
		w.deps.Sources, w.deps.AuditSettle = statsAsLog{w}, time.Millisecond
	})
	t.Cleanup(func() { close(done) }) // before the server ends, which waits for live pages
	c := &console{env: w}
	var err error
	c.user, err = w.store.CreateUser(t.Context(), store.User{Email: "anna@example.com", Name: "Anna Rossi", Operator: true})
	w.check(err)
	w.check(w.store.SetMembership(t.Context(), c.user.ID, w.tenant.ID, store.RoleApprover))
	c.list = w.list("active_customers", 3, 0)
	w.list("vip", 2, 100)
	create := func(body string, confirm bool) string {
		w.Helper()
		id := w.call("POST", "/api/campaigns", body).want(201).id()
		if confirm {
			w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		}
		return id
	}
	sms := func(name, more string) string {
		return fmt.Sprintf(`{"name":%q,"channel":"sms","message":"Your order {{firstName}} is on its way","contactList":"active_customers"%s}`, name, more)
	}
	w.call("POST", "/api/senders", `{"name":"ACME","countries":["IT","FR"]}`).want(201)
	c.draft = create(sms("Password reset <b>notice</b>", ""), false)
	c.voice = create(`{"draft":true,"name":"Reminder by phone","channel":"voice","contactList":"active_customers"}`, false)
	c.compare = create(`{"draft":true,"name":"Two texts","channel":"sms","contactList":"active_customers","variants":[{"name":"A","message":"Short","weight":30},{"name":"B","message":"A little longer","weight":70}]}`, false)
	c.batches = create(sms("Spring sale in waves", `,"draft":true,"batches":[{"at":"2025-05-02T08:00:00Z","share":20},{"at":"2025-05-03T08:00:00Z"}]`), false)
	c.hook = w.call("POST", "/api/webhooks", `{"name":"crm","url":"https://crm.example.com/hooks"}`).want(201).id()
	number, _ := store.ResourceNumber(store.KindWebhook, c.hook)
	w.check(w.store.QueueWebhooks(t.Context(), []schemas.WebhookItem{{
		Tenant: w.tenant.ID, Endpoint: number, EventID: "evt_one", Type: "message.delivered", Order: "msg_one", Data: []byte("{}"), Time: w.clock.now(),
	}}, nil))
	for i, text := range []string{"When do you open?", "please stop writing to me"} {
		f := &schemas.MessageFact{
			ID: fmt.Sprint("in_", i), Tenant: w.tenant.ID, Phone: "+393401234567", Sender: "+393399900011", Channel: schemas.ChannelSMS, Route: "sim", Text: text, Time: w.clock.now(),
		}
		if i == 1 {
			f.Meaning = schemas.ReplyMeaningReview
		}
		id, err := w.store.RecordMessage(t.Context(), f)
		w.check(err)
		c.talk = id
	}
	c.domain = w.call("POST", "/api/domains", `{"host":"go.acme.example","dailyLimit":50000,"totalLimit":1000000,"weight":3}`).want(201).id()
	admin := w.admin()
	w.callAs(admin, "POST", "/api/shared-domains", `{"host":"go.shared.example"}`).want(201)
	w.callAs(admin, "POST", "/api/shared-domains", `{"host":"stop.shared.example","kind":"opt_out"}`).want(201)
	w.callAs(admin, "PUT", "/api/policy", `{"words":["casino"],"countryCaps":[{"country":"IT","max":100000,"per":"day"}]}`).want(200)
	w.clock.forward(3 * time.Hour)
	c.later = create(sms("Black Friday early access", `,"scheduledTime":"2025-04-18T09:00:00Z","tags":["promo","vip"]`), true)
	w.call("DELETE", "/api/campaigns/"+create(sms("Never mind", ""), false), "").want(200)
	c.done = create(sms("Delivery slot reminder", `,"sendImmediately":true,"tags":["service"]`), true)
	w.freeze(c.done, 900)
	w.happened(w.tenant.ID, c.done, 0, 850, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, c.done, 850, 900, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
	w.call("POST", "/api/campaigns/"+c.done+"/abort", "").want(200)
	c.paused = create(sms("Renewal calls, wave 2", `,"sendImmediately":true,"tags":["renewal"]`), true)
	w.freeze(c.paused, 5200)
	w.happened(w.tenant.ID, c.paused, 0, 1904, schemas.KindDelivered, schemas.CodeDelivered)
	w.call("POST", "/api/campaigns/"+c.paused+"/pause", "").want(200)
	c.running = create(strings.Replace(sms("Spring Promotion 2025", `,"sendImmediately":true,"tags":["promo","eu"]`), "is on its way",
		"is here: {{link:https://shop.example.com/spring}} Stop: {{opt_out}}", 1), true)
	w.freeze(c.running, 100_000)
	w.allot(c.running, 100_000)
	w.happened(w.tenant.ID, c.running, 0, 3_900, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, c.running, 3_900, 4_200, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
	w.happened(w.tenant.ID, c.running, 4_200, 4_300, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.opened(c.running, "lnk_1", 0, 620, schemas.CodeUnspecified)
	w.opened(c.running, "lnk_1", 300, 400, schemas.CodePreview)
	w.opened(c.running, "lnk_1", 1000, 1210, schemas.CodeBot)
	c.known = w.known(c.running, 3950)
	w.move(c.done, func(ch *schemas.Change) { ch.To, ch.Settled, ch.Captured = schemas.StateAborted, true, 200_000 })
	c.erased = w.call("POST", "/api/erasures", `{"phoneNumber":"+393471239876"}`).want(202).id()
	w.asOf(w.clock.now().Add(time.Second)) // the erasure waits for the statistics
	stop := w.runJobs(w.server)
	w.call("POST", "/api/campaigns/"+c.running+"/audit", "").want(202)
	w.call("GET", "/api/campaigns/"+c.running+"/audit?wait=30", "").want(200)
	w.erasureDone(c.erased)
	stop()
	return c
}

// login logs the browser in by a one-time link.
func (c *console) login(b *browser) {
	b.Helper()
	secret, err := c.store.CreateLoginLink(c.Context(), c.user.ID, time.Hour)
	c.check(err)
	b.open(c.url + "/login/" + secret)
	b.do(chromedp.Click(chromedp.CSS("main form button")))
	b.eventually("logged in", `location.pathname`, "/")
}

// screens of the console, by the name of their picture.
func (c *console) screens() [][2]string {
	return [][2]string{
		{"grid", "/"},
		{"realtime", "/realtime"},
		{"campaign-stats", "/campaigns/" + c.running},
		{"campaign-details", "/campaigns/" + c.running + "?tab=details"},
		{"members", "/campaigns/" + c.running + "/members"},
		{"member", "/campaigns/" + c.running + "/members/3950"},
		{"ambiguous", "/campaigns/" + c.running + "/ambiguous"},
		{"replay", "/campaigns/" + c.done + "/replay"},
		{"import", "/import"},
		{"imports", "/imports"},
		{"exports", "/exports"},
		{"export-new", "/exports/new?kind=members&campaign=" + c.running},
		{"segment-new", "/campaigns/" + c.done + "/segment"},
		{"campaign-events", "/campaigns/" + c.running + "?tab=events"},
		{"campaign-domains", "/campaigns/" + c.running + "?tab=domains"},
		{"campaign-audit", "/campaigns/" + c.running + "?tab=audit"},
		{"analytics", "/campaigns/" + c.running + "/analytics"},
		{"wizard-type", "/campaigns/new"},
		{"wizard-audience", "/campaigns/" + c.draft + "/edit?step=audience"},
		{"wizard-content", "/campaigns/" + c.draft + "/edit?step=content"},
		{"wizard-when", "/campaigns/" + c.draft + "/edit?step=when"},
		{"wizard-batches", "/campaigns/" + c.batches + "/edit?step=when"},
		{"wizard-voice", "/campaigns/" + c.voice + "/edit?step=content"},
		{"wizard-compare", "/campaigns/" + c.compare + "/edit?step=content"},
		{"wizard-review", "/campaigns/" + c.draft + "/edit?step=review"},
		{"confirm", "/campaigns/" + c.draft + "/confirm"},
		{"delete", "/campaigns/" + c.draft + "/delete"},
		{"reschedule", "/campaigns/" + c.later + "/reschedule"},
		{"testsend", "/campaigns/" + c.draft + "/test"},
		{"domains", "/domains"},
		{"domain-new", "/domains/new"},
		{"domain", "/domains/" + c.domain},
		{"shared-domains", "/shared-domains"},
		{"lists", "/lists"},
		{"list", "/lists/" + c.list},
		{"contacts", "/contacts"},
		{"contact-new", "/contacts/new"},
		{"contact", "/contacts/" + c.known},
		{"contact-history", "/contacts/" + c.known + "/history"},
		{"suppressions", "/suppressions"},
		{"erasures", "/erasures"},
		{"erasure", "/erasures/" + c.erased},
		{"forecasts", "/forecasts"},
		{"templates", "/templates"},
		{"template-new", "/templates/new"},
		{"agents", "/agents"},
		{"channels", "/channels"},
		{"senders", "/senders"},
		{"sender-new", "/senders/new"},
		{"money", "/money"},
		{"keys", "/keys"},
		{"inbox", "/inbox"},
		{"conversation", "/inbox/" + c.talk},
		{"reviews", "/inbox/reviews"},
		{"webhooks", "/webhooks"},
		{"webhook-new", "/webhooks/new"},
		{"webhook", "/webhooks/" + c.hook},
		{"webhook-deliveries", "/webhooks/" + c.hook + "/deliveries"},
		{"policy", "/policy"},
		{"users", "/users"},
		{"routes", "/routes"},
		{"route-new", "/routes/new"},
		{"prices", "/prices"},
		{"price-new", "/prices/new"},
		{"health", "/doctor"},
		{"alerts", "/alerts"},
		{"tenants", "/tenants"},
		{"missing", "/campaigns/camp_99999999"},
	}
}

// Each screen in light and dark, wide and narrow: axe finds nothing, the browser's console is silent, nothing scrolls
// sideways or is cut off, no other server is asked, and the controls are those of the golden file.
func TestConsoleScreens(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.login(b)
	b.silent = func(text string) bool {
		return strings.Contains(text, "404 (Not Found)") && strings.Contains(text, "camp_99999999")
	}
	for _, theme := range []string{"light", "dark"} {
		b.theme(theme)
		for _, width := range []int64{1440, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			for _, s := range c.screens() {
				name, path := s[0], s[1]
				at := fmt.Sprintf("%s %s %d", name, theme, width)
				b.open(c.url + path)
				if wide := b.eval(`document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide != "0" {
					t.Errorf("%s: scrolls sideways by %s px", at, wide)
				}
				if cut := b.clipped(); cut != "" {
					t.Errorf("%s: cut off: %s", at, cut)
				}
				for _, v := range b.violations() {
					t.Errorf("%s: %s", at, v)
				}
				for _, said := range b.complaints() {
					t.Errorf("%s: console: %s", at, said)
				}
				if theme == "light" && width == 1440 {
					golden(t, name, b.controls())
				}
				b.picture(strings.ReplaceAll(at, " ", "-"))
			}
		}
	}
	if host := strings.TrimPrefix(c.url, "http://"); len(b.asked) != 1 || b.asked[0] != host {
		t.Errorf("hosts asked: got %q, want %q alone", b.asked, host)
	}
}

// golden compares the controls of a screen with its file; go test -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "console", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%v: run go test ./api -run TestConsoleScreens -update", err)
		return
	}
	if got != string(want) {
		t.Errorf("%s: the controls are not those of %s; look at them, then run go test ./api -run TestConsoleScreens -update. Got:\n%s", name, path, got)
	}
}

// A person without a mouse logs in, makes a campaign in the wizard, confirms it, pauses one and resumes it.
func TestConsoleByKeyboard(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.clock.forward(25 * time.Hour) // a campaign can be replayed a day after it was sent (R141)
	secret, err := c.store.CreateLoginLink(t.Context(), c.user.ID, time.Hour)
	c.check(err)
	b.do(chromedp.EmulateViewport(1440, 900))
	b.open(c.url + "/login/" + secret)
	b.key("\t\r")
	b.eventually("logged in", `location.pathname`, "/")

	b.open(c.url + "/campaigns/new")
	b.tabTo("Name")
	b.key("By keyboard")
	b.tabTo("Next")
	b.key("\r")
	b.eventually("audience", `document.querySelector("[aria-current=step]")?.innerText`, "Audience")
	b.tabTo("active_customers")
	b.key(" ")
	b.tabTo("Next")
	b.key("\r")
	b.eventually("content", `document.querySelector("[aria-current=step]")?.innerText`, "Content")
	b.tabTo("Message")
	b.key("Your table is ready")
	b.eventually("meter", `document.querySelector("#meter b")?.innerText.startsWith("1 ")`, "true")
	b.tabTo("Next")
	b.key("\r")
	b.eventually("when", `document.querySelector("[aria-current=step]")?.innerText`, "When")
	b.tabTo("Next")
	b.key("\r")
	b.eventually("review", `document.querySelector("[aria-current=step]")?.innerText`, "Review")
	b.tabTo("Send")
	b.key("\r")
	b.eventually("dialog", `document.querySelector("#dialog")?.open`, "true")
	b.eventually("its cost (R109)", `document.querySelector("#dialog").innerText.includes("€0.15")`, "true")
	b.tabTo("Confirm")
	b.key("\r")
	b.eventually("toast (R106)", `document.querySelector(".flash")?.innerText.startsWith("Campaign Submitted Successfully! campaignid: camp_")`, "true")
	if got := c.call("GET", "/api/campaigns?search=By+keyboard", "").object(); fmt.Sprint(got["total"]) != "1" {
		t.Errorf("after the wizard: got %v, want one campaign named By keyboard", got)
	}

	b.open(c.url + "/campaigns/" + c.running)
	b.tabTo("Pause")
	b.key("\r")
	b.eventually("paused", `document.querySelector("#panel-state .state")?.innerText`, "Paused")
	b.tabTo("Resume")
	b.key("\r")
	b.eventually("resumed", `document.querySelector("#panel-state .state")?.innerText`, "Sending")

	b.open(c.url + "/campaigns/" + c.done)
	b.tabTo("Replay")
	b.key("\r")
	b.eventually("replay of the original, by name (R152)", `document.querySelector("#dialog h2")?.innerText`, "Replay “Delivery slot reminder”")
	b.eventually("undelivered are ticked", `document.querySelector("#dialog [value=UnDelivered]")?.checked`, "true")
	b.tabTo("Continue")
	b.key("\r")
	b.eventually("its text", `document.querySelector("[aria-current=step]")?.innerText`, "Content")

	b.open(c.url + "/import")
	file := filepath.Join(t.TempDir(), "people.csv")
	c.check(os.WriteFile(file, []byte("Cellulare;Nome\n333 123 4567;Anna\n12;Nobody\n"), 0o600))
	b.do(chromedp.SetUploadFiles(chromedp.CSS("#f-file"), []string{file}))
	b.tabTo("Read the file")
	b.key("\r")
	b.eventually("columns", `document.querySelector("#f-map0")?.value`, "phone")
	b.tabTo("Name of the new list")
	b.key("Imported")
	b.tabTo("Import")
	b.key("\r")
	b.eventually("import is begun", `location.pathname.startsWith("/imports/imp_")`, "true")
	if said := b.complaints(); len(said) > 0 {
		t.Errorf("console: %q", said)
	}
}

// X7, R86: in the members of a campaign a person exports who was not reached, downloads the file, and makes a list of
// them.
func TestConsoleExports(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.runJobs(c.server)
	c.login(b)
	b.open(c.url + "/campaigns/" + c.done + "/members?status=undelivered")
	b.tabTo("Export")
	b.key("\r")
	b.eventually("dialog", `document.querySelector("#dialog h2")?.innerText`, "Export members")
	b.eventually("the filter is kept", `document.querySelector("#dialog [value=undelivered]")?.checked`, "true")
	b.do(chromedp.Click(chromedp.CSS("#dialog button.primary")))
	b.eventually("ordered", `location.pathname.startsWith("/exports/exp_")`, "true")
	b.eventually("done", `document.querySelector("#export-one .state")?.innerText`, "Done")
	link := b.eval(`document.querySelector("#export-one a.primary").getAttribute("href")`)
	if rows := c.callAs("", "GET", strings.Trim(link, `"`), "").want(200).rows(); len(rows) != 51 {
		t.Errorf("file: got %d rows, want the 50 undelivered", len(rows)-1)
	}
	b.open(c.url + "/exports")
	b.eventually("listed", `document.querySelectorAll("main tbody tr").length`, "1")

	b.open(c.url + "/campaigns/" + c.done + "/members?status=delivered")
	b.tabTo("Make a segment")
	b.key("\r")
	b.eventually("dialog", `document.querySelector("#dialog h2")?.innerText`, "Make a segment of “Delivery slot reminder”")
	b.do(chromedp.SendKeys(chromedp.CSS("#f-segment-name"), "reached"), chromedp.Click(chromedp.CSS("#dialog button.primary")))
	b.eventually("ordered", `location.pathname.startsWith("/segments/seg_")`, "true")
	b.eventually("done", `document.querySelector("#segment-one .state")?.innerText`, "Done")
	subset(t, "list", c.call("GET", "/api/contacts/list/reached", "").want(200).body, `{"contacts":3}`)
	b.open(c.url + "/campaigns/" + c.running + "/members")
	if got := b.eval(`document.querySelector("header").innerText.includes("Make a segment")`); got != "false" {
		t.Error("a running campaign offers a segment")
	}
	b.open(c.url + "/campaigns/" + c.done + "/segment")
	b.do(chromedp.SendKeys(chromedp.CSS("#f-segment-name"), "clickers"), chromedp.Click(chromedp.CSS("main button.primary")))
	b.eventually("refused", `document.querySelector("[role=alert]")?.innerText.includes("no click of this campaign is known")`, "true")
	b.silent = func(text string) bool { return strings.Contains(text, "422") }
	for _, said := range b.complaints() {
		t.Errorf("console: %s", said)
	}
}

// A person erases a number in the console and sees when it is done, what was removed and what stays. The number is in
// no address and in no list.
func TestConsoleErasure(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.runJobs(c.server)
	c.login(b)
	b.silent = func(text string) bool { return strings.Contains(text, "422") }
	const phone = "+393401234567"
	c.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"firstName":"Zacharias"}`, phone)).want(201)
	c.clock.forward(time.Minute) // the statistics are older than the order
	b.open(c.url + "/erasures")
	b.eventually("earlier ones", `document.querySelectorAll("main tbody tr").length`, "1")
	order := func(number string, sure bool) {
		b.Helper()
		b.eval(fmt.Sprintf(`document.querySelector("[name=sure]").required = false, document.querySelector("[name=sure]").checked = %v`, sure))
		b.do(chromedp.SetValue(chromedp.CSS("#f-phoneNumber"), number), chromedp.Click(chromedp.CSS("main form button.primary")))
	}
	order(phone, false)
	b.eventually("not sure", `document.querySelector("main .error")?.innerText`, "Tick the box to say that you know that it cannot be undone.")
	order("nobody", true)
	b.eventually("no number", `document.querySelector("#e-phoneNumber")?.innerText.length > 0`, "true")
	order(phone, true)
	b.eventually("ordered", `location.pathname.startsWith("/erasures/era_")`, "true")
	b.eventually("running", `document.querySelector("#erasure-one .state")?.innerText`, "Running")
	c.asOf(c.clock.now().Add(time.Second))
	b.eventually("done", `document.querySelector("#erasure-one .state")?.innerText`, "Done")
	b.eventually("contacts", `document.querySelector("#erasure-one table td.num")?.innerText`, "1")
	b.eventually("who ordered it", `document.querySelector("#erasure-one dd")?.innerText.includes("by Anna Rossi")`, "true")
	if got := b.eval(`document.querySelectorAll("#erasure-one li").length >= 5 && !document.body.innerText.includes("3401234567")`); got != "true" {
		t.Error("the page of the erasure does not say what stays, or shows the number")
	}
	b.open(c.url + "/erasures")
	b.eventually("listed", `document.querySelectorAll("main tbody tr").length + " " + document.body.innerText.includes("3401234567")`, "2 false")
	for _, said := range b.complaints() {
		t.Errorf("console: %s", said)
	}
}

// X19: the console sets what was expected of settled campaigns against what happened.
func TestConsoleForecasts(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.login(b)
	b.open(c.url + "/forecasts")
	var all api.Forecasts
	c.call("GET", "/api/forecasts", "").want(200).into(&all)
	if len(all.Data) != 1 || all.Data[0].Cost.Error == nil {
		t.Fatalf("forecasts: got %+v, want the settled campaign with a score", all)
	}
	b.eventually("campaign", `document.querySelector("main tbody .name")?.innerText`, "Delivery slot reminder")
	b.eventually("cost", `document.querySelector("main tbody td.num")?.innerText.replace(/\s+/g, " ")`,
		fmt.Sprintf("€0.20 expected €%.2f (%.1f%%)", *all.Data[0].Cost.Estimate, 100**all.Data[0].Cost.Error))
	b.eventually("over all", `document.querySelector(".card small")?.innerText`, fmt.Sprintf("mean error of 1 campaigns; bias %.1f%%", 100*all.Cost.Bias))
}

// R39, R40, R137: a person adds a domain to a running campaign in its panel, in the drawer beside the grid and on its
// page, and sees what is wrong with a host that is none. The domain then is one of the tenant's.
func TestConsoleDomains(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.login(b)
	b.silent = func(text string) bool { return strings.Contains(text, "422") }
	b.open(c.url + "/")
	b.do(chromedp.Click(chromedp.CSS(fmt.Sprintf("#row-%s a.name", c.running))))
	b.eventually("drawer", `document.querySelector("#drawer")?.open`, "true")
	b.do(chromedp.Click(chromedp.CSS(`#drawer .tabs a[href$="tab=domains"]`)))
	b.eventually("its domains", `[...document.querySelectorAll("#panel-domains li b")].map(e => e.innerText).join()`, "go.acme.example,go.shared.example,stop.shared.example")
	b.eventually("what the campaign uses", `document.querySelector("#panel-domains li small:nth-of-type(2)")?.innerText`,
		"3 recipients of this campaign · 50,000 per day · 1,000,000 in all · room for 49,997 now")
	b.do(chromedp.SetValue(chromedp.CSS("#f-host"), "https://new.acme.example/"), chromedp.Click(chromedp.CSS(`#drawer form.edit button`)))
	b.eventually("refused", `document.querySelector("#drawer .field.wrong .error")?.innerText.includes("Send a host alone")`, "true")
	b.scripts(false)
	b.do(chromedp.Navigate(c.url+"/campaigns/"+c.running+"?tab=domains"), chromedp.SetValue(chromedp.CSS("#f-host"), "n.acme.example"),
		chromedp.SetValue(chromedp.CSS("#f-dailyLimit"), "2,000"), chromedp.Click(chromedp.CSS(`form.edit button`)))
	b.eventually("added", `document.querySelector("[role=status]")?.innerText`, "Links of this campaign may now use n.acme.example.")
	b.eventually("listed", `[...document.querySelectorAll("#panel-domains li b")].map(e => e.innerText).join()`, "go.acme.example,go.shared.example,n.acme.example,stop.shared.example")
	subset(t, "domain", c.call("GET", "/api/domains/n.acme.example", "").want(200).body, `{"kind":"short","dailyLimit":2000,"totalLimit":0,"shared":false}`)
	b.do(chromedp.Navigate(c.url + "/campaigns/" + c.done + "?tab=domains"))
	b.eventually("an ended one takes none", `document.querySelectorAll("form.edit").length`, "0")
	for _, said := range b.complaints() {
		t.Errorf("console: %s", said)
	}
}

// R90: a form of an answer that is sent twice at once, as by a double click, sends one answer. An answer with the same
// text in another form is another one.
func TestConsoleReplyOnce(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.login(b)
	path := "/inbox/" + c.talk
	replies := func() (n int) {
		var thread struct{ Data []struct{ Direction string } }
		c.call("GET", "/api/conversations/"+c.talk+"/messages", "").want(200).into(&thread)
		for _, m := range thread.Data {
			if m.Direction == "out" {
				n++
			}
		}
		return n
	}
	for want := 1; want <= 2; want++ {
		b.open(c.url + path)
		b.do(chromedp.SendKeys(chromedp.CSS("textarea[name=message]"), "At nine."), chromedp.Click(chromedp.CSS("button[value=price]")))
		b.eventually("price", `document.querySelector("button[value=send]") != null`, "true")
		b.eval(`(window.said = [], (f => { for (let i = 0; i < 2; i++) { const d = new URLSearchParams(new FormData(f)); d.set("step", "send"); fetch(f.action, {method: "POST", body: d, redirect: "manual"}).then(r => window.said.push(r.type)) } })(document.querySelector("form[action$='/reply']")), 0)`)
		b.eventually("both are redirected", `window.said.join()`, "opaqueredirect,opaqueredirect")
		if got := replies(); got != want {
			t.Fatalf("got %d answers, want %d", got, want)
		}
	}
}

// Without JavaScript every screen is there to read, and forms work.
func TestConsoleWithoutJavaScript(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	c.login(b)
	b.scripts(false)
	for _, s := range c.screens() {
		b.do(chromedp.Navigate(c.url + s[1]))
		if text := b.eval(`document.querySelector("main h1, main h2")?.innerText.length > 0`); text != "true" {
			t.Errorf("%s: nothing to read without JavaScript", s[0])
		}
	}
	b.do(chromedp.Navigate(c.url+"/campaigns/"+c.running), chromedp.Click(chromedp.CSS(`form[action$="/pause"] button`)))
	b.eventually("paused", `document.querySelector("#panel-state .state")?.innerText`, "Paused")
	const flash = `document.querySelector("[role=status]")?.innerText`
	b.do(chromedp.Navigate(c.url+"/campaigns/"+c.later+"/reschedule"), // X9
		chromedp.SetValue(chromedp.CSS(`input[name=time]`), "2025-05-02T10:30"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("rescheduled", flash, "Black Friday early access starts at 2 May 2025, 10:30 Europe/Rome.")
	b.do(chromedp.Navigate(c.url+"/campaigns/"+c.draft+"/test"), // R157
		chromedp.SetValue(chromedp.CSS(`textarea[name=to]`), "+393401234567, 12"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("tested", flash, "The test went to 1 numbers for €0.05. Not to 12 (invalid_number).")
	b.do(chromedp.Navigate(c.url+"/campaigns/"+c.batches+"/edit?step=when"), // X9
		chromedp.SetValue(chromedp.CSS(`input[name="batch.1.at"]`), "2025-05-01T10:30"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("refused", `document.querySelectorAll("main .error").length > 0`, "true") // before the first one
	b.do(chromedp.SetValue(chromedp.CSS(`input[name="batch.1.at"]`), "2025-05-04T10:30"), chromedp.SetValue(chromedp.CSS(`input[name="batch.1.count"]`), "2"),
		chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("saved", `location.search`, "?step=review")
	subset(t, "batches", c.call("GET", "/api/campaigns/"+c.batches, "").want(200).body,
		`{"batches":[{"at":"2025-05-02T08:00:00Z","share":20,"count":null},{"at":"2025-05-04T08:30:00Z","share":null,"count":2}]}`)
	b.do(chromedp.Navigate(c.url+"/?search=spring"), chromedp.Click(chromedp.CSS(`.columns-choice summary`)), chromedp.Click(chromedp.CSS(`.columns-choice [value=ctr]`)), chromedp.Click(chromedp.CSS(`.columns-choice button`)))
	b.eventually("columns", `[...document.querySelectorAll("thead th")].filter(h => h.offsetWidth > 0).map(h => h.innerText.trim()).join()`,
		"Name,Type,Status,Target list,Recipients,From,Cost,Scheduled,Actions")
	b.eventually("rows", `document.querySelectorAll("#rows tr").length + location.search`, "2?hide=ctr&search=spring")
	b.do(chromedp.Navigate(c.url+"/policy"), // R48, R81
		chromedp.SetValue(chromedp.CSS(`textarea[name=countryCaps]`), "IT 500 week"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("refused", `document.querySelector("#f-countryCaps")?.value + document.querySelectorAll("main .error").length`, "IT 500 week1")
	b.do(chromedp.SetValue(chromedp.CSS(`textarea[name=countryCaps]`), "IT 500 month"), chromedp.SetValue(chromedp.CSS(`textarea[name=maintenanceWindows]`), "* 02:00 04:00"),
		chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("saved", flash, "The policy is saved.")
	subset(t, "policy", c.call("GET", "/api/policy", "").want(200).body,
		`{"words":["casino"],"countryCaps":[{"country":"IT","max":500,"per":"month"}],"maintenanceWindows":[{"route":"*","start":"02:00","end":"04:00","timezone":"Europe/Rome"}]}`)
	b.do(chromedp.Navigate(c.url+"/policy"), // C21
		chromedp.SetValue(chromedp.CSS(`input[name=replayAfterHours]`), "700"), chromedp.SetValue(chromedp.CSS(`input[name=replayDays]`), "5"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("refused", `[...document.querySelectorAll("main .error")].map(e => e.innerText).join()`, "700 hours leave no time before the window ends. Correct the field; the detail says what is expected.")
	b.do(chromedp.SetValue(chromedp.CSS(`input[name=replayAfterHours]`), "2"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("saved", flash, "The policy is saved.")
	subset(t, "policy", c.call("GET", "/api/policy", "").want(200).body, `{"words":["casino"],"replayWindow":{"afterHours":2,"days":5}}`)
	b.eval(`document.querySelector("#f-replayAfterHours").value = ""`)
	b.do(chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("saved", `document.querySelector("#f-replayAfterHours")?.value`, "24")
	subset(t, "policy", c.call("GET", "/api/policy", "").want(200).body, `{"replayWindow":{"afterHours":24,"days":5}}`)
	b.do(chromedp.Navigate(c.url+"/policy"), // R43
		chromedp.SetValue(chromedp.CSS(`#f-compliance`), "warn"), chromedp.Click(chromedp.CSS(`main form button.primary`)))
	b.eventually("saved", flash, "The policy is saved.")
	subset(t, "policy", c.call("GET", "/api/policy", "").want(200).body, `{"compliance":"warn"}`)
	rules := `document.querySelectorAll(".rules .flash.warn").length + "," + document.querySelectorAll(".rules .flash.bad").length + "," + document.querySelectorAll("main .buttons a.primary").length`
	b.do(chromedp.Navigate(c.url + "/campaigns/" + c.draft + "/edit?step=review"))
	b.eventually("warned", rules, "1,0,1")
	c.callAs(c.admin(), "PUT", "/api/policy", `{"compliance":"refuse"}`).want(200)
	b.do(chromedp.Navigate(c.url + "/campaigns/" + c.draft + "/edit?step=review"))
	b.eventually("refused", rules, "0,1,0")
	c.callAs(c.admin(), "PUT", "/api/policy", `{"compliance":"off"}`).want(200)
	b.do(chromedp.Navigate(c.url+"/webhooks/"+c.hook+"/deliveries?state=pending"), // X6
		chromedp.SetValue(chromedp.CSS(`input[name=since]`), "2025-03-31T09:00"), chromedp.Click(chromedp.CSS(`form[action$="/recover"] button`)))
	b.eventually("recovered", flash, "Events since 31 Mar 2025, 09:00 Europe/Rome are posted again; 0 failed ones are queued.")
	b.eventually("listed", `document.querySelector("main tbody tr td:nth-child(2)")?.innerText.includes("message.delivered")`, "true")
}

// Figures follow what happens while a page is open, and go on after the server was stopped and started again.
func TestConsoleLive(t *testing.T) {
	b := newBrowser(t)
	c := newConsole(t)
	// A server of the test's own: it is stopped and started at the same address.
	listen := func(at string) *http.Server {
		t.Helper()
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", at)
		c.check(err)
		srv := &http.Server{Handler: c.server, ReadHeaderTimeout: time.Minute}
		go func() { _ = srv.Serve(l) }() // ends with Close
		c.url = "http://" + l.Addr().String()
		return srv
	}
	srv := listen("127.0.0.1:0")
	c.login(b)
	row := fmt.Sprintf(`document.querySelector("#row-%s .figures b")?.innerText`, c.running)
	b.eventually("live", `document.getElementById("live")?.hasAttribute("data-on")`, "true")
	b.eventually("before", row, "4,300")
	c.happened(c.tenant.ID, c.running, 4_300, 5_000, schemas.KindSent, schemas.CodeAwaitingDLR)
	b.eventually("sent grows", row, "5,000")
	b.silent = func(text string) bool {
		return strings.Contains(text, "ERR_CONNECTION") || strings.Contains(text, "ERR_INCOMPLETE") || strings.Contains(text, "ERR_EMPTY")
	}
	c.check(srv.Close())
	b.eventually("not live", `document.getElementById("live")?.hasAttribute("data-on")`, "false")
	c.happened(c.tenant.ID, c.running, 5_000, 6_000, schemas.KindSent, schemas.CodeAwaitingDLR)
	srv = listen(strings.TrimPrefix(c.url, "http://"))
	defer func() { _ = srv.Close() }()
	b.eventually("live again", `document.getElementById("live")?.hasAttribute("data-on")`, "true")
	b.eventually("caught up", row, "6,000")
	for _, said := range b.complaints() {
		t.Errorf("console: %s", said)
	}
}
