package main

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/api/edge"
	"fanfare/cmd/fanfare/httpserver"
)

// roleEdge is the role that recipients reach from the internet. It runs only where --edge gives it an address.
const roleEdge = "edge"

// linkBase returns the part of a link before its token, for a public address.
func linkBase(public string) (string, error) {
	u, err := url.Parse(public)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return "", errors.New("want https:// and a host, such as https://go.example.com")
	}
	for _, c := range public {
		if c <= ' ' || c > '~' {
			return "", errors.New("want ASCII: a name in another script in its xn-- form")
		}
	}
	return u.Scheme + "://" + u.Host + "/", nil
}

// linkURL returns the beginning of the links in messages; "" when campaigns have no links.
func (w *wiring) linkURL() string {
	public := w.cfg.LinkURL
	if public == "" && w.edge != nil {
		public = "http://" + strings.Replace(w.edge.Addr().String(), "127.0.0.1", "localhost", 1)
	}
	base, err := linkBase(public)
	if err != nil { // cannot happen: Validate has checked the address
		return ""
	}
	return base
}

func buildEdge(w *wiring) (runner, error) {
	kafka, err := w.cluster.Named(roleEdge).Client(kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(30*time.Second))
	if err != nil {
		return nil, err
	}
	w.onClose(kafka.Close)
	public, err := edge.New(edge.Config{
		Names: w.names, Keys: w.keys, Spool: filepath.Join(w.cfg.Data, "edge-unpublished.ndjson"), Proxies: w.cfg.proxies(), Logger: w.log, Registry: w.reg,
	}, w.view, kafka)
	if err != nil {
		return nil, err
	}
	server, err := httpserver.New(httpserver.Config{Handler: public, Logger: w.log})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		// Records kept in the file are published until the last request has been answered.
		flushCtx, flushed := context.WithCancel(context.WithoutCancel(ctx))
		group, groupCtx := errgroup.WithContext(ctx)
		group.Go(func() error { return public.Run(flushCtx) })
		group.Go(func() error { return server.Serve(flushCtx, w.edge) })
		group.Go(func() error {
			defer flushed()
			<-groupCtx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
			defer cancel()
			server.Shutdown(stop)
			return nil
		})
		return group.Wait()
	}, nil
}
