package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"
)

// Config of a process. Its names are those of the flags; FANFARE_SIM_RATE says the same as --sim-rate, and sim-rate in the
// file given by --config. A flag outranks the environment, which outranks the file.
type Config struct {
	Data  string   `koanf:"data"`
	HTTP  string   `koanf:"http"`
	Roles []string `koanf:"roles"`

	Kafka       []string `koanf:"kafka"`
	Redis       string   `koanf:"redis"`
	ClickHouse  string   `koanf:"clickhouse"`
	Store       string   `koanf:"store"`
	Prefix      string   `koanf:"prefix"`
	Replication int      `koanf:"replication"`

	KafkaTLS      bool   `koanf:"kafka-tls"`
	KafkaCA       string `koanf:"kafka-ca"`
	KafkaSASL     string `koanf:"kafka-sasl"`
	KafkaUser     string `koanf:"kafka-user"`
	KafkaPassword string `koanf:"kafka-password"`

	SimRate       int           `koanf:"sim-rate"`
	SimProfile    string        `koanf:"sim-profile"`
	SimSeed       uint64        `koanf:"sim-seed"`
	CarrierSim    string        `koanf:"carrier-sim"`
	ReceiptWindow time.Duration `koanf:"receipt-window"`

	IDKey     string `koanf:"id-key"`
	LogLevel  string `koanf:"log-level"`
	LogFormat string `koanf:"log-format"`

	// unknown are FANFARE_ variables that say nothing.
	unknown []string
}

// connectionFlags say where the services and the data are; every command that touches them has these.
func connectionFlags(f *pflag.FlagSet) {
	f.String("config", "", "YAML file with any of these settings")
	f.String("data", ".fanfare", "directory of everything that is embedded")
	f.StringSlice("kafka", nil, "addresses of Kafka brokers, host:port (default: embedded)")
	f.Bool("kafka-tls", false, "speak TLS with Kafka")
	f.String("kafka-ca", "", "file with the certificates that sign those of the brokers (default: those of this machine)")
	f.String("kafka-user", "", "user to log in to Kafka as (default: none)")
	f.String("kafka-password", "", "the user's password; better given in FANFARE_KAFKA_PASSWORD, where nobody sees it")
	f.String("kafka-sasl", "plain", "how to log in: plain, scram-sha-256 or scram-sha-512")
	f.String("redis", "", "address of Redis, host:port or redis://… (default: embedded)")
	f.String("clickhouse", "", "ClickHouse, clickhouse://user:password@host:9000/database (default: SQLite under --data)")
	f.String("store", "", "Postgres, postgres://… (default: SQLite under --data)")
	f.String("prefix", schemas.DefaultPrefix, "begins the names of topics, groups, transactional ids, Redis keys, the Postgres schema and the ClickHouse database")
	f.Int("replication", 1, "replicas of each topic, 3 in production")
	f.String("id-key", "", "hexadecimal secret that signs ids, two separated by a comma while rotating (default: made once and kept in the store)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "", "text or json (default: text on a terminal, else json)")
}

// serveFlags belong to the commands that run roles.
func serveFlags(f *pflag.FlagSet) {
	connectionFlags(f)
	f.String("http", "127.0.0.1:8080", "address of the API, /healthz, /readyz and /metrics; of fanfare demo, the live page too")
	f.StringSlice("roles", nil, "roles of this process: "+strings.Join(roleNames(), ", ")+" (default: all)")
	f.Int("sim-rate", 2000, "limit of the simulated carrier's route, messages per second")
	f.String("sim-profile", "default", "how the simulated carrier behaves: default or chaos")
	f.Uint64("sim-seed", 1, "seed of the simulated carrier")
	f.String("carrier-sim", "", "URL of a carriersim process that several processes share (default: in process)")
	f.Duration("receipt-window", 72*time.Hour, "how long after the last hand-over receipts are awaited")
}

// loadConfig reads file < environment < flags. environ is as in os.Environ.
func loadConfig(f *pflag.FlagSet, environ []string) (Config, error) {
	const delim = "\x00" // no setting is nested
	k := koanf.New(delim)
	path, _ := f.GetString("config")
	fromEnv := env.Provider(delim, env.Opt{
		Prefix:      "FANFARE_",
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			name = strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "FANFARE_")), "_", "-")
			if fl := f.Lookup(name); fl != nil && fl.Value.Type() == "stringSlice" {
				return name, strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
			}
			return name, value
		},
	})
	if path == "" {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, "FANFARE_CONFIG="); ok {
				path = v
			}
		}
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("--config %s: %w", path, err)
		}
		for _, name := range k.Keys() {
			if f.Lookup(name) == nil {
				return Config{}, fmt.Errorf("--config %s: there is no setting %q; settings are named as the flags (fanfare serve --help)", path, name)
			}
		}
	}
	if err := k.Load(fromEnv, nil); err != nil {
		return Config{}, fmt.Errorf("environment: %w", err)
	}
	if err := k.Load(posflag.Provider(f, delim, k), nil); err != nil {
		return Config{}, fmt.Errorf("flags: %w", err)
	}
	var cfg Config
	for _, name := range k.Keys() {
		if fl := f.Lookup(name); fl != nil {
			if err := accepts(fl, k.Get(name)); err != nil {
				return Config{}, fmt.Errorf("%s: %w", where(name, f, environ, path), err)
			}
		}
	}
	if err := k.Unmarshal("", &cfg); err != nil {
		return Config{}, fmt.Errorf("settings: %w", err)
	}
	cfg.unknown = unknownVariables(environ)
	err := cfg.Validate()
	if f.Lookup("sim-rate") != nil && cfg.SimRate < 1 { // commands without the flag have no rate
		err = errors.Join(err, fmt.Errorf("--sim-rate %d: want 1 to 1,000,000 messages per second", cfg.SimRate))
	}
	if f.Lookup("receipt-window") != nil && cfg.ReceiptWindow <= 0 {
		err = errors.Join(err, fmt.Errorf("--receipt-window %s: want more than 0, up to 720h", cfg.ReceiptWindow))
	}
	return cfg, err
}

