package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

func routeOf(r db.Route) Route {
	sealed, _ := base64.StdEncoding.DecodeString(r.Credentials) // this package wrote it
	return Route{
		Name: r.Name, Channels: parseChannels(r.Channels), Connector: r.Connector, Rate: uint32(r.Rate), Burst: uint32(r.Burst),
		P99: millis(r.P99Ms), ReceiptWindow: millis(r.ReceiptWindowMs), Enabled: r.Enabled, Configuration: r.Configuration,
		Credentials: sealed, CredentialNames: splitNames(r.CredentialNames), Priority: uint32(r.Priority), Share: uint32(r.Share), Cost: uint64(r.Cost),
		Care: Care{
			DownAfter: millis(r.DownAfterMs), FailurePercent: uint32(r.FailurePercent), FailureSample: uint32(r.FailureSample), AutoResume: r.AutoResume,
			NoFailover: r.NoFailover,
		},
		Version: uint64(r.Version), Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs),
	}
}

func splitNames(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func formatChannels(channels []schemas.Channel) string {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = schemas.ChannelName(c)
	}
	return strings.Join(names, ",")
}

func parseChannels(text string) (out []schemas.Channel) {
	for name := range strings.SplitSeq(text, ",") {
		if c, ok := schemas.ParseChannel(name); ok {
			out = append(out, c)
		}
	}
	return out
}

// Limits of the fields of a route.
const (
	maxRouteRate     = 1_000_000
	maxPriority      = 100
	maxShare         = 100
	maxConfiguration = 256 << 10 // bytes of configuration, and of credentials
	maxDownAfter     = 24 * time.Hour
	minFailureSample = 10
	maxFailureSample = 1_000_000
)

func checkRoute(r *Route) error {
	if err := schemas.ValidRoute(r.Name); err != nil {
		return &FieldError{"Name", r.Name, "want 1 to 40 of a-z 0-9 _ - with a letter first"}
	}
	r.Share = max(r.Share, 1)
	if r.Care == (Care{}) {
		r.Care = DefaultCare
	}
	switch {
	case len(r.Channels) == 0 || slices.Contains(r.Channels, schemas.ChannelUnspecified):
		return &FieldError{"Channels", "", "want one of sms, rcs, whatsapp, voice at least"}
	case r.Connector == "":
		return &FieldError{"Connector", "", "want the name of a connector such as sim"}
	case r.Rate < 1:
		return &FieldError{"Rate", "0", "want at least 1 message per second"}
	case r.P99 < 0 || r.ReceiptWindow <= 0:
		return &FieldError{"ReceiptWindow", r.ReceiptWindow.String(), "want more than 0"}
	case r.Priority > maxPriority:
		return &FieldError{"Priority", strconv.Itoa(int(r.Priority)), fmt.Sprintf("want 0 to %d", maxPriority)}
	case r.Share > maxShare:
		return &FieldError{"Share", strconv.Itoa(int(r.Share)), fmt.Sprintf("want 1 to %d", maxShare)}
	case r.Care.DownAfter < 0 || r.Care.DownAfter > maxDownAfter:
		return &FieldError{"DownAfter", r.Care.DownAfter.String(), "want 0 to 24h"}
	case r.Care.FailurePercent > 100:
		return &FieldError{"FailurePercent", strconv.Itoa(int(r.Care.FailurePercent)), "want 0 to 100"}
	case r.Care.FailureSample < minFailureSample || r.Care.FailureSample > maxFailureSample:
		return &FieldError{"FailureSample", strconv.Itoa(int(r.Care.FailureSample)), fmt.Sprintf("want %d to %d", minFailureSample, maxFailureSample)}
	case len(r.Configuration) > maxConfiguration || len(r.Credentials) > maxConfiguration:
		return &FieldError{"Configuration", "", fmt.Sprintf("want at most %d bytes", maxConfiguration)}
	}
	return nil
}

func (r *Route) sealedText() string { return base64.StdEncoding.EncodeToString(r.Credentials) }

// sameRoute reports whether two versions of a route are equal.
func sameRoute(a, b *Route) bool {
	return slices.Equal(a.Channels, b.Channels) && a.Connector == b.Connector && a.Rate == b.Rate && a.Burst == b.Burst && a.P99 == b.P99 &&
		a.ReceiptWindow == b.ReceiptWindow && a.Enabled == b.Enabled && a.Configuration == b.Configuration && bytes.Equal(a.Credentials, b.Credentials) &&
		a.Priority == b.Priority && a.Share == b.Share && a.Cost == b.Cost && a.Care == b.Care
}

