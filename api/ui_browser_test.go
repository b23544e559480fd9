package api_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"fanfare/api/ui"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var pictures = flag.String("pictures", "", "folder that the browser test leaves its screenshots in")

// browser starts a headless Chromium, and gathers what its console says and whom it asks.
func browser(t *testing.T) (ctx context.Context, complaints, hosts func() []string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true))
	t.Cleanup(cancel)
	var mu sync.Mutex
	var said, asked []string
	ctx, cancel = chromedp.NewContext(alloc, chromedp.WithListener(func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *log.EventEntryAdded:
			said = append(said, ev.Entry.Text)
		case *runtime.EventExceptionThrown:
			said = append(said, ev.ExceptionDetails.Text)
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(ev.Request.URL); err == nil && !slices.Contains(asked, u.Host) {
				asked = append(asked, u.Host)
			}
		}
	}))
	t.Cleanup(cancel)
	read := func(s *[]string) func() []string {
		return func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(*s) }
	}
	return ctx, read(&said), read(&asked)
}

// pageWorld is a world with campaigns in all the states that the page shows apart.
func pageWorld(t *testing.T) (w *world, login string, running string) {
	t.Helper()
	logins := ui.NewLogins(nil)
	done := make(chan struct{})
	w = newWorld(t, func(w *world) { w.deps.Logins, w.deps.Done = logins, done })
	t.Cleanup(func() { close(done) }) // before the server ends, which waits for the page's stream
	list := w.list("active_customers", 3, 0)
	w.list("vip", 2, 100)
	make := func(body string, confirm bool) string {
		w.Helper()
		id := w.call("POST", "/api/campaigns", strings.ReplaceAll(body, "LIST", list)).want(201).id()
		if confirm {
			w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		}
		return id
	}
	make(`{"name":"Password reset <b>notice</b>","channel":"sms","message":"Hi","contactList":"LIST"}`, false)
	make(`{"name":"Holiday Special","channel":"rcs","message":"tpl_1","contactList":"LIST","tags":["promo"]}`, false)
	w.clock.forward(3 * time.Hour)
	make(`{"name":"Black Friday early access","channel":"sms","message":"Hi","contactList":"vip","scheduledTime":"2025-04-18T09:00:00Z","tags":["promo","vip"]}`, true)
	w.call("DELETE", "/api/campaigns/"+make(`{"name":"Never mind","channel":"sms","message":"Hi","contactList":"LIST"}`, false), "").want(200)
	aborted := make(`{"name":"Delivery slot reminder","channel":"whatsapp","message":"tpl","contactList":"LIST","sendImmediately":true,"tags":["service"]}`, true)
	w.freeze(aborted, 18400)
	w.happened(w.tenant.ID, aborted, 0, 900, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_READ)
	w.call("POST", "/api/campaigns/"+aborted+"/abort", "").want(200)
	paused := make(`{"name":"Renewal calls – wave 2","channel":"sms","message":"Hi","contactList":"LIST","sendImmediately":true,"tags":["renewal"]}`, true)
	w.freeze(paused, 5200)
	w.happened(w.tenant.ID, paused, 0, 1904, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	w.call("POST", "/api/campaigns/"+paused+"/pause", "").want(200)
	running = make(`{"name":"Spring Promotion 2025","channel":"sms","message":"Hi","contactList":"LIST","sendImmediately":true,"tags":["promo","eu"]}`, true)
	w.freeze(running, 1_000_000)
	w.happened(w.tenant.ID, running, 0, 39_000, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	w.happened(w.tenant.ID, running, 39_000, 42_000, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
	w.happened(w.tenant.ID, running, 42_000, 43_000, fanfarev1.Kind_KIND_SENT, fanfarev1.Code_CODE_AWAITING_DLR)
	return w, w.url + logins.NewLogin(w.tenant.ID), running
}

// Each choice of the page's menu is one state, not a word of E's that stands for several.
func TestPageStates(t *testing.T) {
	w, login, running := pageWorld(t)
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
	get := func(url string) (body string) {
		t.Helper()
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	get(login)
	for status, want := range map[string]int{"": 7, "sending": 1, "paused": 1} {
		subset(t, status, []byte(get(w.url+"/ui/grid?status="+status)), fmt.Sprintf(`{"total":%d}`, want))
	}
	w.call("POST", "/api/campaigns/"+running+"/pause", "").want(200)
	for status, want := range map[string]int{"sending": 0, "paused": 2} {
		subset(t, status+" after the pause", []byte(get(w.url+"/ui/grid?status="+status)), fmt.Sprintf(`{"total":%d}`, want))
	}
	if got := get(w.url + "/ui/grid?status=confirmed"); !strings.Contains(got, "is not a state") {
		t.Errorf("got %q, want a word on the state", got)
	}
}

// R131, R132, R42: the page in a real browser: badges, colours, progress, UTC, live figures, pause; no script of a name runs,
// the console is silent and nobody but us is asked.
func TestPageInBrowser(t *testing.T) {
	ctx, complaints, hosts := browser(t)
	w, login, running := pageWorld(t)
	row := func(name string) string {
		return fmt.Sprintf(`[...document.querySelectorAll("#rows tr")].find(r => r.innerText.includes(%q))`, name)
	}
	eval := func(expr string) (out string) {
		t.Helper()
		out, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expr+")"))
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		return out
	}
	within := func(what, expr, want string) {
		t.Helper()
		var got string
		for range 600 {
			if got = eval(expr); got == want {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1440, 1000), chromedp.Navigate(login), chromedp.WaitVisible(chromedp.CSS("#rows tr"))); err != nil {
		t.Fatal(err)
	}
	spring := row("Spring Promotion")
	within("progress", spring+`.querySelector(".counts, .figures").innerText.replace(/\s+/g, " ").split("·")[0].trim()`, "43,000 of 1,000,000 4%")
	within("status", spring+`.querySelector(".state").innerText`, "Sending")
	within("created", spring+`.querySelector(".under").firstChild.textContent`, "1 Apr, 12:00 UTC")
	within("type", spring+`.querySelector(".badge").innerText`, "SMS")
	within("whatsapp", row("Delivery slot")+`.querySelector(".badge").dataset.type`, "whatsapp")
	within("struck", `getComputedStyle(`+row("Never mind")+`.querySelector(".state span")).textDecorationLine`, "line-through")
	within("name is text", row("Password reset")+`.querySelector(".name").textContent`, "Password reset <b>notice</b>")
	within("scheduled", row("Black Friday")+`.children[7].innerText`, "18 Apr, 09:00 UTC")
	within("campaigns", `document.getElementById("count").innerText`, "7 campaigns")
	within("live", `document.getElementById("live").innerText`, "Live")
	for colour, name := range map[string]string{"green": "Spring Promotion", "amber": "Renewal", "blue": "Black Friday"} {
		within("tone of "+name, row(name)+`.querySelector(".state").dataset.tone`, colour)
	}
	pictureOf(t, ctx, "light.png")
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	}); err != nil {
		t.Fatal(err)
	}
	within("dark", `getComputedStyle(document.documentElement).backgroundColor`, "rgb(11, 13, 17)")
	pictureOf(t, ctx, "dark.png")

	// What happens is seen without a click, and a click does what it says.
	w.happened(w.tenant.ID, running, 43_000, 50_000, fanfarev1.Kind_KIND_SENT, fanfarev1.Code_CODE_AWAITING_DLR)
	within("sent grows", spring+`.querySelector(".figures b").innerText`, "50,000")
	within("throughput is drawn", `[...document.querySelectorAll("#chart path")].map(p => p.getAttribute("class")).join()`, "area,sent,delivered,failed")
	within("and has its times", `/^\d\d:\d\d:\d\d$/.test(document.querySelector("#chart text:last-of-type").textContent) && document.querySelector(".chart").innerText.includes("UTC")`, "true")
	w.happened(w.tenant.ID, running, 50_000, 1_000_000, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_INVALID_NUMBER)
	within("what is no message is said", spring+`.querySelector(".figures").lastChild.textContent`, "5% · 950,000 not sent")
	eval(spring + `.querySelector("button").click()`)
	within("paused by its button", spring+`.querySelector(".state").innerText`, "Paused")
	if got := w.call("GET", "/api/campaigns/"+running, "").object()["state"]; got != "paused" {
		t.Errorf("after the button: got state %v, want paused", got)
	}
	eval(`(document.getElementById("type").value = "rcs", document.getElementById("type").dispatchEvent(new Event("change")))`)
	within("filtered", `document.getElementById("count").innerText`, "1 campaign")
	eval(`document.getElementById("clear").click()`)
	within("cleared", `document.getElementById("count").innerText`, "7 campaigns")
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 844)); err != nil {
		t.Fatal(err)
	}
	within("nothing is wider than a phone", `document.documentElement.scrollWidth`, "390")
	pictureOf(t, ctx, "mobile.png")
	if got := complaints(); len(got) > 0 {
		t.Errorf("console: got %q, want silence", got)
	}
	if got, want := hosts(), []string{strings.TrimPrefix(w.url, "http://")}; !slices.Equal(got, want) {
		t.Errorf("hosts asked: got %q, want only %q", got, want)
	}
}

func pictureOf(t *testing.T, ctx context.Context, name string) { //nolint:revive // the browser's context is no call's first
	t.Helper()
	if *pictures == "" {
		return
	}
	time.Sleep(600 * time.Millisecond) // rates are drawn
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name), png, 0o600); err != nil {
		t.Fatal(err)
	}
}
