// Package compliance checks a campaign against the rules of the countries that it would send to: hours, closed days, the
// text that says how to opt out, and kinds of senders. The rules are data with their sources, in rules.csv. They are
// those of promotional messages, and no legal advice.
//
// It promises: a campaign without a finding keeps the rules of the file, as far as they can be known before it is sent.
// Closed days are checked only against the times at which the campaign is expected to send; a pause may move them.
package compliance

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"fanfare/schemas"
	"fanfare/schemas/hours"
	"fanfare/schemas/pricing"
	"fanfare/schemas/text"
)

//go:embed rules.csv
var file []byte

// Kind is what a rule is about.
type Kind string

// Kinds of rules.
const (
	Hours   Kind = "hours"   // the local time within which messages may arrive
	Closed  Kind = "closed"  // days on which they may not
	OptOut  Kind = "opt_out" // words of which a text has one, or {{opt_out}}
	Senders Kind = "senders" // kinds of senders that reach the country
)

// Kinds are all kinds, in the order in which findings are listed.
var Kinds = []Kind{Hours, Closed, OptOut, Senders}

// Rule is one rule of a country.
type Rule struct {
	Country string // ISO 3166-1 alpha-2
	Kind    Kind
	Value   string // as in the file
	Source  string

	from, to int // minutes after midnight: of Hours
	days     []time.Weekday
	words    []string // of OptOut, normalised; of Senders
}

// Rules are the rules of the file.
type Rules struct {
	all []Rule
	of  map[string][]*Rule
}

// All returns the rules, by country and kind.
func (r *Rules) All() []Rule { return slices.Clone(r.all) }

// Open reads the file.
func Open() (*Rules, error) { return read(file) }

func read(data []byte) (*Rules, error) {
	in := csv.NewReader(bytes.NewReader(data))
	in.Comment, in.FieldsPerRecord = '#', 4
	rows, err := in.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("rules.csv: %w", err)
	}
	out := &Rules{of: map[string][]*Rule{}}
	for _, row := range rows {
		rule := Rule{Country: row[0], Kind: Kind(row[1]), Value: row[2], Source: row[3]}
		if err := rule.parse(); err != nil {
			return nil, fmt.Errorf("rules.csv: %v: %w", row, err)
		}
		out.all = append(out.all, rule)
	}
	slices.SortFunc(out.all, func(a, b Rule) int {
		if c := strings.Compare(a.Country, b.Country); c != 0 {
			return c
		}
		return slices.Index(Kinds, a.Kind) - slices.Index(Kinds, b.Kind)
	})
	for i := range out.all {
		rule := &out.all[i]
		if slices.ContainsFunc(out.of[rule.Country], func(o *Rule) bool { return o.Kind == rule.Kind }) {
			return nil, fmt.Errorf("rules.csv: %s has two rules of the kind %s", rule.Country, rule.Kind)
		}
		out.of[rule.Country] = append(out.of[rule.Country], rule)
	}
	return out, nil
}

var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// SenderKinds are the kinds of senders of text messages.
var SenderKinds = []string{"alphanumeric", "number", "short_code"}

func (r *Rule) parse() (err error) {
	switch {
	case r.Country == "" || !pricing.ValidCountry(r.Country):
		return errors.New("no country")
	case r.Source == "":
		return errors.New("no source")
	}
	list := strings.Split(r.Value, "|")
	switch r.Kind {
	case Hours:
		from, to, _ := strings.Cut(r.Value, "-")
		if r.from, err = hours.ParseClock(from); err != nil {
			return err
		}
		if r.to, err = hours.ParseClock(to); err != nil {
			return err
		}
		if r.to == 0 {
			r.to = 24 * 60
		}
		if r.from >= r.to {
			return errors.New("hours that begin after they end")
		}
	case Closed:
		for _, name := range list {
			day, ok := weekdays[name]
			if !ok {
				return fmt.Errorf("%q is no day", name)
			}
			r.days = append(r.days, day)
		}
	case OptOut:
		for _, word := range list {
			if plain(word) == "  " {
				return errors.New("an empty word")
			}
			r.words = append(r.words, plain(word))
		}
	case Senders:
		for _, kind := range list {
			if !slices.Contains(SenderKinds, kind) {
				return fmt.Errorf("%q is no kind of sender", kind)
			}
		}
		r.words = list
	default:
		return errors.New("no such kind")
	}
	return nil
}

// Leg is a leg of a campaign.
type Leg struct {
	Channel schemas.Channel
	Sender  string   // kind of the sender of a text message, such as number
	Texts   []string // of a text message: each text that a recipient may get, with its placeholders
}

