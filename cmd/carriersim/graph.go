package main

import (
	"context"
	"flag"
	"log/slog"
	"time"

	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/whatsapp/graph"
)

// graphOptions are the flags of the WhatsApp face. Without an address there is no such face.
type graphOptions struct {
	listen, token, webhook, secret, verify string
	pair                                   time.Duration
	portfolio, batch                       int
}

func (o *graphOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.listen, "graph", "", "`address` at which it serves a WhatsApp Cloud API with the same simulation, such as 127.0.0.1:9997 (default: none)")
	f.StringVar(&o.token, "graph-token", "", "access `token` that requests must have (default: any)")
	f.StringVar(&o.webhook, "graph-webhook", "", "`address` that gets the statuses of WhatsApp messages, such as http://127.0.0.1:8080/api/callback/wa (default: none, statuses are not sent)")
	f.StringVar(&o.secret, "graph-app-secret", "", "`secret` that signs its webhooks")
	f.StringVar(&o.verify, "graph-verify-token", "", "verify `token` that it sends when it registers the webhook")
	f.DurationVar(&o.pair, "graph-pair", 0, "least time between two WhatsApp messages to one person (default: none)")
	f.IntVar(&o.portfolio, "graph-portfolio", 0, "most recipients within 24 hours (default: no limit)")
	f.IntVar(&o.batch, "graph-batch", 20, "most statuses of one webhook")
}

// openGraph opens the WhatsApp face of the simulated carrier. Each phone number id is an account.
func openGraph(ctx context.Context, c *sim.Carrier, o *options, log *slog.Logger) (*face, error) {
	server, err := graph.New(graph.Config{
		Keys: o.keys, AccessToken: o.graph.token, Webhook: o.graph.webhook, AppSecret: o.graph.secret, VerifyToken: o.graph.verify,
		Pair: o.graph.pair, Portfolio: o.graph.portfolio, Batch: o.graph.batch, Logger: log,
		Open: func(id string) (graph.Line, error) { return c.Connector(sim.Options{Account: id}), nil },
	})
	if err != nil {
		return nil, err
	}
	return openWeb(ctx, "--graph", o.graph.listen, "graph", server, server.Run)
}
