package httpsms

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// vars returns the values of placeholders.
type vars interface {
	value(name string) (string, error)
}

// text is a text with placeholders: literals and names alternate, and a literal comes first.
type text struct {
	parts []string
	// number says that the text is one placeholder whose value becomes a number.
	number bool
}

// names are the names of placeholders, besides values.NAME and meta.NAME.
var names = []string{"callback", "to", "toDigits", "from", "text", "key", "encoding", "segments", "validitySeconds", "validityMinutes", "validityMillis", "notAfter", "receipts"}

// parseText parses a text with placeholders.
func parseText(s string, values map[string]string) (t text, err error) {
	for {
		before, rest, found := strings.Cut(s, "{{")
		t.parts = append(t.parts, before)
		if !found {
			return t, nil
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return text{}, fmt.Errorf("%q: want }} after {{", s)
		}
		name, kind, typed := strings.Cut(strings.TrimSpace(name), ":")
		if typed {
			if kind != "number" || len(t.parts) > 1 || before != "" || after != "" {
				return text{}, fmt.Errorf("{{%s:%s}}: want :number, and nothing beside it", name, kind)
			}
			t.number = true
		}
		if err := known(name, values); err != nil {
			return text{}, err
		}
		t.parts = append(t.parts, name)
		s = after
	}
}

func known(name string, values map[string]string) error {
	if v, ok := strings.CutPrefix(name, "values."); ok {
		if _, given := values[v]; !given {
			return fmt.Errorf("{{%s}}: the spec's values have no %s", name, v)
		}
		return nil
	}
	if strings.HasPrefix(name, "meta.") || slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("{{%s}} is not known: want one of %s, values.NAME or meta.NAME", name, strings.Join(names, ", "))
}

// append appends the text with the values of its placeholders, each encoded by encode.
func (t *text) append(b []byte, v vars, encode func([]byte, string) []byte) ([]byte, error) {
	for i, p := range t.parts {
		if i%2 == 1 {
			var err error
			if p, err = v.value(p); err != nil {
				return b, err
			}
			b = encode(b, p)
			continue
		}
		b = append(b, p...)
	}
	return b, nil
}

// plain appends a value unchanged.
func plain(b []byte, s string) []byte { return append(b, s...) }

func (t *text) string(v vars) (string, error) {
	b, err := t.append(nil, v, plain)
	return string(b), err
}

// node is a part of a JSON body: a text, an object, a list, a list with one entry per message, or a constant.
type node struct {
	kind     nodeKind
	text     text
	fields   []field
	list     []node
	constant string
}

type nodeKind uint8

const (
	nodeConstant nodeKind = iota
	nodeText
	nodeObject
	nodeList
	nodeEach // list has one node, which is repeated for each message
)

// field is a field of an object.
type field struct {
	name     string
	optional bool
	node     node
}

// each is the only field of an object that is the only entry of a list, and stands for all messages.
const each = "$each"

// parseNode makes a node from the decoded JSON of a template. Fields are sorted by name, so that the body of a message
// is always the same.
func parseNode(v any, values map[string]string) (n node, err error) {
	switch v := v.(type) {
	case string:
		n.kind = nodeText
		n.text, err = parseText(v, values)
		return n, err
	case map[string]any:
		n.kind = nodeObject
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			f := field{name: strings.TrimSuffix(k, "?"), optional: strings.HasSuffix(k, "?")}
			if f.node, err = parseNode(v[k], values); err != nil {
				return node{}, fmt.Errorf("%s: %w", k, err)
			}
			n.fields = append(n.fields, f)
		}
		return n, nil
	case []any:
		if len(v) == 1 {
			if o, ok := v[0].(map[string]any); ok && len(o) == 1 && o[each] != nil {
				n.kind = nodeEach
				item, err := parseNode(o[each], values)
				n.list = []node{item}
				return n, err
			}
		}
		n.kind = nodeList
		for i, x := range v {
			item, err := parseNode(x, values)
			if err != nil {
				return node{}, fmt.Errorf("%d: %w", i, err)
			}
			n.list = append(n.list, item)
		}
		return n, nil
	case bool:
		return node{constant: strconv.FormatBool(v)}, nil
	case float64:
		return node{constant: strconv.FormatFloat(v, 'f', -1, 64)}, nil
	case nil:
		return node{constant: "null"}, nil
	default:
		return node{}, fmt.Errorf("got %T", v)
	}
}

// append writes the node as JSON. all are the messages for a nodeEach; everything else uses v.
func (n *node) append(b []byte, v vars, all []vars) (_ []byte, err error) {
	switch n.kind {
	case nodeText:
		return n.appendText(b, v)
	case nodeObject:
		b = append(b, '{')
		first := true
		for i := range n.fields {
			f := &n.fields[i]
			if f.optional {
				hollow, err := f.node.hollow(v)
				if err != nil {
					return b, err
				}
				if hollow {
					continue
				}
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(appendString(b, f.name), ':')
			if b, err = f.node.append(b, v, all); err != nil {
				return b, err
			}
		}
		return append(b, '}'), nil
	case nodeList, nodeEach:
		b = append(b, '[')
		count := len(n.list)
		if n.kind == nodeEach {
			count = len(all)
		}
		for i := range count {
			if i > 0 {
				b = append(b, ',')
			}
			item, of := &n.list[0], v
			if n.kind == nodeEach {
				of = all[i]
			} else {
				item = &n.list[i]
			}
			if b, err = item.append(b, of, all); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	default:
		return append(b, n.constant...), nil
	}
}

// hollow reports whether the node contains a text that is empty and not optional.
func (n *node) hollow(v vars) (bool, error) {
	switch n.kind {
	case nodeText:
		s, err := n.text.string(v)
		return s == "", err
	case nodeObject:
		for i := range n.fields {
			if n.fields[i].optional {
				continue
			}
			if hollow, err := n.fields[i].node.hollow(v); hollow || err != nil {
				return hollow, err
			}
		}
	case nodeList:
		for i := range n.list {
			if hollow, err := n.list[i].hollow(v); hollow || err != nil {
				return hollow, err
			}
		}
	default:
	}
	return false, nil
}

func (n *node) appendText(b []byte, v vars) ([]byte, error) {
	s, err := n.text.string(v)
	if err != nil {
		return b, err
	}
	if n.text.number {
		if s == "" {
			s = "0"
		}
		if _, err := strconv.ParseFloat(s, 64); err != nil {
			return b, fmt.Errorf("{{%s:number}} is not a number", n.text.parts[1])
		}
		return append(b, s...), nil
	}
	return appendString(b, s), nil
}