// Campaign is what is checked.
type Campaign struct {
	Legs       []Leg
	Countries  map[string]uint64 // recipients by country; "": not known
	Hours      *hours.Hours      // calling hours; nil: it sends at any hour
	Recipients bool              // the calling hours are on each recipient's clock
	// Spans are when it is expected to send, in their order; with batches, one of each. None: it is not known when it
	// starts, and closed days are not checked.
	Spans   []Span
	Batches bool // its times are those of its batches
	Now     time.Time
	// Zones returns the time zones that numbers of a country may be in, for a country that is not in the table of zones.
	Zones func(country string) []string
}

// Span is a time in which a campaign sends. The zero Until: it is not known when it ends.
type Span struct{ From, Until time.Time }

// end returns the end of a span, which is at most mostDays after its beginning.
func (s Span) end() time.Time {
	if last := s.From.AddDate(0, 0, mostDays); s.Until.IsZero() || s.Until.After(last) {
		return last
	}
	return s.Until
}

// Finding is a rule that a campaign does not keep.
type Finding struct {
	Rule       *Rule
	Recipients uint64
	Field      string // of the campaign, that would have to change
	Detail     string
	Fix        string
}

// Check returns the rules that a campaign does not keep, by country and kind.
func (r *Rules) Check(c *Campaign) []Finding {
	var out []Finding
	for _, country := range slices.Sorted(maps.Keys(c.Countries)) {
		n := c.Countries[country]
		if n == 0 {
			continue
		}
		for _, rule := range r.of[country] {
			f, broken := Finding{}, false
			switch rule.Kind {
			case Hours:
				f, broken = rule.checkHours(c)
			case Closed:
				f, broken = rule.checkDays(c)
			case OptOut:
				f, broken = rule.checkOptOut(c)
			case Senders:
				f, broken = rule.checkSenders(c)
			}
			if broken {
				f.Rule, f.Recipients = rule, n
				out = append(out, f)
			}
		}
	}
	return out
}

// zonesOf has every zone with its own time of the countries that have several and a rule of hours or closed days (tz
// database, zone.tab): the number of a recipient there does not tell for sure in which of them the recipient is.
var zonesOf = map[string][]string{
	"US": {
		"America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles", "America/Anchorage", "America/Adak", "Pacific/Honolulu",
	},
}

// zones returns the zones of the rule's country; UTC when none is known.
func (r *Rule) zones(c *Campaign) []*time.Location {
	names := zonesOf[r.Country]
	if names == nil {
		names = c.Zones(r.Country)
	}
	var out []*time.Location
	for _, name := range names {
		if zone, err := hours.Zone(name); err == nil {
			out = append(out, zone)
		}
	}
	if len(out) == 0 {
		out = append(out, time.UTC)
	}
	return out
}

// openIn returns the calling hours as they hold for recipients in a zone.
func (c *Campaign) openIn(zone *time.Location) hours.Hours {
	switch {
	case c.Hours == nil:
		return hours.Hours{}
	case c.Recipients:
		return c.Hours.On(zone.String())
	}
	return *c.Hours
}

func (r *Rule) checkHours(c *Campaign) (Finding, bool) {
	f := Finding{
		Field: "callingHoursStart",
		Fix: fmt.Sprintf("Set calling hours from %s to %s on the recipients' clocks (recipientTimezone), or narrower ones.",
			hours.FormatClock(r.from), hours.FormatClock(r.to)),
	}
	if c.Hours == nil || c.Hours.Always() {
		f.Detail = fmt.Sprintf("%s: messages may arrive from %s to %s only, and the campaign may send at any hour.", r.Country, hours.FormatClock(r.from), hours.FormatClock(r.to))
		return f, true
	}
	// The days on which it begins and ends, and one halfway: a clock may change in between.
	days := []time.Time{c.Now}
	if n := len(c.Spans); n > 0 {
		from, until := c.Spans[0].From, c.Spans[n-1].end()
		days = []time.Time{from, from.Add(until.Sub(from) / 2), until}
	}
	for _, zone := range r.zones(c) {
		open := c.openIn(zone)
		for _, day := range days {
			for m := range 24 * 60 {
				at := day.Truncate(time.Minute).Add(time.Duration(m) * time.Minute)
				local := at.In(zone)
				if minute := local.Hour()*60 + local.Minute(); minute >= r.from && minute < r.to || !open.Open(at) {
					continue
				}
				f.Detail = fmt.Sprintf("%s: messages may arrive from %s to %s only, and the calling hours are open at %s in %s.",
					r.Country, hours.FormatClock(r.from), hours.FormatClock(r.to), local.Format("15:04"), zone)
				return f, true
			}
		}
	}
	return Finding{}, false
}

