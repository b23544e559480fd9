package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/cmd/fanfare/services"
	"fanfare/schemas"
)

// Config holds the settings of a process, named as the flags. FANFARE_SIM_RATE means the same as --sim-rate, and as
// sim-rate in the file given by --config. A flag wins over the environment, and the environment wins over the file.
type Config struct {
	Data  string   `koanf:"data"`
	HTTP  string   `koanf:"http"`
	Edge  string   `koanf:"edge"`
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
	SimHandsets   bool          `koanf:"sim-handsets"`
	SimReplies    int           `koanf:"sim-replies"`
	CarrierSim    string        `koanf:"carrier-sim"`
	ReceiptWindow time.Duration `koanf:"receipt-window"`

	PublicURL        string `koanf:"public-url"`
	OIDCIssuer       string `koanf:"oidc-issuer"`
	OIDCClientID     string `koanf:"oidc-client-id"`
	OIDCClientSecret string `koanf:"oidc-client-secret"`

	LinkURL string   `koanf:"link-url"`
	Proxies []string `koanf:"proxies"`

	DomainChecks     time.Duration `koanf:"domain-checks"`
	DomainBlocklists []string      `koanf:"domain-blocklists"`

	WebhookAllow []string `koanf:"webhook-allow"`

	OTLPEndpoint string `koanf:"otlp-endpoint"`
	TraceOneIn   int    `koanf:"trace-one-in"`

	StartTimeout time.Duration `koanf:"start-timeout"`

	IDKey          string `koanf:"id-key"`
	CredentialsKey string `koanf:"credentials-key"`
	RouteFile      string `koanf:"route-file"`
	LogLevel       string `koanf:"log-level"`
	LogFormat      string `koanf:"log-format"`

	// kafkaOptions are further options of every client of Kafka: tests put a dialer here.
	kafkaOptions []kgo.Opt
	// unknown are FANFARE_ variables that name no setting.
	unknown []string
}

// connectionFlags say where the services and the data are. Every command that uses them has these flags.
func connectionFlags(f *pflag.FlagSet) {
	f.String("config", "", "YAML file with any of these settings")
	f.String("data", ".fanfare", "directory of everything that is embedded")
	f.StringSlice("kafka", nil, "addresses of Kafka brokers, host:port (default: embedded)")
	f.Bool("kafka-tls", false, "use TLS to Kafka")
	f.String("kafka-ca", "", "file with the certificates of the authorities that sign those of the brokers (default: the authorities of this machine)")
	f.String("kafka-user", "", "user to log in to Kafka as (default: none)")
	f.String("kafka-password", "", "the user's password; better given in FANFARE_KAFKA_PASSWORD, because ps shows flags")
	f.String("kafka-sasl", "plain", "how to log in: plain, scram-sha-256 or scram-sha-512")
	f.String("redis", "", "address of Redis, host:port or redis://… (default: embedded)")
	f.String("clickhouse", "", "ClickHouse, clickhouse://user:password@host:9000/database (default: SQLite under --data)")
	f.String("store", "", "Postgres, postgres://… (default: SQLite under --data)")
	f.String("prefix", schemas.DefaultPrefix, "first part of the names of topics, groups, transactional ids, Redis keys, the Postgres schema and the ClickHouse database")
	f.Int("replication", 1, "replicas of each topic, 3 in production")
	f.Duration("start-timeout", time.Minute, "how long a start waits for services that are not ready")
	f.String("id-key", "", "hexadecimal secret that signs ids, two separated by a comma while rotating (default: made once and kept in the store)")
	f.String("credentials-key", "", "key that seals the credentials of routes, 64 hexadecimal digits; after a comma the one before it; better given in FANFARE_CREDENTIALS_KEY (default: made once and kept under --data)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "", "text or json (default: text on a terminal, else json)")
}

// serveFlags belong to the commands that run roles.
func serveFlags(f *pflag.FlagSet) {
	connectionFlags(f)
	f.String("http", "127.0.0.1:8080", "address of the API, /healthz, /readyz and /metrics; with fanfare demo of the live page, too")
	f.String("edge", "", "address of the public listener, which answers links and nothing else (default: the role edge does not run)")
	f.String("link-url", "", "public address of the role edge, such as https://go.example.com, with which links in messages begin; the role api needs it (default: the address of --edge, if this process has it)")
	f.String("public-url", "", "address by which browsers reach the console, such as https://fanfare.example.com; with https its cookies travel by nothing else")
	f.String("oidc-issuer", "", "address of an OpenID Connect provider by which people log in to the console; needs --public-url, whose /login/oidc/callback the provider must allow (default: none)")
	f.String("oidc-client-id", "", "what the provider knows the console by")
	f.String("oidc-client-secret", "", "the console's secret at the provider; better given in FANFARE_OIDC_CLIENT_SECRET, because ps shows flags")
	f.StringSlice("proxies", nil, "ranges of addresses of your own proxies before the console and the edge, which believe their X-Forwarded-For; the edge also their X-Forwarded-Host (default: none)")
	f.Duration("domain-checks", 10*time.Minute, "how often the role api checks that each domain of links resolves, has a valid certificate and is on none of --domain-blocklists; 0: never, for processes that do not reach the edge from outside")
	f.StringSlice("domain-blocklists", nil, "zones of the DNS that list blocked domains, such as dbl.spamhaus.org, whose terms of use you keep (default: none)")
	f.StringSlice("roles", nil, "roles of this process: "+strings.Join(roleNames(), ", ")+" (default: all)")
	f.Int("sim-rate", 2000, "limit of the simulated carrier's route, messages per second")
	f.String("sim-profile", "default", "how the simulated carrier behaves: default or chaos")
	f.Uint64("sim-seed", 1, "seed of the simulated carrier")
	f.Bool("sim-handsets", false, "let the phones behind the simulated carrier open links: of those that a message reaches, 12% tap its first link, 8% have a program that opens it, 2% opt out by its last one; needs --edge")
	f.Int("sim-replies", 3, "percent of those phones that answer a message from a number or a short code, a third of them STOP; 0: none does")
	f.String("carrier-sim", "", "URL of a carriersim process that several processes share (default: in process)")
	f.StringSlice("webhook-allow", nil, "private ranges of addresses that customers' webhooks and domains of links may be in, such as 10.1.0.0/16; the roles api and webhook need the same (default: none)")
	f.String("otlp-endpoint", "", "address of an OpenTelemetry collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318; all processes need the same (default: nothing is traced)")
	f.Int("trace-one-in", 1000, "with --otlp-endpoint: trace one in so many recipients; all processes need the same")
	f.String("route-file", "", "YAML file with routes, which are created or changed at the start (see deploy/README.md)")
	f.Duration("receipt-window", 72*time.Hour, "how long to wait for receipts after the last hand-over")
}

// loadConfig reads the file, then the environment, then the flags; the later wins. environ is as in os.Environ.
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
	if f.Lookup("sim-rate") != nil && cfg.SimRate < 1 { // other commands do not have this flag
		err = errors.Join(err, fmt.Errorf("--sim-rate %d: want 1 to 1,000,000 messages per second", cfg.SimRate))
	}
	if f.Lookup("receipt-window") != nil && cfg.ReceiptWindow <= 0 {
		err = errors.Join(err, fmt.Errorf("--receipt-window %s: want more than 0, up to 720h", cfg.ReceiptWindow))
	}
	return cfg, err
}

