package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// This file completes the schemas of the document after huma has made them of our types: which values a field takes,
// and which fields a body must have. Nothing here changes what the API accepts, nor how it refuses: bodies are read and
// checked by our own code only ([problem.Body], SkipValidateBody).

// taken are the values that a property takes; of an array, those of its elements.
type taken struct {
	property string // of several schemas when they have the same fields: Campaign,ReplayMade.state
	values   []string
}

// channelWords are the channels in the order in which texts name them.
var channelWords = []string{"sms", "rcs", "whatsapp", "voice"}

// connectorWords are the connectors of the program; a test of cmd/fanfare compares them.
var connectorWords = []string{"sim", "smpp", "httpsms", "rcs", "whatsapp", "voice"}

// takenValues lists the values of the properties whose struct tags do not name them.
func takenValues() []taken {
	states, buckets, scopes := stateWords(), bucketNames(), words(store.Scopes)
	encodings := []string{encodingName(schemas.EncodingGSM7), encodingName(schemas.EncodingUCS2)}
	var replayed []string
	for _, s := range replayStatuses {
		replayed = append(replayed, s.name)
	}
	return []taken{
		{"Account.scopes", scopes},
		{"AgentInput.region", []string{"europe", "us", "asia"}},
		{"AgentInput.trafficType", []string{"promotion", "transaction", "authentication", "servicerequest"}},
		{"AgentInput.status", []string{"draft", "launched", "suspended"}},
		{"CampaignInput.channel", channelWords},
		{"CampaignInput.sendingMode", sortedKeys(chains)},
		{"CampaignInput.trafficType", []string{"outbound", "inbound_outbound"}},
		{"CampaignInput.amdAction", []string{"hangup", "voicemail"}},
		{"CampaignInput.missingField", sortedKeys(missingPolicies)},
		{"Campaign,ReplayMade.channel", channelWords},
		{"Campaign,ReplayMade.sendingMode", sortedKeys(chains)},
		{"Campaign,ReplayMade.amdAction", []string{"hangup", "voicemail"}},
		{"Campaign,ReplayMade.missingField", sortedKeys(missingPolicies)},
		{"Campaign,ReplayMade.encoding", encodings},
		{"Campaign,ReplayMade.status", statusWords()},
		{"Campaign,ReplayMade.state", states},
		{"Campaign,ReplayMade.allowedActions", actionWords()},
		{"CampaignEvent.from", states},
		{"CampaignEvent.to", states},
		{"CampaignEvent.trigger", triggerWords()},
		{"CampaignEvent.actor", words([]schemas.Actor{
			schemas.ActorUser, schemas.ActorApprover, schemas.ActorGuard, schemas.ActorScheduler, schemas.ActorOperator,
		})},
		{"ChannelInput.channel", []string{"sms", "whatsapp", "voice"}},
		{"ChannelInput.status", []string{"active", "paused"}},
		{"DomainInput,CampaignDomainInput.kind", []string{schemas.DomainShort, schemas.DomainOptOut}},
		{"DomainInput,CampaignDomainInput.status", []string{store.DomainActive, store.DomainPaused}},
		{"FallbackInput.channel", []string{"rcs", "sms"}},
		{"Forecast.state", states},
		{"Goal.encoding", encodings},
		{"Group.status", buckets},
		{"Key.scopes", scopes},
		{"KeyInput.scopes", scopes},
		{"Member,MemberDetail.channel", channelWords},
		{"MessageEvent.channel", channelWords},
		{"MessageStatus,MessageHistory,StatusAnswer.channel", channelWords},
		{"Price.encoding", encodings},
		{"PriceRowInput.channel", channelWords},
		{"ReplayInfo.state", states},
		{"ReplayInput.statuses", replayed},
		{"RouteInput.channels", channelWords},
		{"RouteInput.connector", connectorWords},
		{"SendDestination.reasons", []string{
			schemas.CodeName(schemas.CodeInvalidNumber), schemas.CodeName(schemas.CodeOptedOut), schemas.CodeName(schemas.CodeDuplicateRecipient), reasonNotAcked,
		}},
		{"SenderInput.type", []string{"alphanumeric", "number", "short_code"}},
		{"Stats,StatsEvent.status", statusWords()},
		{"Stats,StatsEvent.state", states},
		{"SubStatusPart.status", buckets},
		{"SuppressionInput.channel", append([]string{everyChannel}, channelWords...)},
		{"TemplateInput.channel", channelWords},
		{"TemplateInput.type", []string{"text", "rich_card", "carousel", "media", "call"}},
		{"TemplateInput.category", []string{"marketing", "utility", "authentication"}},
		{"UserInput.role", words([]store.Role{store.RoleViewer, store.RoleEditor, store.RoleApprover})},
		{"Webhook,WebhookInput.channels", channelWords},
		{"Webhook,WebhookInput.events", words(schemas.WebhookEvents)},
		{"Webhook,WebhookInput.statuses", words(schemas.WebhookStatuses)},
		{"WebhookInput.status", []string{store.WebhookActive, store.WebhookPaused}},
	}
}

