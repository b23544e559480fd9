// Package pricing computes the price of a message from a price list (R113): of the rows that apply to the message, the
// most specific one gives the price.
//
// It does no I/O and knows no tenants: the caller passes the price list and gets the same price everywhere.
package pricing

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
)

// Rule is one row of a price list.
type Rule struct {
	Channel schemas.Channel
	// Country is an ISO 3166-1 alpha-2 code; "" means every country.
	Country string
	// From is the least volume to which the price applies. The volume is the number of recipients of the campaign, 1
	// for a single message. 0: every volume.
	From uint64
	// ValidFrom is when the price begins to apply; the zero time: it has always applied.
	ValidFrom time.Time
	// Micros is the price of one segment (sms), message (rcs, whatsapp) or minute (voice), in millionths of the
	// tenant's currency; at most [schemas.MaxPriceMicros].
	Micros uint64
}

// Key returns a text that identifies a rule within its list.
func (r *Rule) Key() string {
	country, from := r.Country, "always"
	if country == "" {
		country = "*"
	}
	if !r.ValidFrom.IsZero() {
		from = r.ValidFrom.UTC().Format(time.RFC3339)
	}
	return schemas.ChannelName(r.Channel) + " " + country + " " + strconv.FormatUint(r.From, 10) + " " + from
}

// holds reports whether the rule applies to a message.
func (r *Rule) holds(channel schemas.Channel, country string, volume uint64, at time.Time) bool {
	return r.Channel == channel && (r.Country == "" || r.Country == country) && r.From <= volume && !r.ValidFrom.After(at)
}

// over reports whether r is more specific than o, if both apply: the country counts first, then the volume, then the
// date.
func (r *Rule) over(o *Rule) bool {
	if (r.Country != "") != (o.Country != "") {
		return r.Country != ""
	}
	if r.From != o.From {
		return r.From > o.From
	}
	return r.ValidFrom.After(o.ValidFrom)
}

// List is a price list.
type List []Rule

// Price returns the price of a segment, message or minute at a time. Of the rules that apply, one for the country
// precedes one for every country; then the one with the greatest volume wins, then the newest. ok is false when no rule
// applies.
func (l List) Price(channel schemas.Channel, country string, volume uint64, at time.Time) (micros uint64, ok bool) {
	var best *Rule
	for i := range l {
		if r := &l[i]; r.holds(channel, country, volume, at) && (best == nil || r.over(best)) {
			best = r
		}
	}
	if best == nil {
		return 0, false
	}
	return best.Micros, true
}

// ByCountry returns the price of a channel for all countries without a price of their own, and the prices of the
// countries that have one. A price is 0 if no rule applies.
func (l List) ByCountry(channel schemas.Channel, volume uint64, at time.Time) (other uint64, own map[string]uint64) {
	other, _ = l.Price(channel, "", volume, at)
	for i := range l {
		r := &l[i]
		if r.Country == "" || !r.holds(channel, r.Country, volume, at) {
			continue
		}
		if own == nil {
			own = map[string]uint64{}
		}
		own[r.Country], _ = l.Price(channel, r.Country, volume, at)
	}
	return other, own
}

// Header is the first line of a price list as CSV.
var Header = []string{"channel", "country", "from", "validFrom", "price"}

