// Command fanfare is the whole product: every stage is a role of it. With nothing configured it runs whole in one process, on
// an embedded Kafka and Redis and on SQLite; given addresses, the same roles run on real services, on as many machines as needed.
//
// Only this package reads flags, files and the environment, and only it knows every other package: it is the wiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// errReported is returned by a command that has already said what is wrong.
var errReported = errors.New("reported")

// Main runs one command line and returns the exit code. It is the program, as tests run it.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newRoot(environ, stdout, stderr) //nolint:contextcheck // cobra hands ctx to the command
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitError
	case errors.As(err, &usage):
		complain(stderr, err)
		return exitUsage
	default:
		complain(stderr, err)
		return exitError
	}
}

// complain says each of the errors in a line.
func complain(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(stderr, "fanfare:", line)
		}
	}
}
