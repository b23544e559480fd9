package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"fanfare/schemas"
	"fanfare/schemas/credentials"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// CallbackPath is where carriers call us; the name of the route follows.
const CallbackPath = "/api/callback/"

// Connector is what the API knows of one kind of carrier.
type Connector struct {
	Name string
	// Simulated: nothing reaches a person, so tests may go there (X14).
	Simulated bool
	Channels  []schemas.Channel
	// Secrets are the paths of settings that are credentials, such as `tls.key`; a last element of * stands for all of that object.
	Secrets []string
	// Callbacks: the carrier reports by calling us, at [CallbackPath] and the route's name.
	Callbacks bool
	// Check returns what is wrong with settings: a configuration with its credentials.
	Check func(settings []byte) error
}

// Connectors are the kinds of carriers, and what the API may do with their routes.
type Connectors struct {
	List []Connector
	// Sealing seals credentials. Nil: this process has no key, and routes with credentials are refused.
	Sealing *credentials.Keys
	// Verify returns an error unless a callback is that of the carrier of its route: one of [ErrNoCallbacks] and [ErrUnverified], or another
	// one when that can't be found out now. It may put the address that the carrier knows into the callback. Nil: no callbacks are taken.
	Verify func(r *http.Request, c *fanfarev1.Callback) (Called, error)
	// Test connects to a carrier with the settings of a route and hangs up. It sends no message. Nil: routes are not tested here.
	Test func(ctx context.Context, route, connector string, settings []byte) error
}

// Called is what a callback says to the API itself. Its receipts are read from the topic.
type Called struct {
	// Handshake is what the carrier wants to hear when the address is registered: it is answered, and the callback is not stored.
	Handshake string
	// Templates are what became of templates.
	Templates []TemplateNotice
}

// TemplateNotice is what a carrier says about a template: it may be used, or not any more.
type TemplateNotice struct {
	// Account at the carrier that has the template, and what the carrier calls it there, in that language.
	Account, Name, Language string
	// Status is that of a template of ours. Reason is shown to those who would use it.
	Status, Reason string
}

func (c *Connectors) named(name string) *Connector {
	for i := range c.List {
		if c.List[i].Name == name {
			return &c.List[i]
		}
	}
	return nil
}

// simulates reports whether a connector reaches no person.
func (c *Connectors) simulates(name string) bool {
	k := c.named(name)
	return k != nil && k.Simulated
}

func (c *Connectors) names() []string {
	names := make([]string, len(c.List))
	for i := range c.List {
		names[i] = c.List[i].Name
	}
	return names
}

// secret reports whether a setting is a credential.
func (c *Connector) secret(path string) bool {
	return slices.ContainsFunc(c.Secrets, func(s string) bool {
		below, all := strings.CutSuffix(s, "*")
		return path == s || all && strings.HasPrefix(path, below)
	})
}
