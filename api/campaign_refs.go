package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// The objects that a campaign refers to by id or name: templates, agents, channels and routes. A reference to an object
// that does not exist is refused.

// found has the objects that the references of a campaign stand for.
type found struct {
	legs        []store.Leg // with route, sender and content; without price and retries
	allowed     [][]string  // for each leg, the only countries that its sender may send to; empty: all
	named       []store.Named
	senderTypes []string // for each leg, the type of the sender of a text message; "" for other channels
	linkBase    string   // the longest address before the token of a link; "" without links
	// The links, or the opt-out link, are on domains.
	shortDomains, optOutDomains bool

	problems problem.List
	warnings []string
}

// lookUp finds all objects that the legs of a campaign refer to. An object that does not exist is always a problem. An
// object that cannot be used yet, such as a template that waits for its approval, is a problem too, but only a warning
// for a draft. Legs without content are left out of legs and have an empty entry in named.
func (s *server) lookUp(ctx context.Context, who *principal, spec *store.Spec, draft bool) (*found, error) {
	f := &found{}
	for i, p := range partsOf(spec) {
		l := &legLookup{server: s, who: who, spec: spec, part: &p, first: i == 0, draft: draft}
		if err := l.run(ctx); err != nil {
			return nil, err
		}
		f.problems = append(f.problems, l.problems...)
		f.warnings = append(f.warnings, l.warnings...)
		f.named = append(f.named, l.named)
		if l.leg.Content != nil {
			f.legs = append(f.legs, l.leg)
			f.allowed = append(f.allowed, l.countries)
			f.senderTypes = append(f.senderTypes, l.senderType)
		}
	}
	return f, s.checkLinks(ctx, who, spec, f)
}

// legLookup finds the objects that one leg refers to.
type legLookup struct {
	*server
	who   *principal
	spec  *store.Spec
	part  *part
	first bool
	draft bool

	leg        store.Leg
	named      store.Named
	countries  []string // the only countries that the sender may send to; empty: all
	senderType string   // of a text message
	problems   problem.List
	warnings   []string
}

// notYet adds a problem that only a complete campaign must not have. For a draft it adds a warning.
func (l *legLookup) notYet(p *problem.Problem) {
	if l.draft {
		l.warnings = append(l.warnings, p.Detail)
		return
	}
	l.problems = append(l.problems, p)
}

func (l *legLookup) run(ctx context.Context) error {
	p := l.part
	l.leg = store.Leg{Channel: p.channel, Route: p.route, Sender: p.sender}
	if p.route != "" {
		if err := l.checkRoute(ctx); err != nil {
			return err
		}
	}
	if p.empty() && !l.first && p.sender == "" { // an empty leg is left out
		return nil
	}
	var content *fanfarev1.Content
	var err error
	switch p.channel {
	case schemas.ChannelSMS:
		if err := l.smsSender(ctx); err != nil {
			return err
		}
		if !p.empty() || l.first && len(l.spec.Variants) > 0 {
			content = textContent(l.spec, p.message, l.first)
		}
	case schemas.ChannelVoice:
		if err := l.way(ctx, "voice"); err != nil {
			return err
		}
		if v := l.spec.Voice; v != nil {
			content = callContent(l.spec)
			l.leg.MaxConcurrent = v.MaxConcurrent
		}
	default:
		content, err = l.template(ctx)
	}
	if err != nil || content == nil {
		return err
	}
	l.leg.Content, err = proto.Marshal(content)
	return err
}

// checkRoute checks that the named route exists.
func (l *legLookup) checkRoute(ctx context.Context) error {
	routes, err := l.routes.all(ctx)
	if err != nil {
		return l.storeProblem(err)
	}
	names := make([]string, len(routes))
	for i := range routes {
		if names[i] = routes[i].Name; names[i] == l.part.route {
			return nil
		}
	}
	p := problem.Field(problem.CodeInvalid, l.part.fRoute, "There is no route %q.", problem.Truncate(l.part.route, 60))
	if near := problem.Nearest(l.part.route, names, 3); len(near) > 0 {
		p = p.WithFix("Did you mean %s?", strings.Join(near, " or "))
	}
	l.problems = append(l.problems, p)
	return nil
}

