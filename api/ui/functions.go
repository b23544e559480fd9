package ui

import (
	"fmt"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// functions returns the functions that templates can call.
func functions(a *assets) template.FuncMap {
	return template.FuncMap{
		"asset": a.url, "t": say, "count": count, "percent": percent, "money": money, "utc": utc, "twoLines": twoLines, "moment": moment, "iso": iso, "clock": clock, "ago": ago,
		"badge": channelName, "decimal": decimal, "tone": tone, "stateName": stateName, "share": share, "offset": offset, "dict": dict, "list": list,
		"param": withParam, "initials": initials, "join": strings.Join, "tabs": tabsOf, "section": sectionOf, "statusTone": statusTone, "deliveryTone": deliveryTone, "hint": hint, "listed": listed, "duration": duration, "icon": icon, "domainTone": domainTone, "domainState": domainState, "domainKinds": func() []string { return domainKinds }, "has": has, "add": func(a, b int) int { return a + b },
		"deref": func(v *float64) float64 { return *v },
	}
}

// integer converts any whole number from JSON or Go.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(min(n, math.MaxInt64)), true
	case uint32:
		return int64(n), true
	case *uint32:
		if n != nil {
			return int64(*n), true
		}
	case *uint64:
		if n != nil {
			return int64(min(*n, math.MaxInt64)), true
		}
	case *int:
		if n != nil {
			return int64(*n), true
		}
	case float64:
		return int64(n), true
	case *float64:
		if n != nil {
			return int64(*n), true
		}
	}
	return 0, false
}

