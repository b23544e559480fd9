package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/credentials"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// connectors are a simulator and one real carrier, which wants a host and a password.
func connectors(t testing.TB) api.Connectors {
	t.Helper()
	keys, err := credentials.Parse(credentials.Generate())
	if err != nil {
		t.Fatal(err)
	}
	sms := []schemas.Channel{schemas.ChannelSMS}
	return api.Connectors{
		List: []api.Connector{
			{Name: "sim", Simulated: true, Channels: []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice}},
			{Name: "smpp", Channels: sms, Secrets: []string{"password", "tls.*"}, Callbacks: true, Check: func(settings []byte) error {
				var s struct{ Host, Password string }
				if err := json.Unmarshal(settings, &s); err != nil {
					return err
				}
				if s.Host == "" || s.Password == "" {
					return errors.New("smpp: want host and password")
				}
				return nil
			}},
		},
		Sealing: keys,
		Test: func(_ context.Context, _, _ string, settings []byte) error {
			if !strings.Contains(string(settings), "s3cret") {
				return errors.New("bind refused: invalid password")
			}
			return nil
		},
	}
}

const acmeRoute = `{"name":"acme","connector":"smpp","rate":50,"configuration":{"host":"smsc.example.org","binds":2},"credentials":{"password":"s3cret"}}`