// smsSender checks the sender of an SMS leg: the tenant's default, or an approved sender (R36).
func (l *legLookup) smsSender(ctx context.Context) error {
	name := cmp.Or(l.part.sender, l.who.tenant.DefaultSender)
	field := l.part.fSender
	if name == "" {
		l.notYet(problem.Field(problem.CodeRequired, field, "The campaign and its tenant have no sender."))
		return nil
	}
	l.leg.Sender = name
	doc := &store.SenderDoc{}
	row, err := l.Store.FindResource(ctx, l.who.tenant.ID, store.KindSender, name)
	switch {
	case errors.Is(err, schemas.ErrNotFound) && name == l.who.tenant.DefaultSender:
		// The operator has set the default sender, so it needs no row.
	case errors.Is(err, schemas.ErrNotFound):
		p := problem.From(l.unknownName(ctx, field, store.KindSender, name))
		if p.Status >= 500 {
			return p
		}
		l.problems = append(l.problems, p)
		return nil
	case err != nil:
		return l.storeProblem(err)
	default:
		if err := decodeDoc(&row, doc); err != nil {
			return err
		}
		l.leg.Sender = row.Name
		if row.Status != senderApproved {
			l.notYet(problem.Field(problem.CodeInvalid, field, "The sender %s is %s%s: only an approved sender can send.", row.Name, row.Status, pick(doc.Reason != "", ", "+doc.Reason, "")))
		}
	}
	l.countries, l.senderType = doc.Countries, cmp.Or(doc.Type, senderType(l.leg.Sender))
	if l.first && l.spec.Traffic == "inbound_outbound" && !doc.TwoWay {
		l.notYet(problem.Field(problem.CodeInvalid, "trafficType", "The sender %s can't take replies.", l.leg.Sender).
			WithFix("Use a sender whose twoWay is true, or the traffic type outbound.%s", pick(strings.ContainsFunc(l.leg.Sender, unicode.IsLetter), noReplies, "")))
	}
	return nil
}

// noReplies says what a campaign from a name can do instead.
const noReplies = " A name can never be answered: only a number or a short code can. With outbound, {{opt_out}} in the text gives recipients a link by which they can opt out, and {{link:https://…}} a page on which they can answer."

// outside returns a problem when recipients are in countries that the sender of a leg may not send to.
func (f *found) outside(countries map[string]uint32) *problem.Problem {
	for i, allowed := range f.allowed {
		if len(allowed) == 0 {
			continue
		}
		var n uint32
		var names []string
		for _, country := range sortedKeys(countries) {
			if countries[country] > 0 && !slices.Contains(allowed, country) {
				n += countries[country]
				names = append(names, cmp.Or(country, "unknown"))
			}
		}
		if n > 0 {
			return problem.Field(problem.CodeInvalid, "sender", "The sender %s may send only to %s, and %d recipients are in other countries: %s.",
				f.legs[i].Sender, strings.Join(allowed, ", "), n, strings.Join(names[:min(5, len(names))], ", ")).
				WithFix("Choose another sender, or lists without these recipients.")
		}
	}
	return nil
}

// resourceOf finds a resource by its id or name. When there is none, it adds a problem and returns nil.
func resourceOf[D any](ctx context.Context, l *legLookup, field string, kind store.Kind, ref string, doc *D) (*store.Resource, error) {
	row, err := l.Store.FindResource(ctx, l.who.tenant.ID, kind, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		p := problem.From(l.unknownName(ctx, field, kind, ref))
		if p.Status >= 500 {
			return nil, p
		}
		l.problems = append(l.problems, p)
		return nil, nil
	}
	if err != nil {
		return nil, l.storeProblem(err)
	}
	return &row, decodeDoc(&row, doc)
}

