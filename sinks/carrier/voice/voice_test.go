package voice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
	"fanfare/sinks/carrier/settings"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/voice"
	"fanfare/sinks/carrier/voice/ari"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// peer is an Asterisk server with the simulator behind it.
type peer struct {
	url, truth string
	server     *ari.Server

	mu       sync.Mutex
	requests []string // method and path of each request that asks for an action
	tamper   func(w http.ResponseWriter, r *http.Request) bool
}

func startPeer(t testing.TB, profile sim.Profile, cfg ari.Config) *peer {
	t.Helper()
	p := &peer{truth: filepath.Join(t.TempDir(), "carrier-sim.ndjson")}
	c, err := sim.Open(sim.Config{Keys: testKeys(t), Profile: profile, Seed: 1, Truth: p.truth})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys, cfg.Username, cfg.Password = testKeys(t), "fanfare", "s3cret"
	cfg.Open = func(app string) (ari.Line, error) { return c.Connector(sim.Options{Account: app}), nil }
	if p.server, err = ari.New(cfg); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(p.serve))
	p.url = srv.URL + "/ari"
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("peer: %v", err)
			}
		}
		srv.CloseClientConnections()
		srv.Close()
		if err := c.Close(); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	return p
}

// intercept makes f see each request before the server does; f returns true if it answered the request itself.
func (p *peer) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper = f
}

func (p *peer) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if r.Method != http.MethodGet {
		p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	}
	tamper := p.tamper
	p.mu.Unlock()
	if tamper != nil && tamper(w, r) {
		return
	}
	p.server.ServeHTTP(w, r)
}

// did counts the requests whose method and path contain all of the words.
func (p *peer) did(words ...string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
next:
	for _, r := range p.requests {
		for _, word := range words {
			if !strings.Contains(r, word) {
				continue next
			}
		}
		n++
	}
	return n
}

func (p *peer) seen() (map[carrier.Key]int, error) {
	truth, err := sim.ReadTruth(p.truth)
	if err != nil {
		return nil, err
	}
	seen := map[carrier.Key]int{}
	for i := range truth.Entries {
		if truth.Entries[i].Outcome == sim.Accepted {
			seen[truth.Entries[i].Submission]++
		}
	}
	return seen, nil
}

// config returns the configuration of an account at the peer.
func (p *peer) config() voice.Config {
	return voice.Config{
		BaseURL: p.url, Username: "fanfare", Password: "s3cret", Endpoint: "PJSIP/{number}@trunk", MaxConcurrent: 64, CallerID: "+390612345678",
		MachineContext: "fanfare-amd", QueueContext: "queues", TextToSpeech: "https://tts.example.org/say?lang={language}&text={text}",
	}
}

func open(t testing.TB, cfg voice.Config) *voice.Connector {
	t.Helper()
	c, err := voice.New(cfg, voice.Deps{Account: "voice"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return c
}

// TestContract holds the connector to the contract of package carrier.
func TestContract(t *testing.T) {
	carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
		profile := sim.Profile{Answer: sim.Lognormal{P50: p.Latency}}
		if p.Silent {
			profile.Silent, profile.Lost = 1, 1
		}
		peer := startPeer(t, profile, ari.Config{Play: 5 * time.Millisecond})
		cfg := peer.config()
		cfg.MaxConcurrent = p.Window
		if !p.Receipts { // nothing takes receipts, so the connector must not hold a call for one
			cfg.Hold = settings.Duration(10 * time.Millisecond)
		}
		return carriertest.Subject{
			Connector: open(t, cfg),
			Again:     func() (carrier.Connector, error) { return open(t, cfg), nil },
			Seen:      peer.seen,
		}
	})
}

// inbox collects the receipts of a connector.
type inbox struct {
	mu   sync.Mutex
	list []carrier.Receipt
}

