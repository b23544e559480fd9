package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"fanfare/cmd/fanfare/services"
	"fanfare/cmd/fanfare/tracing"
	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"
)

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
			bad("--roles: a process with only some roles needs --kafka: processes cannot share an embedded broker")
		}
		if c.Redis == "" && c.needs(needRedis) {
			bad("--roles: sender and tracker need --redis if the other roles run elsewhere: limits hold only if all processes share one Redis")
		}
	}
	if c.Edge != "" {
		if _, _, err := net.SplitHostPort(c.Edge); err != nil {
			bad("--edge %q: want host:port, such as 0.0.0.0:8081", c.Edge)
		}
	} else if slices.Contains(c.Roles, roleEdge) {
		bad("--roles: the role edge needs --edge HOST:PORT, its public address on this machine")
	}
	if c.SimReplies < 0 || c.SimReplies > 50 {
		bad("--sim-replies %d: want 0 to 50 percent", c.SimReplies)
	}
	if c.SimHandsets && (c.Edge == "" || c.CarrierSim != "" || !c.has("sender") || !c.has(roleEdge)) {
		bad("--sim-handsets: the phones need the role edge (--edge) and the simulated carrier in this process, without --carrier-sim")
	}
	if c.LinkURL != "" {
		if _, err := linkBase(c.LinkURL); err != nil {
			bad("--link-url %q: %w", c.LinkURL, err)
		}
	}
	if c.PublicURL != "" {
		if _, err := linkBase(c.PublicURL); err != nil {
			bad("--public-url %q: %w", c.PublicURL, err)
		}
	}
	if c.OIDCIssuer != "" {
		if u, err := url.Parse(c.OIDCIssuer); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery+u.Fragment != "" {
			bad("--oidc-issuer %q: want https:// and the provider's address, such as https://login.example.com/realms/acme", c.OIDCIssuer)
		}
		for _, needed := range [][2]string{{"--oidc-client-id", c.OIDCClientID}, {"--oidc-client-secret", c.OIDCClientSecret}, {"--public-url", c.PublicURL}} {
			if needed[1] == "" {
				bad("--oidc-issuer: a log-in by a provider needs %s, too", needed[0])
			}
		}
	} else if c.OIDCClientID != "" || c.OIDCClientSecret != "" {
		bad("--oidc-client-id, --oidc-client-secret: they need --oidc-issuer, the address of the provider")
	}
	for _, text := range c.Proxies {
		if _, err := parseRange(text); err != nil {
			bad("--proxies %q: want a range of addresses such as 10.1.0.0/16", text)
		}
	}
	if c.DomainChecks != 0 && (c.DomainChecks < 10*time.Second || c.DomainChecks > 24*time.Hour) {
		bad("--domain-checks %s: want 10s to 24h, or 0 for never", c.DomainChecks)
	}
	for _, zone := range c.DomainBlocklists {
		if strings.Trim(zone, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || !strings.Contains(zone, ".") {
			bad("--domain-blocklists %q: want a zone of the DNS, such as dbl.spamhaus.org", zone)
		}
	}
	for _, text := range c.WebhookAllow {
		if _, err := parseRange(text); err != nil {
			bad("--webhook-allow %q: want a range of addresses such as 10.1.0.0/16", text)
		}
	}
	if c.OTLPEndpoint != "" {
		if _, err := tracing.Address(c.OTLPEndpoint); err != nil {
			bad("--otlp-endpoint %q: %w", c.OTLPEndpoint, err)
		}
		if c.TraceOneIn < 1 || c.TraceOneIn > 1_000_000_000 {
			bad("--trace-one-in %d: want 1 (every recipient) to 1,000,000,000", c.TraceOneIn)
		}
	}
	if c.SimRate > 1_000_000 {
		bad("--sim-rate %d: want 1 to 1,000,000 messages per second", c.SimRate)
	}
	if c.ReceiptWindow > 30*24*time.Hour {
		bad("--receipt-window %s: want more than 0, up to 720h", c.ReceiptWindow)
	}
	if c.StartTimeout < 0 || c.StartTimeout > time.Hour {
		bad("--start-timeout %s: want 0 to 1h", c.StartTimeout)
	}
	if c.Replication != 1 && c.Replication != 3 {
		bad("--replication %d: want 1, or 3 in production", c.Replication)
	}
	if c.KafkaSASL != "" && !slices.Contains(services.SASLMechanisms, c.KafkaSASL) {
		bad("--kafka-sasl %q: want one of %s", c.KafkaSASL, strings.Join(services.SASLMechanisms, ", "))
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
		if _, err := services.RedisOptions(c.Redis); err != nil {
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
