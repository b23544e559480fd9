package api

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Statuses of a template. Only an approved template may be sent (R16, R159).
const (
	templateDraft    = "draft"
	templatePending  = "pending"
	templateApproved = "approved"
	templateRejected = "rejected"
	templatePaused   = "paused"
	templateDisabled = "disabled"
)

// Maximum lengths of a template's parts, in characters. WhatsApp: message template reference of the Cloud API; RCS:
// text of RCS for Business; SMS and voice: our own.
const (
	maxWhatsAppBody   = 1024
	maxWhatsAppHeader = 60
	maxRCSBody        = 3072
	maxPlainBody      = 1600
	maxButtonText     = 25
	maxButtons        = 10
)

// Template is a text that is written and approved before it is used (R16, R19).
type Template struct {
	ID       string           `json:"id" example:"template_10001" doc:"Given by the installation; it never changes."`
	Name     string           `json:"name" doc:"Unique among the tenant's templates."`
	Channel  string           `json:"channel" enum:"sms,rcs,whatsapp,voice" doc:"The only channel that it can be sent over."`
	Type     string           `json:"type" enum:"text,rich_card,carousel,media,call" doc:"The kind of message."`
	Category string           `json:"category" enum:",marketing,utility,authentication" doc:"Only for WhatsApp; the carrier's price depends on it."`
	Language string           `json:"language" example:"it" doc:"Language tag of the text, such as it or en_US."`
	Header   *TemplateHeader  `json:"header" doc:"Stands above the body; null: there is none."`
	Body     string           `json:"body" doc:"With parameters, either numbered {{1}} {{2}} or named {{first_name}}."`
	Footer   string           `json:"footer" doc:"Stands below the body; empty: there is none."`
	Buttons  []TemplateButton `json:"buttons" nullable:"false" doc:"Stand below the text, in this order; empty: there are none."`
	// Parameters are those of header, body and buttons, in order of their first use.
	Parameters []string `json:"parameters" nullable:"false" doc:"Names or numbers of the parameters, each once."`
	Agent      *string  `json:"agent" doc:"RCS: id of the agent that the template belongs to; null: any agent."`
	ProviderID string   `json:"providerId" doc:"Id of the template at the provider."`
	Status     string   `json:"status" enum:"draft,pending,approved,rejected,paused,disabled" doc:"Only an approved template can be sent; a pending one waits for approval."`
	Reason     *string  `json:"reason" doc:"Why it is rejected, paused or disabled."`
	CreatedBy  string   `json:"createdBy" doc:"Id of the person or API key that created it."`
	CreatedAt  string   `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt  string   `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	DeletedAt  *string  `json:"deletedAt" format:"date-time" doc:"When it was deleted; null: not deleted."`
	Version    uint64   `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// TemplateHeader stands above the body.
type TemplateHeader struct {
	Type string `json:"type" enum:"text,image,video,document" doc:"What it shows."`
	Text string `json:"text,omitempty" doc:"For the type text: 1 to 60 characters, which may have parameters."`
	URL  string `json:"url,omitempty" doc:"https address of the image, video or document."`
}

// TemplateButton stands below the body.
type TemplateButton struct {
	Type  string `json:"type" enum:"reply,url,phone" doc:"What a tap does: reply sends value back, url opens it, phone calls it."`
	Text  string `json:"text" doc:"At most 25 characters."`
	Value string `json:"value" doc:"The address, the number, or the data that a reply sends back."`
}

// TemplateInput creates or changes a template.
type TemplateInput struct {
	Name       problem.Optional[string]           `json:"name,omitzero" doc:"Unique among the tenant's templates. WhatsApp allows lower-case letters, digits and underscores." example:"order_shipped"`
	Channel    problem.Optional[string]           `json:"channel,omitzero" doc:"sms, rcs, whatsapp or voice; it cannot be changed later." example:"whatsapp"`
	Type       problem.Optional[string]           `json:"type,omitzero" doc:"text, rich_card, carousel, media or call; default: text, for voice call."`
	Category   problem.Optional[string]           `json:"category,omitzero" doc:"WhatsApp: marketing, utility or authentication; marketing by default."`
	Language   problem.Optional[string]           `json:"language,omitzero" doc:"A language tag such as it or en_US; en by default."`
	Header     problem.Optional[TemplateHeader]   `json:"header,omitzero" doc:"Not for sms and voice; null removes it."`
	Body       problem.Optional[string]           `json:"body,omitzero" doc:"Up to 1,024 characters for WhatsApp, 3,072 for RCS, 1,600 otherwise; with parameters, either numbered {{1}} {{2}} or named {{first_name}}."`
	Footer     problem.Optional[string]           `json:"footer,omitzero" doc:"Without parameters; empty or null: there is none."`
	Buttons    problem.Optional[[]TemplateButton] `json:"buttons,omitzero" doc:"At most 10, not for sms and voice. Replaces all buttons before; null removes them."`
	Agent      problem.Optional[string]           `json:"agent,omitzero" doc:"RCS: id or name of the agent."`
	ProviderID problem.Optional[string]           `json:"providerId,omitzero" doc:"Id of the template at the provider; empty or null: it has none."`

	Status problem.Optional[any] `json:"status,omitzero" hidden:"true"`
}

// TemplateVerdict has the reason of a change of a template's status.
type TemplateVerdict struct {
	Reason string `json:"reason,omitzero" doc:"Shown to users of the template."`
}

// templateDoc is the document that the store keeps of a template, besides name and status.
type templateDoc struct {
	Channel, Type, Category, Language string
	Header                            *TemplateHeader
	Body, Footer                      string
	Buttons                           []TemplateButton
	Parameters                        []string
	Agent                             uint64
	ProviderID, Reason                string
}

const templateTag = "Templates"

func (s *server) templates() *resource[TemplateInput, templateDoc, Template] {
	return &resource[TemplateInput, templateDoc, Template]{
		kind: store.KindTemplate, path: "/api/templates", one: "template", many: "templates", tag: templateTag, write: store.ScopeCampaigns,
		apply: s.applyTemplate, view: viewTemplate,
		moved: func(ctx context.Context, row *store.Resource) error {
			return s.followTemplate(ctx, row.Tenant, row.ID(), row.Status)
		},
	}
}

func (s *server) registerTemplates() {
	r := s.templates()
	registerResource(s, r)
	for _, m := range []struct {
		verb, summary, to string
		from              []string
		scope             store.Scope
		reason            bool
	}{
		{"submit", "Submit a template for approval", templatePending, []string{templateDraft, templateRejected}, store.ScopeCampaigns, false},
		{"approve", "Approve a template", templateApproved, []string{templateDraft, templatePending, templateRejected, templatePaused, templateDisabled}, store.ScopeAdmin, false},
		{"reject", "Reject a template", templateRejected, []string{templatePending, templateApproved}, store.ScopeAdmin, true},
		{"pause", "Pause a template: campaigns that use it do not start, and running ones are suspended", templatePaused, []string{templateApproved}, store.ScopeAdmin, true},
		{"disable", "Disable a template permanently", templateDisabled, []string{templatePending, templateApproved, templatePaused, templateRejected}, store.ScopeAdmin, true},
	} {
		registerMove(s, r, m.verb, m.summary, m.scope, func(_ context.Context, _ *principal, body *TemplateVerdict, row *store.Resource, doc *templateDoc) error {
			if !slices.Contains(m.from, row.Status) {
				return problem.New(problem.CodeWrongState, "A template that is %s cannot become %s.", row.Status, m.to).
					WithFix("It must be %s.", strings.Join(m.from, ", "))
			}
			if m.reason && strings.TrimSpace(body.Reason) == "" {
				return problem.Field(problem.CodeRequired, "reason", "A reason is required; users of the template see it.")
			}
			var ps problem.List
			if checkText(&ps, "reason", body.Reason, maxWhy); len(ps) > 0 {
				return ps.Err()
			}
			row.Status, doc.Reason = m.to, strings.TrimSpace(body.Reason)
			return nil
		})
	}
}

func viewTemplate(row *store.Resource, doc *templateDoc) *Template {
	v := &Template{
		ID: row.ID(), Name: row.Name, Channel: doc.Channel, Type: doc.Type, Category: doc.Category, Language: doc.Language, Header: doc.Header,
		Body: doc.Body, Footer: doc.Footer, Buttons: doc.Buttons, Parameters: orEmpty(doc.Parameters), ProviderID: doc.ProviderID,
		Status: row.Status, Reason: orNull(doc.Reason), CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated),
		DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
	}
	if v.Buttons == nil {
		v.Buttons = []TemplateButton{}
	}
	if doc.Agent != 0 {
		v.Agent = new((&store.Resource{Kind: store.KindAgent, Number: doc.Agent}).ID())
	}
	return v
}

// whatsAppName matches the template names that WhatsApp allows.
var whatsAppName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)

// languageTag is a language with an optional region, as WhatsApp and BCP 47 write it.
var languageTag = regexp.MustCompile(`^[a-z]{2,3}([_-][A-Za-z]{2,4})?$`)

// applyTemplate checks a template. When a part that recipients see changes, an approved template loses its approval.
func (s *server) applyTemplate(ctx context.Context, _ *principal, in *TemplateInput, row *store.Resource, doc *templateDoc) error {
	var ps problem.List
	before := templateText(doc)
	if in.Status.Set {
		ps.Add(problem.CodeReadOnly, "status", "The status can be changed only by submit, approve, reject, pause and disable.")
	}
	set(&in.Name, &row.Name, nil)
	row.Name = strings.TrimSpace(row.Name)
	if in.Channel.Set {
		if row.Version > 0 && in.Channel.Value != doc.Channel {
			ps.Add(problem.CodeReadOnly, "channel", "The channel of a template cannot be changed.")
		} else {
			doc.Channel = in.Channel.Value
		}
	}
	if _, ok := schemas.ParseChannel(doc.Channel); !ok {
		ps.Add(cmpCode(doc.Channel), "channel", "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(doc.Channel, 40))
	}
	if row.Version == 0 {
		row.Status = templateDraft
		doc.Type, doc.Language = "text", "en"
		if doc.Channel == "whatsapp" {
			doc.Category = "marketing"
		}
		if doc.Channel == "voice" {
			doc.Type = "call"
		}
	}
	set(&in.Type, &doc.Type, nil)
	set(&in.Category, &doc.Category, nil)
	set(&in.Language, &doc.Language, nil)
	set(&in.Body, &doc.Body, nil)
	set(&in.Footer, &doc.Footer, nil)
	set(&in.ProviderID, &doc.ProviderID, nil)
	if in.Header.Set {
		doc.Header = nil
		if !in.Header.Null {
			doc.Header = &in.Header.Value
		}
	}
	if in.Buttons.Set {
		doc.Buttons = in.Buttons.Value
	}
	if in.Agent.Set {
		doc.Agent = 0
		if ref := in.Agent.Value; ref != "" {
			agent, err := s.Store.FindResource(ctx, row.Tenant, store.KindAgent, ref)
			if errors.Is(err, schemas.ErrNotFound) {
				return s.unknownName(ctx, "agent", store.KindAgent, ref)
			}
			if err != nil {
				return s.storeProblem(err)
			}
			doc.Agent = agent.Number
		}
	}
	checkTemplate(&ps, row, doc)
	if err := ps.Err(); err != nil {
		return err
	}
	if row.Version > 0 && row.Status != templateDraft && templateText(doc) != before {
		row.Status, doc.Reason = templateDraft, ""
	}
	return nil
}

func cmpCode(value string) problem.Code {
	if value == "" {
		return problem.CodeRequired
	}
	return problem.CodeInvalid
}

// templateText returns everything that recipients see, to detect whether a change affects it.
func templateText(doc *templateDoc) string {
	return fmt.Sprintf("%q %q %q %+v %q %q %+v", doc.Language, doc.Category, doc.Type, doc.Header, doc.Body, doc.Footer, doc.Buttons)
}

func checkTemplate(ps *problem.List, row *store.Resource, doc *templateDoc) {
	limit := map[string]int{"whatsapp": maxWhatsAppBody, "rcs": maxRCSBody}[doc.Channel]
	if limit == 0 {
		limit = maxPlainBody
	}
	if n := utf8.RuneCountInString(doc.Body); n > limit {
		ps.Add(problem.CodeTooLong, "body", "The body has %d characters; %s takes at most %d.", n, doc.Channel, limit)
	}
	if strings.TrimSpace(doc.Body) == "" {
		ps.Add(problem.CodeRequired, "body", "The body is empty.")
	}
	types := map[string][]string{"sms": {"text"}, "voice": {"call"}, "rcs": {"text", "rich_card", "carousel", "media"}, "whatsapp": {"text", "media", "carousel"}}[doc.Channel]
	if types != nil && !slices.Contains(types, doc.Type) {
		ps.Add(problem.CodeInvalid, "type", "%q is not a type of %s templates: want %s.", problem.Truncate(doc.Type, 40), doc.Channel, strings.Join(types, " or "))
	}
	if !languageTag.MatchString(doc.Language) {
		ps.Add(problem.CodeInvalid, "language", "%q is not a language: want a tag such as it or en_US.", problem.Truncate(doc.Language, 40))
	}
	if doc.Channel == "whatsapp" {
		if row.Name != "" && !whatsAppName.MatchString(row.Name) {
			ps.Add(problem.CodeInvalid, "name", "WhatsApp allows only lower-case letters, digits and underscores in the name of a template.")
		}
		if !slices.Contains([]string{"marketing", "utility", "authentication"}, doc.Category) {
			ps.Add(problem.CodeInvalid, "category", "%q is not a category: want marketing, utility or authentication.", problem.Truncate(doc.Category, 40))
		}
	} else if doc.Category != "" {
		ps.Add(problem.CodeInvalid, "category", "Only WhatsApp templates have a category.")
	}
	checkHeader(ps, doc)
	checkButtons(ps, doc)
	if parameter.MatchString(doc.Footer) {
		ps.Add(problem.CodeInvalid, "footer", "The footer cannot have parameters: only a text header, the body and the values of buttons can.")
	}
	names, field, err := templateParameters(doc)
	if err != nil {
		ps.Add(problem.CodeInvalid, field, "%s", err.Error())
	}
	doc.Parameters = names
}

func checkHeader(ps *problem.List, doc *templateDoc) {
	h := doc.Header
	if h == nil {
		return
	}
	if doc.Channel == "sms" || doc.Channel == "voice" {
		ps.Add(problem.CodeInvalid, "header", "A template of %s has no header.", doc.Channel)
		return
	}
	switch h.Type {
	case "text":
		if n := utf8.RuneCountInString(h.Text); n == 0 || n > maxWhatsAppHeader {
			ps.Add(problem.CodeInvalid, "header.text", "The text of the header has %d characters: want 1 to %d.", n, maxWhatsAppHeader)
		}
	case "image", "video", "document":
		if !strings.HasPrefix(h.URL, "https://") || parameter.MatchString(h.URL) {
			ps.Add(problem.CodeInvalid, "header.url", "The header needs the https address of the %s, without parameters.", h.Type)
		}
	default:
		ps.Add(problem.CodeInvalid, "header.type", "%q is not a type of header: want text, image, video or document.", problem.Truncate(h.Type, 40))
	}
}

func checkButtons(ps *problem.List, doc *templateDoc) {
	if len(doc.Buttons) > 0 && (doc.Channel == "sms" || doc.Channel == "voice") {
		ps.Add(problem.CodeInvalid, "buttons", "A template of %s has no buttons.", doc.Channel)
		return
	}
	if len(doc.Buttons) > maxButtons {
		ps.Add(problem.CodeInvalid, "buttons", "There are %d buttons; at most %d are allowed.", len(doc.Buttons), maxButtons)
	}
	for i, b := range doc.Buttons {
		at := "buttons[" + strconv.Itoa(i) + "]"
		if n := utf8.RuneCountInString(b.Text); n == 0 || n > maxButtonText {
			ps.Add(problem.CodeInvalid, at+".text", "The button's text has %d characters: want 1 to %d.", n, maxButtonText)
		}
		if parameter.MatchString(b.Text) {
			ps.Add(problem.CodeInvalid, at+".text", "The text of a button cannot have parameters; its value can.")
		}
		switch {
		case b.Type == "url" && !strings.HasPrefix(b.Value, "https://"):
			ps.Add(problem.CodeInvalid, at+".value", "The button needs an https address.")
		case b.Type == "phone" && !strings.HasPrefix(b.Value, "+"):
			ps.Add(problem.CodeInvalid, at+".value", "The button needs a number with country code, such as +393331234567.")
		case b.Type != "url" && b.Type != "phone" && b.Type != "reply":
			ps.Add(problem.CodeInvalid, at+".type", "%q is not a type of button: want reply, url or phone.", problem.Truncate(b.Type, 40))
		}
	}
}

// parameter matches {{1}} or {{first_name}}.
var parameter = regexp.MustCompile(`\{\{\s*([^{}]*?)\s*\}\}`)

// templateParameters finds the parameters in order of their first use. They must be either numbered without a gap or
// named: providers refuse everything else. An error comes with the field that is wrong.
func templateParameters(doc *templateDoc) (names []string, field string, err error) {
	texts, fields := []string{doc.Body}, []string{"body"}
	if doc.Header != nil {
		texts, fields = []string{doc.Header.Text, doc.Body}, []string{"header.text", "body"}
	}
	for i, b := range doc.Buttons {
		texts, fields = append(texts, b.Value), append(fields, fmt.Sprintf("buttons[%d].value", i))
	}
	numbered, named := 0, 0
	for i, text := range texts {
		for _, m := range parameter.FindAllStringSubmatch(text, -1) {
			name := m[1]
			if name == "" {
				return nil, fields[i], fmt.Errorf("a parameter has no name: want {{1}} or {{first_name}}")
			}
			if slices.Contains(names, name) {
				continue
			}
			names = append(names, name)
			if n, err := strconv.Atoi(name); err == nil && n > 0 {
				numbered++
			} else {
				named++
			}
		}
	}
	if numbered > 0 && named > 0 {
		return nil, "body", fmt.Errorf("parameters are either all numbered or all named: found %s", strings.Join(names, ", "))
	}
	for i := range numbered {
		if !slices.Contains(names, strconv.Itoa(i+1)) {
			return nil, "body", fmt.Errorf("parameters are numbered from {{1}} without a gap: {{%d}} is missing", i+1)
		}
	}
	return names, "", nil
}