// only returns the resource to use when the client named none: the tenant's only fitting one. When there are none or
// several, it returns nil and their names.
func only[D any](ctx context.Context, l *legLookup, kind store.Kind, status string, fits func(*D) bool) (*store.Resource, *D, []string, error) {
	rows, _, err := l.Store.Resources(ctx, l.who.tenant.ID, kind, store.ResourceFilter{Page: store.Page{Limit: 200}, Status: status})
	if err != nil {
		return nil, nil, nil, l.storeProblem(err)
	}
	var row *store.Resource
	var of *D
	var names []string
	for i := range rows {
		doc := new(D)
		if err := decodeDoc(&rows[i], doc); err != nil {
			return nil, nil, nil, err
		}
		if fits(doc) {
			row, of = &rows[i], doc
			names = append(names, rows[i].Name)
		}
	}
	if len(names) != 1 {
		return nil, nil, names, nil
	}
	return row, of, names, nil
}

// way finds the tenant's channel for a leg of WhatsApp or voice (R15, R21).
func (l *legLookup) way(ctx context.Context, channel string) error {
	field := pick(channel == "voice", "callerId", "messagingChannel")
	if !l.first {
		field = l.part.fSender
	}
	doc := &channelDoc{}
	var row *store.Resource
	var err error
	if l.part.sender != "" {
		if row, err = resourceOf(ctx, l, field, store.KindChannel, l.part.sender, doc); err != nil || row == nil {
			return err
		}
	} else {
		var names []string
		row, doc, names, err = only(ctx, l, store.KindChannel, "active", func(d *channelDoc) bool { return d.Channel == channel })
		if err != nil {
			return err
		}
		if row == nil {
			l.notYet(noneOrSeveral(field, "channel of "+channel, "/api/channels", names))
			return nil
		}
	}
	if doc.Channel != channel {
		l.problems = append(l.problems, problem.Field(problem.CodeInvalid, field, "%s is a channel of %s, not of %s.", row.Name, doc.Channel, channel))
		return nil
	}
	if row.Status != "active" {
		l.notYet(problem.Field(problem.CodeInvalid, field, "The channel %s is %s.", row.Name, row.Status).WithFix("Activate it with PUT /api/channels/%s.", row.ID()))
	}
	l.named.Sender = row.Name
	l.leg.Sender = doc.Address
	if channel == "whatsapp" && doc.ProviderID != "" {
		l.leg.Sender = doc.ProviderID
	}
	l.leg.Route = pick(l.leg.Route != "", l.leg.Route, doc.Route)
	if n := doc.Limits.Concurrent; n > 0 && l.spec.Voice != nil && l.spec.Voice.MaxConcurrent > n {
		l.problems = append(l.problems, problem.Field(problem.CodeInvalid, "maxConcurrent", "maxConcurrent is %d; the channel %s allows at most %d calls at the same time.", l.spec.Voice.MaxConcurrent, row.Name, n))
	}
	return nil
}

// noneOrSeveral returns the problem of a resource that the client did not name, when the tenant has none or several.
func noneOrSeveral(field, what, path string, names []string) *problem.Problem {
	if len(names) == 0 {
		return problem.Field(problem.CodeRequired, field, "The tenant has no %s.", what).WithFix("Create one with POST %s.", path)
	}
	return problem.Field(problem.CodeRequired, field, "%s is required: the tenant has several.", field).WithFix("Choose %s.", strings.Join(names[:min(3, len(names))], " or "))
}

