package api

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// Links of campaigns (R39, R138, X6, X10): {{link:https://…}} in a text, or every address of it with shortenLinks,
// becomes a short address that is the recipient's own. It leads to the edge, which counts the click and redirects.
// {{opt_out}} becomes one that leads to the edge's opt-out page.

// linksValid is how long the links of a campaign work after its end: as long as its record stays in topic campaigns.
const linksValid = 7 * 24 * time.Hour

// maxUTM is the most characters of one UTM parameter.
const maxUTM = 100

// anyLink has the length of a link on a usual domain. It replaces links where the length of a text is checked.
var anyLink = strings.Repeat("x", len("https://go.example.com/")+schemas.LinkLen(1))

// utmNames are the parameters that a link may get, in the order in which they are added.
var utmNames = []string{"source", "medium", "campaign", "term", "content"}

// sentText returns a text with its addresses replaced by {{link:…}} when shortenLinks is set.
func sentText(spec *store.Spec, s string) string {
	if spec.ShortenLinks {
		return text.ShortenLinks(s)
	}
	return s
}

// sizedText returns a text with placeholders that are as long as the links will be, to count its segments.
func sizedText(c *store.Campaign, s string) string {
	return text.FillLinks(sentText(&c.Spec, s), c.LinkBase+strings.Repeat("x", schemas.LinkLen(c.Number)))
}

// applyLinks reads the fields about links.
func (in *CampaignInput) applyLinks(spec *store.Spec, ps *problem.List) {
	set(&in.ShortenLinks, &spec.ShortenLinks, nil)
	if !in.UTM.Set {
		return
	}
	spec.UTM = nil
	for _, name := range sortedKeys(in.UTM.Value) {
		v := in.UTM.Value[name]
		switch {
		case !slices.Contains(utmNames, name):
			ps.Add(problem.CodeInvalid, "utm."+problem.Truncate(name, 40), "There is no such UTM parameter: want %s.", strings.Join(utmNames, ", "))
		case v == "" || len(v) > maxUTM || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }):
			ps.Add(problem.CodeInvalid, "utm."+name, "The value has 1 to %d characters and no control characters.", maxUTM)
		default:
			if spec.UTM == nil {
				spec.UTM = map[string]string{}
			}
			spec.UTM[name] = v
		}
	}
}

// linkedText is a parsed text of a leg that may have links.
type linkedText struct {
	variant uint32 // from 1; 0: the text is not of a variant
	text    *text.Template
}

// linkedTexts returns the texts of the legs that may have links.
func linkedTexts(legs []store.Leg) []linkedText {
	var out []linkedText
	add := func(variant int, s string) {
		if t, err := text.Parse(s); err == nil { // a text that does not parse was refused when it was read
			out = append(out, linkedText{uint32(variant), t}) //nolint:gosec // at most maxVariants
		}
	}
	for i := range legs {
		c := &fanfarev1.Content{}
		if proto.Unmarshal(legs[i].Content, c) != nil { // written by proto.Marshal
			continue
		}
		for n, v := range c.GetVariants() {
			add(n+1, v.GetBody())
		}
		if len(c.GetVariants()) == 0 {
			add(0, c.GetBody())
		}
		for _, p := range c.GetParams() {
			add(0, p)
		}
		add(0, c.GetVoice().GetText())
	}
	return out
}

// linkTable returns the links of the legs with their targets; nil when there are none.
func linkTable(base string, legs []store.Leg, utm map[string]string) *store.LinkTable {
	out := &store.LinkTable{Base: base, ValidAfterEnd: linksValid}
	ids := map[string]string{}
	any := false
	for _, t := range linkedTexts(legs) {
		any = any || t.text.OptOut()
		for _, address := range t.text.Links() {
			any = true
			if slices.ContainsFunc(out.Links, func(l store.Link) bool { return l.URL == address && l.Variant == t.variant }) {
				continue
			}
			if ids[address] == "" {
				ids[address] = fmt.Sprintf("lnk_%d", len(ids)+1)
			}
			out.Links = append(out.Links, store.Link{
				Number: uint32(len(out.Links) + 1), ID: ids[address], URL: address, Target: withUTM(address, utm), Variant: t.variant, //nolint:gosec // at most MaxLink
			})
		}
	}
	if !any {
		return nil
	}
	return out
}

