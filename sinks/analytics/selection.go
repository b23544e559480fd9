package analytics

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/schemas"
)

// Selection is an expression that selects recipients of one campaign. In JSON it is an object. Each member of the
// object is a condition, and a recipient is selected if all of them hold:
//
//	{"and": [selection, …]}   {"or": [selection, …]}   {"not": selection}
//	{"status": "undelivered"}             a status, see [SelectionStatuses]
//	{"subStatus": "ABSENT_SUBSCRIBER"}    the sub-status of the recipient's state
//	{"channel": "sms"}                    tried on the channel
//	{"variant": 1}                        got the variant of the text
//	{"country": "IT"}                     of the message, ISO 3166-1 alpha-2
//	{"try": 2}                            has an event of the try, 1 to 255
//	{"leg": 1}                            had a message on the leg of the chain of channels
//	{"link": "lnk_1"}                     a person clicked the link
//	{"clicked": true}                     a person clicked a link; likewise "replied" and "optedOut"
//	{"time": {"event": "sent", "from": "2025-04-01T09:00:00Z", "to": "2025-04-01T10:00:00Z"}}
//	                                      has such an event at or after from and before to; one of them may be left
//	                                      out
//
// An array in place of a value matches any of its values. {} selects everybody.
type Selection struct {
	root node
	text []byte
}

// Bounds of a selection.
const (
	maxSelectionBytes = 64 << 10
	maxSelectionDepth = 20
	maxSelectionNodes = 500
)

// SelectionError says what is wrong with a selection.
type SelectionError struct {
	// Path of the part that is wrong, such as `and[1].status`; "" is the selection itself.
	Path string
	// Detail is a sentence.
	Detail string
}

func (e *SelectionError) Error() string {
	return "selection: " + cmp.Or(e.Path, "the expression") + ": " + e.Detail
}

// SelectionStatuses are the statuses of a selection. pending to delivered are the buckets of the statistics; the others
// are unions or parts of them.
var SelectionStatuses = []string{
	"pending", "ambiguous", "notSent", "skipped", "awaiting", "undelivered", "delivered",
	"sent",        // awaiting, undelivered or delivered
	"failed",      // notSent or undelivered
	"read",        // the part of delivered that was read
	"unconfirmed", // the part of awaiting whose receipt window is over
}

// eventNames are the names of events in {"time": …}, as in the API.
var eventNames = func() map[string]schemas.Kind {
	out := map[string]schemas.Kind{}
	for _, k := range schemas.Kinds {
		word, rest, two := strings.Cut(k.Name, "_")
		if two {
			word += strings.ToUpper(rest[:1]) + rest[1:]
		}
		out[word] = k.Kind
	}
	return out
}()

// Happened returns the recipients with an event of a kind at or after from and before to, in milliseconds. If kind is a
// click, only clicks of people count.
type Happened func(ctx context.Context, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error)

// node is a condition. eval returns a bitmap that the caller may modify.
type node interface {
	eval(ctx context.Context, e *evaluation) (*roaring.Bitmap, error)
}

type (
	allOf  []node
	anyOf  []node
	except struct{ of node }
	// stateIs selects recipients whose state is accepted. none says whether recipients without a state are selected.
	stateIs struct {
		accept func(schemas.Precedence) bool
		none   bool
	}
	// everIs selects recipients that ever had an accepted status.
	everIs struct {
		accept func(*StatusSet) bool
		want   bool
	}
	messageIs struct{ accept func(*MessageSet) bool }
	happened  struct {
		kind     schemas.Kind
		from, to int64
	}
)

// evaluation is one evaluation of a selection.
type evaluation struct {
	sets      *Sets
	everybody *roaring.Bitmap
	disjoint  Algebra // nil until it is needed
	happened  Happened
}