// stateWords are the states of a campaign in our own words, in their order.
func stateWords() []string {
	var out []string
	for n := int32(1); fanfarev1.State_name[n] != ""; n++ {
		out = append(out, schemas.StateName(schemas.State(n)))
	}
	return out
}

// statusWords are the states of a campaign in the words of every vocabulary: which of them an answer has depends on the
// parameter vocab.
func statusWords() []string {
	var out []string
	for _, vocab := range []schemas.Vocabulary{schemas.VocabularyE, schemas.VocabularyA, schemas.VocabularyC, schemas.VocabularyD} {
		for n := int32(1); fanfarev1.State_name[n] != ""; n++ {
			if word := schemas.Word(schemas.State(n), vocab); !slices.Contains(out, word) {
				out = append(out, word)
			}
		}
	}
	return out
}

// bucketNames are where statistics count a recipient.
func bucketNames() []string {
	var out []string
	for b := range schemas.BucketFact {
		out = append(out, b.String())
	}
	return out
}

// actionWords are the actions that an answer may offer for a campaign.
func actionWords() []string {
	var out []string
	for n := int32(1); fanfarev1.State_name[n] != ""; n++ {
		out = append(out, actionsIn(schemas.State(n))...)
	}
	out = slices.AppendSeq(out, maps.Values(actionNames))
	slices.Sort(out)
	return slices.Compact(out)
}

