package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"
)

const (
	demoTenant   = "Demo"
	demoCampaign = "Demo: 10,000 people"
	demoList     = "demo_people"
	demoPeople   = 10_000
)

func (p *program) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole product on this machine: a demo tenant, a simulated carrier, a campaign of 10,000",
		Long: `Start everything embedded under --data, with a demo tenant, and send a campaign to
10,000 made-up people through a simulated carrier. Its simulated phones tap
links and opt out. Nothing leaves this machine.
A second run goes on with the same data.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	_ = cmd.Flags().Set("log-level", "warn") // the demo prints its story on stdout
	_ = cmd.Flags().Set("edge", "127.0.0.1:8081")
	_ = cmd.Flags().Set("proxies", "127.0.0.0/8") // each simulated phone has an address of its own
	_ = cmd.Flags().Set("sim-handsets", "true")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		if !loopback(cfg.HTTP) {
			return usageError{fmt.Errorf("--http %s: the demo listens on this machine alone, such as 127.0.0.1:8080: its page is opened without a password", cfg.HTTP)}
		}
		log, err := p.logger(cfg)
		if err != nil {
			return err
		}
		w := newWiring(cfg, log)
		w.command = commandName(cmd)
		defer w.close()
		d := &demo{w: w, out: p.stdout, terminal: isTerminal(p.stdout), base: "http://" + strings.Replace(cfg.HTTP, "127.0.0.1", "localhost", 1)}
		fmt.Fprintf(d.out, "Fanfare: starting Kafka, Redis, stores and every stage in this process; data in %s\n", cfg.Data)
		err = w.serve(cmd.Context(), d.tell)
		d.goodbye()
		return err
	}
	return cmd
}

// demo shows a newcomer what happens. It uses the product through its HTTP API, as a client does.
type demo struct {
	w    *wiring
	out  io.Writer
	base string
	key  string
	id   string // of the campaign
	last demoStats

	terminal bool
	drawn    time.Time // when a line was shown last, without a terminal
	line     string    // that line
}

// demoStats is what the demo reads of GET /stats.
type demoStats struct {
	State         string `json:"state"`
	Settled       bool   `json:"settled"`
	TotalMessages int    `json:"totalMessages"`
	Sent          int    `json:"sent"`
	Delivered     int    `json:"delivered"`
	Undelivered   int    `json:"undelivered"`
	Awaiting      int    `json:"awaiting"`
	Pending       int    `json:"pending"`
	Ambiguous     int    `json:"ambiguous"`
	// AmbiguousNote says in a sentence what ambiguous means here and what ends it.
	AmbiguousNote string `json:"ambiguousNote"`
	NotSent       int    `json:"notSent"`
	Skipped       int    `json:"skipped"`

	Clicked   int     `json:"clicked"`
	ClickRate float64 `json:"clickRate"`
	OptedOut  int     `json:"optedOut"`
}

// over reports whether every recipient has an outcome that only a late receipt could change.
func (s demoStats) over() bool { return s.State == "completed" && (s.Awaiting == 0 || s.Settled) }

func (s demoStats) account() string {
	n := func(count int, word string) string {
		if count == 0 {
			return ""
		}
		return fmt.Sprintf(" + %s %s", thousands(count), word)
	}
	sum := n(s.Undelivered, "undelivered") + n(s.Awaiting, "awaiting a receipt") + n(s.NotSent, "not sent") + n(s.Skipped, "skipped") +
		n(s.Ambiguous, "ambiguous") + n(s.Pending, "pending")
	return fmt.Sprintf("%s = %s delivered%s", thousands(s.TotalMessages), thousands(s.Delivered), sum)
}

// explained returns the account and, if a recipient is ambiguous, after the separator what that means.
func (s demoStats) explained(separator string) string {
	if s.AmbiguousNote == "" {
		return s.account()
	}
	return s.account() + separator + s.AmbiguousNote
}

// tell runs when the process is ready, and returns at the end of the story.
func (d *demo) tell(ctx context.Context) error {
	err := d.campaign(ctx)
	if err == nil {
		err = d.watch(ctx)
	}
	if err == nil {
		err = d.account(ctx)
	}
	if err == nil {
		d.next()
	}
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C in the middle: the rest of the program prints what the demo leaves behind
	}
	return err
}

// campaign finds the demo campaign of an earlier run, or makes it.
func (d *demo) campaign(ctx context.Context) error {
	s := d.w.store
	tenant, err := findTenant(ctx, s, demoTenant)
	if err != nil {
		if tenant, err = s.CreateTenant(ctx, store.TenantSpec{Name: demoTenant, Region: "IT", Timezone: "Europe/Rome"}); err != nil {
			return fmt.Errorf("demo tenant: %w", err)
		}
	}
	link, err := demoLogin(ctx, s, d.base)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nReady. Open the console (this link logs you in once):\n  %s\n\n", link)
	if d.key, err = demoKey(ctx, s, tenant.ID, filepath.Join(d.w.cfg.Data, demoKeyFile)); err != nil {
		return err
	}
	var found struct {
		Data []struct{ ID, Name string } `json:"data"`
	}
	if err := d.call(ctx, http.MethodGet, "/api/campaigns?limit=1000", "", nil, &found); err != nil {
		return err
	}
	for _, c := range found.Data {
		if c.Name == demoCampaign {
			d.id = c.ID
			fmt.Fprintf(d.out, "Going on with %s of an earlier run (make clean-data forgets it).\n", d.id)
			return nil
		}
	}
	if err := d.seed(ctx, tenant.ID); err != nil {
		return err
	}
	var list struct{ ID string }
	if err := d.call(ctx, http.MethodPost, "/api/contacts/list", "", map[string]any{"name": demoList}, &list); err != nil {
		return err
	}
	var report struct{ Imported int }
	began := time.Now()
	if err := d.call(ctx, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", "text/csv", madeUpPeople(demoPeople, 0), &report); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Imported %s made-up contacts in %s.\n", thousands(report.Imported), time.Since(began).Round(10*time.Millisecond))
	var made struct{ ID string }
	if err := d.call(ctx, http.MethodPost, "/api/campaigns", "", map[string]any{
		"name": demoCampaign, "channel": "sms", "message": "Ciao {{first_name}}! 30% off everything in {{city}} today: {{link:https://shop.example/sale}} Stop: {{opt_out}}", "contactList": list.ID, "sendImmediately": true,
	}, &made); err != nil {
		return err
	}
	d.id = made.ID
	var price struct {
		EstimatedCost float64 `json:"estimatedCost"`
		Currency      string  `json:"currency"`
	}
	if err := d.call(ctx, http.MethodPost, "/api/campaigns/"+d.id+"/calculateGoal", "", map[string]any{}, &price); err != nil {
		return err
	}
	if err := d.call(ctx, http.MethodPut, "/api/campaigns/"+d.id+"/confirm", "", nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Confirmed %s (%.2f %s). Sending through the simulated carrier, at most %s a second:\n", d.id, price.EstimatedCost, price.Currency, thousands(d.w.cfg.SimRate))
	return nil
}

// demoKeyFile has the key that the demo prints: the store keeps only the key's hash.
const demoKeyFile = "demo-key"

// demoKey returns the key that the demo prints: the key of the last run, so that commands pasted then still work, or
// else a new one. It revokes keys of earlier demos that it does not know any more.
func demoKey(ctx context.Context, s *store.Store, tenant, path string) (string, error) {
	const name = "demo"
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("demo key: %w", err)
	}
	if secret := strings.TrimSpace(string(raw)); secret != "" {
		switch key, _, err := s.Authenticate(ctx, secret); {
		case err == nil && key.Tenant == tenant:
			return secret, nil
		case err != nil && !errors.Is(err, store.ErrNoKey):
			return "", fmt.Errorf("demo key: %w", err)
		}
	}
	old, err := s.Keys(ctx, tenant)
	if err != nil {
		return "", fmt.Errorf("demo key: %w", err)
	}
	_, secret, err := s.CreateKey(ctx, tenant, name, nil, false)
	if err != nil {
		return "", fmt.Errorf("demo key: %w", err)
	}
	for _, k := range old {
		if k.Name == name && k.Revoked.IsZero() {
			if err := s.RevokeKey(ctx, tenant, k.ID, 0); err != nil {
				return "", fmt.Errorf("demo key: %w", err)
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("demo key: %w", err)
	}
	if err := writePrivate(path, []byte(secret+"\n")); err != nil {
		return "", fmt.Errorf("demo key: %w", err)
	}
	return secret, nil
}

// watch draws the progress until every recipient has an outcome.
func (d *demo) watch(ctx context.Context) error {
	const width = 40
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for {
		var s demoStats
		if err := d.call(ctx, http.MethodGet, "/api/campaigns/"+d.id+"/stats", "", nil, &s); err != nil {
			return err
		}
		d.last = s
		total := max(s.TotalMessages, 1)
		bar := strings.Repeat("#", width*s.Delivered/total) + strings.Repeat("-", width*(s.Sent-s.Delivered)/total)
		line := fmt.Sprintf("  [%-*s] %s sent, %s delivered, %s pending", width, bar, thousands(s.Sent), thousands(s.Delivered), thousands(s.Pending))
		if s.State == "completed" && s.Awaiting > 0 {
			line += fmt.Sprintf(", %s receipts to come (phones that are off)", thousands(s.Awaiting))
		}
		d.draw(line, s.over())
		if s.over() {
			fmt.Fprintln(d.out)
			return nil
		}
		if s.State == "paused" || s.State == "aborted" || s.State == "cancelled" || s.State == "suspended" || s.State == "failed" {
			fmt.Fprintf(d.out, "\n  The campaign is %s.\n", s.State)
			return nil
		}
		if s.State == "completed" && time.Since(began) > 2*time.Minute {
			fmt.Fprintf(d.out, "\n  Completed; some receipts are still awaited.\n")
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// drawEvery is the least time between two lines of progress where there is no terminal.
const drawEvery = 3 * time.Second

// draw shows a line of progress. On a terminal it overwrites the last line; elsewhere it prints a line every few
// seconds if it differs from the last.
func (d *demo) draw(line string, last bool) {
	if d.terminal {
		fmt.Fprintf(d.out, "\r%s\x1b[K", line)
		return
	}
	if now := time.Now(); last || now.Sub(d.drawn) >= drawEvery && line != d.line {
		d.drawn, d.line = now, line
		fmt.Fprintln(d.out, line)
	}
}

// account prints Fanfare's figures next to the carrier's own record.
func (d *demo) account(ctx context.Context) error {
	fmt.Fprintf(d.out, "\nEvery one accounted for:\n  Fanfare:  %s\n", d.last.explained("\n            "))
	if d.w.cfg.CarrierSim != "" {
		return nil
	}
	truth, err := campaignTruth(ctx, filepath.Join(d.w.cfg.Data, simTruth), d.id)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  carrier:  %s\n", truth)
	return d.phones(ctx)
}

// phonesPatience is how long the story waits for the phones of the last messages.
const phonesPatience = 10 * time.Second

// phones prints Fanfare's clicks and opt-outs next to those in the record of the simulated phones.
func (d *demo) phones(ctx context.Context) error {
	if !d.w.cfg.SimHandsets {
		return nil
	}
	var did map[string]int
	for deadline := time.Now().Add(phonesPatience); ; {
		var err error
		if did, err = campaignHandsets(d.w.cfg.Data, d.id); err != nil {
			return err
		}
		if err := d.call(ctx, http.MethodGet, "/api/campaigns/"+d.id+"/stats", "", nil, &d.last); err != nil {
			return err
		}
		if d.last.Clicked == did[sim.DidTap] && d.last.OptedOut == did[sim.DidOptOut] || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	fmt.Fprintf(d.out, "\nWhat people did about it:\n  Fanfare: %s clicked (CTR %.1f %%) and %s opted out\n", thousands(d.last.Clicked), 100*d.last.ClickRate, thousands(d.last.OptedOut))
	fmt.Fprintf(d.out, "  phones:  %s tapped and %s opted out by the link; %s links were opened by programs (all simulated)\n",
		thousands(did[sim.DidTap]), thousands(did[sim.DidOptOut]), thousands(did[sim.DidScan]))
	return nil
}

// campaignHandsets counts the actions of the simulated phones on the messages of a campaign.
func campaignHandsets(data, campaign string) (map[string]int, error) {
	number, err := schemas.CampaignNumber(campaign)
	if err != nil {
		return nil, err
	}
	list, err := sim.ReadHandsets(filepath.Join(data, handsetsRecord))
	if err != nil {
		return nil, fmt.Errorf("record of the handsets: %w", err)
	}
	out := map[string]int{}
	for _, one := range list {
		if id, err := schemas.ParseID(one.Submission); err == nil && id.CampaignNumber() == number {
			out[one.Did]++
		}
	}
	return out, nil
}

// next prints commands to try.
func (d *demo) next() {
	fmt.Fprintf(d.out, `
