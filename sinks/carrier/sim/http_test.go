package sim

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/sinks/carrier"
)

// serve serves c until the test ends.
func serve(t testing.TB, c *Carrier) (url string) {
	t.Helper()
	srv := httptest.NewServer(NewHandler(c))
	t.Cleanup(func() {
		_ = c.Close() // ends what is held open
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

func dial(t testing.TB, url string, opts Options) *Client {
	t.Helper()
	n, err := Dial(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.Drain(ctx)
	})
	return n
}

// TestShared: four processes submit to one carrier and share its receipts. Each receipt reaches one of them.
func TestShared(t *testing.T) {
	path := truthPath(t)
	profile := Chaos()
	profile.Answer = Lognormal{5 * time.Millisecond, 50 * time.Millisecond} // shorter than the client's time-out
	profile.Receipt, profile.OfflineMean, profile.ReorderedBy = Lognormal{20 * time.Millisecond, 200 * time.Millisecond}, 100*time.Millisecond, 50*time.Millisecond
	profile.Silent = 0 // broken connections already leave messages without an answer
	c := start(t, Config{Profile: profile, Seed: 5, Truth: path})
	url := serve(t, c)
	all := newLog()
	var wg sync.WaitGroup
	const each = 1500
	for p := range 4 {
		n := dial(t, url, Options{})
		all.listen(t, n)
		wg.Go(func() {
			for batch := range slices.Chunk(messages(t, p*each, each, 1), 70) {
				all.send(t, n, batch)
			}
		})
	}
	wg.Wait()
	eventually(t, "every answer", func() bool { return all.answered() == 4*each })
	eventually(t, "every receipt", func() bool { s := c.Stats(); return s.Owed == 0 })

	truth := readTruth(t, path)
	if len(truth.Entries) != 4*each {
		t.Fatalf("got %d lines, want %d", len(truth.Entries), 4*each)
	}
	receipts := all.byKey()
	owed, unanswered := 0, 0
	for i, e := range truth.Entries {
		owed += len(e.Receipts)
		if got := len(receipts[e.Submission]); got != len(e.Receipts) {
			t.Fatalf("line %d: got %d receipts, want %d", i, got, len(e.Receipts))
		}
		want := map[string]carrier.Outcome{Accepted: carrier.Accepted, Refused: carrier.Rejected, Throttled: carrier.Throttled, Busy: carrier.Retryable}[e.Outcome]
		if e.Unanswered {
			want = carrier.Unknown
			unanswered++
		}
		a := all.answers[e.Submission][0]
		if a.Outcome != want || a.Sub != e.Code || want == carrier.Accepted && a.Ref != e.Ref {
			t.Fatalf("line %d: got %+v, want %v with code %v and ref %s", i, a, want, e.Code, e.Ref)
		}
	}
	if owed == 0 || unanswered == 0 || len(all.receipts) != owed {
		t.Errorf("got %d receipts, want %d; %d unanswered", len(all.receipts), owed, unanswered)
	}
}

// TestLeaseRunsOut: if a consumer dies before it acknowledges its receipts, another consumer gets them.
func TestLeaseRunsOut(t *testing.T) {
	c := start(t, Config{Lease: 150 * time.Millisecond})
	url := serve(t, c)
	l := newLog()
	n := dial(t, url, Options{})
	l.send(t, n, messages(t, 0, 30, 1))
	eventually(t, "the answers", func() bool { return l.answered() == 30 })
	_, list, err := n.poll(t.Context(), 0, false, 20) // and this consumer is killed
	if err != nil || len(list) != 20 {
		t.Fatalf("got %d receipts (error %v), want 20", len(list), err)
	}
	began := time.Now()
	l.listen(t, dial(t, url, Options{}))
	eventually(t, "all thirty", func() bool { return l.received() == 30 })
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("the lease was given to another after %v, want it kept for 150 ms", took)
	}
	if got := len(l.byKey()); got != 30 {
		t.Errorf("got receipts of %d submissions, want 30", got)
	}
}

// TestAccounts: receipts go to the account that submitted.
func TestAccounts(t *testing.T) {
	c := start(t, Config{})
	url := serve(t, c)
	for _, account := range []string{"sim", "italy", "spain & portugal"} {
		n, l := dial(t, url, Options{Account: account}), newLog()
		l.listen(t, n)
		l.send(t, n, messages(t, len(account)*10, 10, 1))
		eventually(t, "its receipts", func() bool { return l.received() == 10 })
		for _, r := range l.receipts {
			if r.Account != account {
				t.Fatalf("got a receipt of account %q, want %q", r.Account, account)
			}
		}
	}
}

// TestCarrierComesBack: the carrier stops and starts again with the same address and files while a client is connected.
func TestCarrierComesBack(t *testing.T) {
	path := truthPath(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	boot := func() (down func()) {
		c, stop := startStop(t, Config{Truth: path, Profile: Profile{Receipt: Lognormal{P50: 300 * time.Millisecond}}})
		srv := &http.Server{Handler: NewHandler(c)}
		go func() { _ = srv.Serve(listener) }()
		return func() { stop(); _ = srv.Close() }
	}
	down := boot()
	n, l := dial(t, "http://"+address, Options{}), newLog()
	l.listen(t, n)
	l.send(t, n, messages(t, 0, 50, 1))
	eventually(t, "fifty answers", func() bool { return l.answered() == 50 })
	down()

	// While the carrier is away, nothing is written, and the results say so.
	away := newLog()
	away.send(t, n, messages(t, 100, 5, 1))
	eventually(t, "five answers", func() bool { return away.answered() == 5 })
	for _, a := range away.answers {
		if a[0].Outcome != carrier.Retryable {
			t.Errorf("carrier away: got %v, want retryable", a[0].Outcome)
		}
	}
	if h := n.Health(); h.LastError == nil || !h.Ready {
		t.Errorf("carrier away: got %+v, want ready to try, and the error", h)
	}

	eventually(t, "the port is free again", func() bool {
		listener, err = net.Listen("tcp", address)
		return err == nil
	})
	defer boot()()
	eventually(t, "the receipts owed from before", func() bool { return l.received() == 50 })
	l.send(t, n, messages(t, 200, 5, 1))
	eventually(t, "answers again", func() bool { return l.answered() == 55 })
	eventually(t, "receipts again", func() bool { return l.received() == 55 })
	if h := n.Health(); h.LastError != nil {
		t.Errorf("carrier back: got error %v, want none", h.LastError)
	}
}

// TestDiesInTheMiddle: the server dies after it has accepted a batch and answered half of it. The other half is
// Unknown.
func TestDiesInTheMiddle(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/caps" {
			_, _ = io.WriteString(w, "{}")
			return
		}
		batch, index, err := readBatch(r.Body)
		if err != nil {
			t.Errorf("read batch: %v", err)
		}
		for i := range batch[:len(batch)/2] {
			_, _ = w.Write(appendFrame(nil, func(b []byte) []byte {
				return appendResult(b, index[i], &carrier.Result{Outcome: carrier.Accepted, Ref: "1"})
			}))
		}
		_ = http.NewResponseController(w).Flush()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		_ = conn.Close()
	}))
	defer srv.Close()
	n, l := dial(t, srv.URL, Options{}), newLog()
	batch := messages(t, 0, 10, 1)
	l.send(t, n, batch)
	eventually(t, "ten answers", func() bool { return l.answered() == 10 })
	for i, o := range batch {
		want := carrier.Accepted
		if i >= 5 {
			want = carrier.Unknown
		}
		if got := l.answers[o.Key][0].Outcome; got != want {
			t.Errorf("message %d: got %v, want %v", i, got, want)
		}
	}
}

