package services

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
	"github.com/twmb/franz-go/pkg/kversion"

	"fanfare/pipeline/stream"
)

func (k Kafka) expected() expected {
	return expected{
		flag: "--kafka", protocol: protocolKafka, secure: k.TLS, port: "Kafka's is 9092 by default",
		addTLS: "add --kafka-tls", dropTLS: "leave --kafka-tls out, or give the port of Kafka's TLS listener after --kafka",
	}
}

// OpenKafka connects as the roles do. It returns a client once a broker has answered it and let it in, and the
// addresses of the brokers that can be reached.
func OpenKafka(ctx context.Context, k Kafka) (*kgo.Client, []string, *Problem) {
	seeds := DialAll(ctx, "--kafka", k.Brokers)
	opts, err := k.ClientOptions()
	if err != nil {
		return nil, nil, Permanent(err.Error(), "correct the flag")
	}
	var first *Problem
	for i, p := range seeds {
		if p == nil {
			var cl *kgo.Client
			var brokers []string
			if cl, brokers, p = openBroker(ctx, k, k.Brokers[i], opts); p == nil {
				return cl, brokers, nil
			}
		}
		if first == nil {
			first = p
		}
	}
	return nil, nil, first
}

// openBroker is OpenKafka through one of the addresses.
func openBroker(ctx context.Context, k Kafka, seed string, opts []kgo.Opt) (*kgo.Client, []string, *Problem) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seed), kgo.ClientID("fanfare-doctor"), kgo.DialTimeout(2 * time.Second), kgo.RequestRetries(0), kgo.RetryTimeout(Timeout),
		kgo.RequestTimeoutOverhead(Timeout - time.Second), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DisableClientMetrics(),
	}, opts...)...)
	if err != nil {
		return nil, nil, Permanent(err.Error(), "correct the address after --kafka")
	}
	var meta *kmsg.MetadataResponse
	var versions *kmsg.ApiVersionsResponse
	err = k.expected().call(ctx, seed, func(ctx context.Context) (err error) {
		if meta, err = kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl); err != nil {
			return err
		}
		ask := kmsg.NewPtrApiVersionsRequest()
		// Brokers refuse a request without them (KIP-511)
		ask.ClientSoftwareName, ask.ClientSoftwareVersion = "fanfare", "1"
		if versions, err = ask.RequestWith(ctx, cl.SeedBrokers()[0]); err != nil {
			return err
		}
		return kerr.ErrorForCode(versions.ErrorCode)
	})
	var p *Problem
	switch {
	case err != nil:
		p = kafkaProblem(ctx, k, seed, err)
	case len(meta.Brokers) == 0:
		p = transient(seed+" knows no brokers yet", "wait; if it stays so, see the log of the broker")
	default:
		p = kafkaTooOld(seed, kversion.FromApiVersionsResponse(versions))
	}
	if p != nil {
		cl.Close()
		return nil, nil, p
	}
	// Each broker advertises its own address, and clients use that address from then on.
	var advertised, reachable []string
	for _, b := range meta.Brokers {
		advertised = append(advertised, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	all := DialAll(ctx, "--kafka", advertised)
	for i, p := range all {
		if p == nil {
			reachable = append(reachable, advertised[i])
		}
	}
	if len(reachable) == 0 {
		cl.Close()
		return nil, nil, AdvertisedProblem(seed, advertised[0], all[0])
	}
	return cl, reachable, nil
}

// AdvertisedProblem says that the address which a broker advertises cannot be reached, because of p.
func AdvertisedProblem(seed, addr string, p *Problem) *Problem {
	return &Problem{
		Found: fmt.Sprintf("the broker at %s advertises the address %s, but %s", seed, addr, p.Found),
		Fix:   "set its advertised.listeners to an address that can be reached from here",
		Wait:  p.Wait,
	}
}

// kafkaProblem describes the error of the first request.
func kafkaProblem(ctx context.Context, k Kafka, addr string, err error) *Problem {
	const givePassword = "correct --kafka-user and --kafka-password (better FANFARE_KAFKA_PASSWORD)"
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return Permanent(addr+" refuses the user or the password", givePassword)
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return Permanent(fmt.Sprintf("%s does not accept a login by %s", addr, k.SASL),
			"choose another --kafka-sasl: plain, scram-sha-256 or scram-sha-512; leave --kafka-user out to connect without a login")
	}
	if k.TLS {
		if p := tlsProblem(addr, k.expected().dropTLS, err); p != nil {
			return p
		}
	}
	if p := k.expected().problem(ctx, addr); p != nil {
		return p
	}
	if errors.Is(err, io.EOF) && k.User != "" {
		return doubtful(fmt.Sprintf("%s closes the connection at the login by %s", addr, k.SASL), givePassword+", or choose another --kafka-sasl")
	}
	if errors.As(err, &eof) && k.User == "" {
		return doubtful(addr+" closes the connection as soon as it is used: it wants a login",
			"give --kafka-user and --kafka-password (better FANFARE_KAFKA_PASSWORD), and --kafka-sasl if it is not plain")
	}
	if !stream.Temporary(err) {
		return Permanent(fmt.Sprintf("%s refuses our request (%s)", addr, reason(err)), "do what it says; see the log of the broker")
	}
	return transient(fmt.Sprintf("%s does not answer as it should (%s)", addr, reason(err)), "see the log of the broker")
}

// kafkaNeeds are the requests that Fanfare cannot do without, and the first version of Kafka that has them.
var kafkaNeeds = []struct {
	key     kmsg.Key
	version int16
	since   string
	why     string
}{
	{kmsg.TxnOffsetCommit, 3, "2.5", "transactions that commit offsets for a group (KIP-447)"},
	{kmsg.InitProducerID, 3, "2.5", "producers that continue after an error (KIP-360)"},
	{kmsg.OffsetFetch, 7, "2.5", "reading offsets that no open transaction will change (KIP-447)"},
	{kmsg.Metadata, 10, "2.8", "topic ids (KIP-516)"},
}

// kafkaTooOld says that a broker lacks a request that Fanfare needs; nil: it has all of them.
func kafkaTooOld(addr string, have *kversion.Versions) *Problem {
	for _, n := range kafkaNeeds {
		if version, ok := have.LookupMaxKeyVersion(n.key.Int16()); !ok || version < n.version {
			return Permanent(fmt.Sprintf("%s is Kafka %s, which lacks %s, new in Kafka %s", addr, have.VersionGuess(), n.why, n.since), "use Kafka 2.8 or newer")
		}
	}
	return nil
}