// template finds the template of a leg of RCS or WhatsApp, and its sender (R16, R18, R19).
func (l *legLookup) template(ctx context.Context) (*fanfarev1.Content, error) {
	p := l.part
	channel := schemas.ChannelName(p.channel)
	var row *store.Resource
	doc := &templateDoc{}
	if p.message != "" {
		var err error
		if row, err = resourceOf(ctx, l, p.fMessage, store.KindTemplate, p.message, doc); err != nil {
			return nil, err
		}
		if row != nil && doc.Channel != channel {
			l.problems = append(l.problems, problem.Field(problem.CodeInvalid, p.fMessage, "%s is a template of %s, not of %s.", row.Name, doc.Channel, channel))
			row = nil
		}
	}
	var err error
	if p.channel == schemas.ChannelWhatsApp {
		err = l.way(ctx, channel)
	} else {
		err = l.agent(ctx, doc)
	}
	if err != nil || row == nil {
		return nil, err
	}
	l.named.Template, l.named.TemplateID, l.named.TemplateType = row.Name, row.ID(), doc.Type
	if row.Status != templateApproved {
		why := fmt.Sprintf("The template %s is %s", row.Name, row.Status)
		if doc.Reason != "" {
			why += ": " + strings.TrimSuffix(doc.Reason, ".")
		}
		l.notYet(problem.Field(problem.CodeInvalid, p.fMessage, "%s. Only an approved template can be sent.", why).WithFix("Submit it for approval with POST /api/templates/%s/submit.", row.ID()))
	}
	if doc.Type == "carousel" {
		l.problems = append(l.problems, problem.Field(problem.CodeInvalid, p.fMessage, "The template %s is a carousel, which campaigns do not send.", row.Name).WithFix("Choose a template with type text, media or rich_card."))
		return nil, nil
	}
	if p.language != "" && !strings.EqualFold(strings.ReplaceAll(p.language, "-", "_"), strings.ReplaceAll(doc.Language, "-", "_")) {
		l.problems = append(l.problems, problem.Field(problem.CodeInvalid, p.fLanguage, "The template %s is in %s, not in %s.", row.Name, doc.Language, problem.Truncate(p.language, 20)))
	}
	values, ok := l.parameters(doc)
	if !ok {
		return nil, nil
	}
	return templateContent(l.spec, p.channel, row, doc, values)
}

// parameters returns the expression of each parameter. A named parameter that was not given is filled from the
// contact's field with its name.
func (l *legLookup) parameters(doc *templateDoc) (map[string]string, bool) {
	values := map[string]string{}
	ok := true
	for _, name := range doc.Parameters {
		v, given := l.part.params[name]
		switch {
		case given:
			values[name] = v
		case numberedParameters(doc.Parameters):
			ok = ok && l.draft
			l.notYet(problem.Field(problem.CodeRequired, l.part.fParams+"."+name, "The template needs a value for {{%s}}.", name).
				WithFix(`Send "parameters": {%q: "{{first_name}}"}, or a text.`, name))
		default:
			values[name] = "{{" + name + "}}"
		}
	}
	for _, name := range sortedKeys(l.part.params) {
		if _, known := values[name]; known {
			continue
		}
		ok = false
		q := problem.Field(problem.CodeInvalid, l.part.fParams+"."+problem.Truncate(name, 40), "The template has no parameter {{%s}}.", problem.Truncate(name, 40))
		if len(doc.Parameters) == 0 {
			q = q.WithFix("The template has none: leave parameters out.")
		} else {
			q = q.WithFix("It has %s.", placeholders(parameterOrder(doc), ", "))
		}
		l.problems = append(l.problems, q)
	}
	return values, ok
}

// agent finds the agent of an RCS leg: the named one, else the template's, else the tenant's only one (R18).
func (l *legLookup) agent(ctx context.Context, tpl *templateDoc) error {
	field := pick(l.first, "agent", l.part.fSender)
	doc := &agentDoc{}
	var row *store.Resource
	var err error
	switch {
	case l.part.sender != "":
		row, err = resourceOf(ctx, l, field, store.KindAgent, l.part.sender, doc)
		if row != nil && tpl.Agent != 0 && tpl.Agent != row.Number {
			l.problems = append(l.problems, problem.Field(problem.CodeInvalid, field, "The template belongs to another agent than %s.", row.Name))
		}
	case tpl.Agent != 0:
		row, err = resourceOf(ctx, l, field, store.KindAgent, (&store.Resource{Kind: store.KindAgent, Number: tpl.Agent}).ID(), doc)
	default:
		var names []string
		if row, doc, names, err = only(ctx, l, store.KindAgent, "launched", func(*agentDoc) bool { return true }); err == nil && row == nil {
			l.notYet(noneOrSeveral(field, "launched agent of RCS", "/api/agents", names))
		}
	}
	if err != nil || row == nil {
		return err
	}
	if row.Status != "launched" {
		l.notYet(problem.Field(problem.CodeInvalid, field, "The agent %s is %s: only a launched agent can send.", row.Name, row.Status))
	}
	l.named.Sender = row.Name
	l.leg.Sender = pick(doc.ProviderID != "", doc.ProviderID, row.Name)
	l.leg.Route = pick(l.leg.Route != "", l.leg.Route, doc.Route)
	return nil
}
