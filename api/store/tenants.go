package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/text/currency"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/hours"
)

// Defaults of a new tenant.
const (
	defaultRegion   = "IT"
	defaultCurrency = "EUR"
	defaultRoute    = "sim"
	defaultSender   = "FANFARE"
	defaultActive   = 10        // R154
	defaultContacts = 1_000_000 // R153
	defaultSegments = 3         // C14
)

// defaultPrices per channel in micro-units (R110–R112). A minute of voice costs about what an RCS message does.
var defaultPrices = map[schemas.Channel]uint64{
	schemas.ChannelSMS:      50_000,
	schemas.ChannelRCS:      80_000,
	schemas.ChannelWhatsApp: 150_000,
	schemas.ChannelVoice:    80_000,
}

func tenantOf(r db.Tenant) Tenant {
	return Tenant{
		ID: r.ID, Name: r.Name, Enabled: r.Enabled, CampaignsEnabled: r.CampaignsEnabled, Region: r.Region, Timezone: r.Timezone,
		Currency: r.Currency, DefaultRoute: r.DefaultRoute, DefaultSender: r.DefaultSender, MaxActive: uint32(r.MaxActive),
		MaxContacts: uint32(r.MaxContacts), MaxSegments: uint32(r.MaxSegments), Rate: uint32(r.Rate), Weight: uint32(r.Weight),
		Version: uint64(r.Version), Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs),
	}
}

// CreateTenant creates a tenant that can send immediately: it has campaigns enabled, a sender id, a route, prices, and
// credit.
func (s *Store) CreateTenant(ctx context.Context, spec TenantSpec) (Tenant, error) {
	t := Tenant{
		ID: "tn_" + randomText(16), Name: strings.TrimSpace(spec.Name), Enabled: true, CampaignsEnabled: true,
		Region: orElse(strings.ToUpper(spec.Region), defaultRegion), Timezone: spec.Timezone,
		Currency: orElse(strings.ToUpper(spec.Currency), defaultCurrency), DefaultRoute: orElse(spec.Route, defaultRoute),
		DefaultSender: defaultSender, MaxActive: defaultActive, MaxContacts: defaultContacts, MaxSegments: defaultSegments,
		Weight: 1, Version: 1,
	}
	if t.Timezone == "" {
		t.Timezone = orElse(s.phones.MainZone(t.Region), "UTC")
	}
	if err := s.checkTenant(&t); err != nil {
		return Tenant{}, err
	}
	err := s.write(ctx, func(tx *tx) error {
		t.Created, t.Updated, tx.publish = tx.at, tx.at, true
		if err := tx.InsertTenant(ctx, db.InsertTenantParams{
			ID: t.ID, Name: t.Name, Enabled: t.Enabled, CampaignsEnabled: t.CampaignsEnabled, Region: t.Region, Timezone: t.Timezone,
			Currency: t.Currency, DefaultRoute: t.DefaultRoute, DefaultSender: t.DefaultSender, MaxActive: int64(t.MaxActive),
			MaxContacts: int64(t.MaxContacts), MaxSegments: int64(t.MaxSegments), Rate: int64(t.Rate), Weight: int64(t.Weight), Now: tx.now,
		}); err != nil {
			return err
		}
		if _, err := tx.PutSender(ctx, db.PutSenderParams{Tenant: t.ID, ID: defaultSender, Now: tx.now}); err != nil {
			return err
		}
		if err := tx.defaultSender(ctx, &t); err != nil {
			return err
		}
		for channel, micros := range defaultPrices {
			if err := tx.SetPrice(ctx, db.SetPriceParams{Tenant: t.ID, Channel: int64(channel), Micros: int64(micros), UpdatedMs: tx.now}); err != nil {
				return err
			}
		}
		if err := tx.InsertBalance(ctx, t.ID, sql.NullInt64{Valid: spec.Credit != nil}); err != nil {
			return err
		}
		if spec.Credit == nil || *spec.Credit == 0 {
			return nil
		}
		return tx.move(ctx, t.ID, 0, AccountOutside, AccountAvailable, *spec.Credit, "opening balance")
	})
	if isTaken(err) {
		return Tenant{}, &NameError{Kind: "tenant", Name: t.Name}
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("create tenant: %w", err)
	}
	return t, nil
}

