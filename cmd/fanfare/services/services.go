// Package services connects to the services that Fanfare runs on: Kafka, Redis, Postgres and ClickHouse. When a service
// cannot be used, it says in words why, what to do about it, and whether waiting may help.
//
// The Open functions connect with the same settings as the roles do and return once the service has let them in. They
// are used when a process starts and by `fanfare doctor`.
package services

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Config says where the services are. A service without an address is embedded in the process.
type Config struct {
	Kafka      Kafka
	Redis      string // see [RedisOptions]
	Postgres   string // postgres://…
	ClickHouse string // clickhouse://…
}

// Kafka says where the brokers are and how to log in.
type Kafka struct {
	Brokers  []string // host:port
	TLS      bool
	CA       string // file with the certificates that sign those of the brokers; "": the certificates of this machine
	SASL     string // plain, scram-sha-256 or scram-sha-512
	User     string // "": no login
	Password string
	// Options of every client, in addition to the settings above. Tests put a dialer here.
	Options []kgo.Opt
}

// SASLMechanisms are the values of Kafka.SASL.
var SASLMechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}

// ClientOptions returns the options that every client of Kafka needs: TLS, login, and k.Options.
func (k Kafka) ClientOptions() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	if k.TLS {
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if k.CA != "" {
			pem, err := os.ReadFile(k.CA)
			if err != nil {
				return nil, fmt.Errorf("--kafka-ca: %w", err)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("--kafka-ca %s: the file has no certificate (want PEM)", k.CA)
			}
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if k.User != "" {
		var login sasl.Mechanism
		switch k.SASL {
		case "scram-sha-256":
			login = scram.Auth{User: k.User, Pass: k.Password}.AsSha256Mechanism()
		case "scram-sha-512":
			login = scram.Auth{User: k.User, Pass: k.Password}.AsSha512Mechanism()
		default:
			login = plain.Auth{User: k.User, Pass: k.Password}.AsMechanism()
		}
		opts = append(opts, kgo.SASL(login))
	}
	return append(opts, k.Options...), nil
}

// RedisOptions reads host:port, several of them separated by commas (a Redis Cluster), or a redis:// or rediss:// URL.
func RedisOptions(addr string) (*redis.UniversalOptions, error) {
	if strings.Contains(addr, "://") {
		o, err := redis.ParseURL(addr)
		if err != nil {
			return nil, fmt.Errorf("--redis: %w", err)
		}
		return &redis.UniversalOptions{
			Addrs: []string{o.Addr}, Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig,
		}, nil
	}
	return &redis.UniversalOptions{Addrs: strings.Split(addr, ",")}, nil
}

// Timeout is how long one attempt waits for a service to answer. A healthy one answers within milliseconds.
const Timeout = 4 * time.Second

// A Problem says why a service cannot be used, and what to do about it.
type Problem struct {
	Found, Fix string
	Wait       Wait
}

// Wait says whether waiting may solve a problem.
type Wait int

// How long waiting may help.
const (
	// WaitNot: only a person can solve it, such as a wrong password, protocol or version.
	WaitNot Wait = iota
	// WaitBriefly: probably a wrong setting, but a service that is just starting or stopping may look the same for a
	// moment.
	WaitBriefly
	// WaitLong: a service that is starting, failing over or overloaded looks like this.
	WaitLong
)

// Permanent returns a problem that waiting does not solve.
func Permanent(found, fix string) *Problem { return &Problem{Found: found, Fix: fix, Wait: WaitNot} }

// doubtful returns a problem that is worth a short wait.
func doubtful(found, fix string) *Problem { return &Problem{Found: found, Fix: fix, Wait: WaitBriefly} }

// transient returns a problem that waiting may solve.
func transient(found, fix string) *Problem { return &Problem{Found: found, Fix: fix, Wait: WaitLong} }

// Error returns both sentences in one line.
func (p *Problem) Error() string { return p.Found + ": " + p.Fix }

// OneLine puts the text of another program into one line of at most 300 bytes.
func OneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// WithoutPassword returns an address that may be shown.
func WithoutPassword(addr string) string {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		if strings.Contains(addr, "@") {
			return "(an address that cannot be read)"
		}
		return addr
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// orElse returns s, or other if s is empty.
func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