// Routes and their credentials are rows, not flags. Credentials are write-only: the API never gives them back, and the
// store and the log hold them sealed.
func TestRoutes(t *testing.T) {
	w := newEnv(t)
	w.callAs(w.key, "GET", "/api/routes", "").problem(403, "scope_missing", "") // an operator's
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)

	got := w.call("POST", "/api/routes", acmeRoute).want(201)
	if got.get("status") != "active" || got.get("rate") != "50" || got.get("credentials.0") != "password" || got.get("configuration.binds") != "2" ||
		got.get("channels.0") != "sms" || got.get("simulated") != "false" || got.get("receiptWindow") != "259200" || got.get("callbackPath") != "/api/callback/acme" {
		t.Errorf("got %s", got.body)
	}
	w.call("POST", "/api/routes", acmeRoute).problem(409, "name_taken", "name")
	for body, field := range map[string]string{
		`{"connector":"smpp","rate":1}`: "name",
		`{"name":"Acme 2","connector":"smpp","rate":1,"configuration":{"host":"h"},"credentials":{"password":"p"}}`: "name",
		`{"name":"b","rate":1}`:                      "connector",
		`{"name":"b","connector":"pigeon","rate":1}`: "connector",
		`{"name":"b","connector":"sim"}`:             "rate",
		`{"name":"b","connector":"sim","rate":0}`:    "rate",
		`{"name":"b","connector":"smpp","rate":1,"channels":["rcs"],"configuration":{"host":"h"},"credentials":{"password":"p"}}`: "channels",
		`{"name":"b","connector":"smpp","rate":1,"configuration":{"host":"h","password":"p"}}`:                                    "configuration.password",
		`{"name":"b","connector":"smpp","rate":1,"configuration":{"host":"h"},"credentials":{"pasword":"p"}}`:                     "credentials.pasword",
		`{"name":"b","connector":"smpp","rate":1,"configuration":{"host":"h"}}`:                                                   "configuration",
		`{"name":"b","connector":"sim","rate":1,"share":0}`:                                                                       "share",
		`{"name":"b","connector":"sim","rate":1,"priority":101}`:                                                                  "priority",
	} {
		answer := w.call("POST", "/api/routes", body).want(422)
		if answer.get("field") != field {
			t.Errorf("%s: got %s, want a problem of %s", body, answer.body, field)
		}
	}

	all := w.call("GET", "/api/routes", "").want(200)
	one := w.call("GET", "/api/routes/acme", "").want(200)
	row, err := w.store.Route(t.Context(), "acme")
	w.check(err)
	records, err := w.store.Unpublished(t.Context(), 100)
	w.check(err)
	published := ""
	for _, r := range records {
		published += string(r.Value)
	}
	for what, text := range map[string]string{"answer": string(got.body) + string(one.body) + string(all.body), "row": row.Configuration + string(row.Credentials), "records": published, "log": w.logs.String()} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("the %s shows the password: %s", what, text)
		}
	}

	tag := one.header.Get("ETag")
	changed := w.call("PUT", "/api/routes/acme", `{"rate":75,"cost":0.01}`, header{"If-Match", tag}).want(200)
	if changed.get("rate") != "75" || changed.get("cost") != "0.01" || changed.get("credentials.0") != "password" || changed.get("configuration.host") != "smsc.example.org" {
		t.Errorf("got %s, want the rest as it was", changed.body)
	}
	w.call("PUT", "/api/routes/acme", `{"rate":80}`, header{"If-Match", tag}).want(412)
	same := w.call("PUT", "/api/routes/acme", `{"credentials":{"password":"s3cret"}}`).want(200)
	if same.header.Get("ETag") != changed.header.Get("ETag") {
		t.Error("the same credentials again made another version: every sender would open the route again")
	}
	w.call("PUT", "/api/routes/acme", `{"name":"other"}`).problem(422, "read_only", "name")
	w.call("GET", "/api/routes/nowhere", "").want(404)

	if got := w.call("POST", "/api/routes/acme/test", "").want(200); got.get("ok") != "true" {
		t.Errorf("got %s", got.body)
	}
	w.call("PUT", "/api/routes/acme", `{"credentials":{"password":"other"}}`).want(200)
	if got := w.call("POST", "/api/routes/acme/test", "").want(200); got.get("ok") != "false" || got.get("detail") != "bind refused: invalid password" {
		t.Errorf("got %s", got.body)
	}

	w.call("DELETE", "/api/routes/acme", "").want(409) // active
	if got := w.call("POST", "/api/routes/acme/pause", "").want(200); got.get("status") != "paused" {
		t.Errorf("got %s", got.body)
	}
	w.call("POST", "/api/routes/acme/resume", "").want(200)
	w.call("POST", "/api/routes/acme/pause", "").want(200)
	w.call("PUT", "/api/tenants/Acme", `{"defaultRoute":"acme"}`).want(200)
	w.call("DELETE", "/api/routes/acme", "").want(409) // a tenant's default
	w.call("PUT", "/api/tenants/Acme", `{"defaultRoute":"sim"}`).want(200)
	w.call("DELETE", "/api/routes/acme", "").want(200)
	w.call("GET", "/api/routes/acme", "").want(404)
	back := w.call("POST", "/api/routes", acmeRoute).want(201) // the name comes back with a higher version
	if back.get("version") == "1" || back.get("status") != "active" {
		t.Errorf("got %s", back.body)
	}
}

// A server without the key says so, shows what it cannot open, and takes new credentials once it has one.
func TestRoutesWithoutTheirKey(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	w.call("POST", "/api/routes", acmeRoute).want(201)
	right := w.deps.Connectors.Sealing
	w.deps.Connectors.Sealing, w.deps.Registry = nil, newRegistry()
	w.serve()
	if got := w.call("GET", "/api/routes/acme", "").want(200); got.get("credentialsUnreadable") != "true" {
		t.Errorf("got %s", got.body)
	}
	w.call("PUT", "/api/routes/acme", `{"rate":1}`).problem(422, "invalid_value", "credentials")
	got := w.call("PUT", "/api/routes/acme", `{"credentials":{"password":"p"}}`).want(409)
	if !strings.Contains(got.get("fix"), "FANFARE_CREDENTIALS_KEY") {
		t.Errorf("got %s", got.body)
	}
	w.call("POST", "/api/routes/acme/pause", "").want(200) // it needs no key
	w.deps.Connectors = connectors(t)
	if w.deps.Connectors.Sealing == right {
		t.Fatal("the key is the same")
	}
	w.deps.Registry = newRegistry()
	w.serve()
	w.call("PUT", "/api/routes/acme", `{"rate":2}`).problem(422, "invalid_value", "credentials")
	w.call("PUT", "/api/routes/acme", `{"rate":2,"credentials":{"password":"p"}}`).want(200)
	if got := w.call("GET", "/api/routes/acme", "").want(200); got.get("credentialsUnreadable") != "false" {
		t.Errorf("got %s", got.body)
	}
}