// count formats 1234567 as 1,234,567 and an unknown value as a dash.
func count(v any) string {
	n, ok := integer(v)
	if !ok {
		return "–"
	}
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "−", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// decimal formats a rate: without decimals from ten up, with one decimal below.
func decimal(v float64) string {
	if v >= 10 || v == 0 {
		return count(math.Round(v))
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// percent formats 0.9031 as 90.3%.
func percent(v float64) string { return strconv.FormatFloat(v*100, 'f', 1, 64) + "%" }

var currencySigns = map[string]string{"EUR": "€", "USD": "$", "GBP": "£"}

// money formats an amount after its currency, with two decimals, or as many as a small amount needs.
func money(amount any, currency string) string {
	var f float64
	switch v := amount.(type) {
	case float64:
		f = v
	case *float64:
		if v == nil {
			return "–"
		}
		f = *v
	default:
		return "–"
	}
	decimals := 2
	if f != 0 && math.Abs(f) < 1 && math.Abs(f*100-math.Round(f*100)) > 1e-9 {
		decimals = 4
	}
	text := strconv.FormatFloat(math.Abs(f), 'f', decimals, 64)
	whole, fraction, _ := strings.Cut(text, ".")
	n, _ := strconv.ParseInt(whole, 10, 64)
	sign, ok := currencySigns[currency]
	if !ok {
		sign = currency + " "
	}
	if f < 0 {
		sign = "−" + sign
	}
	return sign + count(n) + "." + fraction
}

// instant parses a time of the API, which is RFC 3339 or empty.
func instant(v any) time.Time {
	switch t := v.(type) {
	case time.Time:
		return t
	case string:
		at, _ := time.Parse(time.RFC3339Nano, t)
		return at
	case *string:
		if t != nil {
			at, _ := time.Parse(time.RFC3339Nano, *t)
			return at
		}
	}
	return time.Time{}
}

// utc formats a time for people, in UTC with the name of the zone (R42).
func utc(v any) string {
	at := instant(v)
	if at.IsZero() {
		return "–"
	}
	return at.UTC().Format("2 Jan 2006, 15:04") + " UTC"
}

// twoLines lets a formatted time break only after its date, for narrow columns.
func twoLines(at string) string {
	date, clock, ok := strings.Cut(at, ", ")
	if !ok {
		return at
	}
	const noBreak = "\u00a0"
	return strings.ReplaceAll(date, " ", noBreak) + ", " + strings.ReplaceAll(clock, " ", noBreak)
}

// moment formats a time to the second, in UTC.
func moment(v any) string {
	at := instant(v)
	if at.IsZero() {
		return "–"
	}
	return at.UTC().Format("2 Jan 2006, 15:04:05") + " UTC"
}

// clock formats a time in a zone, with the zone's name.
func clock(v any, zone string) string {
	at := instant(v)
	if at.IsZero() {
		return "–"
	}
	l, err := time.LoadLocation(zone)
	if err != nil {
		return utc(at)
	}
	return at.In(l).Format("2 Jan 2006, 15:04") + " " + zone
}

// iso formats a time for a datetime attribute.
func iso(v any) string {
	at := instant(v)
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

// ago formats how long ago a time was.
func ago(v any, now time.Time) string {
	at := instant(v)
	if at.IsZero() {
		return "–"
	}
	switch d := now.Sub(at); {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d/time.Hour))
	default:
		return fmt.Sprintf("%d days ago", int(d/(24*time.Hour)))
	}
}

func channelName(channel any) string {
	name, _ := channel.(string)
	if p, ok := channel.(*string); ok && p != nil {
		name = *p
	}
	switch name {
	case "sms":
		return "SMS"
	case "rcs":
		return "RCS"
	case "whatsapp":
		return "WhatsApp"
	case "voice":
		return "Voice"
	}
	return "–"
}

// tones are the colours of states. R131 names some of them; similar states have the same colour.
var tones = map[string]string{
	"draft": "dim", "configured": "dim", "cost_calculated": "dim", "ready": "blue", "scheduled": "blue", "preparing": "green",
	"sending": "green", "paused": "amber", "suspended": "red", "completed": "dim", "cancelled": "struck", "aborted": "struck",
	"rejected": "red", "failed": "red",
}

func tone(state string) string { return tones[state] }

// stateName returns the name of a state for people. state is a string or a *string.
func stateName(state any) (string, error) {
	if p, ok := state.(*string); ok && p != nil {
		state = *p
	}
	return say(fmt.Sprint("state.", state))
}

// share returns a part of a whole as a width in percent, for bars.
func share(part, whole any) string {
	p, _ := integer(part)
	w, ok := integer(whole)
	if !ok || w <= 0 {
		return "0"
	}
	return strconv.FormatFloat(100*float64(p)/float64(w), 'f', 3, 64)
}

// offset returns the sum of shares, where the next part of a bar begins.
func offset(whole any, parts ...any) string {
	var sum int64
	for _, p := range parts {
		n, _ := integer(p)
		sum += n
	}
	return share(sum, whole)
}

// dict makes a map from names and values, as the argument of a template.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict wants pairs, and got %d arguments", len(pairs))
	}
	out := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict wants a name, and got %v", pairs[i])
		}
		out[name] = pairs[i+1]
	}
	return out, nil
}

func list(values ...string) []string { return values }

func has(values []string, value string) bool { return slices.Contains(values, value) }

