package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// raw writes a request byte by byte as a client would, all of it before it reads the answer.
func (w *env) raw(t *testing.T, head string, body string) *http.Response {
	t.Helper()
	at, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, head+"\r\nHost: "+at.Host+"\r\n\r\n"+body); err != nil {
		t.Fatalf("%s: the body could not be written: %v", head, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: got no answer: %v", strings.SplitN(head, "\r\n", 2)[0]+" "+head[strings.LastIndex(head, "Content-Type"):], err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// Requirements 2b: a request that is refused before its body was read is answered all the same. Most clients write the
// whole body first; a connection that is reset under them says nothing.
func TestHugeBodiesAreAnswered(t *testing.T) {
	w := newEnv(t)
	huge := strings.Repeat("x", 6<<20)
	for _, c := range []struct {
		path, key, ctype, code string
		status                 int
	}{
		{"/api/campaigns", w.key, "application/json", "body_too_large", 413},
		{"/api/campaigns", "nobody", "application/json", "unauthenticated", 401},
		{"/api/campaigns", w.key, "text/xml", "unsupported_media_type", 415},
		{"/api/contacts/list/nobody/import", w.key, "text/csv", "not_found", 404},
		{"/api/nowhere", w.key, "text/csv", "no_such_path", 404},
	} {
		for name, head := range map[string]string{"Content-Length": fmt.Sprintf("Content-Length: %d", len(huge)), "chunked": "Transfer-Encoding: chunked"} {
			body := huge
			if name == "chunked" {
				body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(huge), huge)
			}
			resp := w.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nX-Api-Key: %s\r\nContent-Type: %s\r\n%s", c.path, c.key, c.ctype, head), body)
			var p struct{ Code string }
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != c.status || p.Code != c.code {
				t.Errorf("%s, %s: got %d %q, %v, want %d %s", c.path, name, resp.StatusCode, p.Code, err, c.status, c.code)
			}
		}
	}
}

// A body whose chunks are none is the client's fault, and no reason to wake an operator.
func TestBrokenChunks(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	for path, ctype := range map[string]string{"/api/campaigns": "application/json", "/api/contacts/list/l/import": "text/csv"} {
		for _, key := range []string{"", "\r\nIdempotency-Key: k"} {
			resp := w.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nX-Api-Key: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked%s", path, w.key, ctype, key), "6\r\nphone\n\r\nzz\r\n")
			var p struct{ Code string }
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != 400 || p.Code != "malformed_request" {
				t.Errorf("%s: got %d %q, %v, want 400 malformed_request", path, resp.StatusCode, p.Code, err)
			}
		}
	}
	if logs := w.logs.String(); strings.Contains(logs, "request failed") {
		t.Errorf("got %s, want no error logged", logs)
	}
}

// Requirements 2b: nothing hangs. A body that stops in the middle is a 408, for every reader of the body; an import
// says what it kept.
func TestBodiesThatStop(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.BodyTimeout, w.deps.ImportStall = 150*time.Millisecond, 150*time.Millisecond })
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	for _, c := range []struct {
		what, path, headers, body, code string
		status                          int
	}{
		{"plain", "/api/campaigns", "Content-Type: application/json", `{"name":`, "request_timeout", 408},
		{"with a key", "/api/campaigns", "Content-Type: application/json\r\nIdempotency-Key: k", `{"name":`, "request_timeout", 408},
		{"import", "/api/contacts/list/l/import", "Content-Type: text/csv", "phone\n+393330000001\n", "request_timeout", 408},
		{"import with a key", "/api/contacts/list/l/import", "Content-Type: text/csv\r\nIdempotency-Key: k", "phone\n+393330000001\n", "request_timeout", 408},
		{"nowhere", "/api/nowhere", "Content-Type: text/csv", "phone", "no_such_path", 404},
	} {
		from := time.Now()
		resp := w.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nX-Api-Key: %s\r\n%s\r\nContent-Length: 1000", c.path, w.key, c.headers), c.body)
		var p struct{ Code, Detail string }
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != c.status || p.Code != c.code {
			t.Errorf("%s: got %d %+v, %v, want %d %s", c.what, resp.StatusCode, p, err, c.status, c.code)
		}
		if strings.Contains(c.what, "import") && !strings.Contains(p.Detail, "after 1 rows") {
			t.Errorf("%s: got %q, want it to say how far it came", c.what, p.Detail)
		}
		if took := time.Since(from); took > 30*time.Second {
			t.Errorf("%s: took %s", c.what, took)
		}
	}
	subset(t, "kept", w.call("GET", "/api/contacts/list/l/contacts", "").body, `{"total":1}`)
}