// accepts returns an error that lists the values of a flag if v is not one of them.
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

// where returns the source of a setting: flag, environment or file.
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

// serviceVariables are the variables that Kubernetes and Docker set in every process for a service of that name.
var serviceVariables = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_.*)?|ENV_.*|NAME)$`)

// unknownVariables returns the FANFARE_ variables that name no setting, so that a misspelt one is noticed.
func unknownVariables(environ []string) []string {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	serveFlags(all)
	var unknown []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, "FANFARE_")
		if !ours || value == "" || strings.HasPrefix(rest, "TEST_") || serviceVariables.MatchString(rest) || serviceVariables.MatchString(name) {
			continue
		}
		if all.Lookup(strings.ReplaceAll(strings.ToLower(rest), "_", "-")) == nil {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// webhookAllow returns the ranges of --webhook-allow; Validate has checked them.
func (c Config) webhookAllow() (out []netip.Prefix) {
	for _, text := range c.WebhookAllow {
		if p, err := parseRange(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// parseRange reads a range of addresses, or one address.
func parseRange(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.Unmap().WithZone("").Prefix(ip.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return p.Masked(), nil
}

// proxies returns the ranges of --proxies; Validate has checked them.
func (c Config) proxies() (out []netip.Prefix) {
	for _, text := range c.Proxies {
		if p, err := parseRange(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// embeddedBroker reports whether the process runs its own Kafka.
func (c Config) embeddedBroker() bool { return len(c.Kafka) == 0 }

// storeDSN returns the address of the store: Postgres, or the path of a SQLite file.
func (c Config) storeDSN() string {
	if c.Store != "" {
		return c.Store
	}
	return filepath.Join(c.Data, "store.db")
}

// has reports whether the process runs a role.
func (c Config) has(role string) bool {
	if len(c.Roles) == 0 {
		// the edge is reachable from the internet, so it runs only if it has an address
		return role != roleEdge || c.Edge != ""
	}
	return slices.Contains(c.Roles, role)
}

// schemaName returns the prefix as a name for Postgres and ClickHouse: `fanfare.` becomes `fanfare`.
func (c Config) schemaName() string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return r
	}, c.Prefix), "_")
	return name
}

// loopback reports whether only this machine can reach an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// rolesToRun returns the roles of this process.
func (c Config) rolesToRun() []string {
	if len(c.Roles) == 0 {
		return slices.DeleteFunc(roleNames(), func(role string) bool { return !c.has(role) })
	}
	return c.Roles
}

// services returns where the services are. A service without an address is embedded.
func (c Config) services() services.Config {
	return services.Config{
		Kafka: services.Kafka{
			Brokers: c.Kafka, TLS: c.KafkaTLS, CA: c.KafkaCA, SASL: c.KafkaSASL, User: c.KafkaUser, Password: c.KafkaPassword, Options: c.kafkaOptions,
		},
		Redis: c.Redis, Postgres: c.Store, ClickHouse: c.ClickHouse,
	}
}

// needsStore reports whether the process opens the store. Without --id-key even a sender asks the store for the key,
// once.
func (c Config) needsStore() bool { return c.needs(needStore) || c.IDKey == "" }

// keptInData reports whether the process keeps anything under --data.
func (c Config) keptInData() bool {
	return c.embeddedBroker() || c.needs(needRedis) && c.Redis == "" || c.needs(needStore) && c.Store == "" ||
		c.needs(needAnalytics) && c.ClickHouse == "" || c.has(roleEdge) || c.has("sender") && c.CarrierSim == ""
}
