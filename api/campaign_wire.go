package api

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// The content of a leg, in the form that the pipeline renders for each recipient.

// textContent returns the content of an SMS leg.
func textContent(spec *store.Spec, body string, first bool) *fanfarev1.Content {
	c := &fanfarev1.Content{Body: body, Missing: spec.Missing, MissingDefault: spec.MissingDefault, Transliterate: spec.Transliterate}
	if first {
		for _, v := range spec.Variants {
			c.Variants = append(c.Variants, &fanfarev1.Variant{Name: v.Name, Body: sentText(spec, v.Body)})
		}
	}
	return c
}

// callContent returns the content of a call.
func callContent(spec *store.Spec) *fanfarev1.Content {
	v := spec.Voice
	return &fanfarev1.Content{Missing: spec.Missing, MissingDefault: spec.MissingDefault, Voice: &fanfarev1.Voice{
		Queue: v.Queue, MachineAction: v.AMDAction, Media: v.Audio, Text: spec.Body, Language: strings.ReplaceAll(spec.Language, "_", "-"), RingSeconds: v.RingSeconds,
	}}
}

// parameterOrder returns the parameters of a template in the order in which the carrier gets them: numbered parameters
// by number.
func parameterOrder(doc *templateDoc) []string {
	out := slices.Clone(doc.Parameters)
	if numberedParameters(out) {
		slices.SortFunc(out, func(a, b string) int {
			x, _ := strconv.Atoi(a)
			y, _ := strconv.Atoi(b)
			return x - y
		})
	}
	return out
}

// numberedParameters reports whether parameters are {{1}}, {{2}} and so on.
func numberedParameters(names []string) bool {
	if len(names) == 0 {
		return false
	}
	n, err := strconv.Atoi(names[0])
	return err == nil && n > 0
}

// templateContent returns the content of a leg that sends a template. values has the expression of each parameter.
func templateContent(spec *store.Spec, channel schemas.Channel, row *store.Resource, doc *templateDoc, values map[string]string) (*fanfarev1.Content, error) {
	order := parameterOrder(doc)
	c := &fanfarev1.Content{
		TemplateId: row.ID(), TemplateName: row.Name, Language: doc.Language, Missing: spec.Missing, MissingDefault: spec.MissingDefault,
	}
	if doc.ProviderID != "" {
		c.TemplateName = doc.ProviderID
	}
	for _, name := range order {
		c.Params = append(c.Params, values[name])
	}
	at := func(s string) string { // {{name}} becomes {{2}}: the place of its value
		return parameter.ReplaceAllStringFunc(s, func(m string) string {
			return "{{" + strconv.Itoa(slices.Index(order, parameter.FindStringSubmatch(m)[1])+1) + "}}"
		})
	}
	var message any
	switch channel {
	case schemas.ChannelRCS:
		message = richMessage(doc, at)
	case schemas.ChannelWhatsApp:
		components := whatsAppComponents(doc, at)
		if len(components) == 0 {
			return c, nil
		}
		message = components
	default:
		return nil, fmt.Errorf("a leg of %s has no template", schemas.ChannelName(channel))
	}
	var err error
	c.Json, err = json.Marshal(message, json.Deterministic(true))
	return c, err
}

type object = map[string]any

// richMessage returns a template as the content message of RCS for Business (REST reference, AgentContentMessage).
func richMessage(doc *templateDoc, at func(string) string) object {
	suggestions := make([]object, 0, len(doc.Buttons))
	for _, b := range doc.Buttons {
		label := object{"text": at(b.Text), "postbackData": at(pick(b.Type == "reply" && b.Value != "", b.Value, b.Text))}
		switch b.Type {
		case "reply":
			suggestions = append(suggestions, object{"reply": label})
		case "url":
			label["openUrlAction"] = object{"url": at(b.Value)}
			suggestions = append(suggestions, object{"action": label})
		case "phone":
			label["dialAction"] = object{"phoneNumber": at(b.Value)}
			suggestions = append(suggestions, object{"action": label})
		}
	}
	body := at(doc.Body)
	if doc.Footer != "" {
		body += "\n" + at(doc.Footer)
	}
	if doc.Header == nil {
		out := object{"text": body}
		if len(suggestions) > 0 {
			out["suggestions"] = suggestions
		}
		return out
	}
	card := object{"description": body}
	if h := doc.Header; h.Type == "text" {
		card["title"] = at(h.Text)
	} else {
		card["media"] = object{"height": "MEDIUM", "contentInfo": object{"fileUrl": h.URL}}
	}
	if len(suggestions) > 0 {
		card["suggestions"] = suggestions
	}
	return object{"richCard": object{"standaloneCard": object{"cardOrientation": "VERTICAL", "cardContent": card}}}
}

// whatsAppComponents returns the components of a template that have parameters (message template reference of
// WhatsApp's Cloud API).
func whatsAppComponents(doc *templateDoc, at func(string) string) []object {
	named := !numberedParameters(doc.Parameters)
	params := func(s string) []object {
		var out []object
		var seen []string
		for _, m := range parameter.FindAllStringSubmatch(s, -1) {
			if slices.Contains(seen, m[1]) {
				continue
			}
			seen = append(seen, m[1])
			p := object{"type": "text", "text": at(m[0])}
			if named {
				p["parameter_name"] = m[1]
			}
			out = append(out, p)
		}
		if !named { // by number, not in the order of the text
			slices.SortFunc(out, func(a, b object) int {
				x, y := a["text"].(string), b["text"].(string)
				return cmp.Or(len(x)-len(y), strings.Compare(x, y))
			})
		}
		return out
	}
	var out []object
	if h := doc.Header; h != nil {
		if h.Type == "text" {
			if p := params(h.Text); len(p) > 0 {
				out = append(out, object{"type": "header", "parameters": p})
			}
		} else {
			out = append(out, object{"type": "header", "parameters": []object{{"type": h.Type, h.Type: object{"link": h.URL}}}})
		}
	}
	if p := params(doc.Body); len(p) > 0 {
		out = append(out, object{"type": "body", "parameters": p})
	}
	for i, b := range doc.Buttons {
		if b.Type != "url" {
			continue
		}
		if p := params(b.Value); len(p) > 0 {
			out = append(out, object{"type": "button", "sub_type": "url", "index": strconv.Itoa(i), "parameters": p})
		}
	}
	return out
}
