package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// A carrier's notices about templates change the status of our templates. When the status of a template changes,
// through the carrier or through a person, running campaigns follow: campaigns whose template may no longer be used are
// suspended, and are resumed automatically once it may be used again.

// reasonTemplatePaused is the reason of the suspension.
const reasonTemplatePaused = "template_paused"

// heedTemplates changes the status of the templates that notices are about. A repeated notice changes nothing.
func (s *server) heedTemplates(ctx context.Context, notices []TemplateNotice) error {
	if len(notices) == 0 {
		return nil
	}
	tenants, err := s.Store.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, n := range notices {
		for i := range tenants {
			if err := s.heedTemplate(ctx, tenants[i].ID, &n); err != nil {
				return fmt.Errorf("template %s of tenant %s: %w", n.Name, tenants[i].ID, err)
			}
		}
	}
	return nil
}

// heedTemplate changes the status of a template of one tenant, if the tenant has the template and a channel with the
// carrier's account.
func (s *server) heedTemplate(ctx context.Context, tenant string, n *TemplateNotice) error {
	ours, err := s.hasAccount(ctx, tenant, n.Account)
	if err != nil || !ours {
		return err
	}
	return eachResource(ctx, s, tenant, store.KindTemplate, func(row *store.Resource, doc *templateDoc) error {
		name := pick(doc.ProviderID != "", doc.ProviderID, row.Name)
		if doc.Channel != schemas.ChannelName(schemas.ChannelWhatsApp) || name != n.Name || n.Language != "" && doc.Language != n.Language || row.Status == templateDraft {
			return nil
		}
		if row.Status != n.Status {
			_, err := s.Store.ChangeResource(ctx, tenant, store.KindTemplate, row.Number, 0, func(r *store.Resource) error {
				doc := &templateDoc{}
				if err := decodeDoc(r, doc); err != nil {
					return err
				}
				if r.Status == templateDraft { // the template was edited meanwhile: the notice is about the old text
					return nil
				}
				r.Status, doc.Reason = n.Status, problem.Truncate(n.Reason, 500)
				var err error
				r.Doc, err = json.Marshal(doc)
				return err
			})
			if err != nil {
				return err
			}
			s.Logger.InfoContext(ctx, "template status changed by carrier", slog.String("template", row.ID()), slog.String("tenant", tenant), slog.String("status", n.Status))
		}
		return s.followTemplate(ctx, tenant, row.ID(), n.Status)
	})
}

// hasAccount reports whether a tenant has a channel with a carrier's account.
func (s *server) hasAccount(ctx context.Context, tenant, account string) (has bool, err error) {
	err = eachResource(ctx, s, tenant, store.KindChannel, func(_ *store.Resource, doc *channelDoc) error {
		has = has || account != "" && doc.AccountID == account
		return nil
	})
	return has, err
}

// eachResource calls do with each resource of a kind that is not deleted.
func eachResource[D any](ctx context.Context, s *server, tenant string, kind store.Kind, do func(*store.Resource, *D) error) error {
	for after := uint64(0); ; {
		rows, _, err := s.Store.Resources(ctx, tenant, kind, store.ResourceFilter{Page: store.Page{Limit: 200}, After: after})
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			doc := new(D)
			if err := decodeDoc(&rows[i], doc); err != nil {
				return err
			}
			if err := do(&rows[i], doc); err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Number
	}
}

// followTemplate suspends the campaigns that use a template which may no longer be used, and resumes the campaigns that
// were suspended because of it.
func (s *server) followTemplate(ctx context.Context, tenant, template, status string) error {
	usable := status == templateApproved
	states := []schemas.State{schemas.StatePreparing, schemas.StateSending}
	if usable {
		states = []schemas.State{schemas.StateSuspended}
	}
	for after := uint64(0); ; {
		rows, _, err := s.Store.Campaigns(ctx, tenant, store.CampaignFilter{Page: store.Page{Limit: 200}, States: states, Oldest: true, After: after})
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			c := &rows[i]
			after = c.Number
			used, err := templatesOf(c)
			switch {
			case err != nil:
			case !slices.Contains(used, template):
			case usable:
				err = s.resumeForTemplate(ctx, c, used)
			default:
				err = s.suspendForTemplate(ctx, c)
			}
			if err != nil {
				return err
			}
		}
	}
}

// templatesOf returns the ids of the templates that a campaign sends.
func templatesOf(c *store.Campaign) (ids []string, err error) {
	for _, leg := range c.Legs {
		content := &fanfarev1.Content{}
		if err := proto.Unmarshal(leg.Content, content); err != nil {
			return nil, fmt.Errorf("content of %s: %w", c.ID(), err)
		}
		if id := content.GetTemplateId(); id != "" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// errMoved means that the campaign is no longer in the state in which it was found.
var errMoved = errors.New("the campaign has changed its state")

func (s *server) suspendForTemplate(ctx context.Context, c *store.Campaign) error {
	return s.moveByGuard(ctx, c, func(c *store.Campaign) (schemas.Trigger, error) {
		if c.State != schemas.StatePreparing && c.State != schemas.StateSending {
			return "", errMoved
		}
		c.State, c.Reason = schemas.StateSuspended, reasonTemplatePaused
		return schemas.TriggerSuspend, nil
	})
}

// resumeForTemplate resumes a campaign that waits for templates, if all templates that it uses may be used again.
func (s *server) resumeForTemplate(ctx context.Context, c *store.Campaign, used []string) error {
	if c.Reason != reasonTemplatePaused {
		return nil
	}
	usable, err := s.templatesUsable(ctx, c.Tenant, used)
	if err != nil || !usable {
		return err
	}
	return s.moveByGuard(ctx, c, func(c *store.Campaign) (schemas.Trigger, error) {
		if c.State != schemas.StateSuspended || c.Reason != reasonTemplatePaused {
			return "", errMoved
		}
		c.State, c.Reason = pick(c.Started.IsZero(), schemas.StatePreparing, schemas.StateSending), ""
		return schemas.TriggerResume, nil
	})
}

// templatesUsable reports whether all of the templates may be sent.
func (s *server) templatesUsable(ctx context.Context, tenant string, ids []string) (bool, error) {
	for _, id := range ids {
		row, err := s.Store.FindResource(ctx, tenant, store.KindTemplate, id)
		if errors.Is(err, schemas.ErrNotFound) {
			continue // the template was deleted: no notice about it will come, so a person must decide
		}
		if err != nil {
			return false, err
		}
		if row.Status != templateApproved {
			return false, nil
		}
	}
	return true, nil
}

func (s *server) moveByGuard(ctx context.Context, c *store.Campaign, move func(*store.Campaign) (schemas.Trigger, error)) error {
	cause := store.Cause{Actor: schemas.ActorGuard, By: "templates", RequestID: requestOf(ctx).id, Reason: reasonTemplatePaused}
	if _, err := s.Store.UpdateCampaign(ctx, c.Tenant, c.ID(), 0, cause, move); err != nil && !errors.Is(err, errMoved) {
		return fmt.Errorf("campaign %s: %w", c.ID(), err)
	}
	return nil
}