// defaultSender makes the sender that a new tenant begins with.
func (t *tx) defaultSender(ctx context.Context, tenant *Tenant) error {
	doc, err := json.Marshal(SenderDoc{Type: "alphanumeric"})
	if err != nil {
		return err
	}
	next, err := t.Counter(ctx, 1, "resource")
	if err != nil {
		return err
	}
	return t.InsertResource(ctx, db.InsertResourceParams{
		Number: next - 1, Tenant: tenant.ID, Kind: string(KindSender), Name: defaultSender, Search: fold(defaultSender), Status: "approved", Doc: string(doc), Now: t.now,
	})
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (s *Store) checkTenant(t *Tenant) error {
	_, zoneErr := hours.Zone(t.Timezone)
	_, currencyErr := currency.ParseISO(t.Currency)
	switch {
	case t.Name == "" || len(t.Name) > 200:
		return &FieldError{"Name", t.Name, "want 1 to 200 bytes"}
	case !s.phones.Region(t.Region):
		return &FieldError{"Region", t.Region, "want an ISO 3166-1 alpha-2 code such as IT"}
	case zoneErr != nil:
		return &FieldError{"Timezone", t.Timezone, "want an IANA name such as Europe/Rome"}
	case currencyErr != nil:
		return &FieldError{"Currency", t.Currency, "want an ISO 4217 code such as EUR"}
	case schemas.ValidRoute(t.DefaultRoute) != nil:
		return &FieldError{"DefaultRoute", t.DefaultRoute, "want 1 to 40 of a-z 0-9 _ - with a letter first"}
	case t.Weight < 1 || t.Weight > 100:
		return &FieldError{"Weight", fmt.Sprint(t.Weight), "want 1 to 100"}
	case t.MaxSegments < 1 || t.MaxSegments > schemas.MaxSegments:
		return &FieldError{"MaxSegments", fmt.Sprint(t.MaxSegments), fmt.Sprintf("want 1 to %d", schemas.MaxSegments)}
	case t.MaxContacts > schemas.MaxSeq:
		return &FieldError{"MaxContacts", fmt.Sprint(t.MaxContacts), fmt.Sprintf("want at most %d", schemas.MaxSeq)}
	}
	return nil
}

// Tenant returns a tenant by id.
func (s *Store) Tenant(ctx context.Context, id string) (Tenant, error) {
	r, err := s.q.GetTenant(ctx, id)
	return tenantOf(r), found(err, "tenant", id)
}

// TenantByName returns a tenant by name.
func (s *Store) TenantByName(ctx context.Context, name string) (Tenant, error) {
	r, err := s.q.GetTenantByName(ctx, name)
	return tenantOf(r), found(err, "tenant", name)
}

// Tenants returns all tenants, oldest first.
func (s *Store) Tenants(ctx context.Context) ([]Tenant, error) {
	rows, err := s.q.ListTenants(ctx)
	return all(rows, err, tenantOf)
}

// UpdateTenant changes a tenant if it is of version want, 0 for any; id and currency stay.
func (s *Store) UpdateTenant(ctx context.Context, id string, want uint64, mutate func(*Tenant) error) (Tenant, error) {
	var t Tenant
	err := s.write(ctx, func(tx *tx) error {
		row, err := tx.GetTenant(ctx, id)
		if err != nil {
			return found(err, "tenant", id)
		}
		before := tenantOf(row)
		if want != 0 && want != before.Version {
			return &VersionError{"tenant", want, before.Version}
		}
		t = before
		if err := mutate(&t); err != nil {
			return err
		}
		t.ID, t.Currency, t.Version, t.Created = before.ID, before.Currency, before.Version+1, before.Created
		t.Updated, tx.publish = tx.at, true
		if err := s.checkTenant(&t); err != nil {
			return err
		}
		n, err := tx.UpdateTenant(ctx, db.UpdateTenantParams{
			Name: t.Name, Enabled: t.Enabled, CampaignsEnabled: t.CampaignsEnabled, Region: t.Region, Timezone: t.Timezone,
			DefaultRoute: t.DefaultRoute, DefaultSender: t.DefaultSender, MaxActive: int64(t.MaxActive), MaxContacts: int64(t.MaxContacts),
			MaxSegments: int64(t.MaxSegments), Rate: int64(t.Rate), Weight: int64(t.Weight), UpdatedMs: tx.now,
			Currency: t.Currency, ID: t.ID, Version: int64(before.Version),
		})
		return one(n, err, "tenant", before.Version)
	})
	if isTaken(err) {
		return Tenant{}, &NameError{Kind: "tenant", Name: t.Name}
	}
	return t, err
}

// one returns a [VersionError] for a compare-and-set that changed no row.
func one(rows int64, err error, kind string, version uint64) error {
	if err != nil {
		return err
	}
	if rows != 1 {
		return &VersionError{kind, version, version + 1}
	}
	return nil
}

func senderOf(r db.Sender) Sender {
	return Sender{
		Tenant: r.Tenant, ID: r.ID, Rate: uint32(r.Rate), Version: uint64(r.Version),
		Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs),
	}
}

// maxSender is the maximum length of a sender id, in bytes: enough for E.164 numbers and the ids of providers.
// Alphanumeric senders have at most 11 characters at the carrier.
const maxSender = 64

// PutSender creates a sender id of a tenant, or changes its rate.
func (s *Store) PutSender(ctx context.Context, sender Sender) (Sender, error) {
	if sender.ID == "" || len(sender.ID) > maxSender || strings.ContainsAny(sender.ID, "/\n") {
		return Sender{}, &FieldError{"ID", sender.ID, fmt.Sprintf("want 1 to %d bytes without a slash", maxSender)}
	}
	var out Sender
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, sender.Tenant); err != nil {
			return found(err, "tenant", sender.Tenant)
		}
		row, err := tx.PutSender(ctx, db.PutSenderParams{Tenant: sender.Tenant, ID: sender.ID, Rate: int64(sender.Rate), Now: tx.now})
		out, tx.publish = senderOf(row), true
		return err
	})
	return out, err
}

// Sender returns a sender id.
func (s *Store) Sender(ctx context.Context, tenant, id string) (Sender, error) {
	r, err := s.q.GetSender(ctx, tenant, id)
	return senderOf(r), found(err, "sender", id)
}

// Senders returns the sender ids of a tenant.
func (s *Store) Senders(ctx context.Context, tenant string) ([]Sender, error) {
	rows, err := s.q.ListSenders(ctx, tenant)
	return all(rows, err, senderOf)
}

// DeleteSender removes a sender id.
func (s *Store) DeleteSender(ctx context.Context, tenant, id string) error {
	return s.write(ctx, func(tx *tx) error {
		n, err := tx.DeleteSender(ctx, tx.now, tenant, id)
		if err == nil && n == 0 {
			return notFound("sender", id)
		}
		tx.publish = true
		return err
	})
}
