package voice

import (
	"slices"
	"strings"
	"time"
)

// Die ends the connector as kill -9 ends a process: it waits for nothing and sends nothing more to Asterisk.
func (c *Connector) Die() {
	c.mu.Lock()
	c.closed, c.ready = true, false
	c.end()
	c.turn.Broadcast()
	c.mu.Unlock()
	c.dials.CloseIdle()
}

// Living returns the submission ids of the calls that take up a place, in hexadecimal.
func (c *Connector) Living() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]string, 0, len(c.calls))
	for id := range c.calls {
		out = append(out, strings.TrimPrefix(id, c.cfg.prefix))
	}
	slices.Sort(out)
	return out
}

// FuzzedEvent returns the parts of an event, for the fuzzer.
func FuzzedEvent(raw []byte) (kind, id string, err error) {
	e, err := parseEvent(raw, time.Now())
	if err != nil {
		return "", "", err
	}
	fuzzed().heard(e)
	return e.Type, e.channelID(), nil
}

// fuzzed returns a connector that follows a call without requests to Asterisk.
func fuzzed() *Connector {
	c, err := New(Config{BaseURL: "http://127.0.0.1:1/ari", Username: "u", Password: "p", Endpoint: "PJSIP/{number}@x", MaxConcurrent: 1}, Deps{})
	if err != nil {
		panic(err)
	}
	c.end()
	return c
}
