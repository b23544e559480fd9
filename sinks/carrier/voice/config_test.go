package voice_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/voice"
	"fanfare/sinks/carrier/voice/ari"
)

const good = `{"baseUrl":"http://127.0.0.1:8088/ari","username":"fanfare","password":"s3cret","endpoint":"PJSIP/{number}@trunk","maxConcurrent":10}`

func TestParse(t *testing.T) {
	c, err := voice.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	connector, err := voice.New(c, voice.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	caps := connector.Caps()
	if caps.MaxBatch != 1 || caps.Doubt != carrier.DoubtNone || !caps.EchoesKey || caps.Pacing != carrier.PacingConcurrent || caps.Receipts != carrier.ReceiptsSession {
		t.Errorf("got %+v, want calls at once, one in a batch, whose doubts only receipts end", caps)
	}
	if err := connector.Drain(t.Context()); err != nil { // the connector was never connected
		t.Error(err)
	}
	if shown, err := json.Marshal(c); err != nil || strings.Contains(string(shown), "s3cret") {
		t.Errorf("got %s (%v), want nothing of the password", shown, err)
	}
}

// The error for each wrong field names the field.
func TestParseFaults(t *testing.T) {
	with := func(field, value string) string {
		return strings.TrimSuffix(good, "}") + `,"` + field + `":` + value + `}`
	}
	for field, text := range map[string]string{
		"baseUrl": `{}`, "username": `{}`, "password": `{}`, "endpoint": `{}`, "maxConcurrent": `{}`,
		"wrong":          with("wrong", `1`),
		"app":            with("app", `"a b"`),
		"ring":           with("ring", `"3m"`),
		"machineContext": with("machineContext", `"a,b"`),
		"queueContext":   with("queueContext", `"_."`),
		"unsure":         with("unsure", `"perhaps"`),
		"textToSpeech":   with("textToSpeech", `"https://tts.example.org/say"`),
		"hold":           with("hold", `"1ms"`),
		"answerTimeout":  with("answerTimeout", `"1ms"`),
		"ca":             with("ca", `"no certificate"`),
		"codes":          with("codes", `["stat,q850:17,nonsense,"]`),
	} {
		if _, err := voice.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v, want an error that names it", field, err)
		}
	}
	for _, endpoint := range []string{"PJSIP/trunk", "{number}"} {
		if _, err := voice.Parse([]byte(strings.Replace(good, "PJSIP/{number}@trunk", endpoint, 1))); err == nil || !strings.Contains(err.Error(), "endpoint") {
			t.Errorf("endpoint %q: got %v, want an error that names it", endpoint, err)
		}
	}
}

// Reach reports whether Asterisk answers and accepts the password. It must not take the events away from another
// process.
func TestReach(t *testing.T) {
	p := startPeer(t, sim.Profile{}, ari.Config{})
	running := open(t, p.config())
	if r := hand(t, running, calls(t, 0, 1, audio)[0]); r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	if err := open(t, p.config()).Reach(t.Context()); err != nil {
		t.Errorf("got %v, want none", err)
	}
	if !running.Health().Ready || running.Health().Sessions != 1 {
		t.Errorf("the connector that runs: got %+v, want ready", running.Health())
	}
	wrong := p.config()
	wrong.Password = "wrong"
	if err := open(t, wrong).Reach(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("got %v, want 401", err)
	}
	closed := p.config()
	closed.BaseURL = "http://127.0.0.1:1/ari"
	c := open(t, closed)
	if err := c.Reach(context.Background()); err == nil {
		t.Error("no server: got no error")
	}
	if r := hand(t, c, calls(t, 1, 1, audio)[0]); r.Outcome != carrier.Retryable || r.Code != "not connected" {
		t.Errorf("no server: got %+v, want retryable", r)
	}
	if c.Health().Ready || c.Health().LastError == nil {
		t.Errorf("no server: got %+v, want not ready, and why", c.Health())
	}
}