// WriteCSV writes a list, in the order of its rules.
func WriteCSV(w io.Writer, l List) error {
	out := csv.NewWriter(w)
	if err := out.Write(Header); err != nil {
		return err
	}
	for i := range l {
		r := &l[i]
		since := ""
		if !r.ValidFrom.IsZero() {
			since = r.ValidFrom.UTC().Format(time.RFC3339)
		}
		if err := out.Write([]string{schemas.ChannelName(r.Channel), r.Country, strconv.FormatUint(r.From, 10), since, FormatPrice(r.Micros)}); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// RowError says what is wrong with a row of a price list.
type RowError struct {
	Line   int // 1 is the header
	Column string
	Reason string
}

// Error returns the error as a sentence.
func (e *RowError) Error() string {
	if e.Column == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d, %s: %s", e.Line, e.Column, e.Reason)
}

// MaxRules is the most rows of a price list.
const MaxRules = 10_000

// ReadCSV reads a list: a header with the columns of [Header] in any order, of which channel and price must be there.
// The first error in the list is returned as a [RowError]; a row that repeats another is an error, too.
func ReadCSV(r io.Reader) (List, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord, in.TrimLeadingSpace, in.ReuseRecord = -1, true, true
	head, err := in.Read()
	if err != nil {
		return nil, &RowError{1, "", "the header is missing: want " + strings.Join(Header, ",")}
	}
	at := map[string]int{}
	for i, name := range head {
		name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
		n := slices.IndexFunc(Header, func(h string) bool { return strings.EqualFold(h, name) })
		if n < 0 {
			return nil, &RowError{1, name, "no such column: want " + strings.Join(Header, ",")}
		}
		at[Header[n]] = i
	}
	for _, need := range []string{"channel", "price"} {
		if _, ok := at[need]; !ok {
			return nil, &RowError{1, need, "the column is missing"}
		}
	}
	var out List
	seen := map[string]int{}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if broken := (*csv.ParseError)(nil); errors.As(err, &broken) {
			return nil, &RowError{broken.Line, "", "cannot be read as CSV"}
		}
		if err != nil {
			return nil, err
		}
		line, _ := in.FieldPos(0)
		if len(out) == MaxRules {
			return nil, &RowError{line, "", fmt.Sprintf("a price list has at most %d rows", MaxRules)}
		}
		rule, err := readRule(func(name string) string {
			if i, ok := at[name]; ok && i < len(row) {
				return strings.TrimSpace(row[i])
			}
			return ""
		})
		if wrong := (*RowError)(nil); errors.As(err, &wrong) {
			wrong.Line = line
			return nil, wrong
		}
		if first, ok := seen[rule.Key()]; ok {
			return nil, &RowError{line, "", fmt.Sprintf("repeats line %d", first)}
		}
		seen[rule.Key()] = line
		out = append(out, rule)
	}
}

func readRule(get func(string) string) (r Rule, err error) {
	var ok bool
	if r.Channel, ok = schemas.ParseChannel(strings.ToLower(get("channel"))); !ok {
		return r, &RowError{Column: "channel", Reason: "want sms, rcs, whatsapp or voice"}
	}
	if r.Country = strings.ToUpper(get("country")); r.Country == "*" {
		r.Country = ""
	}
	if !ValidCountry(r.Country) {
		return r, &RowError{Column: "country", Reason: "want a code of two letters such as IT, or nothing for every country"}
	}
	if s := get("from"); s != "" {
		if r.From, err = strconv.ParseUint(s, 10, 32); err != nil {
			return r, &RowError{Column: "from", Reason: "want a number of recipients"}
		}
	}
	if s := get("validFrom"); s != "" {
		if r.ValidFrom, err = ParseDate(s); err != nil {
			return r, &RowError{Column: "validFrom", Reason: "want a date such as 2026-01-31, or RFC 3339 with an offset"}
		}
	}
	if r.Micros, ok = ParsePrice(get("price")); !ok {
		return r, &RowError{Column: "price", Reason: "want an amount such as 0.045 with at most 6 decimals"}
	}
	return r, nil
}

// ParseDate reads a date, which begins at midnight UTC, or an instant.
func ParseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC().Truncate(time.Second), err
}

// ValidCountry reports whether s is empty or two capital letters.
func ValidCountry(s string) bool {
	return s == "" || len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// FormatPrice writes micro-units as an amount.
func FormatPrice(micros uint64) string {
	s := fmt.Sprintf("%d.%06d", micros/1e6, micros%1e6)
	if cut := strings.TrimRight(s, "0"); !strings.HasSuffix(cut, ".") {
		return cut
	}
	return s[:len(s)-7]
}

// ParsePrice reads an amount of at most [schemas.MaxPriceMicros] micro-units.
func ParsePrice(s string) (micros uint64, ok bool) {
	whole, frac, point := strings.Cut(s, ".")
	if whole == "" || point && frac == "" || len(whole) > 9 || len(frac) > 6 || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	return n, err == nil && n <= schemas.MaxPriceMicros
}
