package rcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// maxProbe is how many numbers one query (users:batchGet) may have.
const maxProbe = 10_000

// Probe implements [carrier.Prober] for the account's agent.
func (c *Connector) Probe(ctx context.Context, to []string) (reach []bool, ttl time.Duration, err error) {
	return c.probe(ctx, c.cfg.AgentID, to)
}

// probe returns which numbers of to an agent can reach by RCS. It queries only the numbers that it does not remember.
func (c *Connector) probe(ctx context.Context, agent string, to []string) (reach []bool, ttl time.Duration, err error) {
	now := time.Now()
	reach = make([]bool, len(to))
	var ask []string
	var at []int
	for i, number := range to {
		known, ok := c.known.get(agent, number, now)
		if ok {
			reach[i] = known
			continue
		}
		ask, at = append(ask, number), append(at, i)
	}
	for begin := 0; begin < len(ask); begin += maxProbe {
		part := ask[begin:min(len(ask), begin+maxProbe)]
		found, err := c.ask(ctx, agent, part)
		if err != nil {
			return nil, 0, err
		}
		for i, number := range part {
			ok := found[number]
			reach[at[begin+i]] = ok
			c.known.put(agent, number, ok, now)
		}
	}
	return reach, c.cfg.knownFor, nil
}

// ask queries the platform.
func (c *Connector) ask(ctx context.Context, agent string, to []string) (reachable map[string]bool, err error) {
	body, err := json.Marshal(map[string]any{"users": to, "agentId": agent})
	if err != nil {
		return nil, fmt.Errorf("rcs: capabilities: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	a, err := c.call(ctx, http.MethodPost, "users:batchGet", nil, body, never)
	if err != nil {
		return nil, fmt.Errorf("rcs: capabilities: %w", err)
	}
	var doc struct {
		Reachable []string `json:"reachableUsers"`
	}
	if a.Status/100 != 2 {
		return nil, fmt.Errorf("rcs: capabilities: %w", c.refusal(a))
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil || a.Torn {
		return nil, errors.New("rcs: capabilities: the answer cannot be read")
	}
	reachable = make(map[string]bool, len(doc.Reachable))
	for _, number := range doc.Reachable {
		reachable[number] = true
	}
	return reachable, nil
}

// known remembers which numbers have RCS, in about 100 bytes each. It has at most mostKnown; when it is full, the older
// half is dropped.
type known struct {
	keep time.Duration

	mu       sync.Mutex
	new, old map[knownKey]knownAnswer
}

type knownKey struct{ agent, number string }

type knownAnswer struct {
	reach bool
	until int64 // Unix seconds
}

const mostKnown = 1_000_000

func newKnown(keep time.Duration) *known {
	return &known{keep: keep, new: map[knownKey]knownAnswer{}, old: map[knownKey]knownAnswer{}}
}

func (k *known) get(agent, number string, now time.Time) (reach, ok bool) {
	key := knownKey{agent, number}
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.new[key]
	if !ok {
		a, ok = k.old[key]
	}
	return a.reach, ok && now.Unix() < a.until
}

func (k *known) put(agent, number string, reach bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.new) >= mostKnown/2 {
		k.old, k.new = k.new, map[knownKey]knownAnswer{}
	}
	k.new[knownKey{agent, number}] = knownAnswer{reach, now.Add(k.keep).Unix()}
}
