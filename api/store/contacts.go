package store

import (
	"context"
	"fmt"

	"fanfare/api/phone"
	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

func contactOf(r db.Contact) Contact {
	c := Contact{
		Tenant: r.Tenant, Number: uint64(r.Number), Phone: r.Phone, Key: r.NumberKey, FirstName: r.FirstName, LastName: r.LastName, Email: r.Email,
		Country: r.Country, Zone: r.Zone, Class: audience.Class(r.Class), Valid: r.Valid, Version: uint64(r.Version),
		OptIn: fromMS(r.OptInMs), OptInSource: r.OptInSource, Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs), Deleted: fromMS(r.DeletedMs),
	}
	c.Attributes, _ = parseAttributes(r.Attributes) // attributeText wrote them
	return c
}

// ParsePhone reads a number as people write it; region is where a number without country code is from. The error wraps
// [phone.ErrNumber].
func (s *Store) ParsePhone(text, region string) (phone.Number, error) {
	return s.phones.Parse(text, region)
}

// CheckRegion reports whether numbers of that region can be read (ISO 3166-1 alpha-2, or [phone.World]).
func (s *Store) CheckRegion(region string) bool { return s.phones.Region(region) }

// UsualZones returns the time zones in which a mobile number of a country may be, when only its country is known.
func (s *Store) UsualZones(country string) []string { return s.phones.UsualZones(country) }

// complete sets the fields that follow from the number and the attributes.
func (s *Store) complete(c *Contact, region, tenantZone string) error {
	n, err := s.ParsePhone(c.Phone, region)
	if err != nil {
		return &NumberError{err}
	}
	c.Phone, c.Key, c.Country, c.Class, c.Valid = n.E164, n.Key, n.Country, n.Class, n.Valid
	c.Zone = orElse(n.Zone, tenantZone)
	if zone := c.Attributes[AttributeTimezone]; zone != "" {
		if _, err := hours.Zone(zone); err != nil {
			return &FieldError{AttributeTimezone, zone, "want an IANA name such as Europe/Rome"}
		}
		c.Zone = zone
	}
	return checkFields(c)
}

// searchText returns the text that a search looks through, in addition to the number.
func searchText(first, last, email string) string { return fold(first + " " + last + " " + email) }

func (t *tx) insertContact(ctx context.Context, c *Contact) error {
	attributes, err := attributeText(c.Attributes)
	if err != nil {
		return err
	}
	next, err := t.Counter(ctx, 1, "contact")
	if err != nil {
		return err
	}
	c.Number, c.Version, c.Created, c.Updated = uint64(next)-1, 1, t.at, t.at
	n, err := t.InsertContact(ctx, db.InsertContactParams{
		Number: next - 1, Tenant: c.Tenant, Phone: c.Phone, NumberKey: c.Key, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email,
		Attributes: attributes, Country: c.Country, Zone: c.Zone, Class: int64(c.Class), Valid: c.Valid, Now: t.now,
		Search: searchText(c.FirstName, c.LastName, c.Email), OptInMs: ms(c.OptIn), OptInSource: c.OptInSource,
	})
	if err == nil && n == 0 {
		return &NameError{Kind: "contact with number of", Name: ContactID(c.Number)}
	}
	if err != nil {
		return err
	}
	return t.countContacts(ctx, c.Tenant, 1, 0)
}

func (t *tx) saveContact(ctx context.Context, c *Contact, version uint64) error {
	attributes, err := attributeText(c.Attributes)
	if err != nil {
		return err
	}
	c.Version, c.Updated = version+1, t.at
	n, err := t.UpdateContact(ctx, db.UpdateContactParams{
		Phone: c.Phone, NumberKey: c.Key, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Attributes: attributes,
		Country: c.Country, Zone: c.Zone, Class: int64(c.Class), Valid: c.Valid, Search: searchText(c.FirstName, c.LastName, c.Email),
		OptInMs: ms(c.OptIn), OptInSource: c.OptInSource, UpdatedMs: t.now, DeletedMs: ms(c.Deleted),
		Tenant: c.Tenant, Number: int64(c.Number), Version: int64(version),
	})
	return one(n, err, "contact", version)
}

// CreateContact creates a contact from the number, names and attributes in c. When the tenant already has a contact
// with that number, in any of its forms, the error is [ErrNameTaken]. When that contact was deleted, it is restored
// with these fields.
func (s *Store) CreateContact(ctx context.Context, c Contact) (Contact, error) {
	var out Contact
	err := s.write(ctx, func(tx *tx) error {
		t, err := tx.GetTenant(ctx, c.Tenant)
		if err != nil {
			return found(err, "tenant", c.Tenant)
		}
		out = Contact{
			Tenant: c.Tenant, Phone: c.Phone, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Attributes: c.Attributes,
			OptIn: c.OptIn, OptInSource: c.OptInSource,
		}
		if err := s.complete(&out, t.Region, t.Timezone); err != nil {
			return err
		}
		r, err := tx.GetContactByKey(ctx, c.Tenant, out.Key)
		if err = found(err, "contact", ""); isNotFound(err) {
			return tx.insertContact(ctx, &out)
		}
		if err != nil {
			return err
		}
		if r.DeletedMs == 0 {
			return &NameError{Kind: "number of", Name: ContactID(uint64(r.Number))}
		}
		out.Number, out.Created = uint64(r.Number), fromMS(r.CreatedMs)
		if err := tx.countContacts(ctx, c.Tenant, 0, -1); err != nil { // the deleted contact is restored
			return err
		}
		return tx.saveContact(ctx, &out, uint64(r.Version))
	})
	if err != nil {
		return Contact{}, fmt.Errorf("create contact: %w", err)
	}
	return out, nil
}

