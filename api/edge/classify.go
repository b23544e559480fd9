package edge

import (
	_ "embed"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
)

// class says who opened a link. code is the code of the clicked event; 0 is a person. rule names the signal that
// decided and becomes the event's raw code.
type class struct {
	code schemas.Code
	rule string
}

//go:embed agents.txt
var agentsText string

type agentRule struct {
	code schemas.Code
	part string
}

var agentRules = func() []agentRule {
	rules, err := parseAgents(agentsText)
	if err != nil {
		panic(err) //nolint:forbidigo // agents.txt is embedded in the binary
	}
	return rules
}()

func parseAgents(text string) (out []agentRule, err error) {
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, part, ok := strings.Cut(line, "\t")
		code, known := map[string]schemas.Code{"person": schemas.CodeUnspecified, "preview": schemas.CodePreview, "scanner": schemas.CodeBot}[word]
		if !ok || !known || part == "" || part != strings.ToLower(part) {
			return nil, fmt.Errorf("agents.txt line %d: want person, preview or scanner, a tab, and a text in lower case", i+1)
		}
		out = append(out, agentRule{code, part})
	}
	return out, nil
}

// maxAgent is how many bytes of a user agent are read. Real user agents are shorter.
const maxAgent = 512

// classify decides from one request who opened the link. It looks, in this order, at the method (browsers of people
// send no HEAD), the headers by which browsers and apps announce a prefetch, the user agent, and the headers that every
// browser of a person sends.
func classify(r *http.Request) class {
	if r.Method == http.MethodHead {
		return class{schemas.CodeBot, "head"}
	}
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if v := strings.ToLower(r.Header.Get(name)); strings.Contains(v, "prefetch") || strings.Contains(v, "preview") || strings.Contains(v, "prerender") {
			return class{schemas.CodePreview, "prefetch"}
		}
	}
	if v := r.Header.Get("Sec-Fetch-Dest"); v != "" && v != "document" {
		return class{schemas.CodePreview, "fetch"}
	}
	agent := strings.ToLower(r.UserAgent())
	if len(agent) > maxAgent {
		agent = agent[:maxAgent]
	}
	for _, rule := range agentRules {
		if !strings.Contains(agent, rule.part) {
			continue
		}
		if rule.code != schemas.CodeUnspecified {
			return class{rule.code, "agent:" + rule.part}
		}
		agent = strings.ReplaceAll(agent, rule.part, "")
	}
	switch {
	case agent == "":
		return class{schemas.CodeUnsure, "no_agent"}
	case !strings.HasPrefix(agent, "mozilla/") && !strings.HasPrefix(agent, "opera/"):
		return class{schemas.CodeUnsure, "no_browser"}
	case r.Header.Get("Accept-Language") == "":
		return class{schemas.CodeUnsure, "no_language"}
	}
	return class{schemas.CodeUnspecified, "person"}
}

// When one place opens the links of many recipients, it is a program. Thousands of phones of one network can share an
// IP address, so a place is the address together with the user agent. The limit is far above what people with the same
// phone model on one network open in that time.
const (
	manyTokens = 50
	manyWithin = 10 * time.Second
	manySlots  = 1 << 13
)

// crowd detects a place that opens the links of many recipients. Its memory is fixed: places that hash to the same slot
// share a count.
type crowd struct {
	mu    sync.Mutex
	slots [manySlots]crowdSlot
}

type crowdSlot struct {
	began int64 // milliseconds
	seen  [8]uint64
	n     int
}

// many records that a place opened a recipient's link, and reports whether the place has opened the links of too many
// recipients.
func (c *crowd) many(place, recipient uint64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.slots[place%manySlots]
	if ms := now.UnixMilli(); ms-s.began >= manyWithin.Milliseconds() || ms < s.began {
		*s = crowdSlot{began: ms}
	}
	bit := recipient % 512
	if s.seen[bit/64]&(1<<(bit%64)) == 0 {
		s.seen[bit/64] |= 1 << (bit % 64)
		s.n++
	}
	return s.n > manyTokens
}
