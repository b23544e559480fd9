package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

type event struct {
	kind schemas.Kind
	try  uint32
	ref  string
}

// The promises, each with a history that keeps it and one that breaks it.
func TestPromises(t *testing.T) {
	const (
		sent, bounced, returned, ambiguous = schemas.KindSent, schemas.KindBounced, schemas.KindReturned, schemas.KindAmbiguous
		delivered, undelivered             = schemas.KindDelivered, schemas.KindUndelivered
		notSent, skipped                   = schemas.KindNotSent, schemas.KindSkipped
	)
	for _, c := range []struct {
		name   string
		events []event
		want   string // a part of the breach; "": none
	}{
		{"delivered", []event{{sent, 1, "a"}, {delivered, 1, "a"}}, ""},
		{"a receipt before the outcome", []event{{delivered, 1, "a"}, {sent, 1, "a"}}, ""},
		{"an event written again", []event{{sent, 1, "a"}, {sent, 1, "a"}, {delivered, 1, "a"}, {delivered, 1, "a"}}, ""},
		{"awaiting", []event{{sent, 1, "a"}}, ""},
		{"not sent", []event{{notSent, 1, ""}}, ""},
		{"skipped", []event{{skipped, 1, ""}}, ""},
		{"returned and sent", []event{{returned, 1, ""}, {sent, 2, "a"}}, ""},
		{"bounced and sent", []event{{sent, 1, "a"}, {bounced, 1, "a"}, {sent, 2, "b"}, {delivered, 2, "b"}}, ""},
		{"a late receipt of a try that bounced", []event{{sent, 1, "a"}, {bounced, 1, "a"}, {sent, 2, "b"}, {delivered, 1, "a"}}, ""},
		{"bounced and not sent", []event{{sent, 1, "a"}, {bounced, 1, "a"}, {notSent, 2, ""}}, ""},
		{"in doubt", []event{{ambiguous, 1, ""}}, ""},
		{"a doubt that was resolved", []event{{ambiguous, 1, ""}, {returned, 1, ""}, {sent, 2, "a"}}, ""},
		{"bounced, then in doubt", []event{{sent, 1, "a"}, {bounced, 1, "a"}, {ambiguous, 2, ""}}, ""},
		{"a doubt that a receipt ended", []event{{ambiguous, 1, ""}, {undelivered, 1, ""}}, ""},

		{"lost", nil, "lost"},
		{"pending", []event{{returned, 1, ""}}, "pending at the end"},
		{"bounced and never ended", []event{{sent, 1, "a"}, {bounced, 1, "a"}, {returned, 2, ""}}, ""},
		{"sent twice", []event{{sent, 1, "a"}, {sent, 2, "b"}}, "without a bounce"},
		{"sent twice, by its receipts", []event{{delivered, 1, ""}, {delivered, 2, ""}}, "without a bounce"},
		{"taken twice", []event{{sent, 1, "a"}, {sent, 1, "b"}}, "took try 1 twice"},
		{"sent after a doubt", []event{{ambiguous, 1, ""}, {sent, 2, "a"}}, "not known"},
		{"sent between two doubts", []event{{ambiguous, 1, ""}, {sent, 2, "a"}, {ambiguous, 3, ""}}, "not known"},
		{"sent and not sent", []event{{sent, 1, "a"}, {notSent, 1, ""}}, "never sent"},
		{"skipped and sent", []event{{skipped, 1, ""}, {sent, 2, "a"}}, "never sent"},
	} {
		for _, single := range []bool{false, true} {
			l := newLedger(&options{campaigns: 1, people: 1, singles: 1})
			now := time.Unix(1_700_000_000, 0)
			message := schemas.ID{1}
			ask := func() {
				if single {
					l.askSingle(message, now)
				} else {
					l.askCampaign(7, now)
					l.confirmed(7)
				}
			}
			if !single {
				ask()
			}
			for i, e := range c.events {
				number := uint64(7)
				if single {
					number = 9
				}
				d := &fanfarev1.Delivery{CampaignNumber: number, Kind: e.kind, Try: e.try, ProviderId: e.ref, MessageId: message[:]}
				l.read(d, now.Add(time.Duration(i+1)*time.Second))
			}
			if single { // the answer of the API is the last thing that the run gets
				ask()
			}
			broken, words, _ := l.verdict()
			if (broken > 0) != (c.want != "") || !strings.Contains(strings.Join(words, "\n"), c.want) {
				t.Errorf("%s (single %v): got %q, want %q", c.name, single, words, c.want)
			}
		}
	}
}

