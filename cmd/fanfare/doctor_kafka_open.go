package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaTongue is what ought to be spoken at a broker's address.
func (c Config) kafkaTongue() tongue {
	return tongue{
		flag: "--kafka", want: speaksKafka, secure: c.KafkaTLS, port: "Kafka's is 9092 by default",
		withTLS: "add --kafka-tls", without: "leave --kafka-tls out, or give the port of Kafka's TLS listener after --kafka",
	}
}

// openKafka connects as the roles do and returns a client once a broker has answered it and let it in, and the brokers that
// can be reached.
func openKafka(ctx context.Context, cfg Config, opts ...kgo.Opt) (*kgo.Client, []string, *trouble) {
	seeds := dialAll(ctx, "--kafka", cfg.Kafka)
	secure, err := cfg.kafkaOptions()
	if err != nil {
		return nil, nil, wrong(err.Error(), "correct the flag")
	}
	var first *trouble
	for i, t := range seeds {
		if t == nil {
			var cl *kgo.Client
			var brokers []string
			if cl, brokers, t = openBroker(ctx, cfg, cfg.Kafka[i], append(secure, opts...)); t == nil {
				return cl, brokers, nil
			}
		}
		if first == nil {
			first = t
		}
	}
	return nil, nil, first
}

// openBroker is openKafka by one of the addresses.
func openBroker(ctx context.Context, cfg Config, seed string, opts []kgo.Opt) (*kgo.Client, []string, *trouble) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seed), kgo.ClientID("fanfare-doctor"), kgo.DialTimeout(2 * time.Second), kgo.RequestRetries(0), kgo.RetryTimeout(patience),
		kgo.RequestTimeoutOverhead(patience - time.Second), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DisableClientMetrics(),
	}, opts...)...)
	if err != nil {
		return nil, nil, wrong(err.Error(), "correct the address after --kafka")
	}
	var meta *kmsg.MetadataResponse
	err = cfg.kafkaTongue().try(ctx, seed, func(ctx context.Context) (err error) {
		meta, err = kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
		return err
	})
	if err != nil {
		cl.Close()
		return nil, nil, kafkaTrouble(ctx, cfg, seed, err)
	}
	// Brokers say themselves where they are, and that is where everything goes from then on.
	var advertised, reachable []string
	for _, b := range meta.Brokers {
		advertised = append(advertised, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	all := dialAll(ctx, "--kafka", advertised)
	for i, t := range all {
		if t == nil {
			reachable = append(reachable, advertised[i])
		}
	}
	if len(reachable) == 0 && len(all) > 0 {
		cl.Close()
		return nil, nil, advertisedTrouble(seed, advertised[0], all[0])
	}
	return cl, reachable, nil
}

func advertisedTrouble(seed, addr string, t *trouble) *trouble {
	t.found = fmt.Sprintf("the broker at %s says that it is %s, but %s", seed, addr, t.found)
	t.fix = "set its advertised.listeners to an address that can be reached from here"
	return t
}

// kafkaTrouble puts an error of the first request into words.
func kafkaTrouble(ctx context.Context, cfg Config, addr string, err error) *trouble {
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return wrong(addr+" refuses the user or the password", "correct --kafka-user and --kafka-password (better FANFARE_KAFKA_PASSWORD)")
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return wrong(fmt.Sprintf("%s does not log in by %s", addr, cfg.KafkaSASL), "choose another --kafka-sasl: plain, scram-sha-256 or scram-sha-512; without --kafka-user nobody logs in")
	}
	if cfg.KafkaTLS {
		if t := tlsTrouble(addr, cfg.kafkaTongue().without, err); t != nil {
			return t
		}
	}
	if t := cfg.kafkaTongue().trouble(ctx, addr); t != nil {
		return t
	}
	if errors.Is(err, io.EOF) && cfg.KafkaUser != "" {
		return wrong(fmt.Sprintf("%s ends the connection at the login by %s", addr, cfg.KafkaSASL), "correct --kafka-user and --kafka-password (better FANFARE_KAFKA_PASSWORD), or choose another --kafka-sasl")
	}
	if errors.As(err, &eof) && cfg.KafkaUser == "" {
		return passing(addr+" ends the connection as soon as it is used: it wants a login", "give --kafka-user and --kafka-password (better FANFARE_KAFKA_PASSWORD), and --kafka-sasl if it is not plain")
	}
	return passing(fmt.Sprintf("%s does not answer as it should (%s)", addr, oneLine(err.Error())), "see the log of the broker")
}
