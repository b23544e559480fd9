package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/cmd/fanfare/services"
	"fanfare/deploy/embedded"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// result is what a run prints.
type result struct {
	Run        string         `json:"run"`
	Recipients int            `json:"recipients"`
	Refused    int64          `json:"refused"`
	Events     uint64         `json:"events"`
	States     map[string]int `json:"states"`
	Seconds    float64        `json:"seconds"`
	PerSecond  float64        `json:"per_second"` // answers
	Times      []times        `json:"times"`
	Broken     int            `json:"broken"`
	Breaches   []string       `json:"breaches"`
}

// times are percentiles in milliseconds.
type times struct {
	What  string  `json:"what"`
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Most  float64 `json:"max"`
}

func timesOf(what string, h *histogram) times {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return times{what, h.n, ms(h.quantile(.5)), ms(h.quantile(.9)), ms(h.quantile(.99)), ms(h.quantile(.999)), ms(h.most)}
}

// run makes the load, waits for what becomes of it, and judges.
func run(ctx context.Context, o options, stderr io.Writer) (*result, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cl, err := open(ctx, &o)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	l := newLedger(&o)
	s := &submitter{
		o: &o, run: "loadgen " + strings.ToLower(rand.Text()[:8]), ledger: l, pace: pace{every: time.Duration(float64(time.Second) / o.rate)},
		http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: o.concurrency, MaxConnsPerHost: o.concurrency}},
	}
	defer s.http.CloseIdleConnections()
	_, _ = fmt.Fprintf(stderr, "%s: %d recipients\n", s.run, o.total())

	reading, stopReading := context.WithCancel(ctx)
	var readErr error
	read := make(chan struct{})
	go func() {
		defer close(read)
		readErr = follow(reading, cl, l)
	}()
	began := time.Now()
	submitErr := s.submit(ctx)
	if submitErr == nil {
		await(ctx, l, o.receipts, read)
	}
	stopReading()
	<-read
	if readErr != nil {
		return nil, fmt.Errorf("read deliveries: %w", readErr)
	}
	if submitErr != nil && ctx.Err() == nil {
		return nil, submitErr
	}
	if err := context.Cause(ctx); errors.Is(err, context.Canceled) {
		return nil, errors.New("interrupted")
	}

	r := &result{Run: s.run, Refused: s.refused.Load()}
	r.Broken, r.Breaches, r.States = l.verdict()
	var last time.Time
	r.Recipients, _, _, last = l.progress()
	r.Events = l.events
	if submitErr != nil { // out of time
		r.Broken++
		r.Breaches = append(r.Breaches, fmt.Sprintf("not everything was submitted within --timeout: %v", submitErr))
	}
	if l.forgotten > 0 {
		_, _ = fmt.Fprintf(stderr, "%s: %d events were not read because other clients cause too many: the verdict on single sends may be wrong\n", s.run, l.forgotten)
	}
	if r.Seconds = last.Sub(began).Seconds(); r.Seconds > 0 {
		r.PerSecond = float64(l.answered) / r.Seconds
	} else {
		r.Seconds = 0
	}
	r.Times = []times{timesOf("request to answer of the API", &s.times), timesOf("request to sent", &l.sent), timesOf("request to delivered", &l.delivered)}
	return r, nil
}

// open returns a client that reads topic deliveries from here on.
func open(ctx context.Context, o *options) (*kgo.Client, error) {
	k := o.kafka
	if o.data != "" {
		c, err := embedded.ReadConnection(o.data)
		if err != nil {
			return nil, fmt.Errorf("--data %s: is a Fanfare with an embedded broker running there? %w", o.data, err)
		}
		k = services.Kafka{Brokers: []string{c.Brokers}, SASL: "plain", User: c.User, Password: c.Password}
	}
	opts, err := k.ClientOptions()
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.SeedBrokers(k.Brokers...), kgo.ClientID("loadgen"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	admin, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer admin.Close()
	asking, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	topic := o.names.Deliveries()
	ends, err := kadm.NewClient(admin).ListEndOffsets(asking, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka %s: read the ends of topic %s: %w", strings.Join(k.Brokers, ","), topic, err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(ends.KOffsets()))...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return cl, nil
}

// fatal returns an error of a fetch after which events would be missed, nil if there is none: records are gone, or the
// broker refuses to give them and trying again does not help.
func fatal(fetches kgo.Fetches) (fatal error) {
	fetches.EachError(func(topic string, p int32, err error) {
		_, gone := errors.AsType[*kgo.ErrDataLoss](err)
		if refused, ok := errors.AsType[*kerr.Error](err); gone || ok && !refused.Retriable {
			fatal = fmt.Errorf("topic %s, partition %d: %w", topic, p, err)
		}
	})
	return fatal
}

// follow reads events until ctx ends.
func follow(ctx context.Context, cl *kgo.Client, l *ledger) error {
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		at := time.Now()
		if err := fatal(fetches); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			d := &fanfarev1.Delivery{}
			if proto.Unmarshal(r.Value, d) == nil {
				l.read(d, at)
			}
		})
	}
	return nil
}

// await waits until every recipient has an answer and a final state, the wait for receipts is over, nothing is read any
// more, or ctx ends.
func await(ctx context.Context, l *ledger, receipts time.Duration, read <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, answered, final, last := l.progress()
		if final == all || answered == all && time.Since(last) >= receipts {
			return
		}
		select {
		case <-tick.C:
		case <-read:
			return
		case <-ctx.Done():
			return
		}
	}
}

// print writes the result.
func (r *result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "%s\t%d recipients, %d refused by the API, %d events, %.1f s to the last answer, %.0f answers/s\n", r.Run, r.Recipients, r.Refused, r.Events, r.Seconds, r.PerSecond)
	_, _ = fmt.Fprint(t, "states\t")
	for _, name := range []string{"delivered", "undelivered", "awaiting", "notSent", "skipped", "ambiguous", "pending"} {
		_, _ = fmt.Fprintf(t, "%s %d  ", name, r.States[name])
	}
	_, _ = fmt.Fprintln(t, "\n\nms\tcount\tp50\tp90\tp99\tp99.9\tmax")
	for _, x := range r.Times {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", x.What, x.Count, x.P50, x.P90, x.P99, x.P999, x.Most)
	}
	_, _ = fmt.Fprintln(t)
	if r.Broken == 0 {
		_, _ = fmt.Fprintln(t, "promises kept: each recipient has one answer, no submission was made twice")
	} else {
		_, _ = fmt.Fprintf(t, "PROMISES BROKEN: %d\n", r.Broken)
		for _, b := range r.Breaches {
			_, _ = fmt.Fprintln(t, " ", b)
		}
	}
	return t.Flush()
}