// EnsureRoute creates a route unless there is one with that name. made reports whether it created the route.
func (s *Store) EnsureRoute(ctx context.Context, r Route) (route Route, made bool, err error) {
	if err := checkRoute(&r); err != nil {
		return Route{}, false, err
	}
	err = s.write(ctx, func(tx *tx) error {
		n, err := tx.InsertRoute(ctx, db.InsertRouteParams{
			Name: r.Name, Channels: formatChannels(r.Channels), Connector: r.Connector, Rate: int64(r.Rate), Burst: int64(r.Burst),
			P99Ms: r.P99.Milliseconds(), ReceiptWindowMs: r.ReceiptWindow.Milliseconds(), Enabled: r.Enabled,
			Configuration: r.Configuration, Credentials: r.sealedText(), CredentialNames: strings.Join(r.CredentialNames, ","),
			Priority: int64(r.Priority), Share: int64(r.Share), Cost: int64(r.Cost), DownAfterMs: r.Care.DownAfter.Milliseconds(),
			FailurePercent: int64(r.Care.FailurePercent), FailureSample: int64(r.Care.FailureSample), AutoResume: r.Care.AutoResume, NoFailover: r.Care.NoFailover, Now: tx.now,
		})
		if err != nil {
			return err
		}
		made, tx.publish = n == 1, n == 1
		row, err := tx.GetRoute(ctx, r.Name)
		route = routeOf(row)
		return err
	})
	if err != nil {
		return Route{}, false, fmt.Errorf("route %s: %w", r.Name, err)
	}
	return route, made, nil
}

// CreateRoute creates a route. The error is [ErrNameTaken] when there is one with that name.
func (s *Store) CreateRoute(ctx context.Context, r Route) (Route, error) {
	route, made, err := s.EnsureRoute(ctx, r)
	if err == nil && !made {
		return Route{}, &NameError{"route", r.Name}
	}
	return route, err
}

// UpdateRoute changes a route if its version is want, 0 for any. The name cannot change. When mutate changes nothing,
// nothing is written and the version stays.
func (s *Store) UpdateRoute(ctx context.Context, name string, want uint64, mutate func(*Route) error) (Route, error) {
	var r Route
	err := s.write(ctx, func(tx *tx) error {
		row, err := tx.GetRoute(ctx, name)
		if err != nil {
			return found(err, "route", name)
		}
		before := routeOf(row)
		if want != 0 && want != before.Version {
			return &VersionError{"route", want, before.Version}
		}
		r = routeOf(row)
		if err := mutate(&r); err != nil {
			return err
		}
		r.Name, r.Version, r.Created = before.Name, before.Version, before.Created
		if err := checkRoute(&r); err != nil {
			return err
		}
		if sameRoute(&r, &before) {
			return nil
		}
		r.Version, r.Updated, tx.publish = before.Version+1, tx.at, true
		n, err := tx.UpdateRoute(ctx, db.UpdateRouteParams{
			Channels: formatChannels(r.Channels), Connector: r.Connector, Rate: int64(r.Rate), Burst: int64(r.Burst),
			P99Ms: r.P99.Milliseconds(), ReceiptWindowMs: r.ReceiptWindow.Milliseconds(), Enabled: r.Enabled,
			Configuration: r.Configuration, Credentials: r.sealedText(), CredentialNames: strings.Join(r.CredentialNames, ","),
			Priority: int64(r.Priority), Share: int64(r.Share), Cost: int64(r.Cost), DownAfterMs: r.Care.DownAfter.Milliseconds(),
			FailurePercent: int64(r.Care.FailurePercent), FailureSample: int64(r.Care.FailureSample), AutoResume: r.Care.AutoResume, NoFailover: r.Care.NoFailover, UpdatedMs: tx.now,
			Name: name, Version: int64(before.Version),
		})
		return one(n, err, "route", before.Version)
	})
	return r, err
}

// RouteUse counts what still uses a route.
type RouteUse struct {
	Tenants   int // tenants whose default route it is
	Campaigns int // campaigns that may still send by it
}

// DeleteRoute deletes a route if its version is want, 0 for any, with its configuration and credentials. When something
// still uses the route, it deletes nothing and returns what does.
func (s *Store) DeleteRoute(ctx context.Context, name string, want uint64) (use RouteUse, err error) {
	err = s.write(ctx, func(tx *tx) error {
		row, err := tx.GetRoute(ctx, name)
		if err != nil {
			return found(err, "route", name)
		}
		if want != 0 && int64(want) != row.Version {
			return &VersionError{"route", want, uint64(row.Version)}
		}
		uses, err := tx.RouteUses(ctx, name, strconv.Quote(name), `"Route":`+strconv.Quote(name))
		if err != nil {
			return err
		}
		if use = (RouteUse{int(uses.Tenants), int(uses.Campaigns)}); use != (RouteUse{}) {
			return nil
		}
		tx.publish = true
		n, err := tx.DeleteRoute(ctx, tx.now, name, row.Version)
		return one(n, err, "route", uint64(row.Version))
	})
	return use, err
}

// Route returns a route.
func (s *Store) Route(ctx context.Context, name string) (Route, error) {
	r, err := s.q.GetRoute(ctx, name)
	return routeOf(r), found(err, "route", name)
}

// Routes returns all routes by name.
func (s *Store) Routes(ctx context.Context) ([]Route, error) {
	rows, err := s.q.ListRoutes(ctx)
	return all(rows, err, routeOf)
}