// Events of others are not counted, and do not fill the memory.
func TestForeignEvents(t *testing.T) {
	l := newLedger(&options{campaigns: 1, people: 2})
	l.askCampaign(7, time.Unix(0, 0))
	l.confirmed(7)
	for n := range uint64(mostEarly + 10) {
		id := schemas.ID{byte(n), byte(n >> 8), byte(n >> 16), 1}
		l.read(&fanfarev1.Delivery{CampaignNumber: 100, Kind: schemas.KindSent, Try: 1, MessageId: id[:]}, time.Unix(1, 0))
	}
	l.read(&fanfarev1.Delivery{CampaignNumber: 7, Seq: 2, Kind: schemas.KindSent, Try: 1}, time.Unix(1, 0))
	if l.earlyAll != mostEarly || l.forgotten != 10 || l.answered != 0 {
		t.Errorf("%d events wait, %d are forgotten, %d answered, want %d, 10, 0", l.earlyAll, l.forgotten, l.answered, mostEarly)
	}
	if broken, words, _ := l.verdict(); broken != 3 || !strings.Contains(words[0], "an event of recipient 2") {
		t.Errorf("got %d %q, want 2 lost and an event of a recipient that does not exist", broken, words)
	}
}

// A recipient of a campaign is lost only if the API has answered the confirm.
func TestUnconfirmed(t *testing.T) {
	l := newLedger(&options{campaigns: 2, people: 3})
	l.askCampaign(7, time.Unix(0, 0))
	l.askCampaign(8, time.Unix(0, 0))
	l.confirmed(8)
	l.read(&fanfarev1.Delivery{CampaignNumber: 7, Kind: schemas.KindReturned, Try: 1}, time.Unix(1, 0)) // the confirm was heard after all
	if broken, words, _ := l.verdict(); broken != 4 || strings.Count(strings.Join(words, "\n"), "lost") != 3 {
		t.Errorf("got %d %q, want the three of the second campaign and the pending one of the first", broken, words)
	}
}

// The reading of events ends when the broker refuses them for good, or has lost some; nobody is lost then.
func TestFatal(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{kerr.TopicAuthorizationFailed, true},
		{fmt.Errorf("fetch: %w", kerr.SaslAuthenticationFailed), true},
		{&kgo.ErrDataLoss{Topic: "deliveries"}, true},
		{kerr.NotLeaderForPartition, false},
		{kerr.UnknownTopicOrPartition, false},
		{context.Canceled, false},
		{io.EOF, false},
	} {
		if err := fatal(kgo.NewErrFetch(c.err)); (err != nil) != c.want || c.want && !errors.Is(err, c.err) {
			t.Errorf("%v: got %v, want an error %v", c.err, err, c.want)
		}
	}
}

// Percentiles are at most 2 % too great.
func TestHistogram(t *testing.T) {
	var h histogram
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(rng.NormFloat64()*2) * float64(30*time.Millisecond))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{.01, .5, .9, .99, .999, 1} {
		want := max(all[int(math.Ceil(q*float64(len(all))))-1], smallest)
		if got := h.quantile(q); got < want || float64(got) > 1.03*float64(want) {
			t.Errorf("quantile %v: got %s, want %s and at most 3 %% more", q, got, want)
		}
	}
	if got := (&histogram{}).quantile(.5); got != 0 {
		t.Errorf("of nothing: got %s", got)
	}
}

// Each wrong flag is named, with what to give instead.
func TestOptions(t *testing.T) {
	parsed := func(args string) (options, error) {
		return parse(strings.Fields(args), func(string) string { return "" }, io.Discard)
	}
	for args, want := range map[string]string{
		"":                                  "--key",
		"--key k":                           "--data",
		"--key k --data d --kafka h:1":      "--data",
		"--key k --data d --campaigns 1001": "--campaigns",
		"--key k --data d --campaigns 1000 --people 1001": "at most 1000000",
		"--key k --data d --campaigns 0":                  "nothing to send",
		"--key k --data d --rate 0":                       "--rate",
		"--key k --data d --per-request 1001":             "--per-request",
		"--key k --data d --api ftp://x":                  "--api",
		"--key k --data d --timeout 25h":                  "--timeout",
		"--key k --data d --prefix /":                     "--prefix",
		"--key k --data d more":                           "arguments",
	} {
		if _, err := parsed(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error about %s", args, err, want)
		}
	}
	if o, err := parsed("--key k --kafka a:1,b:2 --singles 5"); err != nil || len(o.kafka.Brokers) != 2 || o.total() != 1005 {
		t.Errorf("got %+v, %v", o, err)
	}
}
