package whatsapp

import (
	"encoding/json"
	"strings"

	"fanfare/sinks/carrier"
)

// verdicts are the meanings of template events. Other events, such as FLAGGED, change nothing: the template may be
// used.
var verdicts = map[string]string{
	"APPROVED": "approved", "REINSTATED": "approved", "PENDING": "pending", "IN_APPEAL": "pending", "REJECTED": "rejected", "PAUSED": "paused",
	"DISABLED": "disabled", "DELETED": "disabled", "PENDING_DELETION": "disabled", "LOCKED": "disabled",
}

// Templates implements [carrier.TemplateTeller] by the field message_template_status_update.
func (c *Connector) Templates(cb *carrier.Callback) (out []carrier.TemplateNotice) {
	var doc webhook
	if json.Unmarshal(cb.Body, &doc) != nil {
		return nil // Parse says what is wrong with it
	}
	for _, e := range doc.Entry {
		for _, change := range e.Changes {
			var v struct {
				Event    string `json:"event"`
				Name     string `json:"message_template_name"`
				Language string `json:"message_template_language"`
				Reason   string `json:"reason"`
				Other    struct {
					Title       string `json:"title"`
					Description string `json:"description"`
				} `json:"other_info"`
			}
			if change.Field != "message_template_status_update" || json.Unmarshal(change.Value, &v) != nil || verdicts[v.Event] == "" || v.Name == "" {
				continue
			}
			n := carrier.TemplateNotice{Account: e.ID, Name: v.Name, Language: v.Language, Status: verdicts[v.Event]}
			if v.Reason != "NONE" {
				n.Reason = v.Reason
			}
			if n.Reason = strings.TrimSpace(n.Reason + " " + v.Other.Description); n.Reason == "" && n.Status != "approved" {
				n.Reason = v.Event
			}
			out = append(out, n)
		}
	}
	return out
}
