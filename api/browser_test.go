package api_test

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axe-core 4.14.1, a judge of accessibility.
//
//go:embed testdata/axe/axe.min.js
var axeScript string

var pictures = flag.String("pictures", "", "folder in which the browser tests leave screenshots")

// browser is a headless Chromium with one page.
type browser struct {
	testing.TB
	ctx    context.Context //nolint:containedctx // chromedp keeps the page in the context
	mu     sync.Mutex
	said   []string
	asked  []string
	silent func(text string) bool // complaints that a test expects
}

// newBrowser starts Chromium. Without one the test is skipped, and fails in CI.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("no Chromium was found: install chromium")
		}
		t.Skip("no Chromium was found: the console is not tried in a browser")
	}
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true))
	t.Cleanup(cancel)
	b := &browser{TB: t, silent: func(string) bool { return false }}
	b.ctx, cancel = chromedp.NewContext(alloc, chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	if err := chromedp.Do(b.ctx); err != nil { // starts it: its life is the test's, not that of the first step
		t.Fatal(err)
	}
	return b
}

func (b *browser) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		b.said = append(b.said, ev.Entry.Text+" "+ev.Entry.URL)
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, ev.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(ev.Request.URL); err == nil && u.Host != "" && !slices.Contains(b.asked, u.Host) {
			b.asked = append(b.asked, u.Host)
		}
	}
}

// complaints are what the browser's console said since the last call.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := slices.DeleteFunc(b.said, b.silent)
	b.said = nil
	return said
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for _, step := range steps {
		err := chromedp.Do(ctx, step)
		for n := 0; n < 5 && err != nil && strings.Contains(err.Error(), "net::ERR_ABORTED"); n++ {
			err = chromedp.Do(ctx, step) // the page was still on its way to another when it was to go to this one
		}
		if err != nil {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 500)`))
			b.Fatalf("%v at %s", err, text)
		}
	}
}

// patience is how long a step may take on a busy machine; it is no bound that a test checks.
const patience = time.Minute

// eval returns the value of an expression as a text.
func (b *browser) eval(expr string) string {
	b.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expr+")"))
	if err != nil {
		b.Fatalf("%s: %v", expr, err)
	}
	return out
}

// eventually waits until an expression has a value. Half a minute is patience with a busy machine, not a bound.
func (b *browser) eventually(what, expr, want string) {
	b.Helper()
	var got string
	for range 600 {
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expr+")"))
		if err == nil {
			if got = out; got == want {
				return
			}
		} else {
			got = err.Error() // the page may be on its way to another
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("%s: %s is %q, want %q", what, expr, got, want)
}

// open goes to a page and waits until its scripts have run.
func (b *browser) open(url string) {
	b.Helper()
	b.do(chromedp.Navigate(url))
	b.eventually("page", `document.readyState`, "complete")
}

func (b *browser) key(keys string) {
	b.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// tabTo presses Tab until the focused control has this accessible name, as a person without a mouse does.
func (b *browser) tabTo(name string) {
	b.Helper()
	const focused = `(e => (e.getAttribute("aria-label") || [...(e.labels || [])].map(l => l.innerText).join(" ") || e.innerText || e.placeholder || "").trim().replace(/\s+/g, " "))(document.activeElement)`
	seen := []string{}
	for range 120 {
		b.key("\t")
		got := b.eval(focused)
		if strings.HasPrefix(got, name) {
			return
		}
		seen = append(seen, got)
	}
	b.Fatalf("no control named %q is reached by Tab; these are: %q", name, seen)
}

func (b *browser) theme(name string) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	}); err != nil {
		b.Fatal(err)
	}
}

func (b *browser) scripts(on bool) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		b.Fatal(err)
	}
}

// violations asks axe about the page as it stands.
func (b *browser) violations() []string {
	b.Helper()
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](axeScript+`
		;axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html.slice(0, 160)).join(" | ")))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatal(err)
	}
	return found
}

// clipped are texts that are cut off without a way to read them.
func (b *browser) clipped() string {
	b.Helper()
	return b.eval(`[...document.querySelectorAll("main button, main a.button, main h1, main h2, main th, main dd, main .badge, main .state")].filter(e => e.offsetParent && !e.matches(".sr") && !(e.closest("thead") && getComputedStyle(e.closest("thead")).position === "absolute") && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline").map(e => e.innerText).join(" | ")`)
}

var controlRoles = []string{"button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "tab", "menuitem", "spinbutton", "DisclosureTriangle"}

// controls are the page's controls by role and accessible name, in the order of the page.
func (b *browser) controls() string {
	b.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.Fatal(err)
	}
	var out strings.Builder
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil || n.Name == nil {
			continue
		}
		role, name := strings.Trim(string(n.Role.Value), `"`), strings.Trim(string(n.Name.Value), `"`)
		if slices.Contains(controlRoles, role) {
			fmt.Fprintf(&out, "%s %s\n", role, name)
		}
	}
	return out.String()
}

func (b *browser) picture(name string) {
	b.Helper()
	if *pictures == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), png, 0o600); err != nil {
		b.Fatal(err)
	}
}
