package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/api/store/db"
)

// Kind says what a [Resource] is. It is the prefix of its id too.
type Kind string

// Kinds of resources.
const (
	KindTemplate Kind = "template"
	KindAgent    Kind = "agent"   // of RCS
	KindChannel  Kind = "channel" // a WhatsApp number, an SMS account, a voice trunk
	KindSender   Kind = "sender"  // of SMS; its document is a [SenderDoc]
	KindPolicy   Kind = "policy"  // rules that confirm checks; a tenant has one
	KindPrice    Kind = "price"   // a row of the price list; its document is a [PriceDoc]
	KindDomain   Kind = "domain"  // a host of links; its document is a [DomainDoc]
)

// Resource is an object of a tenant other than a campaign or a contact. The fields of its kind are in Doc.
type Resource struct {
	Tenant string // "" for what belongs to the installation
	Kind   Kind
	Number uint64
	Name   string // unique among those of the tenant and kind that are not deleted
	// Status is a word that the kind defines, such as "approved".
	Status string
	// Doc is a JSON document; package api has the type of each kind.
	Doc                       []byte
	CreatedBy                 string
	Version                   uint64
	Created, Updated, Deleted time.Time
}

// ID is the public id, such as template_10001.
func (r *Resource) ID() string { return string(r.Kind) + "_" + strconv.FormatUint(r.Number, 10) }

// ResourceNumber parses an id of the kind. It returns false when the text is not such an id.
func ResourceNumber(kind Kind, id string) (uint64, bool) {
	digits, ok := strings.CutPrefix(id, string(kind)+"_")
	if !ok || digits == "" || digits[0] == '0' || digits[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil
}

// ResourceFilter says which resources to list, newest first.
type ResourceFilter struct {
	Page
	Search         string // within the name
	Status         string
	IncludeDeleted bool
	// After is the number of the last resource of the page before. 0: from the first.
	After uint64
}

func resourceOf(r db.Resource) Resource {
	return Resource{
		Tenant: r.Tenant, Kind: Kind(r.Kind), Number: uint64(r.Number), Name: r.Name, Status: r.Status, Doc: []byte(r.Doc), CreatedBy: r.CreatedBy,
		Version: uint64(r.Version), Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs), Deleted: fromMS(r.DeletedMs),
	}
}

// CreateResource adds a resource. [ErrNameTaken] when the tenant has one of that kind and name.
func (s *Store) CreateResource(ctx context.Context, r Resource) (Resource, error) {
	err := s.write(ctx, func(tx *tx) error {
		if err := nameIsFree(ctx, tx, &r); err != nil {
			return err
		}
		next, err := tx.Counter(ctx, 1, "resource")
		if err != nil {
			return err
		}
		r.Number, r.Version, r.Created, r.Updated = uint64(next-1), 1, tx.at, tx.at
		if err := tx.noteWebhook(ctx, "", &r); err != nil {
			return err
		}
		if err := tx.followSender(ctx, &r); err != nil {
			return err
		}
		if err := tx.followDomain(ctx, &r); err != nil {
			return err
		}
		return tx.InsertResource(ctx, db.InsertResourceParams{
			Number: next - 1, Tenant: r.Tenant, Kind: string(r.Kind), Name: r.Name, Search: strings.ToLower(r.Name), Status: r.Status,
			Doc: string(r.Doc), CreatedBy: r.CreatedBy, Now: tx.now,
		})
	})
	if err != nil {
		return Resource{}, fmt.Errorf("create %s: %w", r.Kind, err)
	}
	return r, nil
}

func nameIsFree(ctx context.Context, tx *tx, r *Resource) error {
	other, err := tx.ResourceByName(ctx, r.Tenant, string(r.Kind), r.Name)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && uint64(other.Number) == r.Number:
		return nil
	case err != nil:
		return err
	}
	return &NameError{string(r.Kind), r.Name}
}

// SenderDoc is the document of a resource of [KindSender] (R36). Its name is what recipients see.
type SenderDoc struct {
	Type      string   // alphanumeric, number or short_code
	Countries []string `json:",omitempty"` // the only countries it may send to; empty: all
	TwoWay    bool     `json:",omitempty"`
	Rate      uint32   `json:",omitempty"` // messages per second, 0: no own limit
	Reason    string   `json:",omitempty"` // why it is rejected or disabled
}

