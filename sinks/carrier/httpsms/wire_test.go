package httpsms_test

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/httpsms"
)

// rude is a provider that closes connections at bad moments: it answers the first requests of a connection, and closes
// it after it has read the next one, or while the connection is idle.
type rude struct {
	url      string
	requests atomic.Int64
}

func startRude(t *testing.T, answered int) *rude {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rude{url: "http://" + l.Addr().String()}
	var wg sync.WaitGroup
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				br := bufio.NewReader(conn)
				for n := 0; ; n++ {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					r.requests.Add(1)
					if n == answered {
						return
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 22\r\n\r\n{\"sid\":\"1\",\"x\":\"abcd\"}")
				}
			})
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return r
}

// TestNothingIsSentTwice (P3): net/http repeats some requests, and every GET, on a connection that turns out to be
// closed. This client does not: the provider reads no request twice, and the result is unknown.
func TestNothingIsSentTwice(t *testing.T) {
	for preset, values := range map[string]map[string]httpsms.Secret{
		"kannel": {"url": "/", "username": "u", "password": "p", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"},
		"twilio": {"accountSid": "AC1", "authToken": "t", "baseUrl": ""},
	} {
		for _, answered := range []int{0, 1, 2} {
			r := startRude(t, answered)
			values["url"], values["baseUrl"] = httpsms.Secret(r.url), httpsms.Secret(r.url)
			if preset == "kannel" {
				delete(values, "baseUrl")
			} else {
				delete(values, "url")
			}
			c := open(t, httpsms.Config{Preset: preset, Values: values})
			const n = 20
			count := map[carrier.Outcome]int{}
			for i := range n {
				count[hand(t, c, message(t, i, "hello"))[0].Outcome]++
			}
			if got := int(r.requests.Load()); got > n || got < n-count[carrier.Retryable] {
				t.Errorf("%s, %d answered: the provider read %d requests of %d hand-overs, %v", preset, answered, got, n, count)
			}
			if answered > 0 && count[carrier.Accepted] == 0 || count[carrier.Unknown] == 0 || count[carrier.Rejected] > 0 {
				t.Errorf("%s, %d answered: got %v, want some accepted and the rest unknown", preset, answered, count)
			}
		}
	}
}

// TestDeadlineAtTheWrite: a message that expires or is withdrawn while the client connects is not written.
func TestDeadlineAtTheWrite(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = io.WriteString(w, `{"sid":"1"}`)
	}))
	slow := make(chan struct{})
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		<-slow
		return nil, nil
	}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	for _, preset := range []string{"twilio", "kannel"} {
		values := map[string]httpsms.Secret{"accountSid": "AC1", "authToken": "t", "baseUrl": httpsms.Secret(srv.URL)}
		if preset == "kannel" {
			values = map[string]httpsms.Secret{"url": httpsms.Secret(srv.URL), "username": "u", "password": "p", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"}
		}
		slow = make(chan struct{})
		c := open(t, httpsms.Config{Preset: preset, CA: ca, Values: values})
		var withdrawn atomic.Bool
		for name, change := range map[string]func(*carrier.Outbound){
			"deadline":  func(o *carrier.Outbound) { o.Deadline = time.Now().Add(50 * time.Millisecond) },
			"withdrawn": func(o *carrier.Outbound) { o.Withdrawn = &withdrawn },
		} {
			slow = make(chan struct{})
			requests.Store(0)
			out := message(t, 1, "hello")
			change(&out)
			got := make(chan carrier.Result, 1)
			if err := c.Send(t.Context(), []carrier.Outbound{out}, func(_ int, r carrier.Result) { got <- r }); err != nil {
				t.Fatal(err)
			}
			// Whether or not the connector is waiting for the connection yet, it must check Withdrawn after this
			// moment.
			time.Sleep(100 * time.Millisecond)
			withdrawn.Store(true)
			close(slow)
			if r := <-got; r.Outcome != carrier.Retryable || r.Code != carrier.CodeDeadline {
				t.Errorf("%s, %s: got %+v, want it kept back", preset, name, r)
			}
			if n := requests.Load(); n != 0 {
				t.Errorf("%s, %s: the provider got %d requests, want none", preset, name, n)
			}
		}
		if r := hand(t, c, message(t, 2, "hello"))[0]; r.Outcome != carrier.Accepted {
			t.Errorf("%s: in time: got %+v, want accepted", preset, r)
		}
	}
}

