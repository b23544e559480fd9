// Command with runs a command with the addresses of real services in its environment:
//
//	go run ./deploy/testinfra/with go test -run Integration ./...
//
// It uses the addresses in FANFARE_TEST_*, starts the other services, and stops them when the command has ended. Its
// exit code is that of the command.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"fanfare/deploy/testinfra"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(command []string) int {
	if len(command) == 0 {
		fmt.Fprintln(os.Stderr, "usage: with COMMAND [ARGUMENT...]")
		return 2
	}
	defer func() {
		if err := testinfra.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "with:", err)
		}
	}()
	found, err := testinfra.Find(testinfra.All...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "with:", err)
		return 1
	}
	// The terminal sends an interrupt to the command, too. Wait for the command, then clean up.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "FANFARE_TEST_INTEGRATION=1")
	for _, s := range testinfra.All {
		cmd.Env = append(cmd.Env, s.Env()+"="+found[s])
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "with:", err)
		return 1
	}
	return 0
}
