package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"fanfare/sinks/carrier/sim"
)

// A face is one protocol in which the simulated carrier is spoken to. All have one truth.
type face struct {
	// scheme is how its address is printed.
	scheme   string
	listener net.Listener
	// serve takes messages until ctx ends.
	serve func(ctx context.Context) error
	// work sends receipts until the carrier stops; nil: serve sends them.
	work func(ctx context.Context) error
}

// open opens the faces that the command line names.
func (o *options) open(ctx context.Context, c *sim.Carrier, log *slog.Logger) ([]*face, error) {
	var faces []*face
	for _, one := range []struct {
		address string
		open    func(context.Context, *sim.Carrier, *options, *slog.Logger) (*face, error)
	}{{o.smpp.listen, openSMPP}, {o.http.listen, openHTTP}, {o.graph.listen, openGraph}, {o.rbm.listen, openRBM}, {o.ari.listen, openARI}} {
		if one.address == "" {
			continue
		}
		f, err := one.open(ctx, c, o, log)
		if err != nil {
			for _, opened := range faces {
				err = errors.Join(err, opened.listener.Close())
			}
			return nil, err
		}
		faces = append(faces, f)
	}
	return faces, nil
}

// openWeb opens a face that is spoken to over HTTP. The flag has its address.
func openWeb(ctx context.Context, flag, address, scheme string, handler http.Handler, work func(context.Context) error) (*face, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return &face{scheme, l, func(ctx context.Context) error { return serveWeb(ctx, l, handler) }, work}, nil
}

// serveWeb takes messages until ctx ends, and lets the answers that are awaited go out.
func serveWeb(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(drain) != nil {
		_ = server.Close() // a client that was never to be answered
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
