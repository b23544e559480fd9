// Package codes translates a carrier's codes, in answers to hand-overs and in receipts, into ours. The translation is
// data: lines of a file that each connector has, and further lines of an account for its carrier's own codes.
//
// A line is kind,code,meaning,sub-status:
//
//	answer,0x58,throttled,THROTTLED           of an answer; also rejected, retryable, unknown, unsupported, accepted
//	stat,DELIVRD,delivered,DELIVERED          of a receipt: buffered, delivered, read, failed or unknown
//	err,005,,UNKNOWN_SUBSCRIBER               of a receipt that says failed: a more exact reason
//	wait,131056,6s,                           the wait before the next try, unless the answer names one
//
// A later line for the same code replaces an earlier one. Upper and lower case are equal, and so are numbers with and
// without leading zeros. Empty lines, and lines that begin with #, are skipped.
package codes

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Table is the meanings of one account's codes. It is safe for concurrent use.
type Table struct {
	answers map[string]Answer
	stats   map[string]said
	errs    map[string]schemas.Code
	waits   map[string]time.Duration
}

// Answer is the meaning of an answer to a hand-over.
type Answer struct {
	Outcome carrier.Outcome
	Sub     schemas.Code
}

type said struct {
	status schemas.ReceiptStatus
	sub    schemas.Code
}

// New returns a table of a connector's lines, followed by the account's own lines. Its errors name the line.
func New(standard string, own []string) (*Table, error) {
	t := &Table{answers: map[string]Answer{}, stats: map[string]said{}, errs: map[string]schemas.Code{}, waits: map[string]time.Duration{}}
	if err := t.read("standard codes", strings.Split(standard, "\n")); err != nil {
		return nil, err
	}
	if err := t.read("codes", own); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) read(name string, lines []string) error {
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := t.add(line); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, i+1, err)
		}
	}
	return nil
}

func (t *Table) add(line string) error {
	f := strings.Split(line, ",")
	if len(f) != 4 {
		return fmt.Errorf("got %d fields in %q, want kind,code,meaning,sub-status", len(f), line)
	}
	kind, code, meaning, name := f[0], normal(f[1]), f[2], f[3]
	sub, ok := schemas.ParseCode(name)
	if !ok && name != "" {
		return fmt.Errorf("%q is not a sub-status", name)
	}
	if code == "" {
		return fmt.Errorf("%q: want a code", line)
	}
	switch kind {
	case "answer":
		outcome, known := outcomes[meaning]
		if !known {
			return fmt.Errorf("%q: want answer,CODE, then accepted, rejected, throttled, retryable, unknown or unsupported", line)
		}
		t.answers[code] = Answer{outcome, sub}
	case "stat":
		status, known := statuses[meaning]
		if !known {
			return fmt.Errorf("%q: want stat,WORD, then buffered, delivered, read, failed or unknown", line)
		}
		t.stats[code] = said{status, sub}
	case "err":
		if sub == 0 || meaning != "" {
			return fmt.Errorf("%q: want err,CODE,,SUB-STATUS", line)
		}
		t.errs[code] = sub
	case "wait":
		d, err := time.ParseDuration(meaning)
		if err != nil || d <= 0 || name != "" {
			return fmt.Errorf("%q: want wait,CODE, then a duration such as 6s, and a comma", line)
		}
		t.waits[code] = d
	default:
		return fmt.Errorf("%q: want answer, stat, err or wait at its beginning", line)
	}
	return nil
}

var outcomes = map[string]carrier.Outcome{
	"accepted": carrier.Accepted, "rejected": carrier.Rejected, "throttled": carrier.Throttled, "retryable": carrier.Retryable,
	"unknown": carrier.Unknown, "unsupported": carrier.Unsupported,
}

var statuses = map[string]schemas.ReceiptStatus{
	"buffered": schemas.ReceiptStatusBuffered, "delivered": schemas.ReceiptStatusDelivered, "read": schemas.ReceiptStatusRead,
	"failed": schemas.ReceiptStatusFailed, "unknown": schemas.ReceiptStatusUnknown,
}

// Answer returns the meaning of an answer with a code; ok is false if the table has no line for the code.
func (t *Table) Answer(code string) (a Answer, ok bool) {
	a, ok = t.answers[normal(code)]
	return a, ok
}

// HTTP returns the meaning of an HTTP answer with a status other than 2xx. word is the code in the body, empty if there
// is none. The meaning of the word comes before that of the status, whose code is `http:` and the number. Without
// either, 3xx is retryable, 4xx a refusal of this message, and after anything else it is unknown whether the carrier
// has the message.
func (t *Table) HTTP(status int, word string) Answer {
	if a, ok := t.Answer(word); ok && word != "" {
		return a
	}
	if a, ok := t.Answer("http:" + strconv.Itoa(status)); ok {
		return a
	}
	switch status / 100 {
	case 3:
		return Answer{carrier.Retryable, schemas.CodeProviderError}
	case 4:
		return Answer{carrier.Rejected, schemas.CodeNotSentOther}
	default:
		return Answer{Outcome: carrier.Unknown}
	}
}

// Wait returns how long to wait after an answer with a code; 0 if the table does not say.
func (t *Table) Wait(code string) time.Duration { return t.waits[normal(code)] }

// Receipt returns the meaning of a receipt with a state (a word or a number) and an error; ok is false if the state is
// not known. If the error of a failure is known, it decides the sub-status, because it is more exact than the state.
func (t *Table) Receipt(stat, err string) (status schemas.ReceiptStatus, sub schemas.Code, ok bool) {
	s, ok := t.stats[normal(stat)]
	if !ok {
		return schemas.ReceiptStatusUnspecified, 0, false
	}
	if s.status == schemas.ReceiptStatusFailed {
		if exact, ok := t.errs[normal(err)]; ok {
			return s.status, exact, true
		}
	}
	return s.status, s.sub, true
}

// normal returns the one spelling of a code: capitals, without leading zeros, also after 0x.
func normal(code string) string {
	code = strings.ToUpper(strings.TrimSpace(code))
	if hex, ok := strings.CutPrefix(code, "0X"); ok {
		return "0X" + bare(hex)
	}
	return bare(code)
}

func bare(code string) string {
	if b := strings.TrimLeft(code, "0"); b != "" {
		return b
	}
	return code[:min(len(code), 1)]
}
