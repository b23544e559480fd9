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

// A face is one protocol of the simulated carrier. All faces share one ground truth.
type face struct {
	// scheme is the scheme of the printed address.
	scheme   string
	listener net.Listener
	// serve accepts messages until ctx ends.
	serve func(ctx context.Context) error
	// work sends receipts until the carrier stops; nil if serve sends them.
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

// openWeb opens a face that uses HTTP. The named flag has its address.
func openWeb(ctx context.Context, flag, address, scheme string, handler http.Handler, work func(context.Context) error) (*face, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return &face{scheme, l, func(ctx context.Context) error { return serveWeb(ctx, l, handler) }, work}, nil
}

// serveWeb accepts messages until ctx ends, and then still sends the answers that clients await.
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
		_ = server.Close() // ends requests that get no answer
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