// TestStrangeServers: an answer that makes no sense counts neither as accepted nor as certainly not accepted.
func TestStrangeServers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   carrier.Outcome
	}{
		"nothing":                {200, "", carrier.Unknown},
		"an end without answers": {200, "\x00", carrier.Unknown},
		"a web page":             {200, "<html>hello</html>", carrier.Unknown},
		"an index out of range": {200, string(appendFrame(nil, func(b []byte) []byte {
			return appendResult(b, 77, &carrier.Result{Outcome: carrier.Accepted, Ref: "x"})
		})), carrier.Unknown},
		"500":          {500, "broken", carrier.Unknown},
		"a redirect":   {302, "", carrier.Unknown},
		"400":          {400, "what?", carrier.Rejected},
		"a huge frame": {200, "\xff\xff\xff\xff\x7f", carrier.Unknown},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/caps" {
				_, _ = io.WriteString(w, "{}")
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		n, l := dial(t, srv.URL, Options{}), newLog()
		l.send(t, n, messages(t, 0, 2, 1))
		eventually(t, "two answers", func() bool { return l.answered() == 2 })
		for _, a := range l.answers {
			if a[0].Outcome != c.want {
				t.Errorf("%s: got %v, want %v", name, a[0].Outcome, c.want)
			}
		}
		srv.Close()
	}
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	notOurs := httptest.NewServer(http.NotFoundHandler())
	defer notOurs.Close()
	for url, want := range map[string]string{
		"127.0.0.1:9999":     "want a URL",
		"ftp://127.0.0.1":    "want a URL",
		"http://":            "want a URL",
		"http://127.0.0.1:1": "connection refused",
		notOurs.URL:          "404",
	} {
		_, err := Dial(t.Context(), url, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), url) {
			t.Errorf("%s: got error %v, want one with the URL and %q", url, err, want)
		}
	}
}