// withUTM adds the parameters that an address does not have yet, after its own parameters and before its fragment. It
// returns "" when there are none to add; then the address is used exactly as the author wrote it.
func withUTM(address string, utm map[string]string) string {
	u, err := url.Parse(address)
	if err != nil || len(utm) == 0 {
		return ""
	}
	have, _ := url.ParseQuery(u.RawQuery)
	added := false
	for _, name := range utmNames {
		if v, ok := utm[name]; ok && !have.Has("utm_"+name) {
			u.RawQuery += pick(u.RawQuery == "", "", "&") + "utm_" + name + "=" + url.QueryEscape(v)
			added = true
		}
	}
	if !added {
		return ""
	}
	return u.String()
}

// checkLinks checks the links of a campaign, and sets the longest base of its short addresses and the kinds of domains
// that they need.
func (s *server) checkLinks(ctx context.Context, who *principal, spec *store.Spec, f *found) error {
	table := linkTable(s.LinkURL, f.legs, nil)
	if table == nil {
		return nil
	}
	for i := range f.legs {
		if f.legs[i].Channel == schemas.ChannelVoice && linkTable("", f.legs[i:i+1], nil) != nil {
			f.problems = append(f.problems, problem.Field(problem.CodeInvalid, "message", "The text of a call cannot have a link: it would be read out.").WithFix("Remove {{link:…}} and {{opt_out}} from the text."))
		}
	}
	if n := len(table.Links); n > schemas.MaxLink {
		f.problems = append(f.problems, problem.Field(problem.CodeInvalid, "message", "The texts have %d links; a campaign has at most %d.", n, schemas.MaxLink).
			WithFix("Remove some. A link in several variants counts once for each."))
	}
	pool, err := s.Store.Domains(ctx, who.tenant.ID)
	if err != nil {
		return s.storeProblem(err)
	}
	optOut := slices.ContainsFunc(linkedTexts(f.legs), func(t linkedText) bool { return t.text.OptOut() })
	for _, kind := range []struct {
		name    string
		needed  bool
		domains *bool
	}{{schemas.DomainShort, len(table.Links) > 0, &f.shortDomains}, {schemas.DomainOptOut, optOut, &f.optOutDomains}} {
		if !kind.needed {
			continue
		}
		domains := store.CandidateDomains(&store.Campaign{Spec: store.Spec{Domains: spec.Domains}}, kind.name, pool)
		*kind.domains = len(domains) > 0
		base := s.LinkURL
		for _, d := range domains {
			if b := schemas.DomainBase(d.Host); len(b) > len(base) || base == s.LinkURL {
				base = b
			}
		}
		if len(base) > len(f.linkBase) {
			f.linkBase = base
		}
		if len(domains) == 0 && s.LinkURL == "" {
			f.problems = append(f.problems, problem.Field(problem.CodeInvalid, "message", "There is no domain of kind %s, and this installation has no public address for links.", kind.name).
				WithFix("Create a domain with POST /api/domains, or start the role api with --link-url https://…, the address by which phones reach the role edge."))
		}
		if len(domains) > 0 && !slices.ContainsFunc(domains, func(d store.Domain) bool { return d.Usable() && d.Room() > 0 }) {
			f.warnings = append(f.warnings, fmt.Sprintf("No domain of kind %s has room now: once confirmed, the campaign would be suspended as no_domains until one has.", kind.name))
		}
	}
	return nil
}

// CampaignLink is a link of a campaign.
type CampaignLink struct {
	ID      string  `json:"id" doc:"Name of the link in statistics and selections; the same link in several variants has one id." example:"lnk_1"`
	URL     string  `json:"url" doc:"The address in the text."`
	Target  string  `json:"target" doc:"The address to which it redirects: url, with the parameters of utm."`
	Variant *uint32 `json:"variant" doc:"The variant whose text has it, from 1; null without variants."`
}

func viewLinks(c *store.Campaign) []CampaignLink {
	if c.LinkTable == nil {
		return nil
	}
	var out []CampaignLink
	for _, l := range c.LinkTable.Links {
		v := CampaignLink{ID: l.ID, URL: l.URL, Target: pick(l.Target != "", l.Target, l.URL)}
		if l.Variant > 0 {
			v.Variant = new(l.Variant)
		}
		out = append(out, v)
	}
	return out
}