// ParseSelection reads a selection strictly. Its errors are of type [*SelectionError].
func ParseSelection(text []byte) (*Selection, error) {
	if len(text) > maxSelectionBytes {
		return nil, &SelectionError{"", fmt.Sprintf("It has %d bytes; at most %d are read.", len(text), maxSelectionBytes)}
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil { // refuses names that occur twice
		return nil, &SelectionError{"", "It is not JSON, or a name stands in it twice."}
	}
	p := &parser{}
	root, err := p.object("", v, 0)
	if err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, &SelectionError{"", err.Error()}
	}
	return &Selection{root, canonical}, nil
}

// String returns the selection as JSON with sorted names. Equal selections have equal texts.
func (s *Selection) String() string { return string(s.text) }

// Evaluate returns the recipients selected from an audience of total. The caller may modify the bitmap. happened
// answers conditions about times.
func (s *Selection) Evaluate(ctx context.Context, sets *Sets, total uint32, happened Happened) (*roaring.Bitmap, error) {
	return s.root.eval(ctx, &evaluation{sets: sets, everybody: sets.Everybody(total), happened: happened})
}

func (n allOf) eval(ctx context.Context, e *evaluation) (*roaring.Bitmap, error) {
	out := e.everybody.Clone()
	for _, of := range n {
		set, err := of.eval(ctx, e)
		if err != nil {
			return nil, err
		}
		out.And(set)
	}
	return out, nil
}

func (n anyOf) eval(ctx context.Context, e *evaluation) (*roaring.Bitmap, error) {
	out := roaring.New()
	for _, of := range n {
		set, err := of.eval(ctx, e)
		if err != nil {
			return nil, err
		}
		out.Or(set)
	}
	return out, nil
}

func (n except) eval(ctx context.Context, e *evaluation) (*roaring.Bitmap, error) {
	set, err := n.of.eval(ctx, e)
	if err != nil {
		return nil, err
	}
	return roaring.AndNot(e.everybody, set), nil
}

func (n stateIs) eval(_ context.Context, e *evaluation) (*roaring.Bitmap, error) {
	if e.disjoint == nil {
		e.disjoint = e.sets.Algebra().Disjoint()
	}
	out := roaring.New()
	if n.none {
		out.Or(e.everybody)
	}
	for p, set := range e.disjoint {
		switch {
		case p >= schemas.PrecedenceFacts:
		case n.accept(p):
			out.Or(set)
		case n.none:
			out.AndNot(set)
		}
	}
	return out, nil
}

func (n everIs) eval(_ context.Context, e *evaluation) (*roaring.Bitmap, error) {
	out := roaring.New()
	for i := range e.sets.Statuses {
		if set := &e.sets.Statuses[i]; n.accept(set) {
			out.Or(set.Members)
		}
	}
	if !n.want {
		return roaring.AndNot(e.everybody, out), nil
	}
	return out, nil
}

func (n messageIs) eval(_ context.Context, e *evaluation) (*roaring.Bitmap, error) {
	out := roaring.New()
	for i := range e.sets.Messages {
		if set := &e.sets.Messages[i]; n.accept(set) {
			out.Or(set.Members)
		}
	}
	return out, nil
}

func (n happened) eval(ctx context.Context, e *evaluation) (*roaring.Bitmap, error) {
	return e.happened(ctx, n.kind, n.from, n.to)
}

// parser turns decoded JSON into nodes.
type parser struct{ nodes int }

