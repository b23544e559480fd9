// Command with runs a command with the addresses of real services in its environment:
//
//	go run ./deploy/testinfra/with go test -run Integration ./...
//
// Addresses given in FANFARE_TEST_* are used; what is not given is started, and stopped when the command has ended. It exits
// with the command's code.
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
	// The command gets an interrupt from the terminal too; we wait for it, to clean up after it.
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
