package remote

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// document is the part of the OpenAPI document that the commands use.
type document struct {
	Paths      map[string]map[string]*operation `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	ID          string      `json:"operationId"`
	Summary     string      `json:"summary"`
	Description string      `json:"description"`
	Parameters  []parameter `json:"parameters"`
	RequestBody *struct {
		Required bool `json:"required"`
		Content  map[string]struct {
			Schema *schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`

	method, path string
}

type parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Description string  `json:"description"`
	Required    bool    `json:"required"`
	Schema      *schema `json:"schema"`
}

type schema struct {
	Ref         string             `json:"$ref"`
	Type        any                `json:"type"` // a name, or an array of a name and "null"
	Description string             `json:"description"`
	Properties  map[string]*schema `json:"properties"`
	Items       *schema            `json:"items"`
	Enum        []any              `json:"enum"`
	OneOf       []*schema          `json:"oneOf"`
	Required    []string           `json:"required"`
}

// kind is the type without null: string, integer, number, boolean, array or object; "" if several types are allowed.
func (s *schema) kind() string {
	switch t := s.Type.(type) {
	case string:
		return t
	case []any:
		for _, name := range t {
			if name != "null" {
				return fmt.Sprint(name)
			}
		}
	}
	return ""
}

func (d *document) resolve(s *schema) *schema {
	if s == nil {
		return &schema{}
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		if found := d.Components.Schemas[name]; found != nil {
			return found
		}
	}
	return s
}

// read parses the document and returns its operations, sorted by path and method.
func read(raw []byte) (*document, []*operation, error) {
	d := &document{}
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	var out []*operation
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			if op.ID == "" {
				continue
			}
			op.method, op.path = strings.ToUpper(method), path
			out = append(out, op)
		}
	}
	return d, out, nil
}

// names are commands whose name does not follow from the operation's id. An operation with an empty name gets no
// command: another command does the same.
var names = map[string]string{
	"getConversationSummary": "conversation summary", "listConversationMessages": "conversation messages", "replyToConversation": "conversation reply",
	"listOptOutReviews": "review list", "decideOptOutReview": "review decide",
	"abortCampaignPut": "", "pauseCampaignPut": "", "resumeCampaignPut": "", "startCampaignPut": "", "unscheduleCampaignPut": "",
	"deleteContactByQuery": "", "updateContactByQuery": "", "deleteListByQuery": "",
	"getCampaignsStats":      "campaign totals",
	"getCampaignStats":       "campaign stats",
	"createCampaignAudit":    "campaign audit",
	"getCampaignAudit":       "campaign audit-result",
	"getCampaignForecast":    "campaign forecast",
	"getCampaignLinks":       "campaign links",
	"getPrice":               "campaign price",
	"calculateGoal":          "campaign estimate",
	"patchLiveCampaign":      "campaign live",
	"listCampaignEvents":     "campaign events",
	"decideAmbiguous":        "campaign ambiguous",
	"addContactsToList":      "list add",
	"removeContactsFromList": "list remove",
	"listContactsOfList":     "list contacts",
	"importContacts":         "list import",
	"listImports":            "list imports",
	"getImport":              "list import-status",
	"uploadContacts":         "import upload",
	"importMappedFile":       "import start",
	"listAllImports":         "import list",
	"getImportJob":           "import show",
	"listImportRejects":      "import rejects",
	"exportSuppressions":     "suppression export",
	"exportDeliveryReports":  "export delivery-reports",
	"exportContacts":         "export contacts",
	"exportMembers":          "export members",
	"exportLedgerFile":       "export ledger",
	"exportSuppressionsFile": "export suppressions",
	"listExportKinds":        "export kinds",
	"createSegment":          "campaign segment",
	"importSuppressions":     "suppression import",
	"listSuppressionHistory": "suppression history",
	"sendSMS":                "send sms",
	"getMessage":             "message show",
	"getMessageStatus":       "message status",
	"getMessageStatuses":     "message statuses",
	"addCredit":              "credit add",
	"getWebhookHealth":       "webhook health",
	"listWebhookDeliveries":  "webhook deliveries",
	// A command that orders an export also downloads it.
	"downloadExport": "",
	// These are second paths of the same resource.
	"listDeliveryStatusWebhooks": "", "createDeliveryStatusWebhook": "", "getDeliveryStatusWebhook": "", "updateDeliveryStatusWebhook": "",
	"deleteDeliveryStatusWebhook": "", "rotateDeliveryStatusWebhook": "", "recoverDeliveryStatusWebhook": "", "testDeliveryStatusWebhook": "",
	"getDeliveryStatusWebhookHealth": "", "listDeliveryStatusWebhookDeliveries": "",
}

// commandName returns the noun and the verb of an operation: createCampaign is `campaign create`.
func commandName(id string) (noun, verb string) {
	if name, ok := names[id]; ok {
		noun, verb, _ = strings.Cut(name, " ")
		return noun, verb
	}
	words := split(id)
	verb = words[0]
	noun = strings.Join(words[1:], "-")
	if verb == "list" {
		noun = strings.TrimSuffix(noun, "s")
	}
	if verb == "get" {
		verb = "show"
	}
	return noun, verb
}

// split cuts camelCase into words in lower case. A run of capitals is one word.
func split(name string) (words []string) {
	runes := []rune(name)
	start := 0
	for i := 1; i <= len(runes); i++ {
		if i == len(runes) || unicode.IsUpper(runes[i]) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			words = append(words, strings.ToLower(string(runes[start:i])))
			start = i
		}
	}
	return words
}

// flagName converts contactList to contact-list.
func flagName(field string) string { return strings.Join(split(field), "-") }
