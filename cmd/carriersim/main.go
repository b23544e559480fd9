// Command carriersim runs the simulated carrier in a process of its own, which several processes of fanfare can share:
//
//	carriersim --truth carrier-sim.ndjson --id-key HEX
//	fanfare serve --carrier-sim http://127.0.0.1:PORT …
//
// With --smpp it is also an SMPP message centre, with --http-sms an HTTP provider of SMS, with --graph WhatsApp's Cloud
// API, with --rbm RCS for Business, and with --ari the REST interface of an Asterisk. All of these share one ground
// truth. When it is ready, it prints its addresses on standard output; everything else goes to standard error. On an
// interrupt it answers the messages that it has accepted, and stops. The next process with the same truth file sends
// the receipts that are still due, also after a kill.
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
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Main runs one command line and returns the exit code. The program and the tests call it.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	opts, err := parse(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "carriersim:", err)
		return exitUsage
	}
	if opts.magic {
		printMagic(stdout)
		return exitOK
	}
	if err := run(ctx, opts, stdout, stderr); err != nil {
		_, _ = fmt.Fprintln(stderr, "carriersim:", err)
		return exitError
	}
	return exitOK
}
