package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fanfare/schemas/audience"
)

// Names of the merge fields that are columns of a contact. Any other merge field is an attribute.
const (
	FieldPhone     = "phone"
	FieldFirstName = "first_name"
	FieldLastName  = "last_name"
	FieldEmail     = "email"
	// AttributeTimezone is the attribute that says in which time zone a contact lives, over what the number says.
	AttributeTimezone = "timezone"
)

// attributeText is how attributes are stored: a JSON object with sorted keys, so that equal attributes are equal texts; ""
// when there are none.
func attributeText(attributes map[string]string) (string, error) {
	if len(attributes) == 0 {
		return "", nil
	}
	text, err := json.Marshal(attributes)
	return string(text), err
}

func parseAttributes(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var out map[string]string
	err := json.Unmarshal([]byte(text), &out)
	return out, err
}

// appendAttributes reads what attributeText has written, sorted by name. Texts without escapes, nearly all of them, are cut
// out of the whole and cost nothing: it is called for each contact of a freeze.
func appendAttributes(to []audience.Attr, text string) ([]audience.Attr, error) {
	if text == "" {
		return to, nil
	}
	if strings.IndexByte(text, '\\') >= 0 {
		attributes, err := parseAttributes(text)
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
	rest := text
	for rest != "}" {
		// {"name":"value" and ,"name":"value"
		name, after, ok := strings.Cut(rest[min(2, len(rest)):], `":"`)
		value, after, ok2 := strings.Cut(after, `"`)
		if !ok || !ok2 {
			return nil, fmt.Errorf("attributes: not as they were written")
		}
		to = append(to, audience.Attr{Name: name, Value: value})
		rest = after
	}
	return to, nil
}

// FieldName turns the header of a column into the name of a merge field: letters and digits in lower case, all else an
// underscore. "First Name" is first_name.
func FieldName(header string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.TrimSpace(header) {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('_')
			gap = false
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// checkFields refuses what does not fit into a blob, and texts that not every database can hold.
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
	for _, f := range [...]struct{ name, value string }{{FieldFirstName, c.FirstName}, {FieldLastName, c.LastName}, {FieldEmail, c.Email}} {
		if err := add(f.name, f.value); err != nil {
			return err
		}
	}
	for name, value := range c.Attributes {
		switch {
		case name != FieldName(name) || name == "":
			return &FieldError{"Attributes", name, "want a name of lower-case letters, digits and underscores"}
		case name == FieldPhone || name == FieldFirstName || name == FieldLastName || name == FieldEmail:
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
