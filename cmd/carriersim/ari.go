package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/voice/ari"
)

// ariOptions are the flags of the Asterisk face. Without an address there is no such face.
type ariOptions struct {
	listen, user                           string
	busy, noAnswer                         float64
	machines, unsure, hangUps              float64
	ring, ringLongest, detect, play, talks time.Duration
}

func (o *ariOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.listen, "ari", "", "`address` of the REST interface of an Asterisk with the same truth, such as 127.0.0.1:8088 (default: none); GET /stats there counts its calls")
	f.StringVar(&o.user, "ari-user", "", "`user:password` that its requests must have (default: any)")
	f.Float64Var(&o.busy, "ari-busy", 0, "share of accepted calls that are busy, from 0 to 1; it applies to messages of other channels too, because all channels share one simulation")
	f.Float64Var(&o.noAnswer, "ari-no-answer", 0, "share of accepted calls without an answer, from 0 to 1; it applies to other channels as --ari-busy does")
	f.Float64Var(&o.machines, "ari-machines", 0.2, "share of answers by a machine")
	f.Float64Var(&o.unsure, "ari-unsure", 0.05, "share of answers of which AMD() is not sure")
	f.Float64Var(&o.hangUps, "ari-hang-ups", 0.1, "share of people who do not hear the message to its end")
	f.DurationVar(&o.ring, "ari-ring", 0, "median time for which a phone rings before it is answered or fails; it applies to other channels as --ari-busy does (default: the profile's time of a receipt)")
	f.DurationVar(&o.ringLongest, "ari-ring-longest", 0, "how long 99 of 100 ring at most (default: --ari-ring)")
	f.DurationVar(&o.detect, "ari-detect", time.Second, "how long AMD() takes")
	f.DurationVar(&o.play, "ari-play", 2*time.Second, "how long a message is")
	f.DurationVar(&o.talks, "ari-talk", 10*time.Second, "how long the agent of a queue speaks")
}

// check returns an error if the flags are wrong, and applies them to the profile.
func (o *ariOptions) check(p *sim.Profile) error {
	if o.listen == "" {
		return nil
	}
	for name, share := range map[string]float64{
		"busy": o.busy, "no-answer": o.noAnswer, "machines": o.machines, "unsure": o.unsure, "hang-ups": o.hangUps,
	} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("--ari-%s: want a share of 0 to 1, got %g", name, share)
		}
	}
	if o.busy+o.noAnswer > 1 {
		return errors.New("--ari-busy and --ari-no-answer: want at most 1 together")
	}
	if o.user != "" && !strings.Contains(o.user, ":") {
		return errors.New("--ari-user: want user:password")
	}
	for name, d := range map[string]time.Duration{"ring": o.ring, "ring-longest": o.ringLongest, "detect": o.detect, "play": o.play, "talk": o.talks} {
		if d < 0 || d > time.Hour {
			return fmt.Errorf("--ari-%s: want 0 to 1h, got %v", name, d)
		}
	}
	if o.ring > 0 {
		p.Receipt = sim.Lognormal{P50: o.ring, P99: o.ringLongest}
	}
	if o.busy+o.noAnswer > 0 {
		fates := []sim.Fate{
			{Weight: o.busy, Status: schemas.ReceiptStatusFailed, Sub: schemas.CodeHandsetBusy},
			{Weight: o.noAnswer, Status: schemas.ReceiptStatusFailed, Sub: schemas.CodeAbsentSubscriber},
		}
		rest := p.Fates
		if len(rest) == 0 {
			rest = []sim.Fate{{Weight: 1, Status: schemas.ReceiptStatusDelivered, Sub: schemas.CodeDelivered}}
		}
		var sum float64
		for _, f := range rest {
			sum += f.Weight
		}
		for _, f := range rest {
			f.Weight *= (1 - o.busy - o.noAnswer) / sum
			fates = append(fates, f)
		}
		p.Fates = fates
	}
	return nil
}

// openARI opens the Asterisk face of the simulated carrier. Each Stasis application is an account.
func openARI(ctx context.Context, c *sim.Carrier, o *options, log *slog.Logger) (*face, error) {
	user, password, _ := strings.Cut(o.ari.user, ":")
	server, err := ari.New(ari.Config{
		Keys: o.keys, Username: user, Password: password, Machines: o.ari.machines, Unsure: o.ari.unsure, HangUps: o.ari.hangUps,
		Detect: o.ari.detect, Play: o.ari.play, Talk: o.ari.talks, Logger: log,
		Open: func(app string) (ari.Line, error) { return c.Connector(sim.Options{Account: app}), nil },
	})
	if err != nil {
		return nil, err
	}
	return openWeb(ctx, "--ari", o.ari.listen, "ari", server, server.Run)
}
