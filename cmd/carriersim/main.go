// Command carriersim is the simulated carrier as a process of its own, for several processes of fanfare to share:
//
//	carriersim --truth carrier-sim.ndjson --id-key HEX
//	fanfare serve --carrier-sim http://127.0.0.1:PORT …
//
// With --smpp it is an SMPP message centre too, with --http-sms a provider of SMS over HTTP, with --graph WhatsApp's
// Cloud API, with --rbm RCS for Business, with --ari the REST interface of an Asterisk, all over the same ground truth.
// It prints its addresses on standard output once it is ready, and everything else on standard error. Interrupted, it
// answers what it has taken and stops; the receipts it owes then, and after a kill, are sent by the next one on the
// same truth file.
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

// Main runs one command line and returns the exit code. It is the program, as tests run it.
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
