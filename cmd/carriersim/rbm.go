package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/rcs/rbm"
	"fanfare/sinks/carrier/sim"
)

// rbmOptions are the flags of the face of RCS for Business. Without an address there is no such face.
type rbmOptions struct {
	listen, account, webhook, token string
	unreachable                     float64
}

func (o *rbmOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.listen, "rbm", "", "`address` at which it serves the API of RCS for Business with the same simulation, such as 127.0.0.1:9996 (default: none)")
	f.StringVar(&o.account, "rbm-account", "", "`file` of the service account that may use it; carriersim makes it if it does not exist")
	f.StringVar(&o.webhook, "rbm-webhook", "", "`address` that gets the events of RCS messages, such as http://127.0.0.1:8080/api/callback/rcs (default: none, events are not sent)")
	f.StringVar(&o.token, "rbm-client-token", "", "client `token` that signs its callbacks")
	f.Float64Var(&o.unreachable, "rbm-unreachable", 0, "share of numbers without RCS, from 0 to 1")
}

// check returns an error if the flags are wrong.
func (o *rbmOptions) check(p *sim.Profile) error {
	switch {
	case o.listen == "":
		return nil
	case o.account == "":
		return errors.New("--rbm-account: want a file for the key of the service account")
	case !(o.unreachable >= 0 && o.unreachable <= 1):
		return fmt.Errorf("--rbm-unreachable: want a share of 0 to 1, got %g", o.unreachable)
	case p.Doubt != carrier.DoubtKeyHeader && p.Doubt != carrier.DoubtNaturalID:
		return fmt.Errorf("--rbm: RCS ignores an id that it has had, and the profile %s does not; want one such as chaos+id", p.Name)
	default:
		return nil
	}
}

// serviceAccount reads the file of the service account, or creates it.
func (o *rbmOptions) serviceAccount() (*rbm.Account, error) {
	raw, err := os.ReadFile(o.account)
	if err == nil {
		return rbm.ReadAccount(raw)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a, err := rbm.NewAccount()
	if err != nil {
		return nil, err
	}
	if raw, err = a.JSON(); err != nil {
		return nil, err
	}
	return a, os.WriteFile(o.account, raw, 0o600)
}

// openRBM opens the RCS for Business face of the simulated carrier. Each agent is an account.
func openRBM(ctx context.Context, c *sim.Carrier, o *options, log *slog.Logger) (*face, error) {
	account, err := o.rbm.serviceAccount()
	if err != nil {
		return nil, fmt.Errorf("--rbm-account: %w", err)
	}
	server, err := rbm.New(rbm.Config{
		Keys: o.keys, Account: account, Webhook: o.rbm.webhook, ClientToken: o.rbm.token, Unreachable: o.rbm.unreachable, Logger: log,
		Open: func(agent string) (rbm.Line, error) { return c.Connector(sim.Options{Account: agent}), nil },
	})
	if err != nil {
		return nil, err
	}
	return openWeb(ctx, "--rbm", o.rbm.listen, "rbm", server, server.Run)
}