// followSender writes the rate limit of a sender to the row that is published to the pipeline.
func (t *tx) followSender(ctx context.Context, r *Resource) error {
	if r.Kind != KindSender {
		return nil
	}
	var doc SenderDoc
	if err := json.Unmarshal(r.Doc, &doc); err != nil {
		return fmt.Errorf("read the document of %s: %w", r.Name, err)
	}
	t.publish = true
	if !r.Deleted.IsZero() {
		_, err := t.DeleteSender(ctx, t.now, r.Tenant, r.Name)
		return err
	}
	_, err := t.PutSender(ctx, db.PutSenderParams{Tenant: r.Tenant, ID: r.Name, Rate: int64(doc.Rate), Now: t.now})
	return err
}

// Resource returns one of the tenant's resources, a deleted one too; [schemas.ErrNotFound] when there is none.
func (s *Store) Resource(ctx context.Context, tenant string, kind Kind, number uint64) (Resource, error) {
	row, err := s.q.GetResource(ctx, tenant, string(kind), int64(number))
	return resourceOf(row), found(err, string(kind), strconv.FormatUint(number, 10))
}

// FindResource returns a resource that is not deleted, by its id or its name.
func (s *Store) FindResource(ctx context.Context, tenant string, kind Kind, ref string) (Resource, error) {
	if n, ok := ResourceNumber(kind, ref); ok {
		r, err := s.Resource(ctx, tenant, kind, n)
		if err == nil && !r.Deleted.IsZero() {
			return Resource{}, notFound(string(kind), ref)
		}
		return r, err
	}
	row, err := s.q.ResourceByName(ctx, tenant, string(kind), ref)
	return resourceOf(row), found(err, string(kind), ref)
}

// Resources lists the tenant's resources of a kind, and counts those that match.
func (s *Store) Resources(ctx context.Context, tenant string, kind Kind, f ResourceFilter) ([]Resource, int, error) {
	limit, offset := f.bounds()
	search := strings.ToLower(f.Search)
	rows, err := s.q.ListResources(ctx, db.ListResourcesParams{
		Tenant: tenant, Kind: string(kind), WithDeleted: f.IncludeDeleted, Status: f.Status, Search: search, Below: int64(f.After), Max: limit, Skip: offset,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list %ss: %w", kind, err)
	}
	total, err := s.q.CountResources(ctx, db.CountResourcesParams{
		Tenant: tenant, Kind: string(kind), WithDeleted: f.IncludeDeleted, Status: f.Status, Search: search,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("count %ss: %w", kind, err)
	}
	out, _ := all(rows, nil, resourceOf)
	return out, int(total), nil
}

// ResourceNames returns the names of a tenant's resources of a kind, from which an error about an unknown name suggests
// similar ones.
func (s *Store) ResourceNames(ctx context.Context, tenant string, kind Kind) ([]string, error) {
	rows, _, err := s.Resources(ctx, tenant, kind, ResourceFilter{Page: Page{Limit: 200}})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(rows))
	for i := range rows {
		names[i] = rows[i].Name
	}
	slices.Sort(names)
	return names, nil
}

// ChangeResource lets change alter a resource, in one transaction. version is the version that the caller read, 0 for
// any. The error is a [VersionError] when another version is stored.
func (s *Store) ChangeResource(ctx context.Context, tenant string, kind Kind, number, version uint64, change func(*Resource) error) (Resource, error) {
	var r Resource
	err := s.write(ctx, func(tx *tx) error {
		row, err := tx.GetResource(ctx, tenant, string(kind), int64(number))
		if err != nil {
			return found(err, string(kind), strconv.FormatUint(number, 10))
		}
		r = resourceOf(row)
		if !r.Deleted.IsZero() {
			return notFound(string(kind), r.ID())
		}
		if version != 0 && version != r.Version {
			return &VersionError{string(kind), version, r.Version}
		}
		was := r.Status
		if err := change(&r); err != nil {
			return err
		}
		if err := tx.noteWebhook(ctx, was, &r); err != nil {
			return err
		}
		if r.Deleted.IsZero() {
			if err := nameIsFree(ctx, tx, &r); err != nil {
				return err
			}
		}
		n, err := tx.UpdateResource(ctx, db.UpdateResourceParams{
			Name: r.Name, Search: strings.ToLower(r.Name), Status: r.Status, Doc: string(r.Doc), DeletedMs: ms(r.Deleted), UpdatedMs: tx.now,
			Tenant: tenant, Kind: string(kind), Number: int64(number), Version: row.Version,
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return &VersionError{string(kind), r.Version, r.Version + 1}
		}
		r.Version++
		r.Updated = tx.at
		if err := tx.followSender(ctx, &r); err != nil {
			return err
		}
		return tx.followDomain(ctx, &r)
	})
	if err != nil {
		return Resource{}, fmt.Errorf("change %s: %w", kind, err)
	}
	return r, nil
}