// accepts says in words what a flag takes, when it does not take v.
func accepts(fl *pflag.Flag, v any) error {
	text := fmt.Sprint(v)
	var err error
	want := ""
	switch fl.Value.Type() {
	case "int":
		_, err = strconv.Atoi(text)
		want = "a whole number"
	case "uint64":
		_, err = strconv.ParseUint(text, 10, 64)
		want = "a whole number from 0"
	case "bool":
		_, err = strconv.ParseBool(text)
		want = "true or false"
	case "duration":
		_, err = time.ParseDuration(text)
		want = "a duration such as 72h, 15m or 20s"
	}
	if err != nil {
		return fmt.Errorf("%q is not %s", text, want)
	}
	return nil
}

// where a setting comes from.
func where(name string, f *pflag.FlagSet, environ []string, path string) string {
	if f.Changed(name) {
		return "--" + name
	}
	variable := "FANFARE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	if slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, variable+"=") }) {
		return variable
	}
	return fmt.Sprintf("--config %s: %s", path, name)
}

// ofServices are the variables that Kubernetes and Docker set for services of that name.
var ofServices = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_.*)?|ENV_.*|NAME)$`)

// unknownVariables are those that look like a setting and are none: a misspelt one says nothing, and nobody notices.
func unknownVariables(environ []string) []string {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	serveFlags(all)
	var unknown []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, "FANFARE_")
		if !ours || value == "" || strings.HasPrefix(rest, "TEST_") || ofServices.MatchString(rest) || ofServices.MatchString(name) {
			continue
		}
		if all.Lookup(strings.ReplaceAll(strings.ToLower(rest), "_", "-")) == nil {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// kafkaOptions are how Kafka is reached: TLS, and a login.
func (c Config) kafkaOptions() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	if c.KafkaTLS {
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.KafkaCA != "" {
			pem, err := os.ReadFile(c.KafkaCA)
			if err != nil {
				return nil, fmt.Errorf("--kafka-ca: %w", err)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("--kafka-ca %s: there is no certificate in it (want PEM)", c.KafkaCA)
			}
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if c.KafkaUser != "" {
		var login sasl.Mechanism
		switch c.KafkaSASL {
		case "scram-sha-256":
			login = scram.Auth{User: c.KafkaUser, Pass: c.KafkaPassword}.AsSha256Mechanism()
		case "scram-sha-512":
			login = scram.Auth{User: c.KafkaUser, Pass: c.KafkaPassword}.AsSha512Mechanism()
		default:
			login = plain.Auth{User: c.KafkaUser, Pass: c.KafkaPassword}.AsMechanism()
		}
		opts = append(opts, kgo.SASL(login))
	}
	return opts, nil
}

// Validate returns every mistake at once, each with what to do.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := schemas.NewNames(c.Prefix); err != nil {
		bad("--prefix: %w", err)
	}
	if c.Data == "" {
		bad("--data: give a directory")
	}
	if c.HTTP != "" {
		if _, _, err := net.SplitHostPort(c.HTTP); err != nil {
			bad("--http %q: want host:port, such as 127.0.0.1:8080", c.HTTP)
		}
	}
	for _, b := range c.Kafka {
		if _, _, err := net.SplitHostPort(b); err != nil {
			bad("--kafka %q: want host:port, such as kafka-1:9092", b)
		}
	}
	known := true
	for _, r := range c.Roles {
		if !slices.Contains(roleNames(), r) {
			known = false
			bad("--roles: there is no role %q; roles are %s", r, strings.Join(roleNames(), ", "))
		}
	}
	if some := len(c.Roles) > 0 && len(c.Roles) < len(roleNames()); some && known {
		if len(c.Kafka) == 0 {
			bad("--roles: some roles alone need --kafka: an embedded broker cannot be shared between processes")
		}
		if c.Redis == "" && c.needs(needRedis) {
			bad("--roles: sender and tracker alone need --redis: limits that each process keeps for itself hold for none")
		}
	}
	if c.SimRate > 1_000_000 {
		bad("--sim-rate %d: want 1 to 1,000,000 messages per second", c.SimRate)
	}
	if c.ReceiptWindow > 30*24*time.Hour {
		bad("--receipt-window %s: want more than 0, up to 720h", c.ReceiptWindow)
	}
	if c.Replication != 1 && c.Replication != 3 {
		bad("--replication %d: want 1, or 3 in production", c.Replication)
	}
	if !slices.Contains([]string{"", "plain", "scram-sha-256", "scram-sha-512"}, c.KafkaSASL) {
		bad("--kafka-sasl %q: want plain, scram-sha-256 or scram-sha-512", c.KafkaSASL)
	}
	if len(c.Kafka) == 0 && (c.KafkaTLS || c.KafkaUser != "" || c.KafkaCA != "") {
		bad("--kafka-tls, --kafka-ca and --kafka-user are for brokers named by --kafka")
	}
	if c.KafkaCA != "" && !c.KafkaTLS {
		bad("--kafka-ca: add --kafka-tls")
	}
	if c.Store != "" && !strings.HasPrefix(c.Store, "postgres://") && !strings.HasPrefix(c.Store, "postgresql://") {
		bad("--store: want postgres://USER:PASSWORD@HOST:5432/DATABASE; without --store everything is kept in SQLite under --data")
	}
	if c.Redis != "" {
		if _, err := redisOptions(c.Redis); err != nil {
			bad("--redis: want HOST:PORT, several of them separated by commas, or redis://USER:PASSWORD@HOST:6379/0")
		}
	}
	if c.ClickHouse != "" {
		if opts, err := chgo.ParseDSN(c.ClickHouse); err != nil || opts.Protocol != chgo.Native || len(opts.Addr) == 0 || opts.Addr[0] == "" {
			bad("--clickhouse: want clickhouse://USER:PASSWORD@HOST:9000/DATABASE")
		}
	}
	if c.SimProfile != "" {
		if _, err := sim.ProfileNamed(c.SimProfile); err != nil {
			bad("--sim-profile %q: want one of %s", c.SimProfile, strings.Join(sim.ProfileNames, ", "))
		}
	}
	if c.CarrierSim != "" {
		if u, err := url.Parse(c.CarrierSim); err != nil || u.Scheme != "http" || u.Host == "" {
			bad("--carrier-sim %q: want a URL such as http://127.0.0.1:9999", c.CarrierSim)
		}
	}
	return errors.Join(errs...)
}

// embeddedBroker reports whether the process runs its own Kafka.
func (c Config) embeddedBroker() bool { return len(c.Kafka) == 0 }

// storeDSN is where the control plane is kept.
func (c Config) storeDSN() string {
	if c.Store != "" {
		return c.Store
	}
	return filepath.Join(c.Data, "store.db")
}

// has reports whether the process runs a role.
func (c Config) has(role string) bool { return len(c.Roles) == 0 || slices.Contains(c.Roles, role) }

// schemaName is the prefix as Postgres and ClickHouse want a name: fanfare. is fanfare.
func (c Config) schemaName() string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return r
	}, c.Prefix), "_")
	return name
}

// loopback reports whether an address is of this machine alone.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ensureDataDir makes the directory that holds what is embedded.
func ensureDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("--data %s: %w", dir, err)
	}
	return nil
}

// rolesToRun are the roles of this process.
func (c Config) rolesToRun() []string {
	if len(c.Roles) == 0 {
		return roleNames()
	}
	return c.Roles
}
