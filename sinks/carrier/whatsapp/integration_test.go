package whatsapp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/deploy/testinfra/peers"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/whatsapp/graph"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited two minutes until %s", what)
		}
	}
}

// seen is a webhook as npm @kapso/whatsapp-cloud-api reads it.
type seen struct {
	Valid    bool
	Phone    string
	Statuses []struct {
		ID, Status, RecipientID string
		Pricing                 *struct{ Category, PricingModel string }
		Errors                  []struct{ Code int }
	}
}

// TestIntegrationKapso: npm @kapso/whatsapp-cloud-api sends templates and texts to our Graph API as it sends them
// to Meta's. It and the connector read the same statuses from each webhook and accept the same signatures. It builds a
// template as the connector does.
func TestIntegrationKapso(t *testing.T) {
	kapso := peers.StartWhatsApp(t)
	type delivery struct {
		body      []byte
		signature string
	}
	var (
		mu   sync.Mutex
		came []delivery
	)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if challenge := r.URL.Query().Get("hub.challenge"); challenge != "" {
			_, _ = io.WriteString(w, challenge)
			return
		}
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		came = append(came, delivery{body, r.Header.Get("X-Hub-Signature-256")})
	}))
	t.Cleanup(endpoint.Close)
	peer := startPeer(t, sim.Profile{Receipt: sim.Lognormal{P50: 20 * time.Millisecond}}, graph.Config{Webhook: endpoint.URL + "/api/callback/wa"})

	// It sends 100 messages.
	const n = 100
	sent := map[string]string{} // numbers by message id
	want := map[string]string{} // what the truth must have, by number
	for i := range n {
		to := fmt.Sprintf("+39347%07d", i)
		question := map[string]any{"base": peer.url, "token": token, "from": phoneID, "to": to}
		if want[to] = fmt.Sprintf("Ciao %d €", i); i%2 == 0 {
			question["name"], question["language"], question["params"] = "order", "it", []string{fmt.Sprint(i), `A "B" {c}`}
			want[to] = fmt.Sprintf(`order/it|%d|A "B" {c}`, i)
		} else {
			question["text"] = want[to]
		}
		var a struct{ Message, Error string }
		kapso.Ask("send", question, &a)
		if a.Message == "" {
			t.Fatalf("%d: it was refused: %s", i, a.Error)
		}
		sent[a.Message] = to
	}
	if len(sent) != n {
		t.Errorf("got %d message ids, want %d", len(sent), n)
	}
	var refused struct {
		Code     int
		Category string
	}
	kapso.Ask("send", map[string]any{"base": peer.url, "token": "another", "from": phoneID, "to": "+393470000000", "text": "x"}, &refused)
	if refused.Code != 190 || refused.Category != "authorization" {
		t.Errorf("a wrong token: it reads %+v, want code 190 of authorization", refused)
	}

	// Each webhook says the same to it and to the connector.
	c := open(t, config(peer.url))
	delivered, read := map[string]bool{}, 0
	eventually(t, "each message is delivered", func() bool {
		mu.Lock()
		list := came[read:]
		read = len(came)
		mu.Unlock()
		for _, d := range list {
			var s seen
			kapso.Ask("webhook", map[string]any{"secret": appSecret, "body": string(d.body), "signature": d.signature}, &s)
			if !s.Valid || s.Phone != phoneID {
				t.Errorf("it reads valid %t and number %s, want a valid signature of %s", s.Valid, s.Phone, phoneID)
			}
			cb := carrier.Callback{Method: http.MethodPost, Header: http.Header{"X-Hub-Signature-256": {d.signature}}, Body: d.body}
			if err := c.Verify(&cb); err != nil {
				t.Errorf("the connector refuses what it accepts: %v", err)
			}
			receipts, _, err := c.Parse(&cb)
			if err != nil || len(receipts) != len(s.Statuses) {
				t.Fatalf("the connector reads %d receipts (%v), it reads %d statuses", len(receipts), err, len(s.Statuses))
			}
			for i, x := range s.Statuses {
				if r := receipts[i]; r.Ref != x.ID || r.To != "+"+x.RecipientID || sent[x.ID] != r.To {
					t.Errorf("the connector reads %s to %s, it reads %+v, sent to %s", r.Ref, r.To, x, sent[x.ID])
				}
				if x.Status == "delivered" {
					delivered[x.ID] = true
					if x.Pricing == nil || x.Pricing.Category != "marketing" || x.Pricing.PricingModel != "PMP" {
						t.Errorf("it reads pricing %+v, want marketing per message", x.Pricing)
					}
				}
			}
			var forged seen
			kapso.Ask("webhook", map[string]any{"secret": "another secret", "body": string(d.body), "signature": d.signature}, &forged)
			if forged.Valid {
				t.Error("it accepts a signature of another secret")
			}
		}
		return len(delivered) == n
	})
	truth, err := sim.ReadTruth(peer.truth)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range truth.Entries {
		if got[e.To] != "" {
			t.Errorf("%s has two messages", e.To)
		}
		got[e.To] = e.Body
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the truth has %v, want %v", got, want)
	}

	// The connector builds a template as it does.
	var request struct{ Template any }
	graphAPI := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, `{"messages":[{"id":"wamid.1"}]}`)
	}))
	t.Cleanup(graphAPI.Close)
	params := []string{"Anna", `"2" {{x}}`, strings.Repeat("è", 100)}
	o := message(t, 1)
	o.Body = carrier.Body{Template: &carrier.Template{Name: "order", Language: "en_US", Params: params}}
	if r := hand(t, open(t, config(graphAPI.URL)), o); r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	var built struct{ Template any }
	kapso.Ask("template", map[string]any{"name": "order", "language": "en_US", "params": params}, &built)
	if !reflect.DeepEqual(request.Template, built.Template) {
		t.Errorf("the connector sends %v, it builds %v", request.Template, built.Template)
	}
}
