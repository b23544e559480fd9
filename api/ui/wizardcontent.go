package ui

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// wizardContent has the fields of a campaign's content, for all channels.
type wizardContent struct {
	TemplateID    *string           `json:"templateId"`
	Parameters    map[string]string `json:"parameters"`
	Language      *string           `json:"language"`
	Transliterate bool              `json:"transliterate"`
	Queue         *string           `json:"queue"`
	MaxConcurrent *int              `json:"maxConcurrent"`
	MaxRetries    *int              `json:"maxRetries"`
	RetryDelay    *int              `json:"retryDelay"`
	AMDEnabled    *bool             `json:"amdEnabled"`
	AMDAction     *string           `json:"amdAction"`
	Audio         *string           `json:"audio"`
	RingSeconds   *int              `json:"ringSeconds"`
}

// wizardVariant is one of several texts that are compared (R38).
type wizardVariant struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Weight  *int   `json:"weight"`
}

// maxVariants is how many texts the wizard offers to compare.
const maxVariants = 4

// Slots returns the indexes of the variants' fields, from 0.
func (w *wizard) Slots() []int {
	out := make([]int, maxVariants)
	for i := range out {
		out[i] = i
	}
	return out
}

// Compared reports whether the draft compares texts.
func (w *wizard) Compared() bool { return w.Values["variant.0.message"] != "" }

// Parameters returns the names of the parameters of the chosen template.
func (w *wizard) Parameters() []string {
	for _, t := range w.Texts {
		if chosen := w.Values["message"]; chosen != "" && (t.Text("id") == chosen || t.Text("name") == chosen) {
			names, _ := t["parameters"].([]any)
			var out []string
			for _, n := range names {
				out = append(out, fmt.Sprint(n))
			}
			return out
		}
	}
	return nil
}

// fill copies the content to the values of the form.
func (c *wizardContent) fill(values map[string]string, variants []wizardVariant) {
	text := func(name string, v *string) {
		if v != nil {
			values[name] = *v
		}
	}
	whole := func(name string, v *int) {
		if v != nil {
			values[name] = strconv.Itoa(*v)
		}
	}
	box := func(name string, on bool) {
		if on {
			values[name] = "true"
		}
	}
	text("language", c.Language)
	text("queue", c.Queue)
	text("amdAction", c.AMDAction)
	text("audio", c.Audio)
	whole("maxConcurrent", c.MaxConcurrent)
	whole("maxRetries", c.MaxRetries)
	whole("retryDelay", c.RetryDelay)
	whole("ringSeconds", c.RingSeconds)
	box("transliterate", c.Transliterate)
	box("amdEnabled", c.AMDEnabled != nil && *c.AMDEnabled)
	if values["templateId"] != "" {
		values["message"] = values["templateId"]
	}
	for name, value := range c.Parameters {
		values["param."+name] = value
	}
	for i, v := range variants {
		at := fmt.Sprintf("variant.%d.", i)
		values[at+"name"], values[at+"message"] = v.Name, v.Message
		whole(at+"weight", v.Weight)
	}
}

// content makes the part of the body with the content.
func (w *wizard) content() map[string]any {
	val := w.Values
	in := map[string]any{"sender": orNil(val["sender"]), "message": orNil(val["message"])}
	switch w.Channel() {
	case "sms":
		in["missingField"], in["missingDefault"], in["transliterate"] = val["missingField"], val["missingDefault"], val["transliterate"] != ""
		in["variants"] = nil
		if variants := w.variants(); len(variants) > 0 {
			in["variants"], in["message"] = variants, nil
		}
	case "voice":
		in["language"], in["queue"], in["audio"] = orNil(val["language"]), orNil(val["queue"]), orNil(val["audio"])
		for _, name := range []string{"maxConcurrent", "maxRetries", "retryDelay", "ringSeconds"} {
			in[name] = number(val[name])
		}
		in["amdEnabled"], in["amdAction"] = val["amdEnabled"] != "", orNil(val["amdAction"])
	default:
		parameters := map[string]string{}
		for name, value := range val {
			if name, ok := strings.CutPrefix(name, "param."); ok && value != "" {
				parameters[name] = value
			}
		}
		in["parameters"] = parameters
		in["fallback"] = val["fallback"] != ""
		if val["fallback"] != "" {
			in["fallbackMessage"] = val["fallbackMessage"]
		}
	}
	return in
}

// variants returns the variants that have a text.
func (w *wizard) variants() (out []map[string]any) {
	for i := range maxVariants {
		at := fmt.Sprintf("variant.%d.", i)
		if message := w.Values[at+"message"]; message != "" {
			v := map[string]any{"name": w.Values[at+"name"], "message": message}
			if v["name"] == "" {
				v["name"] = string(rune('A' + i))
			}
			if weight := number(w.Values[at+"weight"]); weight != nil {
				v["weight"] = weight
			}
			out = append(out, v)
		}
	}
	return slices.Clip(out)
}