URL  %[1]s        API key  %[2]s

Paste this to send to your own five lines (numbers below decide what happens to each):
  export URL=%[1]s KEY=%[2]s
  printf 'phone,first_name\n%[3]s,Ada\n%[4]s,Grace\n%[5]s,Alan\n%[6]s,Edsger\n%[7]s,Barbara\n' > five.csv
  curl -s -H "X-Api-Key: $KEY" -H 'Content-Type: application/json' -d '{"name":"five"}' $URL/api/contacts/list >/dev/null; curl -s -H "X-Api-Key: $KEY" -H 'Content-Type: text/csv' --data-binary @five.csv $URL/api/contacts/list/five/import; ID=$(curl -s -H "X-Api-Key: $KEY" -H 'Content-Type: application/json' -d '{"name":"Mine","channel":"sms","message":"Hello {{first_name}}","contactList":"five","sendImmediately":true}' $URL/api/campaigns | sed 's/.*"id":"\([^"]*\)".*/\1/'); curl -s -X PUT -H "X-Api-Key: $KEY" $URL/api/campaigns/$ID/confirm
  curl -s -H "X-Api-Key: $KEY" $URL/api/campaigns/$ID/stats

To hold a campaign back while it runs, and to let it go on:
  curl -s -X PUT -H "X-Api-Key: $KEY" $URL/api/campaigns/$ID/pause
  curl -s -X PUT -H "X-Api-Key: $KEY" $URL/api/campaigns/$ID/resume

