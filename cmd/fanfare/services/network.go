package services

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// dial connects to addr and returns why it cannot; nil: something listens there.
func dial(ctx context.Context, flag, addr string) *Problem {
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
		return nil
	}
	return networkProblem(flag, addr, err)
}

// DialAll dials all addresses at once. The result has nil for each address that can be reached.
func DialAll(ctx context.Context, flag string, addrs []string) []*Problem {
	all := make([]*Problem, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { all[i] = dial(ctx, flag, addr) })
	}
	wg.Wait()
	return all
}

// firstReachable returns the first of the addresses that can be reached. If none can, it returns why the first one
// cannot.
func firstReachable(ctx context.Context, flag string, addrs []string) (string, *Problem) {
	all := DialAll(ctx, flag, addrs)
	for i, p := range all {
		if p == nil {
			return addrs[i], nil
		}
	}
	return "", all[0]
}

// networkProblem describes an error of the network; nil: err is not one.
func networkProblem(flag, addr string, err error) *Problem {
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.As(err, &dns):
		return transient(fmt.Sprintf("the name in %s is not known (%s)", addr, OneLine(dns.Err)), "correct the name after "+flag+", or the name service of this machine")
	case errors.Is(err, syscall.ECONNREFUSED):
		return transient("nothing listens at "+addr, "start it, or correct the address after "+flag)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return transient("there is no way to "+addr+" from this machine", "correct the address after "+flag+", or the route to it")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return transient("no answer from "+addr, "correct the address after "+flag+", or let a firewall between here and there pass it")
	case isDialError(err):
		return transient(fmt.Sprintf("cannot connect to %s (%s)", addr, reason(err)), "correct the address after "+flag)
	}
	return nil
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// tlsProblem describes an error of a client that wanted TLS; nil: err is not about TLS.
func tlsProblem(addr, withoutTLS string, err error) *Problem {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	switch {
	case errors.As(err, &record):
		return Permanent(addr+" does not speak TLS", withoutTLS)
	case errors.As(err, &unknown):
		return Permanent("this machine does not know the authority that signed the certificate of "+addr,
			"install the certificate of that authority on this machine (for Kafka: name its file with --kafka-ca)")
	case errors.As(err, &host), errors.As(err, &invalid):
		return Permanent(fmt.Sprintf("the certificate of %s is not valid (%s)", addr, OneLine(err.Error())), "connect by the name that is in the certificate, or renew it")
	case errors.As(err, &alert):
		return Permanent(fmt.Sprintf("%s refuses our TLS connection (%s)", addr, OneLine(err.Error())), "see the log of the server; it may want a certificate of the client")
	}
	return nil
}

// reason returns the innermost text of an error. It leaves out what differs from attempt to attempt, such as the port
// that the client connects from, so that the same problem has the same text each time.
func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in time"
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it closes the connection"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return OneLine(op.Err.Error())
	}
	return OneLine(err.Error())
}

// connectionBroke reports whether an error is about the connection to a service, not an answer of the service.
func connectionBroke(err error) bool {
	var netErr net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr)
}