// mostDays bounds the days that are looked at: no forecast is longer.
const mostDays = 366

func (r *Rule) checkDays(c *Campaign) (Finding, bool) {
	f := Finding{Field: "scheduledTime", Fix: "Choose a scheduledTime with which it ends before that day or starts after it, or send it in batches on other days."}
	if c.Batches {
		f = Finding{Field: "batches", Fix: "Choose times with which each batch ends before that day or starts after it."}
	}
	for _, zone := range r.zones(c) {
		open := c.openIn(zone)
		for _, span := range c.Spans {
			if at, ok := r.sendsOnClosed(span, zone, open); ok {
				f.Detail = fmt.Sprintf("%s: no messages may arrive on a %s, and the campaign would send on %s.", r.Country, at.Weekday(), at.Format("2006-01-02"))
				return f, true
			}
		}
	}
	return Finding{}, false
}

// sendsOnClosed returns the first minute of a span that is within the calling hours and on a closed day of a zone.
func (r *Rule) sendsOnClosed(span Span, zone *time.Location, open hours.Hours) (time.Time, bool) {
	for at, end := span.From.In(zone), span.end(); ; {
		next := time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, zone)
		if !next.After(at) { // the clock skips midnight
			next = at.Add(time.Hour)
		}
		for slices.Contains(r.days, at.Weekday()) && at.Before(next) && (at.Before(end) || at.Equal(span.From)) {
			if open.Open(at) {
				return at, true
			}
			at = at.Truncate(time.Minute).Add(time.Minute) // calling hours begin on the minute
		}
		if !next.Before(end) {
			return time.Time{}, false
		}
		at = next
	}
}

// replyTo matches a number that a text names, to which a recipient can write.
var replyTo = regexp.MustCompile(`\d{4,}`)

// notRead matches what a text has that tells nobody how to opt out: placeholders and links.
var notRead = regexp.MustCompile(`(?is)\{\{.*?\}\}|https?://\S+`)

func (r *Rule) checkOptOut(c *Campaign) (Finding, bool) {
	for _, leg := range c.Legs {
		if leg.Channel != schemas.ChannelSMS {
			continue
		}
		for _, body := range leg.Texts {
			if t, err := text.Parse(body); err == nil && t.OptOut() {
				continue
			}
			body = notRead.ReplaceAllString(body, " ")
			f := Finding{Field: "message", Fix: "Add {{opt_out}} to the text, which becomes the opt-out link of the recipient, or how to opt out by an answer, such as: Reply STOP to opt out."}
			switch words := plain(body); {
			case !slices.ContainsFunc(r.words, func(w string) bool { return strings.Contains(words, w) }):
				f.Detail = fmt.Sprintf("%s: the text must say how to opt out.", r.Country)
				return f, true
			case leg.Sender == "alphanumeric" && !replyTo.MatchString(body):
				f.Detail = fmt.Sprintf("%s: the text must say how to opt out, and nobody can answer a sender that is a name.", r.Country)
				f.Fix = "Add {{opt_out}} to the text, which becomes the opt-out link of the recipient, or the number that the recipient writes to."
				return f, true
			}
		}
	}
	return Finding{}, false
}

func (r *Rule) checkSenders(c *Campaign) (Finding, bool) {
	for _, leg := range c.Legs {
		if leg.Channel == schemas.ChannelSMS && leg.Sender != "" && !slices.Contains(r.words, leg.Sender) {
			return Finding{
				Field:  "sender",
				Detail: fmt.Sprintf("%s: a sender of the kind %s does not reach the country.", r.Country, strings.ReplaceAll(leg.Sender, "_", " ")),
				Fix:    fmt.Sprintf("Use a sender of the kind %s, or lists without these recipients.", strings.ReplaceAll(strings.Join(r.words, " or "), "_", " ")),
			}, true
		}
	}
	return Finding{}, false
}

// plain returns a text as its words in lower case without accents and other marks, with single blanks between and around
// them. It reads a text as the keywords of answers are read.
func plain(s string) string {
	var b strings.Builder
	b.WriteByte(' ')
	gap := true
	for _, r := range norm.NFKD.String(strings.ToValidUTF8(s, " ")) {
		r = unicode.ToLower(r)
		switch {
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) || r == '\'' || r == '’':
			continue
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mc, r):
			if r == 'ı' {
				r = 'i'
			}
			b.WriteRune(r)
			gap = false
		case !gap:
			b.WriteByte(' ')
			gap = true
		}
	}
	if !gap || b.Len() == 1 {
		b.WriteByte(' ')
	}
	return b.String()
}