// Where the tenant's default route does not carry a channel, the best route of the channel takes the leg: priority,
// then cost, then share.
func TestLegGoesByTheBestRouteOfItsChannel(t *testing.T) {
	w := newEnv(t)
	for _, r := range []store.Route{
		{Name: "dear", Priority: 1, Cost: 1},
		{Name: "first", Cost: 20},
		{Name: "off", Cost: 5},
		{Name: "second", Cost: 10, Share: 3},
		{Name: "third", Cost: 10},
	} {
		r.Connector, r.Rate, r.Enabled, r.Channels, r.ReceiptWindow, r.P99 = "smpp", 10, r.Name != "off", []schemas.Channel{schemas.ChannelSMS}, time.Hour, time.Second
		_, err := w.store.CreateRoute(t.Context(), r)
		w.check(err)
	}
	_, err := w.store.CreateRoute(t.Context(), store.Route{Name: "rcs", Connector: "sim", Rate: 1, Enabled: true, Channels: []schemas.Channel{schemas.ChannelRCS}, ReceiptWindow: time.Hour})
	w.check(err)
	_, err = w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(t *store.Tenant) error { t.DefaultRoute = "rcs"; return nil })
	w.check(err)
	taken := map[string]int{}
	for range 8 {
		id := w.campaign(1, "")
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		taken[c.Legs[0].Route]++
	}
	if taken["second"] != 6 || taken["third"] != 2 {
		t.Errorf("got %v, want 6 campaigns by second and 2 by third: the cheapest of priority 0, by share", taken)
	}
}

