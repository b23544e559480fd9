package api

import (
	"bytes"
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

//go:generate go test -run ^TestOpenAPI$ -update .

// init replaces two settings that huma keeps in package variables: how it makes errors, and that arrays are null at times,
// which ours never are. They must be set before any API of the process is made, and nothing else in the process uses huma.
func init() {
	huma.NewError = newError
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		err := newError(status, msg, errs...)
		if p, ok := err.(*Problem); ok && ctx != nil {
			q := *p
			q.RequestID = requestOf(ctx.Context()).id
			return &q
		}
		return err
	}
	huma.DefaultArrayNullable = false
}

// humaConfig is huma without what would change bodies: no $schema fields, no links, no documents of its own.
func humaConfig() huma.Config {
	format := jsonFormat()
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Fanfare", Version: "1",
				Description: "Campaigns by SMS, RCS and WhatsApp. Every error is application/problem+json with code, field and fix. " +
					"Every POST takes an Idempotency-Key, which is remembered for 24 hours; changes of a campaign, a contact and deletions of a list take If-Match. Times are RFC 3339 in UTC.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"apiKey": {Type: "apiKey", In: "header", Name: "X-Api-Key"},
					"basic":  {Type: "http", Scheme: "basic", Description: "The key as the password; the name is not looked at."},
				},
			},
			Tags: []*huma.Tag{{Name: "Campaigns"}, {Name: "Contacts"}, {Name: "Opt-outs"}, {Name: "Messages"}},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}
}

// openAPI writes the document, indented, with what all POSTs have in common.
func openAPI(doc *huma.OpenAPI) ([]byte, error) {
	for _, item := range doc.Paths {
		if op := item.Post; op != nil {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
				Description: "Up to 255 characters: a repeated request answers as the first did, and does nothing again.",
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