// TestBadRequests: an incomplete batch has no effect.
func TestBadRequests(t *testing.T) {
	path := truthPath(t)
	c := start(t, Config{Truth: path})
	url := serve(t, c)
	batch := messages(t, 0, 2, 1)
	var whole []byte
	for i := range batch {
		whole = appendFrame(whole, func(b []byte) []byte { return appendOutbound(b, i, &batch[i]) })
	}
	whole = append(whole, 0)
	post := func(path string, body []byte) int {
		t.Helper()
		resp, err := http.Post(url+path, "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for cut := range whole {
		if got := post("/v1/submit", whole[:cut]); got != http.StatusBadRequest {
			t.Errorf("cut after %d of %d bytes: got %d, want 400", cut, len(whole), got)
		}
	}
	var many []byte
	for i := range messages(t, 0, MaxBatch+1, 1) {
		many = appendFrame(many, func(b []byte) []byte { return appendOutbound(b, i, &batch[0]) })
	}
	for name, body := range map[string][]byte{
		"something behind the end": append(bytes.Clone(whole), 1),
		"too many":                 append(many, 0),
		"too large a frame":        {0xff, 0xff, 0xff, 0x7f, 0},
		"a frame of nonsense":      {3, 1, 2, 3, 0},
	} {
		if got := post("/v1/submit", body); got != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", name, got)
		}
	}
	for _, q := range []string{"?max=x", "?wait_ms=-1", "?lease=abc"} {
		if got := post("/v1/receipts"+q, nil); got != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", q, got)
		}
	}
	if got := post("/v1/receipts?lease=7&ok=true&max=0", nil); got != http.StatusNoContent {
		t.Errorf("an unknown lease: got %d, want 204", got)
	}
	if n := len(readTruth(t, path).Entries); n != 0 {
		t.Errorf("got %d submissions, want none", n)
	}
	if got := post("/v1/submit", whole); got != http.StatusOK || len(readTruth(t, path).Entries) != 2 {
		t.Errorf("the whole: got %d and %d submissions, want 200 and 2", got, len(readTruth(t, path).Entries))
	}
}

