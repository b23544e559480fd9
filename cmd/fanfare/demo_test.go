package main

import (
	"encoding/csv"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nyaruka/phonenumbers"

	"fanfare/api/store"
	"fanfare/schemas"
)

// All people of the demo have mobile numbers that exist: a newcomer's first campaign must not begin with invalid
// numbers.
func TestMadeUpPeopleCanBeSentTo(t *testing.T) {
	rows, err := csv.NewReader(madeUpPeople(demoPeople, 0)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(rows) - 1; got != demoPeople {
		t.Fatalf("got %d people, want %d", got, demoPeople)
	}
	bad := map[string]int{}
	for _, row := range rows[1:] {
		n, err := phonenumbers.Parse(row[0], "")
		if err != nil || !phonenumbers.IsValidNumber(n) || phonenumbers.GetNumberType(n) != phonenumbers.MOBILE {
			bad[row[0][:5]]++
		}
	}
	if len(bad) > 0 {
		t.Errorf("numbers that are not mobile numbers, by prefix: %v", bad)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// The demo prints the same key in every run, so that commands that a person has pasted keep working. A key that was
// revoked or is another tenant's is replaced.
func TestDemoKeepsItsKey(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	cfg := store.Config{DSN: filepath.Join(dir, "store.db"), Logger: slog.New(slog.DiscardHandler)}
	if err := store.Migrate(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	text, err := store.IDKey(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Keys, err = parseIDKey(text); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tenant, err := s.CreateTenant(ctx, store.TenantSpec{Name: demoTenant})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, demoKeyFile)
	key := func() string {
		t.Helper()
		k, err := demoKey(ctx, s, tenant.ID, path)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key()
	if again := key(); again != first {
		t.Errorf("got another key in the second run")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file of mode 0600", st, err)
	}
	keys, err := s.Keys(ctx, tenant.ID)
	if err != nil || len(keys) != 1 {
		t.Fatalf("got %d keys, %v, want one", len(keys), err)
	}
	if err := s.RevokeKey(ctx, tenant.ID, keys[0].ID, 0); err != nil {
		t.Fatal(err)
	}
	if fresh := key(); fresh == first {
		t.Error("a key that was revoked is printed")
	}
}

// The block of commands that the demo prints does not pause the campaign: pause is separate, with resume beside it.
func TestDemoBlockPausesNothing(t *testing.T) {
	var out strings.Builder
	d := &demo{w: newWiring(Config{Data: "dir", Prefix: schemas.DefaultPrefix}, slog.New(slog.DiscardHandler)), out: &out, base: "http://localhost:8080", key: "k"}
	d.next()
	block, apart, ok := strings.Cut(out.String(), "To hold a campaign back")
	if !ok || strings.Contains(block, "/pause") || !strings.Contains(block, "/confirm") || !strings.Contains(block, "/stats") {
		t.Errorf("got block\n%s", block)
	}
	pause, resume := strings.Index(apart, "/pause"), strings.Index(apart, "/resume")
	if pause < 0 || resume < pause {
		t.Errorf("got\n%s\nwant pause and then resume", apart)
	}
}

// Without a terminal, the demo prints a progress line every few seconds if it has changed, and always the last one.
func TestDemoProgressWithoutTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		d := &demo{out: &out}
		for i := range 100 { // 20 s
			d.draw(fmt.Sprintf("line %d", i/50), false)
			time.Sleep(200 * time.Millisecond)
		}
		d.draw("end", true)
		if got := strings.Fields(strings.ReplaceAll(out.String(), "line ", "")); !slices.Equal(got, []string{"0", "1", "end"}) {
			t.Errorf("got %q", out.String())
		}
	})
}

// The demo, as a newcomer starts it: Fanfare and the carrier both account for every recipient of its live campaign, and
// the console has ten more campaigns of every channel in the states that a marketer meets. Its clicks and opt-outs
// equal those of the simulated phones.
func TestDemoRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; left out by -short")
	}
	dir, addr := t.TempDir(), freeAddr(t)
	p := startProcess(t, "demo", fanfareBinary(t), "demo", "--data", dir, "--http", addr, "--edge", freeAddr(t), "--sim-profile", "fast")
	var said string
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(said, "all simulated"); time.Sleep(200 * time.Millisecond) {
		b, err := os.ReadFile(p.log.Name())
		if err != nil {
			t.Fatal(err)
		}
		said = string(b)
		select {
		case <-p.done:
			t.Fatal("the demo has ended")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the live campaign does not end")
		}
	}
	accounts := regexp.MustCompile(`(?m)^  (?:Fanfare|carrier):  ([^,\n]*,[^,\n]*)`).FindAllStringSubmatch(said, -1)
	if len(accounts) != 2 || accounts[0][1] != accounts[1][1] {
		t.Errorf("got accounts %q, want two that agree", accounts)
	}
	did := regexp.MustCompile(`Fanfare: (\S+) clicked \(CTR (\S+) %\) and (\S+) opted out\n  phones:  (\S+) tapped and (\S+) opted out`).FindStringSubmatch(said)
	if did == nil || did[1] != did[4] || did[3] != did[5] || did[1] == "0" || did[2] == "0.0" || did[3] == "0" {
		t.Errorf("got %q, want clicks and opt-outs, as many as the phones made", did)
	}
	key, err := os.ReadFile(filepath.Join(dir, demoKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	api := &client{base: "http://" + addr, key: strings.TrimSpace(string(key))}
	want := []string{
		"rcs completed", "rcs configured", "sms aborted", "sms completed", "sms completed", "sms draft", "sms paused", "sms scheduled",
		"voice completed", "whatsapp completed", "whatsapp configured",
	}
	var got []string
	for deadline := time.Now().Add(10 * time.Minute); !slices.Equal(got, want); time.Sleep(200 * time.Millisecond) {
		var page struct {
			Data []struct {
				Channel, State string
				Simulated      bool
			} `json:"data"`
		}
		api.must(t, http.MethodGet, "/api/campaigns?limit=100", nil, &page, "")
		got = nil
		for _, c := range page.Data {
			got = append(got, c.Channel+" "+c.State)
			if !c.Simulated {
				t.Fatalf("a campaign of the demo is not shown as simulated: %+v", c)
			}
		}
		if slices.Sort(got); time.Now().After(deadline) {
			t.Fatalf("got campaigns %q, want %q", got, want)
		}
	}
	if _, code := p.stop(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}

// The demo says what ambiguous means, but only if a recipient is ambiguous.
func TestDemoExplainsAmbiguous(t *testing.T) {
	s := demoStats{TotalMessages: 10, Delivered: 10}
	if got, want := s.explained("\n"), "10 = 10 delivered"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Delivered, s.Ambiguous, s.AmbiguousNote = 8, 2, "2 recipients: only a receipt can say."
	if got, want := s.explained("\n"), "10 = 8 delivered + 2 ambiguous\n2 recipients: only a receipt can say."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
