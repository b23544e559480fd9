package sim

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Habits are the shares of phones that react to a delivered message. A phone does at most one thing.
type Habits struct {
	// Tap: a person opens the first link. Scan: a program opens it, with HEAD and as the preview of a messenger.
	// OptOut: a person opens the last link and sends the form that is there.
	Tap, Scan, OptOut float64
	// Stop: a person answers STOP. Answer: a person writes another text; one in five of these texts asks for no more
	// messages in other words. Both happen only if the sender is a number or a short code.
	Stop, Answer float64
	// Delay is the longest time between the delivery and the reaction.
	Delay time.Duration
}

// DefaultHabits are those of the demonstration.
var DefaultHabits = Habits{Tap: 0.12, Scan: 0.08, OptOut: 0.02, Stop: 0.01, Answer: 0.02, Delay: 5 * time.Second}

// What a phone did.
const (
	DidTap    = "tap"
	DidScan   = "scan"
	DidOptOut = "opt_out"
	DidStop   = "stop"
	DidAnswer = "answer"
)

// Did is one line of the phones' record.
type Did struct {
	Time       time.Time `json:"time"`
	Submission string    `json:"submission_id"`
	To         string    `json:"to"`
	Did        string    `json:"did"`
	Link       string    `json:"link,omitempty"`
	Text       string    `json:"text,omitempty"`
}

// HandsetsConfig of [Handsets].
type HandsetsConfig struct {
	// Truth is the record of the carrier, and Record that of the phones beside it: a line for each thing that a phone
	// has done.
	Truth, Record string
	Habits        Habits
	Seed          uint64
	// Links is the beginning of links in messages, such as http://localhost:8081/, except for links on a domain. Edge
	// is the address that answers all links; the handsets connect to no other address.
	Links, Edge string
	// Write takes what a phone answers, and returns nil when it is durable. Nil: phones do not answer.
	Write  func(ctx context.Context, m carrier.Inbound) error
	Logger *slog.Logger
	Now    func() time.Time
}

// Handsets are the phones behind the simulated carrier. They read the carrier's record, and open links as people and
// programs do. The seed and the submission determine what a phone does. A phone records an action after it: after a
// kill, a phone may repeat its last action.
type Handsets struct {
	cfg    HandsetsConfig
	link   *regexp.Regexp
	client *http.Client
	record *os.File
	done   map[string]struct{}
	due    deeds
}

// deed is an action that a phone is about to take.
type deed struct {
	at   time.Time
	did  string
	link string
	text string
	e    Entry
}

type deeds []deed

func (p deeds) Len() int           { return len(p) }
func (p deeds) Less(i, j int) bool { return p[i].at.Before(p[j].at) }
func (p deeds) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

// Push implements [heap.Interface].
func (p *deeds) Push(x any) { *p = append(*p, x.(deed)) } //nolint:forcetypeassert // heap's

// Pop implements [heap.Interface].
func (p *deeds) Pop() any {
	old := *p
	last := old[len(old)-1]
	*p = old[:len(old)-1]
	return last
}

// OpenHandsets opens the record of the phones and reads what they have done.
func OpenHandsets(cfg HandsetsConfig) (*Handsets, error) {
	if cfg.Truth == "" || cfg.Record == "" || cfg.Links == "" || cfg.Edge == "" || cfg.Logger == nil {
		return nil, errors.New("handsets: the record of the carrier, one of their own, links, the edge and a logger are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	link, err := regexp.Compile(`(?:` + regexp.QuoteMeta(cfg.Links) + `[0-9A-Za-z]+|https://[0-9a-z.-]+/[0-9A-Za-z]{16,20}\b)`)
	if err != nil {
		return nil, fmt.Errorf("handsets: %w", err)
	}
	f, err := os.OpenFile(cfg.Record, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("record of the handsets: %w", err)
	}
	size, err := cutTorn(f)
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	list, readErr := ReadHandsets(cfg.Record)
	if err = errors.Join(err, readErr); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("record of the handsets: %w", err)
	}
	h := &Handsets{cfg: cfg, link: link, record: f, done: map[string]struct{}{}}
	for _, d := range list {
		h.done[d.Submission] = struct{}{}
	}
	h.client = &http.Client{
		Timeout: 5 * time.Second,
		// Only the edge gets requests
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, cfg.Edge)
		}},
	}
	return h, nil
}

// ReadHandsets reads a record of phones. A file that does not exist is an empty one.
func ReadHandsets(path string) (out []Did, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var d Did
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // a kill has cut it off
		}
		if err := json.Unmarshal(line, &d); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

const (
	handsetsLook = 100 * time.Millisecond
	handsetsWait = time.Second // before something is tried again that failed
)