func fault(path, format string, args ...any) error {
	return &SelectionError{path, fmt.Sprintf(format, args...)}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// object reads a selection.
func (p *parser) object(path string, v any, depth int) (node, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fault(path, "It is %s; an object such as {\"status\": \"delivered\"} is wanted.", kindOf(v))
	}
	if depth > maxSelectionDepth {
		return nil, fault(path, "It is nested more than %d deep.", maxSelectionDepth)
	}
	all := allOf{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if p.nodes++; p.nodes > maxSelectionNodes {
			return nil, fault(path, "The selection has more than %d conditions.", maxSelectionNodes)
		}
		n, err := p.condition(join(path, name), name, m[name], depth)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *parser) condition(path, name string, v any, depth int) (node, error) {
	switch name {
	case "and", "or":
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return nil, fault(path, "It is %s; an array of at least one selection is wanted.", kindOf(v))
		}
		nodes := make([]node, len(list))
		for i, of := range list {
			var err error
			if nodes[i], err = p.object(fmt.Sprintf("%s[%d]", path, i), of, depth+1); err != nil {
				return nil, err
			}
		}
		if name == "and" {
			return allOf(nodes), nil
		}
		return anyOf(nodes), nil
	case "not":
		of, err := p.object(path, v, depth+1)
		return except{of}, err
	case "status":
		return parseAny(path, v, parseStatus)
	case "subStatus":
		return parseAny(path, v, parseSubStatus)
	case "channel":
		return parseAny(path, v, parseChannel)
	case "country":
		return parseAny(path, v, parseCountry)
	case "variant":
		return parseAny(path, v, func(path string, v any) (node, error) {
			n, err := parseNumber(path, v, 0)
			return messageIs{func(s *MessageSet) bool { return s.Variant == n }}, err
		})
	case "leg":
		return parseAny(path, v, func(path string, v any) (node, error) {
			n, err := parseNumber(path, v, 1)
			return messageIs{func(s *MessageSet) bool { return s.Leg == n }}, err
		})
	case "try":
		return parseAny(path, v, func(path string, v any) (node, error) {
			n, err := parseNumber(path, v, 1)
			return everIs{func(s *StatusSet) bool { return s.Precedence < schemas.PrecedenceFacts && s.Try == n }, true}, err
		})
	case "link":
		return parseAny(path, v, func(path string, v any) (node, error) {
			id, err := parseText(path, v, "the id of a link")
			return everIs{func(s *StatusSet) bool { return s.Precedence == FactClicked && s.LinkID == id }, true}, err
		})
	case "clicked":
		return parseFact(path, v, func(p schemas.Precedence) bool { return p == FactClicked })
	case "replied":
		return parseFact(path, v, func(p schemas.Precedence) bool { return p.Kind() == schemas.KindReplied })
	case "optedOut":
		return parseFact(path, v, func(p schemas.Precedence) bool { return p.Kind() == schemas.KindOptedOut })
	case "time":
		return parseTime(path, v)
	}
	return nil, fault(path, "%q is not a condition: want and, or, not, status, subStatus, channel, variant, clicked, replied, optedOut, link, country, try, leg or time.", cut(name))
}

