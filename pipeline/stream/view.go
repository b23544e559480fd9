package stream

import (
	"context"
	"errors"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// ViewConfig of a [View].
type ViewConfig struct {
	Cluster Cluster
	// Keys hash numbers; needed with Suppressions.
	Keys *schemas.Keys
	// Suppressions keeps the opt-outs too.
	Suppressions bool
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// View is the control plane as this process knows it: topics `campaigns` and `control`, and `suppressions` if asked for,
// followed from their beginnings. Every method may be called by many at once. What is returned is shared: never change it.
type View struct{ cfg ViewConfig }

// NewView returns a view that [View.Run] fills.
func NewView(cfg ViewConfig) (*View, error) { return nil, errors.ErrUnsupported }

// Run follows the topics until ctx ends.
func (v *View) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Ready is closed once everything has been read to its end.
func (v *View) Ready() <-chan struct{} { return nil }

// Age is how long ago `campaigns` and `control` were last known to be read to their ends; very long before [View.Ready].
func (v *View) Age() time.Duration { return 0 }

// SuppressionsAge is [View.Age] of `suppressions`.
func (v *View) SuppressionsAge() time.Duration { return 0 }

// Campaign returns a campaign by its public id, nil when it is unknown.
func (v *View) Campaign(id string) *fanfarev1.Campaign { return nil }

// CampaignByNumber returns a campaign by its number, nil when it is unknown.
func (v *View) CampaignByNumber(n uint64) *fanfarev1.Campaign { return nil }

// Campaigns returns all campaigns, in no order.
func (v *View) Campaigns() []*fanfarev1.Campaign { return nil }

// Route returns a route, nil when it is unknown.
func (v *View) Route(name string) *fanfarev1.Route { return nil }

// Routes returns all routes, in no order.
func (v *View) Routes() []*fanfarev1.Route { return nil }

// Tenant returns a tenant, nil when it is unknown.
func (v *View) Tenant(id string) *fanfarev1.Tenant { return nil }

// Sender returns a sender id of a tenant, nil when it is unknown.
func (v *View) Sender(tenant, id string) *fanfarev1.Sender { return nil }

// OptedOut reports whether a tenant must not write to a number, given in E.164 with +.
func (v *View) OptedOut(tenant, e164 string) bool { return false }

// Changed is closed at the next change of a campaign or of a row of control. Take it before reading, or a change is missed.
func (v *View) Changed() <-chan struct{} { return nil }