// Run lets the phones act until ctx ends.
func (h *Handsets) Run(ctx context.Context) error {
	defer func() { _ = h.record.Close() }()
	tail := NewTail(h.cfg.Truth)
	ticker := time.NewTicker(handsetsLook)
	defer ticker.Stop()
	for {
		if err := tail.Poll(func(e Entry) error { h.plan(&e); return nil }); err != nil {
			return fmt.Errorf("handsets: %w", err)
		}
		for len(h.due) > 0 && !h.due[0].at.After(h.cfg.Now()) && ctx.Err() == nil {
			p, _ := heap.Pop(&h.due).(deed)
			if err := h.do(ctx, &p); err != nil {
				h.cfg.Logger.DebugContext(ctx, "a handset tries again", "err", err)
				p.at = h.cfg.Now().Add(handsetsWait)
				heap.Push(&h.due, p)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// chances returns two numbers in [0, 1) that a submission determines.
func chances(seed uint64, id schemas.ID) (a, b float64) {
	f := fnv.New64a()
	_, _ = fmt.Fprintf(f, "%d/%x", seed, id[:])
	sum := mix(f.Sum64())
	return float64(sum>>32) / (1 << 32), float64(sum&0xffffffff) / (1 << 32)
}

// mix spreads a difference in a few bits over all bits (splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// plan decides what the phone of a submission does.
func (h *Handsets) plan(e *Entry) {
	if _, did := h.done[e.Submission.String()]; did || e.Outcome != Accepted {
		return
	}
	var at time.Time
	for _, r := range e.Receipts {
		if (r.Status == delivered || r.Status == read) && (at.IsZero() || r.Due.Before(at)) {
			at = r.Due
		}
	}
	if at.IsZero() {
		return // the message never arrives
	}
	chance, when := chances(h.cfg.Seed, e.Submission)
	links := h.link.FindAllString(e.Body, -1)
	p := deed{at: at.Add(time.Duration(when * float64(h.cfg.Habits.Delay))), e: *e}
	for _, habit := range []struct {
		did  string
		part float64
	}{
		{DidTap, h.cfg.Habits.Tap}, {DidScan, h.cfg.Habits.Scan}, {DidOptOut, h.cfg.Habits.OptOut}, {DidStop, h.cfg.Habits.Stop}, {DidAnswer, h.cfg.Habits.Answer},
	} {
		if chance -= habit.part; chance < 0 {
			p.did = habit.did
			break
		}
	}
	switch {
	case p.did == "":
		return
	case p.did == DidStop || p.did == DidAnswer:
		if h.cfg.Write == nil || e.From == "" {
			return
		}
		p.text = stops[int(when*1000)%len(stops)]
		if p.did == DidAnswer {
			p.text = answers[int(when*1000)%len(answers)]
		}
	case len(links) == 0:
		return
	case p.did == DidOptOut:
		p.link = links[len(links)-1]
	default:
		p.link = links[0]
	}
	p.e.Body, p.e.Receipts = "", nil
	heap.Push(&h.due, p)
}

// Answers of phones: keywords, and other texts. The last one is for a person to review.
var (
	stops   = []string{"STOP", "stop", "Stop.", "BASTA"}
	answers = []string{"When do you open?", "Grazie!", "Is it still on?", "Ok 👍", "please stop writing to me"}
)

// writePatience is how long a phone waits until its message is accepted; then it sends the message again.
const writePatience = 5 * time.Second

// write sends the answer of a phone. The message has the id of the submission, so a repeated message is recognised.
func (h *Handsets) write(ctx context.Context, p *deed) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	return h.cfg.Write(ctx, carrier.Inbound{
		Account: p.e.Account, Channel: schemas.ChannelSMS, Ref: "re-" + p.e.Submission.String(), From: p.e.To, To: p.e.From, Text: p.text, At: h.cfg.Now(), Raw: []byte(p.text),
	})
}

// do carries out a planned action and records it.
func (h *Handsets) do(ctx context.Context, p *deed) error {
	var err error
	switch p.did {
	case DidTap:
		err = h.open(ctx, p, http.MethodGet, person, "")
	case DidScan:
		err = errors.Join(h.open(ctx, p, http.MethodHead, person, ""), h.open(ctx, p, http.MethodGet, messenger, ""))
	case DidOptOut:
		if err = h.open(ctx, p, http.MethodGet, person, ""); err == nil {
			err = h.open(ctx, p, http.MethodPost, person, "scope=all")
		}
	case DidStop, DidAnswer:
		err = h.write(ctx, p)
	}
	if err != nil {
		return err
	}
	line, err := json.Marshal(Did{h.cfg.Now().UTC(), p.e.Submission.String(), p.e.To, p.did, p.link, p.text})
	if err != nil {
		return err
	}
	h.done[p.e.Submission.String()] = struct{}{}
	_, err = h.record.Write(append(line, '\n'))
	return err
}

// User agents of what opens links.
const (
	person    = "Mozilla/5.0 (Linux; Android 14; Simulated) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36"
	messenger = "WhatsApp/2.24.10.0 A"
)

// open opens the link of a phone. Each phone has its own IP address.
func (h *Handsets) open(ctx context.Context, p *deed, method, agent, form string) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+h.cfg.Edge+p.link[strings.LastIndexByte(p.link, '/'):], strings.NewReader(form))
	if err != nil {
		return err
	}
	// A phone asks for the host of the link, wherever that leads to: the edge answers on no other.
	if link, err := url.Parse(p.link); err == nil {
		r.Host = link.Host
	}
	r.Header.Set("User-Agent", agent)
	r.Header.Set("Accept-Language", "it-IT,it;q=0.9")
	f := fnv.New32a()
	_, _ = f.Write([]byte(p.e.To))
	n := f.Sum32()
	r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16&0xff, n>>8&0xff, n&0xff))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := h.client.Do(r)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusMisdirectedRequest || resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the edge answers %d", resp.StatusCode)
	}
	return nil
}
