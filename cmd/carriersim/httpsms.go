package main

import (
	"context"
	"flag"
	"log/slog"

	"fanfare/sinks/carrier/httpsms/provider"
	"fanfare/sinks/carrier/sim"
)

// httpOptions are the flags of the face of an HTTP provider. Without an address there is no such face.
type httpOptions struct{ listen, token string }

func (o *httpOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.listen, "http-sms", "", "`address` of a provider with the same truth that takes SMS over HTTP as Twilio does, such as 127.0.0.1:9998 (default: none)")
	f.StringVar(&o.token, "http-sms-token", "", "auth `token` of all its accounts, which signs callbacks too (default: requests need none)")
}

// openHTTP opens the HTTP provider's face of the simulated carrier. Each account SID is an account.
func openHTTP(ctx context.Context, c *sim.Carrier, o *options, log *slog.Logger) (*face, error) {
	server, err := provider.New(provider.Config{
		Keys: o.keys, AuthToken: o.http.token, Logger: log,
		Open: func(sid string) (provider.Line, error) { return c.Connector(sim.Options{Account: sid}), nil },
	})
	if err != nil {
		return nil, err
	}
	return openWeb(ctx, "--http-sms", o.http.listen, "http-sms", server, server.Run)
}
