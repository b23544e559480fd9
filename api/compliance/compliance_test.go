package compliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/hours"
)

var zoneOf = map[string][]string{"FR": {"Europe/Paris"}, "IT": {"Europe/Rome"}, "IN": {"Asia/Kolkata"}}

// monday, 9:00 in Paris.
var monday = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

var saturday = monday.AddDate(0, 0, 5)

func sms(sender string, texts ...string) []Leg {
	return []Leg{{Channel: schemas.ChannelSMS, Sender: sender, Texts: texts}}
}

func at(t *testing.T, start, end, zone string) *hours.Hours {
	t.Helper()
	from, err1 := hours.ParseClock(start)
	to, err2 := hours.ParseClock(end)
	h, err3 := hours.New(from, to, zone)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	return &h
}

// R43: each rule of a country is found where it is broken, and nowhere else.
func TestCheck(t *testing.T) {
	rules, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	day := at(t, "10:00", "20:00", "Europe/Rome")
	for name, c := range map[string]struct {
		Campaign
		want string
	}{
		"a good text to Italy":                {Campaign{Legs: sms("number", "Sale! Reply STOP to end"), Countries: map[string]uint64{"IT": 3}}, ""},
		"no way to opt out":                   {Campaign{Legs: sms("number", "Sale!"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"a word within another":               {Campaign{Legs: sms("number", "A nonstop show"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"the opt-out link":                    {Campaign{Legs: sms("alphanumeric", "Sale! {{opt_out}}"), Countries: map[string]uint64{"IT": 3}}, ""},
		"nobody answers a name":               {Campaign{Legs: sms("alphanumeric", "Sale! STOP to opt out"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"a name with a number to write to":    {Campaign{Legs: sms("alphanumeric", "Sale! STOP to 36034"), Countries: map[string]uint64{"IT": 3}}, ""},
		"one variant of two":                  {Campaign{Legs: sms("number", "A, STOP", "B"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"an accent":                           {Campaign{Legs: sms("number", "Pour vous désabonner"), Countries: map[string]uint64{"BE": 1}}, ""},
		"another channel":                     {Campaign{Legs: []Leg{{Channel: schemas.ChannelRCS}}, Countries: map[string]uint64{"IT": 3, "CA": 2}}, ""},
		"nobody there":                        {Campaign{Legs: sms("number", "Sale!"), Countries: map[string]uint64{"IT": 0, "": 4, "CH": 1}}, ""},
		"a name to America":                   {Campaign{Legs: sms("alphanumeric", "{{opt_out}}"), Countries: map[string]uint64{"CA": 2, "BR": 1}}, "BR senders 1; CA senders 2"},
		"at any hour":                         {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}}, "US hours 2"},
		"hours that never close":              {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "09:00", "09:00", "Europe/Rome")}, "US hours 2"},
		"the hours of Rome":                   {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: day}, "US hours 2"},
		"a call at the hours of Rome":         {Campaign{Legs: []Leg{{Channel: schemas.ChannelVoice}}, Countries: map[string]uint64{"US": 2}, Hours: day}, "US hours 2"},
		"the recipients' hours":               {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: day, Recipients: true}, ""},
		"a minute too early":                  {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "07:59", "20:00", "Europe/Rome"), Recipients: true}, "US hours 2"},
		"exactly the hours":                   {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "08:00", "21:00", "Europe/Rome"), Recipients: true}, ""},
		"a minute too late":                   {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "08:00", "21:01", "Europe/Rome"), Recipients: true}, "US hours 2"},
		"across midnight":                     {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "20:00", "09:00", "Europe/Rome"), Recipients: true}, "US hours 2"},
		"hours in New York that all share":    {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "14:00", "21:00", "America/New_York"), Spans: []Span{{Until: monday.AddDate(1, 0, 0), From: monday}}}, ""},
		"too early in Los Angeles":            {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "09:00", "20:00", "America/New_York")}, "US hours 2"},
		"too early in Honolulu":               {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "12:59", "21:00", "America/New_York")}, "US hours 2"},
		"too early in Honolulu in summer":     {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 2}, Hours: at(t, "13:00", "21:00", "America/New_York"), Spans: []Span{{From: monday}}}, "US hours 2"},
		"on a Monday":                         {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Spans: []Span{{monday, monday.Add(time.Hour)}}}, ""},
		"on a Sunday":                         {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Spans: []Span{{monday.AddDate(0, 0, 6).Add(time.Hour), monday.AddDate(0, 0, 6).Add(time.Hour)}}}, "FR closed 1"},
		"until a Sunday":                      {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Spans: []Span{{monday, monday.AddDate(0, 0, 6).Add(2 * time.Hour)}}}, "FR closed 1"},
		"from Saturday night to Sunday night": {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Spans: []Span{{monday.AddDate(0, 0, 5).Add(8 * time.Hour), monday.AddDate(0, 0, 6)}}}, ""},
		"Saturday until midnight":             {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: at(t, "08:00", "22:00", "Europe/Paris"), Spans: []Span{{saturday, saturday.Add(15 * time.Hour)}}}, ""},
		"batches around a Sunday":             {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Batches: true, Spans: []Span{{saturday, saturday.Add(time.Hour)}, {saturday.AddDate(0, 0, 2), saturday.AddDate(0, 0, 2).Add(time.Hour)}}}, ""},
		"a batch on a Sunday":                 {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Batches: true, Spans: []Span{{saturday, saturday.Add(time.Hour)}, {saturday.AddDate(0, 0, 1).Add(time.Hour), saturday.AddDate(0, 0, 1).Add(2 * time.Hour)}}}, "FR closed 1"},
		"no one knows until when":             {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day, Spans: []Span{{From: monday}}}, "FR closed 1"},
		"five minutes on a Sunday":            {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: at(t, "08:02", "08:07", "Europe/Paris"), Spans: []Span{{monday.Add(30 * time.Second), monday.AddDate(0, 0, 7)}}}, "FR closed 1"},
		"a word in a link":                    {Campaign{Legs: sms("number", "Sale! https://shop.example/stop"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"a word in a placeholder":             {Campaign{Legs: sms("number", `Sale {{stop}}!`), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"a number in a link":                  {Campaign{Legs: sms("alphanumeric", "Sale! STOP, HTTPS://shop.example/36034"), Countries: map[string]uint64{"IT": 3}}, "IT opt_out 3"},
		"a letter and its accent":             {Campaign{Legs: sms("number", "Pour vous de\u0301sabonner"), Countries: map[string]uint64{"BE": 1}}, ""},
		"in Bulgarian":                        {Campaign{Legs: sms("number", "Отпишете се: СТОП"), Countries: map[string]uint64{"BG": 1}}, ""},
		"no one knows when":                   {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"FR": 1}, Hours: day}, ""},
		"a clock changes before it ends":      {Campaign{Legs: sms("number", "STOP"), Countries: map[string]uint64{"US": 1}, Hours: at(t, "16:00", "02:00", "UTC"), Spans: []Span{{time.Date(2026, 10, 30, 17, 0, 0, 0, time.UTC), time.Date(2026, 11, 2, 17, 0, 0, 0, time.UTC)}}}, "US hours 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c.Now, c.Zones = monday, func(country string) []string { return zoneOf[country] }
			var got []string
			for _, f := range rules.Check(&c.Campaign) {
				if f.Detail == "" || f.Fix == "" || f.Field == "" || !strings.HasPrefix(f.Detail, f.Rule.Country+": ") || f.Rule.Source == "" {
					t.Errorf("got finding %+v without detail, fix, field or source", f)
				}
				got = append(got, fmt.Sprint(f.Rule.Country, " ", f.Rule.Kind, " ", f.Recipients))
			}
			if got := strings.Join(got, "; "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A rule that cannot be read is refused with its row; the file of this package is read.
func TestRead(t *testing.T) {
	rules, err := Open()
	if err != nil || len(rules.All()) < 50 {
		t.Fatalf("got %d rules, %v", len(rules.All()), err)
	}
	for _, bad := range []string{
		"XX1,hours,08:00-21:00,s", "IT,hours,08:00,s", "IT,hours,21:00-08:00,s", "IT,closed,sunday,s", "IT,opt_out,stop|,s", "IT,senders,fax,s", "IT,names,x,s", "IT,opt_out,stop,",
		"IT,opt_out,stop", "IT,opt_out,stop,s\nIT,opt_out,halt,s",
	} {
		if _, err := read([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "rules.csv: ") {
			t.Errorf("%q: got %v, want an error that names the file", bad, err)
		}
	}
}

// The words of the rules and the texts of campaigns are read as the keywords of answers are.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"": "  ", "...": "  ", "Stop": " stop ", " opt-out! ": " opt out ", "Désabonner": " desabonner ", "de\u0301sabonner": " desabonner ",
		"don't": " dont ", "ＳＴＯＰ": " stop ", "İPTAL ıptal": " iptal iptal ", "ОТМЕНА": " отмена ", "a\xffb": " a b ",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// R43: every zone of the table is one, and a country has no zone twice.
func TestZones(t *testing.T) {
	for country, names := range zonesOf {
		seen := map[string]bool{}
		for _, name := range names {
			if _, err := hours.Zone(name); err != nil || seen[name] {
				t.Errorf("%s: got zone %q, %v", country, name, err)
			}
			seen[name] = true
		}
	}
}
