package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"

	"golang.org/x/sync/errgroup"
)

// options are the settings from the command line and the environment.
type options struct {
	listen  string
	profile sim.Profile
	seed    uint64
	truth   string
	keys    *schemas.Keys
	lease   time.Duration
	magic   bool
	smpp    smppOptions
	http    httpOptions
	graph   graphOptions
	rbm     rbmOptions
	ari     ariOptions
}

// parse reads the command line, and takes settings that it lacks from the environment.
func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("carriersim", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` to listen on; port 0: any free one")
	f.StringVar(&o.truth, "truth", "", "`file` of the ground truth (default: none is kept, and receipts still owed end with the process)")
	f.Uint64Var(&o.seed, "seed", 1, "seed of everything random")
	f.DurationVar(&o.lease, "lease", sim.DefaultLease, "how long a consumer has to acknowledge receipts before another gets them")
	f.BoolVar(&o.magic, "magic", false, "print the numbers whose fate is fixed, and end")
	o.smpp.flags(f)
	o.http.flags(f)
	o.graph.flags(f)
	o.rbm.flags(f)
	o.ari.flags(f)
	profile := f.String("profile", "default", "how it behaves: "+strings.Join(sim.ProfileNames, ", "))
	rate := f.Float64("rate", -1, "most submissions per second; 0: no limit (default: the profile's)")
	burst := f.Int("burst", 0, "submissions at once with --rate (default: 100 ms of the rate)")
	key := f.String("id-key", "", "`hex` secret that signs ids, the same as fanfare's (default: $FANFARE_ID_KEY)")
	keyFile := f.String("id-key-file", "", "`file` that holds the secret")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w; see --help", err)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not understood; see --help", f.Arg(0))
	}
	if o.magic {
		return o, nil
	}
	var err error
	if o.profile, err = sim.ProfileNamed(*profile); err != nil {
		return o, fmt.Errorf("--profile: %w", err)
	}
	if err = o.smpp.check(); err != nil {
		return o, err
	}
	if err = o.rbm.check(&o.profile); err != nil {
		return o, err
	}
	if err = o.ari.check(&o.profile); err != nil {
		return o, err
	}
	if *rate >= 0 {
		o.profile.Rate, o.profile.Burst = *rate, *burst
	}
	if *keyFile != "" {
		b, err := os.ReadFile(*keyFile)
		if err != nil {
			return o, fmt.Errorf("--id-key-file: %w", err)
		}
		*key = string(b)
	}
	o.keys, err = parseKeys(cmp.Or(*key, getenv("FANFARE_ID_KEY")))
	return o, err
}

// parseKeys reads the secrets that sign ids.
func parseKeys(text string) (*schemas.Keys, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the secret that signs ids is missing: give fanfare's with --id-key, --id-key-file or FANFARE_ID_KEY")
	}
	keys, err := schemas.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("--id-key: %w", err)
	}
	return keys, nil
}

// run serves until ctx ends.
func run(ctx context.Context, o options, stdout, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	carrier, err := sim.Open(sim.Config{Keys: o.keys, Profile: o.profile, Seed: o.seed, Truth: o.truth, Lease: o.lease, Logger: log})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return errors.Join(fmt.Errorf("--listen: %w", err), carrier.Close())
	}
	faces, err := o.open(ctx, carrier, log)
	if err != nil {
		return errors.Join(err, listener.Close(), carrier.Close())
	}
	server := &http.Server{Handler: sim.NewHandler(carrier), ReadHeaderTimeout: 10 * time.Second}
	// The carrier must outlive the server, because it still gives the answers that clients await.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return carrier.Run(work) })
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	for _, f := range faces {
		g.Go(func() error { return f.serve(ctx) })
		if f.work != nil {
			g.Go(func() error { return f.work(work) })
		}
	}
	g.Go(func() error {
		defer stopWork()
		<-ctx.Done()
		return stop(context.WithoutCancel(ctx), server, carrier, log)
	})
	_, _ = fmt.Fprintf(stdout, "http://%s\n", listener.Addr())
	for _, f := range faces {
		_, _ = fmt.Fprintf(stdout, "%s://%s\n", f.scheme, f.listener.Addr())
	}
	log.InfoContext(ctx, "carrier simulator ready", "profile", o.profile.Name, "rate", o.profile.Rate, "seed", o.seed, "truth", o.truth)
	return g.Wait()
}

// grace is how long the server waits at its end for answers that clients await.
const grace = 2 * time.Second

// stop accepts no more messages, waits for answers during the grace period, ends open connections, and closes the
// files.
func stop(ctx context.Context, server *http.Server, carrier *sim.Carrier, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	carrier.Quiesce()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close() // ends requests that get no answer
	}
	stats := carrier.Stats()
	log.InfoContext(ctx, "carrier simulator stops", "submissions", stats.Submissions, "acknowledged", stats.Acknowledged, "receipts_still_owed", stats.Owed)
	return carrier.Close()
}

// printMagic prints the table of numbers with a fixed fate.
func printMagic(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range sim.Magic {
		_, _ = fmt.Fprintf(t, "%s\t%s\n", m.Number(), m.Does)
	}
	_ = t.Flush() // standard output is closed
}