// A campaign that names no route has others that carry it while its route is down, and new work does not go to a route
// that is down. Nothing moves between real and simulated carriers, or to and from a route with failover off.
func TestOtherRoutes(t *testing.T) {
	var down sync.Map
	w := newEnv(t, func(w *env) {
		w.deps.Connectors = connectors(t)
		w.deps.RouteHealth = func(route string) schemas.RouteHealth {
			if _, is := down.Load(route); is {
				return schemas.RouteHealth{State: schemas.LineStateDown}
			}
			return schemas.RouteHealth{State: schemas.LineStateUp}
		}
	})
	for _, r := range []store.Route{
		{Name: "main", Priority: 1},
		{Name: "cheap", Cost: 5},
		{Name: "dear", Cost: 10},
		{Name: "alone"},
		{Name: "voice", Channels: []schemas.Channel{schemas.ChannelVoice}},
		{Name: "play", Connector: "sim"},
	} {
		r.Rate, r.Enabled, r.ReceiptWindow, r.P99 = 10, true, time.Hour, time.Second
		r.Care = store.DefaultCare
		r.Care.NoFailover = r.Name == "alone"
		if r.Connector == "" {
			r.Connector = "smpp"
		}
		if r.Channels == nil {
			r.Channels = []schemas.Channel{schemas.ChannelSMS}
		}
		_, err := w.store.CreateRoute(t.Context(), r)
		w.check(err)
	}
	tenant := func(route string) {
		_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(t *store.Tenant) error { t.DefaultRoute = route; return nil })
		w.check(err)
	}
	routes := func(more string) string {
		t.Helper()
		w.clock.forward(time.Minute) // what the process remembers of routes and tenants is too old
		id := w.campaign(1, more)
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		view := w.call("GET", "/api/campaigns/"+id, "").want(200)
		c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		if got, want := view.get("otherRoutes"), fmt.Sprint(c.Legs[0].OtherRoutes); got != want {
			t.Errorf("the campaign shows the other routes %s, want %s", got, want)
		}
		return c.Legs[0].Route + " " + strings.Join(c.Legs[0].OtherRoutes, " ")
	}
	tenant("main")
	for _, c := range []struct{ more, down, want string }{
		{"", "", "main cheap dear"},
		{"", "main", "main cheap dear"}, // it comes back
		{`,"route":"main"`, "main", "main "},
	} {
		down.Clear()
		down.Store(c.down, true)
		if got := routes(c.more); got != c.want {
			t.Errorf("%q, %s is down: the campaign goes by %q, want %q", c.more, c.down, got, c.want)
		}
	}
	down.Clear()
	tenant("alone")
	if got := routes(""); got != "alone " {
		t.Errorf("the campaign goes by %q, want only the route whose failover is off", got)
	}
	tenant("voice")
	if got := routes(""); got != "alone " { // first by priority and cost
		t.Errorf("the campaign goes by %q, want the best route of SMS", got)
	}
	down.Store("alone", true)
	if got := routes(""); got != "cheap main dear" && got != "cheap dear main" {
		t.Errorf("the campaign goes by %q, want the best route of SMS that is not down", got)
	}
	down.Clear()
	_, err := w.store.UpdateRoute(t.Context(), "cheap", 0, func(r *store.Route) error { r.Enabled = false; return nil })
	w.check(err)
	tenant("cheap")
	if got := routes(""); got != "main dear" && got != "dear main" {
		t.Errorf("the campaign goes by %q, want a route with failover instead of the paused one", got)
	}
	// A campaign to people does not go to a simulator because the real routes are down or paused, nor the other way round.
	for _, name := range []string{"main", "cheap", "dear", "alone"} {
		down.Store(name, true)
	}
	tenant("voice")
	if got := routes(""); strings.HasPrefix(got, "play") {
		t.Errorf("the campaign goes by %q, want a real route although all are down", got)
	}
	down.Clear()
	for _, name := range []string{"alone", "play"} {
		_, err := w.store.UpdateRoute(t.Context(), name, 0, func(r *store.Route) error { r.Enabled = false; return nil })
		w.check(err)
		tenant(name)
		w.clock.forward(time.Minute)
		id := w.campaign(1, "")
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "invalid_value", "route")
	}
}

// LoadRoutes makes rows of a file, changes nothing the second time, and names the route and the field at fault.
func TestLoadRoutes(t *testing.T) {
	w := newEnv(t)
	c := connectors(t)
	file := []byte(`{"routes":[` + acmeRoute + `,{"name":"spare","connector":"sim","rate":5,"channels":["sms"]}]}`)
	changed, err := api.LoadRoutes(t.Context(), w.store, c, file)
	if err != nil || !slices.Equal(changed, []string{"acme", "spare"}) {
		t.Fatalf("got %v, %v", changed, err)
	}
	if changed, err = api.LoadRoutes(t.Context(), w.store, c, file); err != nil || len(changed) != 0 {
		t.Errorf("the second time: got %v, %v, want no change", changed, err)
	}
	_, err = api.LoadRoutes(t.Context(), w.store, c, []byte(`{"routes":[{"name":"b","connector":"smpp","rate":1,"configuration":{"host":"h","password":"x"}}]}`))
	if err == nil || !strings.Contains(err.Error(), `route "b": configuration.password`) {
		t.Errorf("got %v", err)
	}
	if _, err = api.LoadRoutes(t.Context(), w.store, c, []byte(`{"routes":[{"nam":"b"}]}`)); err == nil || !strings.Contains(err.Error(), "routes[0].nam") {
		t.Errorf("got %v", err)
	}
}

