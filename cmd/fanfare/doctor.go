package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fanfare/deploy/embedded"
	"fanfare/sinks/carrier/sim"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that Fanfare stands on, and say how to mend it",
		Long: `Check Kafka, Redis, ClickHouse, the store and this machine as fanfare serve would use
them with the same flags: that they can be reached, are what they should be and of a
version that will do, that we have the rights we need, that topics and tables are as
they must be, and that clocks agree. Each line is ok, note (worth knowing) or BAD, with
what to do. Nothing of yours is changed. Exit code 0: nothing is BAD.

The clock of Kafka is not compared: nothing here goes by it.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	asJSON := cmd.Flags().Bool("json", false, "print the findings as a JSON array")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		all := examine(cmd.Context(), cfg)
		if *asJSON {
			enc := json.NewEncoder(p.stdout)
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(all); err != nil {
				return fmt.Errorf("print findings: %w", err)
			}
		} else {
			report(p.stdout, all)
		}
		if slices.ContainsFunc(all, func(f finding) bool { return f.Level == levelBad }) {
			return errReported
		}
		return nil
	}
	return cmd
}

// report prints findings for people: a line for what is, and a line for what to do.
func report(out io.Writer, all []finding) {
	wrong := 0
	for _, f := range all {
		word := string(f.Level)
		if f.Level == levelBad {
			word = "BAD"
			wrong++
		}
		fmt.Fprintf(out, "%-4s %-10s %s\n", word, f.Service, f.Found)
		if f.Fix != "" {
			fmt.Fprintf(out, "%-15s -> %s\n", "", f.Fix)
		}
	}
	switch wrong {
	case 0:
		fmt.Fprintln(out, "All is well.")
	case 1:
		fmt.Fprintln(out, "One thing wants mending.")
	default:
		fmt.Fprintf(out, "%d things want mending.\n", wrong)
	}
}

// level of a finding.
type level string

const (
	levelOK   level = "ok"
	levelNote level = "note"
	levelBad  level = "bad"
)

// A finding is what is, and what to do when it should not be.
type finding struct {
	Service string `json:"service"`
	Level   level  `json:"level"`
	Found   string `json:"found"`
	Fix     string `json:"fix,omitempty"`
}

func well(service, found string) finding { return finding{service, levelOK, oneLine(found), ""} }

func note(service, found, fix string) finding {
	return finding{service, levelNote, oneLine(found), oneLine(fix)}
}

func bad(service, found, fix string) finding {
	return finding{service, levelBad, oneLine(found), oneLine(fix)}
}

// examine looks at everything at once; one that is ill does not hide another.
func examine(ctx context.Context, cfg Config) []finding {
	examinations := []func(context.Context, Config) []finding{
		examineData, examineHTTP, examineStore, examineKafka, examineRedis, examineAnalytics, examineCarrier,
	}
	found := make([][]finding, len(examinations))
	var wg sync.WaitGroup
	for i, look := range examinations {
		wg.Go(func() { found[i] = look(ctx, cfg) })
	}
	wg.Wait()
	return slices.Concat(found...)
}

// leastFree is how much room the embedded broker must have: below it nothing is dealt (see mayDeal).
const leastFree = 512 << 20

// keptInData reports whether anything is kept under --data.
func (c Config) keptInData() bool {
	return c.embeddedBroker() || c.needs(needRedis) && c.Redis == "" || c.needs(needStore) && c.Store == "" ||
		c.needs(needAnalytics) && c.ClickHouse == "" || c.has("sender") && c.CarrierSim == ""
}

// examineData looks at the directory of what is embedded: rights, room, and who holds it.
func examineData(_ context.Context, cfg Config) []finding {
	if !cfg.keptInData() {
		return nil
	}
	if t := dataTrouble(cfg.Data); t != nil {
		return []finding{bad("data", t.found, t.fix)}
	}
	var all []finding
	for _, name := range []string{"store.db", "analytics.db", "carrier-sim.ndjson", "lock"} {
		f, err := os.OpenFile(filepath.Join(cfg.Data, name), os.O_RDWR, 0)
		switch {
		case err == nil:
			_ = f.Close()
		case !errors.Is(err, fs.ErrNotExist):
			all = append(all, bad("data", fmt.Sprintf("%s cannot be opened (%v)", filepath.Join(cfg.Data, name), reason(err)), "give the file to the user that runs fanfare: chown -R "+fmt.Sprint(os.Getuid())+" "+cfg.Data))
		}
	}
	free, err := embedded.FreeBytes(existing(cfg.Data))
	switch {
	case err != nil:
		all = append(all, note("data", fmt.Sprintf("the free space of %s cannot be seen (%v)", cfg.Data, err), ""))
	case free < leastFree:
		all = append(all, bad("data", fmt.Sprintf("%s has %d MB free", cfg.Data, free>>20), fmt.Sprintf("free at least %d MB: below that nothing is sent, so that nothing is lost", leastFree>>20)))
	}
	if len(all) > 0 {
		return all
	}
	if e, err := embedded.ReadEndpoints(cfg.Data); err == nil && alive(e.PID) {
		return []finding{well("data", fmt.Sprintf("%s, %d MB free, in use by process %d", cfg.Data, free>>20, e.PID))}
	}
	return []finding{well("data", fmt.Sprintf("%s, %d MB free", cfg.Data, free>>20))}
}

// dataTrouble says why nothing can be kept in dir, which need not exist; nil: it can. What it makes it takes away again.
func dataTrouble(dir string) *trouble {
	const fix = "give another directory with --data, or make this one writable for the user that runs fanfare"
	at := existing(dir)
	if st, err := os.Stat(at); err != nil || !st.IsDir() {
		return wrong(at+" is no directory", "give another directory with --data")
	}
	tmp, err := os.MkdirTemp(at, ".fanfare-doctor-")
	if err != nil {
		return wrong(fmt.Sprintf("%s cannot be written to (%v)", at, reason(err)), fix)
	}
	if err := os.Remove(tmp); err != nil {
		return wrong(fmt.Sprintf("%s cannot be written to (%v)", at, reason(err)), fix)
	}
	return nil
}

// existing is the nearest of dir and its parents that exists.
func existing(dir string) string {
	dir = filepath.Clean(dir)
	for {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// reason is an error of the file system without the path that the sentence around it has already.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// alive reports whether a process runs.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && pid > 0 && (p.Signal(syscall.Signal(0)) == nil || errors.Is(p.Signal(syscall.Signal(0)), syscall.EPERM))
}

// examineHTTP looks at the port. When a fanfare serves there it is asked how it is.
func examineHTTP(ctx context.Context, cfg Config) []finding {
	l, err := listen(ctx, cfg.HTTP)
	if err == nil {
		_ = l.Close()
		return []finding{well("http", cfg.HTTP+" is free")}
	}
	var t *trouble
	if !errors.As(err, &t) {
		t = wrong(err.Error(), "choose another address with --http HOST:PORT")
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return []finding{bad("http", t.found, t.fix)}
	}
	status, checks, ok := askReady(ctx, cfg.HTTP)
	if !ok {
		return []finding{bad("http", t.found, t.fix)}
	}
	var missing []string
	for name, is := range checks {
		if is != "ok" {
			missing = append(missing, name+": "+is)
		}
	}
	slices.Sort(missing)
	switch status {
	case "ready":
		return []finding{well("http", "fanfare serves at "+cfg.HTTP+" and is ready")}
	case "degraded":
		return []finding{note("http", "fanfare serves at "+cfg.HTTP+"; degraded: "+strings.Join(missing, "; "), "mend what is named; it recovers by itself")}
	default:
		return []finding{bad("http", "fanfare serves at "+cfg.HTTP+" and is not ready: "+strings.Join(missing, "; "), "mend what is named; it recovers by itself")}
	}
}

// askReady asks /readyz; ok is false when it is no fanfare that answers.
func askReady(ctx context.Context, addr string) (status string, checks map[string]string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("localhost", port)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return "", nil, false
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return "", nil, false
	}
	defer resp.Body.Close()
	var answer struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&answer) != nil || answer.Status == "" || answer.Checks["process"] == "" {
		return "", nil, false
	}
	return answer.Status, answer.Checks, true
}

// examineCarrier looks at the simulated carrier that processes share.
func examineCarrier(ctx context.Context, cfg Config) []finding {
	if cfg.CarrierSim == "" || !cfg.has("sender") {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := sim.Dial(ctx, cfg.CarrierSim, sim.Options{Account: simRoute})
	if err != nil {
		return []finding{bad("carrier", err.Error(), "start carriersim, or correct the URL after --carrier-sim")}
	}
	_ = client.Drain(ctx)
	return []finding{well("carrier", "the simulated carrier answers at "+cfg.CarrierSim)}
}

// clockOf reads a clock, asked by ask.
func clockOf(ask func() (time.Time, error)) (time.Duration, error) {
	before := time.Now()
	at, err := ask()
	if err != nil {
		return 0, err
	}
	return skew(at, before, time.Now()), nil
}