// parseAny parses a value, or an array of values of which one must match.
func parseAny(path string, v any, one func(path string, v any) (node, error)) (node, error) {
	list, ok := v.([]any)
	if !ok {
		return one(path, v)
	}
	if len(list) == 0 {
		return nil, fault(path, "The array is empty; a value or an array of values is wanted.")
	}
	out := make(anyOf, len(list))
	for i, of := range list {
		var err error
		if out[i], err = one(fmt.Sprintf("%s[%d]", path, i), of); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseText(path string, v any, what string) (string, error) {
	text, ok := v.(string)
	if !ok {
		return "", fault(path, "It is %s; %s is wanted.", kindOf(v), what)
	}
	return text, nil
}

func parseStatus(path string, v any) (node, error) {
	name, err := parseText(path, v, "a status such as \"delivered\"")
	if err != nil {
		return nil, err
	}
	bucket := func(wanted ...schemas.Bucket) func(schemas.Precedence) bool {
		return func(p schemas.Precedence) bool { return slices.Contains(wanted, p.Bucket()) }
	}
	switch name {
	case "sent":
		return stateIs{accept: bucket(schemas.BucketAwaiting, schemas.BucketUndelivered, schemas.BucketDelivered)}, nil
	case "failed":
		return stateIs{accept: bucket(schemas.BucketNotSent, schemas.BucketUndelivered)}, nil
	case "read":
		return stateIs{accept: func(p schemas.Precedence) bool { return p.Kind() == schemas.KindRead }}, nil
	case "unconfirmed":
		return stateIs{accept: func(p schemas.Precedence) bool { return p.Kind() == schemas.KindUnconfirmed }}, nil
	}
	for b := range schemas.BucketFact {
		if b.String() == name {
			return stateIs{accept: bucket(b), none: b == schemas.BucketPending}, nil
		}
	}
	return nil, fault(path, "%q is not a status: want %s.", cut(name), strings.Join(SelectionStatuses, ", "))
}

func parseSubStatus(path string, v any) (node, error) {
	name, err := parseText(path, v, "a sub-status such as \"ABSENT_SUBSCRIBER\"")
	if err != nil {
		return nil, err
	}
	code, ok := schemas.ParseCode(name)
	if !ok {
		return nil, fault(path, "%q is not a sub-status; the statistics of a campaign list its own, such as ABSENT_SUBSCRIBER.", cut(name))
	}
	return stateIs{accept: func(p schemas.Precedence) bool { return p.Code() == code }}, nil
}

func parseChannel(path string, v any) (node, error) {
	name, err := parseText(path, v, "a channel such as \"sms\"")
	if err != nil {
		return nil, err
	}
	channel, ok := schemas.ParseChannel(name)
	if !ok {
		return nil, fault(path, "%q is not a channel: want sms, rcs, whatsapp or voice.", cut(name))
	}
	return messageIs{func(s *MessageSet) bool { return s.Channel == channel }}, nil
}

func parseCountry(path string, v any) (node, error) {
	name, err := parseText(path, v, "a country such as \"IT\"")
	if err != nil {
		return nil, err
	}
	if len(name) != 2 || strings.ToUpper(name) != name || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return nil, fault(path, "%q is not a country: want two capital letters such as IT.", cut(name))
	}
	return messageIs{func(s *MessageSet) bool { return s.Country == name }}, nil
}

func parseNumber(path string, v any, least uint8) (uint8, error) {
	n, ok := v.(float64)
	if !ok || n != math.Trunc(n) || n < float64(least) || n > math.MaxUint8 {
		what := kindOf(v)
		if ok {
			what = strconv.FormatFloat(n, 'g', -1, 64)
		}
		return 0, fault(path, "It is %s; a whole number from %d to 255 is wanted.", what, least)
	}
	return uint8(n), nil
}

func parseFact(path string, v any, accept func(schemas.Precedence) bool) (node, error) {
	want, ok := v.(bool)
	if !ok {
		return nil, fault(path, "It is %s; true or false is wanted.", kindOf(v))
	}
	return everIs{func(s *StatusSet) bool { return s.Precedence >= schemas.PrecedenceFacts && accept(s.Precedence) }, want}, nil
}

func parseTime(path string, v any) (node, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fault(path, "It is %s; an object with event, from and to is wanted.", kindOf(v))
	}
	out := happened{to: MaxTimeMS + 1}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		at := join(path, name)
		text, err := parseText(at, m[name], "a text")
		if err != nil {
			return nil, err
		}
		switch name {
		case "event":
			if out.kind, ok = eventNames[text]; !ok {
				return nil, fault(at, "%q is not an event: want %s.", cut(text), strings.Join(slices.Sorted(maps.Keys(eventNames)), ", "))
			}
		case "from", "to":
			when, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return nil, fault(at, "%q is not a time: want RFC 3339, such as 2025-04-01T09:00:00Z.", cut(text))
			}
			if name == "from" {
				out.from = max(when.UnixMilli(), 0)
			} else {
				out.to = min(when.UnixMilli(), out.to)
			}
		default:
			return nil, fault(at, "%q is not a part of a time: want event, from and to.", cut(name))
		}
	}
	switch {
	case out.kind == schemas.KindUnspecified:
		return nil, fault(join(path, "event"), "It is missing: want an event such as \"sent\".")
	case m["from"] == nil && m["to"] == nil:
		return nil, fault(path, "It has neither from nor to; at least one is wanted.")
	case out.from >= out.to:
		return nil, fault(join(path, "to"), "It is not after from.")
	}
	return out, nil
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case float64:
		return "a number"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

// cut shortens a client's text for an error.
func cut(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
