// Command loadgen puts load on an installation of Fanfare and checks its promises:
//
//	loadgen --api http://127.0.0.1:8080 --key KEY --data .fanfare --campaigns 10 --people 10000 --singles 1000 --rate 50
//	loadgen --api https://fanfare.example.com --key KEY --kafka kafka-1:9092 …
//
// It makes a test list and campaigns to it, and sends single messages as simulations, so that nothing reaches a person
// and nothing is billed: all messages go to the simulated carrier. It reads what becomes of them in the topic
// deliveries. At the end it prints percentiles of the time from the request to the events sent and delivered, and what
// is wrong:
//
//	P1, P2  a recipient without an outcome, or with a final outcome beside a hand-over that contradicts it
//	P3      a submission that the carrier took twice, or a try after one that was handed over and did not bounce
//
// Everything is bounded: the requests a second and at once, the recipients, the memory (some 100 bytes for each), the
// time. The list and the campaigns stay, under the name of the run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK     = 0
	exitBroken = 1 // a promise is broken
	exitUsage  = 2
	exitError  = 3 // the load could not be made, or its events could not be read
)

// Main runs one command line and returns the exit code. The program and the tests call it.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "loadgen:", err)
		return exitUsage
	}
	r, err := run(ctx, o, stderr)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "loadgen:", err)
		return exitError
	}
	if err := r.print(stdout, o.json); err != nil {
		_, _ = fmt.Fprintln(stderr, "loadgen:", err)
		return exitError
	}
	if r.Broken > 0 {
		return exitBroken
	}
	return exitOK
}
