package doctor

import (
	"bufio"
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
	"strconv"
	"strings"
	"syscall"

	"fanfare/cmd/fanfare/services"
	"fanfare/deploy/embedded"
	"fanfare/sinks/carrier/sim"
)

// examineData looks at the directory of what is embedded: rights, free space, and the process that uses it.
func examineData(_ context.Context, cfg Config) []Finding {
	if !cfg.Uses.Data {
		return nil
	}
	if p := services.DataProblem(cfg.Data); p != nil {
		return []Finding{problem("data", p)}
	}
	var all []Finding
	for _, name := range []string{"store.db", "analytics.db", "carrier-sim.ndjson", "lock"} {
		path := filepath.Join(cfg.Data, name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		switch {
		case err == nil:
			_ = f.Close()
		case !errors.Is(err, fs.ErrNotExist):
			all = append(all, bad("data", fmt.Sprintf("%s cannot be opened (%v)", path, services.WithoutPath(err)),
				fmt.Sprintf("give the file to the user that runs fanfare: chown -R %d %s", os.Getuid(), cfg.Data)))
		}
	}
	const mb = 1 << 20
	free, err := embedded.FreeBytes(services.ExistingParent(cfg.Data))
	switch {
	case err != nil:
		all = append(all, note("data", fmt.Sprintf("the free space of %s is not known (%v)", cfg.Data, err), ""))
	case free < embedded.LeastFree:
		all = append(all, bad("data", fmt.Sprintf("%s has %d MB free", cfg.Data, free/mb),
			fmt.Sprintf("free at least %d MB: with less, the scheduler deals nothing, so that nothing is lost", embedded.LeastFree/mb)))
	}
	if len(all) > 0 {
		return all
	}
	if e, err := embedded.ReadEndpoints(cfg.Data); err == nil && running(e.PID) {
		return []Finding{ok("data", fmt.Sprintf("%s, %d MB free, in use by process %d", cfg.Data, free/mb, e.PID))}
	}
	return []Finding{ok("data", fmt.Sprintf("%s, %d MB free", cfg.Data, free/mb))}
}

// running reports whether a process runs.
func running(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || pid <= 0 {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}

// examineHTTP looks at the port. If a fanfare serves there, the doctor asks it whether it is ready.
func examineHTTP(ctx context.Context, cfg Config) []Finding {
	l, err := services.Listen(ctx, cfg.HTTP)
	if err == nil {
		_ = l.Close()
		return []Finding{ok("http", cfg.HTTP+" is free")}
	}
	taken := problem("http", services.Permanent(err.Error(), "choose another address with --http HOST:PORT"))
	if refused, is := errors.AsType[*services.ListenError](err); is {
		taken = problem("http", &refused.Problem)
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return []Finding{taken}
	}
	status, checks, isFanfare := AskReady(ctx, cfg.HTTP)
	if !isFanfare {
		return []Finding{taken}
	}
	var missing []string
	for name, is := range checks {
		if is != "ok" {
			missing = append(missing, name+": "+is)
		}
	}
	slices.Sort(missing)
	const fix = "mend what is named; the process recovers by itself"
	switch status {
	case "ready":
		return append([]Finding{ok("http", "fanfare serves at "+cfg.HTTP+" and is ready")}, examineDealing(ctx, cfg.HTTP)...)
	case "degraded":
		found := note("http", "fanfare serves at "+cfg.HTTP+"; degraded: "+strings.Join(missing, "; "), fix)
		return append([]Finding{found}, examineDealing(ctx, cfg.HTTP)...)
	default:
		found := bad("http", "fanfare serves at "+cfg.HTTP+" and is not ready: "+strings.Join(missing, "; "), fix)
		return append([]Finding{found}, examineDealing(ctx, cfg.HTTP)...)
	}
}

// examineDealing reads the metrics of the fanfare at addr and reports campaigns that do not continue by themselves.
func examineDealing(ctx context.Context, addr string) []Finding {
	resp, err := get(ctx, addr, "/metrics")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var found []Finding
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err != nil || n == 0 {
			continue
		}
		switch name {
		case "fanfare_scheduler_stalled_campaigns":
			found = append(found, bad("dealing", value+" campaign(s) have recipients that wait, and nothing was dealt or answered for five minutes",
				"the log line `campaign makes no progress` names them; see FanfareNothingDealt in deploy/README.md"))
		case "fanfare_scheduler_broken_campaigns":
			found = append(found, bad("dealing", value+" campaign(s) are set aside, because a record of theirs in cursors or chunks cannot be read",
				"the log line `campaign set aside` names them; see FanfareBrokenRecord in deploy/README.md"))
		}
	}
	return found
}

// get sends a request to the fanfare that serves at addr, also if addr means all addresses of this machine.
func get(ctx context.Context, addr, path string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("localhost", port)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Timeout: services.Timeout}).Do(req)
}

// AskReady returns the answer of /readyz at addr. isFanfare is false if something else answers, or nothing.
func AskReady(ctx context.Context, addr string) (status string, checks map[string]string, isFanfare bool) {
	ctx, cancel := context.WithTimeout(ctx, services.Timeout)
	defer cancel()
	resp, err := get(ctx, addr, "/readyz")
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

// examineCarrier looks at the simulated carrier that several processes share.
func examineCarrier(ctx context.Context, cfg Config) []Finding {
	if cfg.CarrierSim == "" || !cfg.Uses.Carrier {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, services.Timeout)
	defer cancel()
	client, err := sim.Dial(ctx, cfg.CarrierSim, sim.Options{Account: cfg.DefaultRoute})
	if err != nil {
		return []Finding{bad("carrier", err.Error(), "start carriersim, or correct the URL after --carrier-sim")}
	}
	_ = client.Drain(ctx)
	return []Finding{ok("carrier", "the simulated carrier answers at "+cfg.CarrierSim)}
}