// withParam returns a page's URL with one parameter changed; "" removes the parameter.
func withParam(address, name string, value any) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	q := u.Query()
	if text := fmt.Sprint(value); text == "" {
		q.Del(name)
	} else {
		q.Set(name, text)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// initials returns the initials of a name, for the avatar.
func initials(name string) string {
	words := strings.Fields(name)
	var out []rune
	for _, w := range words {
		out = append(out, []rune(w)[0])
	}
	if len(out) > 2 {
		out = []rune{out[0], out[len(out)-1]}
	}
	if len(words) == 1 && len([]rune(words[0])) > 1 {
		out = []rune(words[0])[:2]
	}
	return strings.ToUpper(string(out))
}

// icons are the SVG paths of the icons in the navigation, 24 by 24 units.
var icons = map[string]string{
	"campaigns": "M3 11v3l2 .5V18a2 2 0 0 0 4 0v-2.5l10 3V6L5 10.5zM19 9.5a2.5 2.5 0 0 1 0 5",
	"realtime":  "M2 12h4l3-8 5 16 3-8h5",
	"contacts":  "M16 20v-1.5a4 4 0 0 0-4-4H6a4 4 0 0 0-4 4V20M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8M22 20v-1.5a4 4 0 0 0-3-3.9M16 3.2a4 4 0 0 1 0 7.6",
	"templates": "M14 2H6a2 2 0 0 0-2 2v16a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2V8zM14 2v6h6M8 13h8M8 17h5",
	"inbox":     "M21 11.5a8.4 8.4 0 0 1-9 8.5 9 9 0 0 1-4-.9L3 21l1.9-5a8.4 8.4 0 1 1 16.1-4.5z",
	"money":     "M3 6h18v12H3zM3 10h18M7 15h3",
	"settings":  "M4 6h10M18 6h2M4 12h2M10 12h10M4 18h8M16 18h4M16 4v4M8 10v4M14 16v4",
	"operator":  "M4 20V10M10 20V4M16 20v-8M22 20H2",
	"search":    "M11 17.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13M16 16l4.5 4.5",
	"theme":     "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
	"close":     "M6 6l12 12M18 6L6 18",
	"more":      "M5 12h.01M12 12h.01M19 12h.01",
}

// icon returns the SVG of an icon.
func icon(name string) (template.HTML, error) {
	path, ok := icons[name]
	if !ok {
		return "", fmt.Errorf("there is no icon %q", name)
	}
	return template.HTML(`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="` + path + `"/></svg>`), nil //nolint:gosec // from the table above
}

// sectionOf returns the section of a page in the navigation.
func sectionOf(p page) string {
	if r, ok := p.Data.(*resourcePage); ok {
		return r.Screen.Section
	}
	switch p.Name {
	case "grid", "campaign", "wizard", "confirm", "delete", "analytics", "ambiguous", "members", "member", "replay", "reschedule", "testsend", "export", "exports", "segment", "forecasts":
		return "campaigns"
	case "list", "suppressions", "import", "imports", "erasures":
		return "contacts"
	case "policy", "deliveries":
		return "settings"
	case "inbox", "conversation", "reviews":
		return "inbox"
	}
	return p.Name
}

// deliveryTone is the colour of the state of an event of a webhook.
func deliveryTone(state string) string {
	switch state {
	case "delivered":
		return "green"
	case "failed":
		return "red"
	}
	return "blue"
}

// statusTone returns the colour of the status of a resource.
func statusTone(status any) string {
	switch fmt.Sprint(status) {
	case "approved", "launched", "active", "enabled", "ok", "up", "alert.not_here":
		return "green"
	case "pending":
		return "blue"
	case "paused", "suspended", "note", "warning", "trial":
		return "amber"
	case "rejected", "disabled", "failed", "bad", "down", "critical", "alert.holds", "unresolved", "certificate", "blocked":
		return "red"
	}
	return "dim"
}

// domainState says in one word whether a domain gets recipients, and if not, why.
func domainState(d campaignDomain) string {
	switch {
	case d.Status == "paused":
		return "paused"
	case d.Health != "ok" && d.Health != "unchecked":
		return d.Health
	case d.Full():
		return "full"
	}
	return d.Health
}

// domainTone is the colour of the state of a domain.
func domainTone(d campaignDomain) string {
	if state := domainState(d); state != "full" {
		return statusTone(state)
	}
	return "amber"
}

// hint returns the sentence under a field, "" when the catalogue has none.
func hint(screen, field string) string { return texts["hint."+screen+"."+field] }

// listed reports whether a word is in a list of words separated by commas.
func listed(words, word string) bool {
	for w := range strings.SplitSeq(words, ",") {
		if strings.TrimSpace(w) == word {
			return true
		}
	}
	return false
}

// duration formats seconds of a forecast.
func duration(s *float64) string {
	if s == nil {
		return "–"
	}
	return mustSay("forecast.seconds", count(*s))
}
