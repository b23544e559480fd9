package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp/smsc"
)

// smppOptions are the flags of the SMPP face. Without an address there is no such face.
type smppOptions struct {
	listen, cert, key, quirkList string
	quirks                       smsc.Quirks
	certificate                  *tls.Certificate
}

func (o *smppOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.listen, "smpp", "", "`address` of an SMPP message centre with the same truth, such as 127.0.0.1:2775 (default: none)")
	f.StringVar(&o.quirkList, "smpp-quirks", "", "how it differs from the standard, such as ids=hex,no-nul,window=10: `list` of "+strings.Join(smsc.QuirkNames(), ", "))
	f.StringVar(&o.cert, "smpp-cert", "", "`file` of its certificate, as PEM: it speaks TLS then")
	f.StringVar(&o.key, "smpp-key", "", "`file` of the certificate's key, as PEM")
}

// check parses the values of the flags.
func (o *smppOptions) check() (err error) {
	if o.quirks, err = smsc.ParseQuirks(o.quirkList); err != nil {
		return fmt.Errorf("--smpp-quirks: %w", err)
	}
	if o.cert == "" && o.key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return fmt.Errorf("--smpp-cert and --smpp-key: %w", err)
	}
	o.certificate = &pair
	return nil
}

// openSMPP opens the SMPP face of the simulated carrier. Each system id is an account; every password is accepted.
func openSMPP(ctx context.Context, c *sim.Carrier, o *options, log *slog.Logger) (*face, error) {
	server, err := smsc.New(smsc.Config{
		Keys: o.keys, Quirks: o.smpp.quirks, Logger: log,
		Open: func(systemID string) (smsc.Line, error) {
			return c.Connector(sim.Options{Account: systemID}), nil
		},
	})
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.smpp.listen)
	if err != nil {
		return nil, fmt.Errorf("--smpp: %w", err)
	}
	if o.smpp.certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*o.smpp.certificate}, MinVersion: tls.VersionTLS12})
	}
	return &face{"smpp", l, func(ctx context.Context) error { return server.Serve(ctx, l) }, nil}, nil
}
