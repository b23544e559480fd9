package api

import (
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
)

// Every text and every example is of an operation that there is.
func TestOperationTextsAreUsed(t *testing.T) {
	s := &server{}
	s.api = humachi.New(chi.NewRouter(), humaConfig())
	s.registerAll()
	described := map[string]string{}
	for _, item := range s.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete, item.Patch} {
			if op != nil {
				described[op.OperationID] = op.Description
			}
		}
	}
	for id, text := range operationTexts {
		if described[id] != text {
			t.Errorf("%s is described as %q, and its text here is %q", id, described[id], text)
		}
	}
	for id, other := range sameAs {
		if described[id] == "" || described[id] != operationTexts[other] || operationTexts[id] != "" {
			t.Errorf("%s is described as %q, want the text of %s", id, described[id], other)
		}
	}
	for id := range operationExamples {
		if described[id] == "" {
			t.Errorf("there are examples of %s, which is no operation", id)
		}
	}
}

// Every text for what means the same everywhere is in the document.
func TestSharedTextsAreUsed(t *testing.T) {
	document, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	for _, texts := range []map[string]string{propertyTexts, parameterTexts} {
		for name, text := range texts {
			if !strings.Contains(string(document), text) {
				t.Errorf("nothing has the text of %s", name)
			}
		}
	}
}
