package text

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// FieldOptOut is the merge field that becomes the campaign's opt-out link. Its value never comes from an attribute of a
// contact.
const FieldOptOut = "opt_out"

// linkPrefix is the beginning of a link's placeholder, and of the name by which Append asks for its value.
const linkPrefix = "link:"

// LinkField is the name by which [Template.Append] asks for the short address of a link.
func LinkField(address string) string { return linkPrefix + address }

// LinkOf returns the address of a name that [LinkField] made.
func LinkOf(name string) (address string, ok bool) { return strings.CutPrefix(name, linkPrefix) }

// MaxLinkAddress is the most bytes of the address of a link.
const MaxLinkAddress = 2000

// BadLink returns what is wrong with the address of a link and what to do; "" if the address is valid. A link must be
// http or https, so that a phone never runs a script or an app because of it, and must name a host, so that it never
// leads back to us.
func BadLink(address string) string {
	u, err := url.Parse(address)
	switch {
	case strings.Contains(address, opening):
		return "a link holds no merge field: everybody's link leads to the same address"
	case len(address) > MaxLinkAddress:
		return "the address is longer than 2,000 bytes: shorten it"
	case !utf8.ValidString(address) || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "an address has no blanks and no control characters: write them as %20 and the like"
	case err != nil:
		return "that is no address: write it as in {{link:https://example.com/sale}}"
	case u.Scheme != "http" && u.Scheme != "https":
		return "a link leads to http:// or https://: write it as in {{link:https://example.com/sale}}"
	case u.Hostname() == "" || strings.ContainsAny(u.Hostname(), "\\^`{}|<>\"'"):
		return "the address names no host: write it as in {{link:https://example.com/sale}}"
	case u.User != nil:
		return "the address holds a user or a password, which everybody would get: take it out"
	}
	return ""
}

func (t *Template) addLink(before, inside, address string) {
	t.parts = append(t.parts, part{text: before, field: LinkField(address), written: utf8.RuneCountInString(inside) + len(opening) + len(closing)})
	if !slices.Contains(t.links, address) {
		t.links = append(t.links, address)
	}
}

// Links returns the addresses of the links of a text, each once, in order of appearance. Append asks for the short
// address of each by [LinkField].
func (t *Template) Links() []string { return slices.Clone(t.links) }

// OptOut reports whether the text has an opt-out link. Append asks for it by [FieldOptOut].
func (t *Template) OptOut() bool { return t.optOut }

// Personal reports whether the text differs between recipients of one campaign in its length: it has a merge field.
// Links differ too, but all have the same length.
func (t *Template) Personal() bool { return len(t.fields) > 0 }

// address finds an address in a text.
var address = regexp.MustCompile(`(?i)\bhttps?://[^\s{}<>"]+`)

// ShortenLinks makes a link, {{link:…}}, of each http or https address of a text. Punctuation after an address is not
// part of it. ShortenLinks does not change an address that continues with a merge field, because such an address
// differs between recipients, nor an existing placeholder.
func ShortenLinks(s string) string {
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(s, opening)
		shortenPlain(&out, before, ok)
		if !ok {
			return out.String()
		}
		inside, following, closed := strings.Cut(after, closing)
		out.WriteString(opening + inside)
		if !closed {
			return out.String()
		}
		out.WriteString(closing)
		s = following
	}
}

// shortenPlain shortens a text without placeholders. followed says that a placeholder follows it directly.
func shortenPlain(out *strings.Builder, s string, followed bool) {
	at := 0
	for _, m := range address.FindAllStringIndex(s, -1) {
		found := strings.TrimRight(s[m[0]:m[1]], ".,;:!?'*_~…")
		for strings.HasSuffix(found, ")") && strings.Count(found, ")") > strings.Count(found, "(") {
			found = strings.TrimRight(strings.TrimSuffix(found, ")"), ".,;:!?'*_~…")
		}
		end := m[0] + len(found)
		// A brace directly before the address would become part of the placeholder
		if followed && m[1] == len(s) || BadLink(found) != "" || strings.HasSuffix(s[:m[0]], "{") {
			continue
		}
		out.WriteString(s[at:m[0]])
		out.WriteString(opening + linkPrefix + found + closing)
		at = end
	}
	out.WriteString(s[at:])
}

// FillLinks replaces each link and opt-out link of a text by link, and does not change its merge fields. All links have
// the same length, so the result can be measured.
func FillLinks(s, link string) string {
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(s, opening)
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		inside, following, closed := strings.Cut(after, closing)
		if !closed {
			out.WriteString(opening + inside)
			return out.String()
		}
		placeholder := opening + inside + closing
		if t, err := Parse(placeholder); err == nil && (len(t.links) > 0 || t.optOut) {
			placeholder = link
		}
		out.WriteString(placeholder)
		s = following
	}
}
