// Package doctor examines everything that Fanfare runs on and says how to fix each problem. It
// changes nothing: it creates no topic, table or file.
package doctor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"fanfare/cmd/fanfare/services"
)

// Config says what to examine: the services, files and addresses that `fanfare serve` would use with the same flags.
type Config struct {
	services.Config
	Uses Uses

	Data string // the directory of what is embedded
	HTTP string
	// Prefix of topics, groups and Redis keys; Schema is the same as Postgres and ClickHouse spell it.
	Prefix, Schema string
	Replication    int
	CarrierSim     string // URL of a simulated carrier that several processes share
	// DefaultRoute is the route that every installation has.
	DefaultRoute string
}

// Uses says what the roles of the process use. The rest is not examined.
type Uses struct {
	Data, Redis, Store, Statistics, Carrier bool
}

// embeddedKafka reports whether the process runs its own broker.
func (c Config) embeddedKafka() bool { return len(c.Kafka.Brokers) == 0 }

// A Level says how serious a finding is.
type Level string

// Levels.
const (
	OK   Level = "ok"
	Note Level = "note" // worth knowing
	Bad  Level = "bad"  // must be mended
)

// A Finding says what was found, and what to do if it is not as it should be.
type Finding struct {
	Service string `json:"service"`
	Level   Level  `json:"level"`
	Found   string `json:"found"`
	Fix     string `json:"fix,omitempty"`
}

func ok(service, found string) Finding {
	return Finding{service, OK, services.OneLine(found), ""}
}

func note(service, found, fix string) Finding {
	return Finding{service, Note, services.OneLine(found), services.OneLine(fix)}
}

func bad(service, found, fix string) Finding {
	return Finding{service, Bad, services.OneLine(found), services.OneLine(fix)}
}

func problem(service string, p *services.Problem) Finding { return bad(service, p.Found, p.Fix) }

// Examine looks at everything at once. A failed examination does not keep the others from being made.
func Examine(ctx context.Context, cfg Config) []Finding {
	examinations := []func(context.Context, Config) []Finding{
		examineData, examineHTTP, examineStore, examineKafka, examineRedis, examineStatistics, examineCarrier,
	}
	found := make([][]Finding, len(examinations))
	var wg sync.WaitGroup
	for i, examine := range examinations {
		wg.Go(func() { found[i] = examine(ctx, cfg) })
	}
	wg.Wait()
	return slices.Concat(found...)
}

// AnyBad reports whether a finding says that something must be fixed.
func AnyBad(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Level == Bad })
}

// Print writes findings for people: one line for what was found, and one for what to do.
func Print(out io.Writer, all []Finding) {
	wrong := 0
	for _, f := range all {
		word := string(f.Level)
		if f.Level == Bad {
			word = "BAD"
			wrong++
		}
		fmt.Fprintf(out, "%-4s %-10s %s\n", word, f.Service, f.Found)
		if f.Fix != "" {
			fmt.Fprintf(out, "%-15s -> %s\n", "", f.Fix)
		}
	}
	switch wrong {
	case 0:
		fmt.Fprintln(out, "No problems found.")
	case 1:
		fmt.Fprintln(out, "1 problem found.")
	default:
		fmt.Fprintf(out, "%d problems found.\n", wrong)
	}
}

// few names the first three of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// before returns the part of s before sep.
func before(s, sep string) string {
	head, _, _ := strings.Cut(s, sep)
	return head
}

// orElse returns s, or other if s is empty.
func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
