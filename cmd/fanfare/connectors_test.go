package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"fanfare/api"
)

// The OpenAPI document names every connector that a route can have, and no other.
func TestConnectorsAreInTheDocument(t *testing.T) {
	raw, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas struct {
				RouteCreate struct {
					Properties struct{ Connector struct{ Enum []string } }
				}
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range connectors {
		want = append(want, connectors[i].name)
	}
	got := doc.Components.Schemas.RouteCreate.Properties.Connector.Enum
	slices.Sort(got)
	slices.Sort(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got the connectors %v, want %v", got, want)
	}
}