// TestCloseEndsWaiting: waiting requests end when the carrier is closed.
func TestCloseEndsWaiting(t *testing.T) {
	c := start(t, Config{Profile: Profile{Silent: 1}})
	srv := httptest.NewServer(NewHandler(c))
	n, l := dial(t, srv.URL, Options{}), newLog()
	l.send(t, n, messages(t, 0, 1, 1))
	eventually(t, "the message to be taken", func() bool { return c.Stats().Submissions[Accepted] == 1 })
	began := time.Now()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its answer", func() bool { return l.answered() == 1 })
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	srv.Close()
	for _, a := range l.answers {
		if a[0].Outcome != carrier.Unknown {
			t.Errorf("got %v, want unknown", a[0].Outcome)
		}
	}
}

// TestTooLong: a message that is too long for a frame is refused, and the rest of its batch is sent.
func TestTooLong(t *testing.T) {
	c := start(t, Config{})
	url := serve(t, c)
	n, l := dial(t, url, Options{}), newLog()
	batch := messages(t, 0, 3, 1)
	batch[1].Body = carrier.Body{Rich: &carrier.Rich{JSON: bytes.Repeat([]byte("x"), 3<<20)}}
	l.send(t, n, batch)
	eventually(t, "three answers", func() bool { return l.answered() == 3 })
	for i, want := range []carrier.Outcome{carrier.Accepted, carrier.Rejected, carrier.Accepted} {
		if got := l.answers[batch[i].Key][0].Outcome; got != want {
			t.Errorf("message %d: got %v, want %v", i, got, want)
		}
	}
}

// TestQuiesce: after Quiesce the carrier accepts no messages, ends requests that wait for receipts, and still answers
// accepted messages.
func TestQuiesce(t *testing.T) {
	path := truthPath(t)
	c := start(t, Config{Truth: path, Profile: Profile{Answer: Lognormal{P50: 300 * time.Millisecond}, Lost: 1}})
	url := serve(t, c)
	n, l := dial(t, url, Options{}), newLog()
	l.send(t, n, messages(t, 0, 5, 1))
	waiting := make(chan error, 1)
	go func() {
		_, _, err := n.poll(context.Background(), 0, false, 10)
		waiting <- err
	}()
	eventually(t, "the messages to be taken", func() bool { return c.Stats().Submissions[Accepted] == 5 })
	c.Quiesce()
	c.Quiesce() // a second call has no effect
	select {
	case err := <-waiting:
		if err != nil {
			t.Errorf("waiting for receipts: got error %v, want none", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a request for receipts is still held open")
	}
	late := newLog()
	late.send(t, n, messages(t, 100, 1, 1))
	eventually(t, "every answer", func() bool { return l.answered() == 5 && late.answered() == 1 })
	for want, answers := range map[carrier.Outcome]map[carrier.Key][]carrier.Result{carrier.Accepted: l.answers, carrier.Retryable: late.answers} {
		for _, a := range answers {
			if a[0].Outcome != want {
				t.Errorf("got %v, want %v", a[0].Outcome, want)
			}
		}
	}
	if got := len(readTruth(t, path).Entries); got != 5 {
		t.Errorf("got %d submissions in truth, want 5", got)
	}
	resp, err := http.Get(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("healthz: got %d, want 503", resp.StatusCode)
	}
}

// TestSilenceEnds: a connector ends the wait for an answer by itself, and then frees the place in the window.
func TestSilenceEnds(t *testing.T) {
	c := start(t, Config{Profile: Profile{Silent: 1}})
	opts := Options{AnswerTimeout: 100 * time.Millisecond, Window: 4}
	for name, n := range map[string]carrier.Connector{"in process": c.Connector(opts), "HTTP": dial(t, serve(t, c), opts)} {
		l := newLog()
		began := time.Now()
		l.send(t, n, messages(t, 0, 4, 1))
		l.send(t, n, messages(t, 10, 1, 1)) // this send must wait for the window
		eventually(t, name+": every answer", func() bool { return l.answered() == 5 })
		if took := time.Since(began); took < 200*time.Millisecond || took > 30*time.Second {
			t.Errorf("%s: it took %v, want two times 100 ms", name, took)
		}
		for _, a := range l.answers {
			if a[0].Outcome != carrier.Unknown {
				t.Errorf("%s: got %v, want unknown", name, a[0].Outcome)
			}
		}
	}
}
