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

// CallbackPath is the path of callbacks from carriers, without the name of the route that follows it.
const CallbackPath = "/api/callback/"

// Connector describes one kind of carrier to the API.
type Connector struct {
	Name string
	// Simulated: messages do not reach people, so tests may be sent there (X14).
	Simulated bool
	Channels  []schemas.Channel
	// Secrets are the paths of settings that are credentials, such as `tls.key`; a last element * means all fields of
	// that object.
	Secrets []string
	// Callbacks: the carrier sends callbacks to [CallbackPath] followed by the route's name.
	Callbacks bool
	// Check returns what is wrong with settings: a configuration with its credentials.
	Check func(settings []byte) error
}

// Connectors has the kinds of carriers, and the functions that the API calls for their routes.
type Connectors struct {
	List []Connector
	// Sealing encrypts credentials. Nil: this process has no key, and the API refuses routes with credentials.
	Sealing *credentials.Keys
	// Verify returns an error unless the carrier of the callback's route sent the callback: [ErrNoCallbacks],
	// [ErrUnverified], or another error when it cannot verify the callback now. It may set in the callback the address
	// under which the carrier knows the API. Nil: the API takes no callbacks.
	Verify func(r *http.Request, c *fanfarev1.Callback) (Called, error)
	// Test connects to a carrier with the settings of a route and disconnects. It sends no message. Nil: this process
	// cannot test routes.
	Test func(ctx context.Context, route, connector string, settings []byte) error
}

// Called is the part of a callback that the API acts on. The tracker reads the receipts of the callback from the topic.
type Called struct {
	// Handshake is the answer that the carrier expects when the address is registered. When it is set, the API answers
	// with it and does not store the callback.
	Handshake string
	// Templates are changes of the status of templates.
	Templates []TemplateNotice
}

// TemplateNotice is a carrier's notice that a template may be used, or may no longer be used.
type TemplateNotice struct {
	// Account is the account at the carrier that has the template; Name and Language identify the template there.
	Account, Name, Language string
	// Status is the new status of our template. Reason is shown to users of the template.
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

// simulates reports whether a connector is a simulator.
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