// triggerWords are what may change a campaign's state.
func triggerWords() []string {
	var out []string
	for i := range schemas.Transitions {
		out = append(out, string(schemas.Transitions[i].Trigger))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// need is what the body of an operation must have, besides the fields that its type requires.
type need struct {
	operations []string
	// schema is the name of a schema of these operations alone: a copy of that of the type, which another operation
	// uses too, to which every field is optional. "": no other operation uses the schema of the type.
	schema string
	fields []string
	// depends is what the rest of the body makes required, as the keywords if, then and else of JSON Schema. Generators
	// of clients do not read them, and make an inconvenient union of an anyOf that is not below them.
	depends map[string]any
}

// needs lists the bodies of which more is required than their type says.
func needs() []need {
	channel, text := anyOf("channel", "sendingMode"), anyOf("message", "variants", "audio")
	return []need{
		{operations: []string{"createAgent"}, schema: "AgentCreate", fields: []string{"name"}},
		{operations: []string{"createCampaign"}, schema: "CampaignCreate", fields: []string{"name"}, depends: map[string]any{
			"if": isTrue("draft"), "then": channel, "else": map[string]any{"allOf": []any{requires("contactList"), channel, text}},
		}},
		{operations: []string{"createChannel"}, schema: "ChannelCreate", fields: []string{"name", "channel", "address"}},
		{operations: []string{"createContact"}, schema: "ContactCreate", fields: []string{"phoneNumber"}},
		{operations: []string{"createDomain", "createSharedDomain"}, schema: "DomainCreate", fields: []string{"host"}},
		{operations: []string{"addCampaignDomain"}, depends: inEveryCase(anyOf("domains", "host"))},
		{operations: []string{"exportMembers"}, schema: "MembersExportInput", fields: []string{"campaignId"}},
		{operations: []string{"exportDeliveryReports"}, schema: "ReportsExportInput", depends: inEveryCase(anyOf("campaignId", "from"))},
		{operations: []string{"replayCampaign"}, depends: inEveryCase(anyOf("statuses", "subStatuses", "selection"))},
		{operations: []string{"rescheduleCampaign"}, fields: []string{"scheduledTime"}},
		{operations: []string{"createRate"}, schema: "PriceRowCreate", fields: []string{"channel", "price"}},
		{operations: []string{"createRoute"}, schema: "RouteCreate", fields: []string{"name", "connector", "rate"}},
		{operations: []string{"sendSMS"}, depends: inEveryCase(map[string]any{
			"allOf": []any{anyOf("phoneNumber", "destination", "destinations"), anyOf("message", "body")},
		})},
		{operations: []string{"createSender"}, schema: "SenderCreate", fields: []string{"name"}},
		{
			operations: []string{"disableSender", "rejectSender", "disableTemplate", "pauseTemplate", "rejectTemplate"},
			schema:     "TemplateRefusal", fields: []string{"reason"},
		},
		{operations: []string{"createTemplate"}, schema: "TemplateCreate", fields: []string{"name", "channel", "body"}},
		{operations: []string{"createTenant"}, schema: "TenantCreate", fields: []string{"name"}},
		{operations: []string{"addCredit"}, depends: map[string]any{
			"if": isTrue("unlimited"), "else": requires("amount"),
		}},
		{operations: []string{"createUser"}, schema: "UserCreate", fields: []string{"email"}, depends: map[string]any{
			"if": isTrue("operator"), "else": requires("role"),
		}},
		{operations: []string{"createWebhook", "createDeliveryStatusWebhook"}, schema: "WebhookCreate", fields: []string{"url"}},
	}
}

// requires says that a field is there. Linters want a required field to be among the properties beside it.
func requires(field string) map[string]any {
	return map[string]any{"properties": map[string]any{field: map[string]any{}}, "required": []string{field}}
}

// anyOf says that at least one of the fields is there.
func anyOf(fields ...string) map[string]any {
	var out []any
	for _, f := range fields {
		out = append(out, requires(f))
	}
	return map[string]any{"anyOf": out}
}

// isTrue says that a field is there and true.
func isTrue(field string) map[string]any {
	return map[string]any{"properties": map[string]any{field: map[string]any{"const": true}}, "required": []string{field}}
}

// inEveryCase makes a condition hold whatever the body has.
func inEveryCase(condition map[string]any) map[string]any {
	return map[string]any{"if": map[string]any{}, "then": condition}
}

// completeSchemas adds to the schemas of the document what struct tags cannot say, and descriptions of the properties
// that mean the same everywhere.
func completeSchemas(doc *huma.OpenAPI) error {
	all := doc.Components.Schemas.Map()
	for _, t := range takenValues() {
		names, property, _ := strings.Cut(t.property, ".")
		for name := range strings.SplitSeq(names, ",") {
			if all[name] == nil || all[name].Properties[property] == nil {
				return fmt.Errorf("OpenAPI: there is no property %s.%s", name, property)
			}
			s := all[name].Properties[property]
			if s.Items != nil {
				s = s.Items
			}
			s.Enum = make([]any, len(t.values))
			for i, v := range t.values {
				s.Enum[i] = v
			}
		}
	}
	all["BatchInput"].Required = []string{"at"}
	for _, s := range all {
		for name, p := range s.Properties {
			if p.Description == "" {
				p.Description = propertyTexts[name]
			}
			if p.Nullable && len(p.Enum) > 0 && !slices.Contains(p.Enum, nil) {
				p.Enum = append(p.Enum, nil) // an enum without it would forbid null
			}
		}
	}
	operations := operationsOf(doc)
	for _, n := range needs() {
		for _, id := range n.operations {
			if err := n.apply(doc, operations[id], id); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply requires the fields of the body of an operation.
func (n *need) apply(doc *huma.OpenAPI, op *huma.Operation, id string) error {
	if op == nil || op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return fmt.Errorf("OpenAPI: there is no operation %s with a body of JSON", id)
	}
	all, media := doc.Components.Schemas.Map(), op.RequestBody.Content["application/json"]
	s := doc.Components.Schemas.SchemaFromRef(media.Schema.Ref)
	if n.schema != "" {
		own := *s
		own.Properties, s = maps.Clone(own.Properties), &own
		all[n.schema], media.Schema = s, &huma.Schema{Ref: "#/components/schemas/" + n.schema}
	}
	for _, name := range n.fields {
		p := s.Properties[name]
		if p == nil {
			return fmt.Errorf("OpenAPI: the body of %s has no field %s", id, name)
		}
		given := *p // null is not a value of a required field
		given.Nullable = false
		given.Enum = slices.DeleteFunc(slices.Clone(given.Enum), func(v any) bool { return v == nil })
		given.OneOf = slices.DeleteFunc(slices.Clone(given.OneOf), func(o *huma.Schema) bool { return o.Type == "null" })
		s.Properties[name] = &given
	}
	s.Required = append(slices.Clone(s.Required), n.fields...)
	if len(n.fields) > 0 { // a body with a field that is needed is needed
		body := *op.RequestBody
		body.Required, op.RequestBody = true, &body
	}
	if n.depends != nil {
		s.Extensions = maps.Clone(s.Extensions)
		if s.Extensions == nil {
			s.Extensions = map[string]any{}
		}
		maps.Copy(s.Extensions, n.depends)
	}
	return nil
}

// operationsOf returns the operations of the document by their ids.
func operationsOf(doc *huma.OpenAPI) map[string]*huma.Operation {
	out := map[string]*huma.Operation{}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				out[op.OperationID] = op
			}
		}
	}
	return out
}

// completeParameters describes the parameters and the headers of answers that mean the same everywhere, and says which
// values vocab takes. Parameters are changed in copies, because huma checks requests against those that it has made.
func completeParameters(op *huma.Operation) {
	for i, p := range op.Parameters {
		own := *p
		if own.Description == "" {
			own.Description = parameterTexts[own.In+" "+own.Name]
		}
		if own.In == "query" && own.Name == "vocab" && own.Schema != nil {
			s := *own.Schema
			s.Enum, own.Schema = []any{"a", "b", "c", "d", "e"}, &s
		}
		op.Parameters[i] = &own
	}
	for _, answer := range op.Responses {
		for name, h := range answer.Headers {
			if h.Description == "" && h.Schema != nil {
				h.Description = h.Schema.Description // huma puts the tag doc of a header there alone
			}
			if h.Description == "" {
				h.Description = parameterTexts["answer "+name]
			}
		}
	}
}
