package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"fanfare/cmd/fanfare/services"
	"fanfare/schemas"
)

// Bounds of a run.
const (
	mostRecipients  = 1_000_000 // of all campaigns and single sends together
	mostCampaigns   = 1000
	mostConcurrency = 256
	mostPerRequest  = 1000 // the API takes no more
)

// options are the settings from the command line and the environment.
type options struct {
	api, key     string
	data         string
	kafka        services.Kafka
	names        schemas.Names
	campaigns    int
	people       int // of each campaign
	campaignRate int
	singles      int
	perRequest   int
	rate         float64
	concurrency  int
	message      string
	timeout      time.Duration
	receipts     time.Duration
	json         bool
}

// parse reads the command line, and takes secrets that it lacks from the environment.
func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.api, "api", "http://127.0.0.1:8080", "`address` of the API")
	f.StringVar(&o.key, "key", "", "API key with the scopes campaigns, confirm, contacts and send; a test key will do (default: $FANFARE_KEY)")
	f.StringVar(&o.data, "data", "", "`directory` of a Fanfare on this machine with an embedded broker, instead of --kafka")
	brokers := f.String("kafka", "", "`addresses` of Kafka brokers, host:port, separated by commas")
	f.BoolVar(&o.kafka.TLS, "kafka-tls", false, "use TLS to Kafka")
	f.StringVar(&o.kafka.CA, "kafka-ca", "", "`file` with the certificates of the authorities of the brokers (default: the authorities of this machine)")
	f.StringVar(&o.kafka.User, "kafka-user", "", "user to log in to Kafka as, who may read the topic deliveries (default: none)")
	f.StringVar(&o.kafka.Password, "kafka-password", "", "the user's password (default: $FANFARE_KAFKA_PASSWORD)")
	f.StringVar(&o.kafka.SASL, "kafka-sasl", "plain", "how to log in: "+strings.Join(services.SASLMechanisms, ", "))
	prefix := f.String("prefix", schemas.DefaultPrefix, "first part of the names of topics")
	f.IntVar(&o.campaigns, "campaigns", 1, "how many campaigns, all to the same people")
	f.IntVar(&o.people, "people", 1000, "recipients of each campaign")
	f.IntVar(&o.campaignRate, "campaign-rate", 0, "limit of each campaign, messages per second; 0: none of its own")
	f.IntVar(&o.singles, "singles", 0, "how many single sends")
	f.IntVar(&o.perRequest, "per-request", 1, "destinations of one request of single sends")
	f.Float64Var(&o.rate, "rate", 10, "most requests per second; the API's limit of the key holds, too")
	f.IntVar(&o.concurrency, "concurrency", 8, "most requests at once")
	f.StringVar(&o.message, "message", "Load test of Fanfare", "text of the messages")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long the run may take; what has no outcome by then is lost")
	f.DurationVar(&o.receipts, "receipts", 30*time.Second, "how long to wait for receipts after the last outcome; a carrier owes none")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q: there are no arguments, only flags (loadgen --help)", f.Arg(0))
	}
	o.key = cmp.Or(o.key, getenv("FANFARE_KEY"))
	o.kafka.Password = cmp.Or(o.kafka.Password, getenv("FANFARE_KAFKA_PASSWORD"))
	if *brokers != "" {
		o.kafka.Brokers = strings.Split(*brokers, ",")
	}
	var err error
	if o.names, err = schemas.NewNames(*prefix); err != nil {
		return o, fmt.Errorf("--prefix: %w", err)
	}
	return o, o.check()
}

// check returns everything that is wrong.
func (o *options) check() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	u, err := url.Parse(o.api)
	want(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", "--api %q: want the address of the API, such as http://127.0.0.1:8080", o.api)
	want(o.key != "", "--key: give an API key (fanfare keys create), or set FANFARE_KEY")
	want((len(o.kafka.Brokers) == 0) != (o.data == ""), "give --data DIRECTORY of a Fanfare with an embedded broker, or --kafka HOST:PORT")
	want(slices.Contains(services.SASLMechanisms, o.kafka.SASL), "--kafka-sasl %q: want one of %s", o.kafka.SASL, strings.Join(services.SASLMechanisms, ", "))
	want(o.campaigns >= 0 && o.campaigns <= mostCampaigns, "--campaigns %d: want 0 to %d", o.campaigns, mostCampaigns)
	want(o.campaigns == 0 || o.people >= 1 && o.people <= mostRecipients, "--people %d: want 1 to %d", o.people, mostRecipients)
	want(o.singles >= 0 && o.singles <= mostRecipients, "--singles %d: want 0 to %d", o.singles, mostRecipients)
	want(o.campaignRate >= 0, "--campaign-rate %d: want 0 or more", o.campaignRate)
	if len(errs) == 0 { // the numbers are small enough to be multiplied
		want(o.total() >= 1, "--campaigns, --singles: there is nothing to send")
		want(o.total() <= mostRecipients, "--campaigns x --people + --singles are %d recipients: want at most %d", o.total(), mostRecipients)
	}
	want(o.perRequest >= 1 && o.perRequest <= mostPerRequest, "--per-request %d: want 1 to %d", o.perRequest, mostPerRequest)
	want(o.rate > 0 && o.rate <= 100_000, "--rate %g: want more than 0, up to 100,000 requests per second", o.rate)
	want(o.concurrency >= 1 && o.concurrency <= mostConcurrency, "--concurrency %d: want 1 to %d", o.concurrency, mostConcurrency)
	want(o.timeout > 0 && o.timeout <= 24*time.Hour, "--timeout %s: want more than 0, up to 24h", o.timeout)
	want(o.receipts >= 0 && o.receipts <= o.timeout, "--receipts %s: want 0 to --timeout", o.receipts)
	return errors.Join(errs...)
}

// total is how many recipients the run has.
func (o *options) total() int { return o.campaigns*o.people + o.singles }
