package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Listen listens on the address given by --http. The error of a busy port is a [Problem] and wraps
// [syscall.EADDRINUSE].
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	return ListenFor(ctx, "--http", addr)
}

// ListenFor is [Listen] for the address given by another flag.
func ListenFor(ctx context.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	why := "cannot be listened on"
	if errors.Is(err, syscall.EADDRINUSE) {
		why = "is taken, perhaps by another fanfare"
	}
	return nil, &ListenError{*Permanent(fmt.Sprintf("%s %s (%s)", addr, why, reason(err)), "choose another address with "+flag+" HOST:PORT"), flag, err}
}

// ListenError says why the HTTP address cannot be listened on.
type ListenError struct {
	Problem
	flag  string
	cause error
}

// Error names the flag, too.
func (e *ListenError) Error() string { return e.flag + ": " + e.Problem.Error() }

func (e *ListenError) Unwrap() error { return e.cause }
