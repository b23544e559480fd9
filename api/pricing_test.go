package api

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/pricing"
)

var channels = []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp}

// C9, P4: whatever the channel, the text, the rates and the numbers: the parts of a price are the price, no tenant pays
// for more than there are, and what is reserved is at least what is expected.
func TestPriceIdentities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prices := store.Prices{}
		for _, c := range channels {
			prices = append(prices, pricing.Rule{Channel: c, Micros: uint64(rapid.IntRange(0, 2_000_000).Draw(t, "price"))})
		}
		tenant := store.Tenant{MaxSegments: uint32(rapid.IntRange(1, 6).Draw(t, "segments")), DefaultRoute: "sim", DefaultSender: "X"}
		c := store.Campaign{Spec: store.Spec{Chain: []schemas.Channel{rapid.SampledFrom(channels).Draw(t, "channel")}}}
		if c.Chain[0] == schemas.ChannelSMS {
			c.Body = rapid.StringN(1, 160, -1).Draw(t, "body")
		} else {
			c.TemplateID = "tpl"
		}
		if rapid.Bool().Draw(t, "field") && c.Body != "" {
			c.Body = strings.ReplaceAll(c.Body, "{", "(") + " {{first_name}}"
		}
		var sample []store.Contact
		for range rapid.IntRange(0, 20).Draw(t, "sample") {
			sample = append(sample, store.Contact{FirstName: rapid.StringN(0, 400, -1).Draw(t, "name")})
		}
		people := mix{}
		for _, country := range []string{"IT", "FR", "", "DE"}[:rapid.IntRange(0, 4).Draw(t, "countries")] {
			people[country] = uint64(rapid.IntRange(0, 300_000).Draw(t, "contacts"))
		}
		contacts := people.total()
		seg := segmentsOf{1, 1, 1, false}
		if c.Body != "" {
			seg = estimateSegments(&c.Spec, c.Body, maxSegments(&c, &tenant), sample)
		}
		priced := legs(&c, prices, 1, time.Now())
		priced[0].Prices = map[string]uint64{"FR": uint64(rapid.IntRange(0, 2_000_000).Draw(t, "price of France"))}
		b := priceOf(&c, &tenant, priced, people, []segmentsOf{seg})
		if rapid.Bool().Draw(t, "after confirm") && contacts > 0 {
			b.settleOn(b.cost + uint64(rapid.IntRange(0, 1000).Draw(t, "more")))
			b.most = max(b.most, b.cost)
		}
		var lines, people2 uint64
		for _, l := range b.lines {
			lines, people2 = lines+l.cost, people2+l.count
		}
		if lines != b.cost || people2 != contacts {
			t.Fatalf("countries add up to %s of %d, want %s of %d", Money(lines), people2, Money(b.cost), contacts)
		}
		parts := b.breakdown()
		if got := parts.SMS.Cost + parts.RCS.Cost + parts.WhatsApp.Cost + parts.Voice.Cost; got != Money(b.cost) {
			t.Fatalf("costs add up to %s, want %s", got, Money(b.cost))
		}
		if got := parts.SMS.Count + parts.RCS.Count + parts.WhatsApp.Count + parts.Voice.Count; got != contacts {
			t.Fatalf("counts add up to %d, want %d", got, contacts)
		}
		if b.most < b.cost {
			t.Fatalf("reserves %s, want at least the expected %s", Money(b.most), Money(b.cost))
		}
		if contacts > 0 && (b.perOne*contacts < b.cost || b.perOne*contacts >= b.cost+contacts) {
			t.Fatalf("%s for each of %d, want the total %s to a micro-unit each", Money(b.perOne), contacts, Money(b.cost))
		}
		if contacts == 0 && b.cost != 0 {
			t.Fatalf("no recipients cost %s, want 0", Money(b.cost))
		}
	})
}

// Golden: 5,000 contacts at 0.05 are 250.00 EUR; two segments cost twice.
func TestPriceGolden(t *testing.T) {
	tenant := store.Tenant{MaxSegments: 3}
	prices := store.Prices{{Channel: schemas.ChannelSMS, Micros: 50_000}}
	c := store.Campaign{Spec: store.Spec{Chain: channels[:1], Body: "Spring sale is here!"}}
	price := func() bill {
		return priceOf(&c, &tenant, legs(&c, prices, 1, time.Now()), mix{"IT": 5000}, []segmentsOf{estimateSegments(&c.Spec, c.Body, 3, nil)})
	}
	if b := price(); Money(b.cost).String() != "250.00" || Money(b.perOne).String() != "0.05" || Money(b.most).String() != "750.00" {
		t.Errorf("got %s, %s each, %s at most, want 250.00, 0.05 and 750.00", Money(b.cost), Money(b.perOne), Money(b.most))
	}
	c.Body = strings.Repeat("ж", 71)
	if b := price(); Money(b.cost).String() != "500.00" || b.segments != 2 {
		t.Errorf("two segments: got %s for %d, want 500.00 for 2", Money(b.cost), b.segments)
	}
}

func TestMoneyText(t *testing.T) {
	for micros, want := range map[Money]string{
		0: "0", 250_000_000: "250.00", 50_000: "0.05", 45_000: "0.045", 1: "0.000001", 1_500_000: "1.50", -1_500_000: "-1.50", 999_999_999_999: "999999.999999", 100: "0.0001",
	} {
		if got := micros.String(); got != want {
			t.Errorf("%d: got %s, want %s", micros, got, want)
		}
	}
	for text, want := range map[string]Money{"0": 0, "250": 250_000_000, "250.00": 250_000_000, "0.05": 50_000, "-1.5": -1_500_000, "0.0000010": 1} {
		if got, ok := parseMoney(text); !ok || got != want {
			t.Errorf("%s: got %d %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"0.0000001", "1e3", "", ".", "1.2.3", "1234567890123"} {
		if got, ok := parseMoney(text); ok {
			t.Errorf("%q: got %d, want no money", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		m := Money(rapid.Int64Range(-1e15, 1e15).Draw(t, "micros"))
		if got, ok := parseMoney(m.String()); !ok || got != m {
			t.Fatalf("%d written as %s: got %d back", m, m, got)
		}
	})
}