// TestNotConnected: a provider that cannot be reached has accepted nothing. The error contains no address, because
// addresses contain phone numbers.
func TestNotConnected(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := open(t, httpsms.Config{Preset: "kannel", Values: map[string]httpsms.Secret{"url": httpsms.Secret("http://" + l.Addr().String() + "/"), "username": "u", "password": "hunter2", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"}})
	if r := hand(t, c, message(t, 1, "hello"))[0]; r.Outcome != carrier.Retryable || r.Code != "not connected" {
		t.Errorf("got %+v, want retryable", r)
	}
	h := c.Health()
	if h.LastError == nil || h.Sessions != 0 || strings.Contains(h.LastError.Error(), "hunter2") || strings.Contains(h.LastError.Error(), "+39") || strings.Contains(h.LastError.Error(), "39347") {
		t.Errorf("got %+v, want the reason without the address", h)
	}
}

// TestConfig: an error names each wrong field and says what to do.
func TestConfig(t *testing.T) {
	const values = `"values":{"accountSid":"AC1","authToken":"t"}`
	for in, want := range map[string][]string{
		`{"preset":"twilio",` + values + `}`: nil,
		`{"preset":"twilio",` + values + `,"callbackUrl":"https://e.example/api/callback/r","window":10,"answerTimeout":"5s","codes":["err,30999,,BARRED"]}`: nil,
		`{"preset":"carrier pigeon"}`:              {"want one of agile, infobip, kaleyra, kannel, twilio, vonage"},
		`{"preset":"twilio"}`:                      {"values.accountSid is missing: account SID", "values.authToken is missing"},
		`{"preset":"twilio",` + values + `,"x":1}`: {`unknown field "x"`},
		`{"preset":"twilio","values":{"accountSid":"a","authToken":"b","authTokn":"c"}}`:                                                             {"values.authTokn is not known: want accountSid, authToken, baseUrl, messagingServiceSid"},
		`{"preset":"twilio",` + values + `,"callbackUrl":"e.example","window":3000,"answerTimeout":"1ms","ca":"x","codes":["err"]}`:                  {"callbackUrl: want an address", "window: want 1 to 2000", "answerTimeout: want 100ms", "ca: want certificates", "codes, line 1"},
		`{"preset":"twilio","spec":{"request":{"url":"http://h/"}}}`:                                                                                 {"want one of them"},
		`{"spec":{"request":{"url":"http://h/{{nobody}}"}}}`:                                                                                         {"request.url", "{{nobody}} is not known"},
		`{"spec":{"request":{"url":"http://h/","method":"DELETE","max":5,"json":{"a":"{{to"},"basic":["a"]}}}`:                                       {"request.method", "request.max: more than one", "want }} after {{", "request.basic"},
		`{"spec":{"request":{"url":"http://h/","json":{"a":"x{{segments:number}}"}}}}`:                                                               {"want :number, and nothing beside it"},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"trust me"}}}}`:                                                       {"scheme trust me wants a secret"},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"trust me","secret":"x"}}}}`:                                          {"want basic, hmac-sha256"},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"ip-allow","addresses":"here"}}}}`:                                    {`"here" is neither`},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"hmac-sha256","secret":"x"}}}}`:                                       {"wants a header"},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"secret-in-url","param":"t","secret":"a long % text with blanks"}}}}`: {"at least 16 letters, digits"},
		`{"spec":{"request":{"url":"http://h/"},"callback":{"verify":{"scheme":"secret-in-url","param":"t","secret":"short"}}}}`:                     {"at least 16 letters, digits"},
		`{"spec":{"request":{"url":"http://h/{{values.key}}"}}}`:                                                                                     {"the spec's values have no key"},
	} {
		_, err := httpsms.Parse([]byte(in))
		if len(want) == 0 && err != nil {
			t.Errorf("%s: got %v, want no error", in, err)
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want an error with %q", in, err, w)
			}
		}
	}
}