Magic numbers of the simulated carrier:
`, d.base, d.key, magicNumber(0), magicNumber(44), magicNumber(18), magicNumber(30), magicNumber(50))
	for _, m := range sim.Magic {
		fmt.Fprintf(d.out, "  %s  %s\n", m.Number(), m.Does)
	}
	fmt.Fprintf(d.out, "\nCtrl-C stops; the next run goes on. Data is in %s (make clean-data forgets it).\n", d.w.cfg.Data)
}

// goodbye prints what the demo leaves behind.
func (d *demo) goodbye() {
	if d.id == "" {
		return
	}
	fmt.Fprintf(d.out, "\nStopped. %s: %s\nThe next run goes on from there.\n", d.id, d.last.explained("\n"))
	for _, line := range d.w.remains {
		fmt.Fprintln(d.out, "  "+line)
	}
}

// call asks the API.
func (d *demo) call(ctx context.Context, method, path, contentType string, body, out any) error {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		r, contentType = bytes.NewReader(j), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("X-Api-Key", d.key)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return nil
}

// madeUpPeople is a CSV of n contacts with numbers of six countries. Another seed gives other people.
func madeUpPeople(n int, seed uint64) io.Reader {
	first := strings.Fields("Ada Grace Alan Edsger Barbara Donald Margaret Linus Radia Dennis Frances Ken")
	plans := []struct {
		prefix string
		digits int
		cities []string
	}{
		{"+39340", 7, []string{"Torino", "Bari", "Milano"}},
		{"+34612", 6, []string{"Madrid", "Sevilla"}},
		{"+33612", 6, []string{"Lyon", "Paris"}},
		{"+4915123", 6, []string{"Berlin", "Hamburg"}},
		{"+447400", 6, []string{"Leeds", "London"}},
		{"+31612", 6, []string{"Utrecht"}},
	}
	rng := rand.New(rand.NewPCG(2026, 11+seed))
	var b bytes.Buffer
	b.WriteString("phone,first_name,city\n")
	seen := map[string]bool{}
	for i := 0; i < n; {
		plan := plans[rng.IntN(len(plans))]
		phone := plan.prefix + fmt.Sprintf("%0*d", plan.digits, rng.IntN(pow10(plan.digits)))
		if seen[phone] {
			continue
		}
		seen[phone] = true
		fmt.Fprintf(&b, "%s,%s,%s\n", phone, first[rng.IntN(len(first))], plan.cities[rng.IntN(len(plan.cities))])
		i++
	}
	return &b
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

// magicNumber is the simulator's number that ends in nn.
func magicNumber(nn uint8) string { return sim.MagicNumber{NN: nn}.Number() }

// thousands writes 10000 as 10,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// campaignTruth returns the carrier's own figures of a campaign, in one line.
func campaignTruth(ctx context.Context, path, campaign string) (string, error) {
	number, err := schemas.CampaignNumber(campaign)
	if err != nil {
		return "", err
	}
	final := map[schemas.ID]schemas.Precedence{}
	refused := map[schemas.ID]bool{}
	err = sim.NewTail(path).Poll(func(e sim.Entry) error {
		if e.Message.CampaignNumber() != number {
			return ctx.Err()
		}
		if p := e.Final(); p != 0 {
			final[e.Message] = schemas.Join(final[e.Message], p)
		} else {
			refused[e.Message] = true
		}
		return ctx.Err()
	})
	if err != nil {
		return "", fmt.Errorf("the carrier's record: %w", err)
	}
	count := map[schemas.Bucket]int{}
	for id, p := range final {
		count[p.Bucket()]++
		delete(refused, id)
	}
	s := demoStats{
		TotalMessages: len(final) + len(refused), Delivered: count[schemas.BucketDelivered], Undelivered: count[schemas.BucketUndelivered],
		Awaiting: count[schemas.BucketAwaiting], NotSent: len(refused),
	}
	return s.account() + ", by its own record", nil
}