// A callback is verified as it came, and answered once Kafka has it. What logs in is not written down.
func TestCallback(t *testing.T) {
	w := newEnv(t, func(w *env) {
		_, err := kadm.NewClient(w.client).CreateTopic(w.Context(), 1, 1, nil, w.names.Callbacks())
		w.check(err)
		w.deps.Connectors.Verify = func(r *http.Request, c *fanfarev1.Callback) (api.Called, error) {
			switch {
			case c.GetRoute() != "acme":
				return api.Called{}, api.ErrNoCallbacks
			case r.URL.Query().Get("hub.verify_token") == "ours":
				return api.Called{Handshake: r.URL.Query().Get("hub.challenge")}, nil
			case r.Header.Get("Authorization") != "Basic right" || string(c.GetBody()) != `{"id": 1}` && r.Method == http.MethodPost:
				return api.Called{}, api.ErrUnverified
			}
			return api.Called{}, nil
		}
	})
	right := header{"Authorization", "Basic right"}
	w.callAs("", "POST", "/api/callback/acme?k=1", `{"id": 1}`, right).want(200)
	w.callAs("", "GET", "/api/callback/acme?type=1", "", right).want(200)
	// A handshake is answered as text, and not stored: only the two callbacks around it are read below.
	shaken := w.callAs("", "GET", "/api/callback/acme?hub.verify_token=ours&hub.challenge=%3Cb%3E1158", "").want(200)
	if string(shaken.body) != "<b>1158" || shaken.header.Get("Content-Type") != "text/plain; charset=utf-8" || shaken.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("handshake: got %q with %v", shaken.body, shaken.header)
	}
	w.callAs("", "POST", "/api/callback/acme", `{"id": 1}`).want(401)
	w.callAs("", "POST", "/api/callback/acme", `{"id":1}`, right).want(401) // another body
	w.callAs("", "POST", "/api/callback/other", `{"id": 1}`, right).want(404)
	w.callAs("", "POST", "/api/callback/Bad%20name", `{"id": 1}`, right).want(404)
	w.callAs("", "POST", "/api/callback/acme", strings.Repeat("x", 600<<10), right).want(413)

	reader, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.ConsumeTopics(w.names.Callbacks()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	w.check(err)
	defer reader.Close()
	var got []*fanfarev1.Callback
	for len(got) < 2 {
		fetches := reader.PollFetches(t.Context())
		w.check(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			c := &fanfarev1.Callback{}
			w.check(proto.Unmarshal(r.Value, c))
			got = append(got, c)
		})
	}
	if string(got[0].GetBody()) != `{"id": 1}` || got[0].GetRoute() != "acme" || !strings.HasSuffix(got[0].GetUrl(), "/api/callback/acme?k=1") || got[0].GetMethod() != "POST" {
		t.Errorf("got %v", got[0])
	}
	for _, h := range got[0].GetHeaders() {
		if h.GetName() == "Authorization" {
			t.Error("the password of the callback is in the log")
		}
	}
	if got[1].GetMethod() != "GET" {
		t.Errorf("got %v", got[1])
	}

	w.kafka.Close() // a carrier that is not answered calls again
	w.deps.AckTimeout, w.deps.Registry = 100*time.Millisecond, newRegistry()
	w.serve()
	if got := w.callAs("", "POST", "/api/callback/acme", `{"id": 1}`, right).want(503); got.header.Get("Retry-After") == "" {
		t.Errorf("got %v, want a Retry-After", got.header)
	}
}

// A campaign whose messages go to a simulator says so, also in its statistics.
func TestSimulatedCampaigns(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	w.call("POST", "/api/routes", acmeRoute).want(201)
	w.list("people", 3, 0)
	for route, want := range map[string]string{"sim": "true", "acme": "false"} {
		id := w.call("POST", "/api/campaigns", `{"name":"x","channel":"sms","message":"Hello","contactList":"people","sendImmediately":true,"route":"`+route+`"}`).want(201).id()
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		for _, path := range []string{"/api/campaigns/" + id, "/api/campaigns/" + id + "/stats"} {
			if got := w.call("GET", path, "").want(200).get("simulated"); got != want {
				t.Errorf("route %s, %s: got simulated %s, want %s", route, path, got, want)
			}
		}
	}
}