// take takes receipts until the test ends, or until the returned function is called.
func take(t testing.TB, c *voice.Connector) *inbox {
	t.Helper()
	in := &inbox{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := c.Receipts(ctx, func(list []carrier.Receipt) error {
			in.mu.Lock()
			defer in.mu.Unlock()
			in.list = append(in.list, list...)
			return nil
		})
		if err != nil {
			t.Errorf("receipts: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return in
}

// of returns the receipts about a submission.
func (in *inbox) of(k carrier.Key) (out []carrier.Receipt) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, r := range in.list {
		if r.Key == k {
			out = append(out, r)
		}
	}
	return out
}

// last waits for a receipt about a submission that says more than that the call exists.
func (in *inbox) last(t testing.TB, k carrier.Key) carrier.Receipt {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		for _, r := range in.of(k) {
			if r.Status != schemas.ReceiptStatusBuffered {
				return r
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no receipt came for %v", k)
		}
	}
}

// calls returns n messages that are calls, with the given numbers.
func calls(t testing.TB, first, n int, call carrier.Call) []carrier.Outbound {
	t.Helper()
	batch, err := carriertest.Batch(first, n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		c := call
		batch[i].Channel, batch[i].From, batch[i].Body = schemas.ChannelVoice, "", carrier.Body{Call: &c}
	}
	return batch
}

// hand hands one message over and returns the result.
func hand(t testing.TB, c *voice.Connector, o carrier.Outbound) carrier.Result {
	t.Helper()
	answered := make(chan carrier.Result, 1)
	if err := c.Send(t.Context(), []carrier.Outbound{o}, func(_ int, r carrier.Result) { answered <- r }); err != nil {
		t.Fatalf("send: %v", err)
	}
	select {
	case r := <-answered:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
		return carrier.Result{}
	}
}

// eventually waits until try returns true.
func eventually(t testing.TB, what string, try func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !try(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}

var audio = carrier.Call{Media: "https://cdn.example.org/hello.wav"}

// fates returns a carrier that accepts all calls and gives each the same end.
func fates(status schemas.ReceiptStatus, sub schemas.Code) sim.Profile {
	return sim.Profile{Fates: []sim.Fate{{Weight: 1, Status: status, Sub: sub}}, Receipt: sim.Lognormal{P50: 20 * time.Millisecond}}
}

// Each way in which a call can end gives the receipt that codes.csv names.
func TestDispositions(t *testing.T) {
	amd := func(action string) carrier.Call { return carrier.Call{Media: audio.Media, MachineAction: action} }
	answered := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	failed := func(sub schemas.Code) sim.Profile { return fates(schemas.ReceiptStatusFailed, sub) }
	for name, tc := range map[string]struct {
		profile sim.Profile
		peer    ari.Config
		call    carrier.Call
		unsure  string
		status  schemas.ReceiptStatus
		code    string
		sub     schemas.Code
	}{
		"a person":                            {answered, ari.Config{}, audio, "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"a person, text to speech":            {answered, ari.Config{}, carrier.Call{Text: "Ciao, Anna", Language: "it"}, "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"a person hangs up in the message":    {answered, ari.Config{HangUps: 1, Play: 50 * time.Millisecond}, audio, "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"a person, detected":                  {answered, ari.Config{}, amd("hangup"), "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"a machine, hung up":                  {answered, ari.Config{Machines: 1}, amd("hangup"), "", schemas.ReceiptStatusFailed, "machine", schemas.CodeUndeliveredOther},
		"a machine, voicemail":                {answered, ari.Config{Machines: 1}, amd("voicemail"), "", schemas.ReceiptStatusDelivered, "voicemail", schemas.CodeVoicemailLeft},
		"a machine without detection":         {answered, ari.Config{Machines: 1}, audio, "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"unsure is a person":                  {answered, ari.Config{Unsure: 1}, amd("hangup"), "", schemas.ReceiptStatusDelivered, "human", schemas.CodeAnswered},
		"unsure is a machine, when said":      {answered, ari.Config{Unsure: 1}, amd("hangup"), "machine", schemas.ReceiptStatusFailed, "machine", schemas.CodeUndeliveredOther},
		"the message cannot be played":        {answered, ari.Config{}, carrier.Call{Media: "https://cdn.example.org/missing.wav"}, "", schemas.ReceiptStatusFailed, "unplayed", schemas.CodeUndeliveredOther},
		"busy":                                {failed(schemas.CodeHandsetBusy), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:17", schemas.CodeHandsetBusy},
		"no answer":                           {failed(schemas.CodeExpired), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:19", schemas.CodeAbsentSubscriber},
		"absent":                              {failed(schemas.CodeHandsetOff), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:20", schemas.CodeAbsentSubscriber},
		"congestion":                          {failed(schemas.CodeNetworkError), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:38", schemas.CodeNetworkError},
		"refused by the person":               {failed(schemas.CodeBarred), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:21", schemas.CodeHandsetError},
		"number not in use":                   {failed(schemas.CodeUnknownSubscriber), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:1", schemas.CodeUnknownSubscriber},
		"a cause that codes.csv does not say": {failed(schemas.CodeUndeliveredOther), ari.Config{}, audio, "", schemas.ReceiptStatusFailed, "q850:127", schemas.CodeUndeliveredOther},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.peer.Detect = 20 * time.Millisecond
			p := startPeer(t, tc.profile, tc.peer)
			cfg := p.config()
			cfg.Unsure = tc.unsure
			c := open(t, cfg)
			in := take(t, c)
			o := calls(t, 0, 1, tc.call)[0]
			if r := hand(t, c, o); r.Outcome != carrier.Accepted || !strings.HasPrefix(r.Ref, "fanfare-") {
				t.Fatalf("got %+v, want accepted, with a channel of the application", r)
			}
			got := in.last(t, o.Key)
			if got.Status != tc.status || got.Code != tc.code || got.Sub != tc.sub || got.To != o.To || got.At.IsZero() || len(got.Raw) == 0 || got.Account != "voice" {
				t.Errorf("got %+v, want %v, code %q, %v", got, tc.status, tc.code, tc.sub)
			}
			eventually(t, "the call ends, and its place is free", func() bool { return p.server.Stats().Living == 0 && len(c.Living()) == 0 })
			if n := len(in.of(o.Key)); n != 1 {
				t.Errorf("got %d receipts, want 1", n)
			}
		})
	}
}

// The scheduler may try again after busy, no answer and congestion, but not after a refusal or a machine.
func TestWorthAnotherTry(t *testing.T) {
	for code, want := range map[schemas.Code]schemas.Retry{
		schemas.CodeHandsetBusy: schemas.RetryYes, schemas.CodeAbsentSubscriber: schemas.RetryYes, schemas.CodeNetworkError: schemas.RetryYes,
		schemas.CodeHandsetError: schemas.RetryNo, schemas.CodeUndeliveredOther: schemas.RetryNo, schemas.CodeUnknownSubscriber: schemas.RetryNo,
	} {
		if info, ok := schemas.LookupCode(code); !ok || info.Retry != want {
			t.Errorf("%v: got retry %v, want %v", code, info.Retry, want)
		}
	}
}

// If the account lacks what a message needs, the connector refuses it with a code that names what is missing, and sends
// no request to Asterisk.
func TestRefusals(t *testing.T) {
	p := startPeer(t, sim.Profile{}, ari.Config{})
	bare := p.config()
	bare.TextToSpeech, bare.MachineContext, bare.QueueContext = "", "", ""
	c := open(t, bare)
	for code, o := range map[string]carrier.Outbound{
		"no text to speech":  calls(t, 1, 1, carrier.Call{Text: "Ciao"})[0],
		"no audio":           calls(t, 2, 1, carrier.Call{})[0],
		"no machine context": calls(t, 3, 1, carrier.Call{Media: audio.Media, MachineAction: "hangup"})[0],
		"queue":              calls(t, 4, 1, carrier.Call{Media: audio.Media, Queue: "sales"})[0],
	} {
		if r := hand(t, c, o); r.Outcome != carrier.Rejected || r.Code != code || r.Sub == 0 {
			t.Errorf("%s: got %+v, want rejected", code, r)
		}
	}
	strange := calls(t, 5, 1, audio)[0]
	strange.To = "+39347&app=other"
	if r := hand(t, c, strange); r.Outcome != carrier.Rejected || r.Sub != schemas.CodeInvalidNumber {
		t.Errorf("a number that is none: got %+v, want rejected as invalid", r)
	}
	if n := p.did("POST /ari/channels"); n != 0 {
		t.Errorf("Asterisk was asked %d times, want 0", n)
	}
}

// The channel has what the message says: the caller and the recipient, how long it rings, and the variables for the
// dialplan.
func TestOrigination(t *testing.T) {
	p := startPeer(t, sim.Profile{}, ari.Config{})
	got := make(chan *http.Request, 1)
	var body struct{ Variables map[string]string }
	p.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && r.URL.Path == "/ari/channels" {
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			r.Body, r.ContentLength = http.NoBody, 0
			got <- r
		}
		return false
	})
	c := open(t, p.config())
	o := calls(t, 7, 1, carrier.Call{Text: "Ciao, Anna & Bruno", Queue: "sales", MachineAction: "voicemail", Ring: 17 * time.Second})[0]
	o.From = "+390698765432"
	if r := hand(t, c, o); r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	r := <-got
	id := fmt.Sprintf("fanfare-%x", o.Key[:])
	for name, want := range map[string]string{
		"endpoint": "PJSIP/" + o.To + "@trunk", "app": "fanfare", "callerId": o.From, "timeout": "17", "channelId": id,
	} {
		if have := r.URL.Query().Get(name); have != want {
			t.Errorf("%s: got %q, want %q", name, have, want)
		}
	}
	for name, want := range map[string]string{"CALL_APP": "fanfare", "CALL_MACHINE": "voicemail", "CALL_QUEUE": "sales"} {
		if have := body.Variables[name]; have != want {
			t.Errorf("%s: got %q, want %q", name, have, want)
		}
	}
	if want := "lang=en&text=Ciao%2C+Anna+%26+Bruno"; !strings.Contains(strings.ReplaceAll(body.Variables["CALL_PLAN"], `\u0026`, "&"), want) {
		t.Errorf("the plan is %s, want %q in it", body.Variables["CALL_PLAN"], want)
	}
}

// If a person answers, the call goes to its queue after the message. It keeps its place there, and the connector does
// not hang up.
func TestQueue(t *testing.T) {
	p := startPeer(t, fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered), ari.Config{Talk: 1500 * time.Millisecond})
	c := open(t, p.config())
	in := take(t, c)
	o := calls(t, 0, 1, carrier.Call{Media: audio.Media, Queue: "sales"})[0]
	if r := hand(t, c, o); r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	if r := in.last(t, o.Key); r.Sub != schemas.CodeAnswered {
		t.Errorf("got %v, want answered", r.Sub)
	}
	eventually(t, "the dialplan gets it", func() bool { return p.did("POST", "/continue") == 1 })
	if n := len(c.Living()); n != 1 {
		t.Errorf("in the queue: %d calls hold a place, want 1", n)
	}
	eventually(t, "the agent hangs up", func() bool { return len(c.Living()) == 0 })
	if n := p.did("DELETE"); n != 0 {
		t.Errorf("the call was hung up %d times, want 0", n)
	}
}

// If a channel with the id exists already, it is this call: the hand-over is accepted, and no second call is made.
func TestSameChannel(t *testing.T) {
	profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	profile.Receipt = sim.Lognormal{P50: 500 * time.Millisecond}
	p := startPeer(t, profile, ari.Config{})
	first, second := open(t, p.config()), open(t, p.config())
	o := calls(t, 0, 1, audio)[0]
	a := hand(t, first, o)
	b := hand(t, second, o) // a second process: Asterisk answers 409, unless this process has found the call before
	if a.Outcome != carrier.Accepted || b.Outcome != carrier.Accepted || a.Ref != b.Ref {
		t.Errorf("got %+v, then %+v, want the same call", a, b)
	}
	if n := p.server.Stats().Calls; n != 1 {
		t.Errorf("got %d calls, want 1", n)
	}
	resp, err := http.Post(strings.Replace(p.url, "//", "//fanfare:s3cret@", 1)+"/channels?endpoint=PJSIP/+39347000@x&app=fanfare&channelId="+a.Ref, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusConflict {
		t.Errorf("the simulator answers %d, want 409", resp.StatusCode)
	}
}

// The result for each answer of Asterisk, and whether the call keeps its place.
func TestAnswers(t *testing.T) {
	for status, want := range map[int]carrier.Outcome{
		400: carrier.Rejected, 401: carrier.Retryable, 403: carrier.Retryable, 409: carrier.Accepted, 418: carrier.Rejected, 429: carrier.Throttled,
		302: carrier.Retryable, 500: carrier.Retryable, 503: carrier.Retryable, 502: carrier.Unknown, 504: carrier.Unknown,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, sim.Profile{}, ari.Config{})
			p.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPost && r.URL.Path == "/ari/channels" {
					w.WriteHeader(status)
					return true
				}
				return false
			})
			c := open(t, p.config())
			if r := hand(t, c, calls(t, 0, 1, audio)[0]); r.Outcome != want {
				t.Errorf("got %+v, want %v", r, want)
			}
			held := 0
			if want == carrier.Accepted || want == carrier.Unknown {
				held = 1 // the call may exist
			}
			if n := len(c.Living()); n != held {
				t.Errorf("%d calls hold a place, want %d", n, held)
			}
		})
	}
}

// An answer of 500 does not prove that Asterisk does not have the call.
func TestFailureWithACall(t *testing.T) {
	p := startPeer(t, sim.Profile{Receipt: sim.Lognormal{P50: time.Minute}}, ari.Config{})
	p.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && r.URL.Path == "/ari/channels" {
			p.server.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	c := open(t, p.config())
	if r := hand(t, c, calls(t, 0, 1, audio)[0]); r.Outcome != carrier.Unknown {
		t.Errorf("got %+v, want unknown", r)
	}
	if n := len(c.Living()); n != 1 {
		t.Errorf("%d calls hold a place, want 1", n)
	}
}