// The time that a body has is not the handler's: what takes longer than that after its body came is not given up.
func TestBodyTimeIsNotTheHandlers(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.BodyTimeout, w.deps.PublishTimeout = 100*time.Millisecond, 400*time.Millisecond })
	for _, headers := range [][]header{nil, {{"Idempotency-Key", "k"}}} {
		// The relay does not publish
		p := w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234568"}`, headers...).problem(503, "unavailable", "")
		if got := p["detail"].(string); !strings.Contains(got, "stored") {
			t.Errorf("got %q, want the detail that the opt-out is stored: the request was cut short", got)
		}
	}
}

// RFC 9110: 405 says which methods there are, and HEAD is GET without a body.
func TestMethods(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, "")
	for path, want := range map[string]string{
		"/api/campaigns": "GET, HEAD, POST", "/api/campaigns/" + id: "GET, HEAD, PUT, DELETE", "/api/campaigns/" + id + "/confirm": "PUT",
		"/api/contacts/list/a%2Fb": "GET, HEAD, PUT, DELETE", sendPath: "POST", "/healthz": "GET, HEAD", "/api/campaigns/" + id + "/live": "PATCH",
	} {
		a := w.call("OPTIONS", path, "")
		a.problem(405, "method_not_allowed", "")
		if got := a.header.Get("Allow"); got != want {
			t.Errorf("%s: got Allow %q, want %q", path, got, want)
		}
	}
	get, head := w.call("GET", "/api/campaigns/"+id, "").want(200), w.call("HEAD", "/api/campaigns/"+id, "").want(200)
	if len(head.body) != 0 || head.header.Get("ETag") != get.header.Get("ETag") || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
		t.Errorf("HEAD: got %v and %d bytes, want the header of GET: %v", head.header, len(head.body), get.header)
	}
	w.call("HEAD", "/healthz", "").want(200)
	w.call("HEAD", "/api/campaigns/camp_1", "").want(404)
}

// A query that cannot be read is not one without parameters, and what no database holds is no search.
func TestTargetsThatCannotBeRead(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	for _, c := range []struct{ target, field string }{
		{"/api/campaigns?search=%zz", ""},
		{"/api/campaigns?search=100%", ""},
		{"/api/campaigns?a=1;b=2", ""},
		{"/api/campaigns?search=%00", "search"},
		{"/api/campaigns?search=%ff", "search"},
		{"/api/campaigns?a%00b=1", ""},
		{"/api/contacts/list/%00", ""},
		{"/api/contacts/list/%ff", ""},
		{"/api/contacts/list/l/imports/a%00", ""},
		{"/api/messages/status/%c0%80", ""},
		{"/api/contacts?search=a%00b", "search"},
		{"/%00", ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		var ok bool
		if r.URL.Path, r.URL.RawQuery, ok = strings.Cut(c.target, "?"); !ok || strings.Contains(r.URL.Path, "%") {
			r.URL.RawPath = r.URL.Path
			r.URL.Path, _ = url.PathUnescape(r.URL.RawPath)
		}
		r.Header.Set("X-Api-Key", w.key)
		rec := httptest.NewRecorder()
		w.server.ServeHTTP(rec, r)
		(&answer{w, rec.Code, rec.Header(), rec.Body.Bytes(), c.target}).problem(400, "malformed_request", c.field)
	}
	// And those that can.
	for _, target := range []string{"/api/campaigns?search=100%25", "/api/campaigns?search=%C3%A8+%2B", "/api/campaigns?unknown=1", "/api/contacts/list/l?x"} {
		w.call("GET", target, "").want(200)
	}
}

// A NUL is in no character set of a message, and Postgres holds none: every operation that takes text refuses it by its
// field.
func TestTextWithNUL(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 1, 0)
	campaign := func(more string) string {
		return fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":%q%s}`, list, more)
	}
	for _, c := range []struct{ method, path, body, field string }{
		{"POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"a\u0000b","contactList":"l"}`, "message"},
		{"POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"a","contactList":["l","\u0000"]}`, "contactList[1]"},
		{"POST", "/api/campaigns", campaign(`,"notes":"\u0000"`), "notes"},
		{"POST", "/api/campaigns", campaign(`,"missingDefault":"\u0000"`), "missingDefault"},
		{"POST", "/api/campaigns", campaign(`,"tags":["a","b\u0000"]`), "tags[1]"},
		{"POST", "/api/contacts", `{"phoneNumber":"+393331234567","attributes":{"a":"\u0000"}}`, "attributes.a"},
		{"POST", "/api/contacts", `{"phoneNumber":"+393331234567","attributes":{"a\u0000":"b"}}`, "attributes.a"},
		{"POST", sendPath, `{"phoneNumber":"+393331234567","message":"a\u0000b"}`, "message"},
		{"POST", "/api/contacts/list/contacts", `{"listId":"\u0000","contactIds":["contact_1"]}`, "listId"},
	} {
		w.call(c.method, c.path, c.body).problem(422, "invalid_value", c.field)
	}
	// A backslash before u0000 is a text that talks about it.
	w.call("POST", "/api/campaigns", campaign(`,"notes":"\\u0000"`)).want(201)
}
