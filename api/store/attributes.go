package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"fanfare/schemas/audience"
	"fanfare/schemas/text"
)

// AttributeTimezone is the attribute that holds the time zone of a contact. It overrides the zone of the number.
const AttributeTimezone = "timezone"

// attributeText returns attributes as they are stored: a JSON object with sorted keys, so that equal attributes have
// equal texts; "" when there are none.
func attributeText(attributes map[string]string) (string, error) {
	if len(attributes) == 0 {
		return "", nil
	}
	stored, err := json.Marshal(attributes)
	return string(stored), err
}

// parseAttributes is the reverse of attributeText.
func parseAttributes(stored string) (map[string]string, error) {
	if stored == "" {
		return nil, nil
	}
	var out map[string]string
	err := json.Unmarshal([]byte(stored), &out)
	return out, err
}

// appendAttributes appends what attributeText wrote, sorted by name. A freeze calls it for each contact, so it reads a
// text without escapes (nearly all are) without copying it.
func appendAttributes(to []audience.Attr, stored string) ([]audience.Attr, error) {
	if stored == "" {
		return to, nil
	}
	if strings.IndexByte(stored, '\\') >= 0 {
		attributes, err := parseAttributes(stored)
		if err != nil {
			return nil, fmt.Errorf("attributes: %w", err)
		}
		at := len(to)
		for name, value := range attributes {
			to = append(to, audience.Attr{Name: name, Value: value})
		}
		slices.SortFunc(to[at:], func(a, b audience.Attr) int { return strings.Compare(a.Name, b.Name) })
		return to, nil
	}
	rest := stored
	for rest != "}" {
		// {"name":"value" and ,"name":"value"
		name, after, ok := strings.Cut(rest[min(2, len(rest)):], `":"`)
		value, after, ok2 := strings.Cut(after, `"`)
		if !ok || !ok2 {
			return nil, errors.New("attributes: the stored text is damaged")
		}
		to = append(to, audience.Attr{Name: name, Value: value})
		rest = after
	}
	return to, nil
}

// checkFields refuses fields that do not fit into an audience blob, and texts that SQLite or Postgres cannot store.
func checkFields(c *Contact) error {
	size := 0
	add := func(name, value string) error {
		if value == "" {
			return nil
		}
		size += len(name) + len(value)
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			return &FieldError{name, "", "is not UTF-8 text"}
		}
		return nil
	}
	for _, f := range [...]struct{ name, value string }{{text.FieldFirstName, c.FirstName}, {text.FieldLastName, c.LastName}, {text.FieldEmail, c.Email}} {
		if err := add(f.name, f.value); err != nil {
			return err
		}
	}
	for name, value := range c.Attributes {
		switch {
		case name != text.FieldName(name) || name == "":
			return &FieldError{"Attributes", name, "want a name of lower-case letters, digits and underscores"}
		case name == text.FieldPhone || name == text.FieldFirstName || name == text.FieldLastName || name == text.FieldEmail:
			return &FieldError{"Attributes", name, "is a field of its own"}
		}
		if err := add(name, value); err != nil {
			return err
		}
	}
	if size > audience.MaxAttributes {
		return &FieldError{"Attributes", "", fmt.Sprintf("%d bytes of names and values, want at most %d", size, audience.MaxAttributes)}
	}
	return nil
}