// Contact returns a contact, also a deleted one.
func (s *Store) Contact(ctx context.Context, tenant string, number uint64) (Contact, error) {
	r, err := s.q.GetContact(ctx, tenant, int64(number))
	return contactOf(r), found(err, "contact", ContactID(number))
}

// ContactByPhone returns the contact of an E.164 number in any of its forms, also a deleted one.
func (s *Store) ContactByPhone(ctx context.Context, tenant, e164 string) (Contact, error) {
	r, err := s.q.GetContactByKey(ctx, tenant, schemas.NumberKey(e164))
	return contactOf(r), found(err, "contact", "of that number")
}

// UpdateContact changes the number, names and attributes of a contact if it is of version want, 0 for any.
func (s *Store) UpdateContact(ctx context.Context, tenant string, number, want uint64, mutate func(*Contact) error) (Contact, error) {
	var out Contact
	err := s.write(ctx, func(tx *tx) error {
		if err := tx.lockMembers(ctx, tenant); err != nil {
			return err
		}
		r, err := tx.GetContact(ctx, tenant, int64(number))
		if err = found(err, "contact", ContactID(number)); err != nil {
			return err
		}
		if r.DeletedMs > 0 {
			return notFound("contact", ContactID(number))
		}
		before, c := contactOf(r), contactOf(r)
		if want != 0 && want != before.Version {
			return &VersionError{"contact", want, before.Version}
		}
		if err := mutate(&c); err != nil {
			return err
		}
		t, err := tx.GetTenant(ctx, tenant)
		if err != nil {
			return found(err, "tenant", tenant)
		}
		out = before
		out.Phone, out.FirstName, out.LastName, out.Email, out.Attributes = c.Phone, c.FirstName, c.LastName, c.Email, c.Attributes
		out.OptIn, out.OptInSource = c.OptIn, c.OptInSource
		if err := s.complete(&out, t.Region, t.Timezone); err != nil {
			return err
		}
		if err := tx.moveFields(ctx, tenant, r.Number, fieldsOf(&r), fieldsOfContact(&out)); err != nil {
			return err
		}
		return tx.recount(ctx, tenant, r.Number, func() error { return tx.saveContact(ctx, &out, before.Version) })
	})
	if isTaken(err) {
		return Contact{}, &NameError{Kind: "number", Name: "of another contact"}
	}
	return out, err
}

// DeleteContact deletes a contact, if it is of version want, 0 for any, and takes it out of all lists. Frozen audiences
// keep it.
func (s *Store) DeleteContact(ctx context.Context, tenant string, number, want uint64) error {
	return s.write(ctx, func(tx *tx) error {
		if err := tx.lockMembers(ctx, tenant); err != nil {
			return err
		}
		r, err := tx.GetContact(ctx, tenant, int64(number))
		if err = found(err, "contact", ContactID(number)); err != nil {
			return err
		}
		if r.DeletedMs > 0 {
			return notFound("contact", ContactID(number))
		}
		if want != 0 && want != uint64(r.Version) {
			return &VersionError{"contact", want, uint64(r.Version)}
		}
		lists, err := tx.ListsOfContact(ctx, tenant, r.Number)
		if err != nil {
			return err
		}
		fields := fieldChanges{}
		for _, list := range lists {
			if err := tx.leaving(ctx, tenant, list, padded([]int64{r.Number})); err != nil {
				return err
			}
			n, err := tx.RemoveMember(ctx, tenant, list, r.Number)
			if err != nil {
				return err
			}
			fields.add(list, fieldsOf(&r), -n)
			if err := tx.ListChanged(ctx, db.ListChangedParams{Added: -n, Now: tx.now, Tenant: tenant, Number: list}); err != nil {
				return err
			}
		}
		if err := tx.addFields(ctx, tenant, fields); err != nil {
			return err
		}
		if err := tx.countContacts(ctx, tenant, 0, 1); err != nil {
			return err
		}
		c := contactOf(r)
		c.Deleted = tx.at
		return tx.saveContact(ctx, &c, uint64(r.Version))
	})
}

// ListsOfContact returns the numbers of the lists that hold a contact; deleted lists are left out.
func (s *Store) ListsOfContact(ctx context.Context, tenant string, contact uint64) ([]uint64, error) {
	rows, err := s.q.ListsOfContact(ctx, tenant, int64(contact))
	out, err := all(rows, err, func(n int64) uint64 { return uint64(n) })
	if err != nil {
		return nil, fmt.Errorf("lists of %s: %w", ContactID(contact), err)
	}
	return out, nil
}
