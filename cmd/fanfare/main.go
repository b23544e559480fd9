// Command fanfare is the whole product; every stage is a role of it. With nothing configured it runs whole in one
// process, on an embedded Kafka and Redis and on SQLite. Given addresses, the same roles run on real services, on as
// many machines as needed.
//
// Only this package reads flags, files and the environment, and only this package imports all the others: it wires them
// together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"fanfare/cmd/fanfare/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a second signal kills the process
	code := Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	// exitRefused: the API of a server refused the request.
	exitRefused = 3
)

// errReported is returned by a command that has already printed what is wrong.
var errReported = errors.New("reported")

// Main runs one command line and returns the exit code. Tests call it as the operating system calls main.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root, err := newRoot(args, environ, stdout, stderr) //nolint:contextcheck // cobra hands ctx to the command
	if err == nil {
		root.SetArgs(args)
		err = root.ExecuteContext(ctx)
	}
	var usage usageError
	var refusal *remote.Refusal
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitError
	case errors.As(err, &usage):
		printError(stderr, err)
		return exitUsage
	case errors.As(err, &refusal) && refusal.Status < http.StatusInternalServerError:
		printError(stderr, err)
		return exitRefused
	default:
		printError(stderr, err)
		return exitError
	}
}

// printError prints each of several joined errors on its own line.
func printError(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(stderr, "fanfare:", line)
		}
	}
}
