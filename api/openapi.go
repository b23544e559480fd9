package api

import (
	"bytes"
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/api/problem"
)

//go:generate go test -run ^TestOpenAPI$ -update .

// init sets two package variables of huma: the constructor of errors, and that arrays are never null. They must be set
// before any API is created. Only this package uses huma.
func init() {
	huma.NewError = problem.FromHuma
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		err := problem.FromHuma(status, msg, errs...)
		if p, ok := err.(*problem.Problem); ok && ctx != nil {
			q := *p
			q.RequestID = requestOf(ctx.Context()).id
			return &q
		}
		return err
	}
	huma.DefaultArrayNullable = false
}

// humaConfig configures huma without $schema fields, links and its own documents, so that bodies have exactly the
// fields of our types.
func humaConfig() huma.Config {
	format := problem.JSONFormat()
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Fanfare", Version: "1",
				Description: "Campaigns by SMS, RCS and WhatsApp. Every error is application/problem+json with code, field and fix. " +
					"Every POST takes an Idempotency-Key, which is kept for 24 hours; changes of a campaign or a contact and the deletion of a list take If-Match. Times are RFC 3339 in UTC.",
				Contact: &huma.Contact{Name: "The operator of the installation"},
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"apiKey": {Type: "apiKey", In: "header", Name: "X-Api-Key"},
					"basic":  {Type: "http", Scheme: "basic", Description: "The key is the password; the user name is ignored."},
				},
			},
			Servers: []*huma.Server{{URL: "/", Description: "The installation that serves this document."}},
			Tags:    tagTexts,
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}
}

// openAPI completes the document, adds Idempotency-Key to every POST, and writes the document, indented.
func openAPI(doc *huma.OpenAPI) ([]byte, error) {
	if err := completeSchemas(doc); err != nil {
		return nil, err
	}
	for _, op := range operationsOf(doc) {
		completeParameters(op)
	}
	for _, item := range doc.Paths {
		if op := item.Get; op != nil {
			flattenStream(op)
		}
		if op := item.Post; op != nil {
			addExamples(op)
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
				Description: "Up to 255 characters. A repeated request gets the first answer and changes nothing.",
			})
		}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// flattenStream describes a stream of events of one kind without a choice: huma makes a oneOf of one schema.
func flattenStream(op *huma.Operation) {
	for _, answer := range op.Responses {
		media := answer.Content["text/event-stream"]
		if media == nil || media.Schema == nil || media.Schema.Items == nil {
			continue
		}
		if kinds, ok := media.Schema.Items.Extensions["oneOf"].([]*huma.Schema); ok && len(kinds) == 1 {
			media.Schema.Items, media.Schema.Description = kinds[0], "Each object is one server-sent event, written as UTF-8 text."
			if data := kinds[0].Properties["data"]; data != nil && data.Description == "" {
				data.Description = "The JSON of the event."
			}
		}
	}
}
