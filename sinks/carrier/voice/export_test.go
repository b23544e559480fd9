package voice

import (
	"slices"
	"strings"
	"time"
)

// Die ends the connector as kill -9 ends a process: nothing is waited for, and nothing is said to Asterisk any more.
func (c *Connector) Die() {
	c.mu.Lock()
	c.closed, c.ready = true, false
	c.end()
	c.turn.Broadcast()
	c.mu.Unlock()
	c.dials.CloseIdle()
}

// Living are the submission ids of the calls that hold a place, in hexadecimal.
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

// FuzzedEvent is what is read of an event, for the fuzzer.
func FuzzedEvent(raw []byte) (kind, id string, err error) {
	e, err := parseEvent(raw, time.Now())
	if err != nil {
		return "", "", err
	}
	fuzzed().heard(e)
	return e.Type, e.channelID(), nil
}

// fuzzed is a connector that follows a call without asking Asterisk.
func fuzzed() *Connector {
	c, err := New(Config{BaseURL: "http://127.0.0.1:1/ari", Username: "u", Password: "p", Endpoint: "PJSIP/{number}@x", MaxConcurrent: 1}, Deps{})
	if err != nil {
		panic(err)
	}
	c.end()
	return c
}
