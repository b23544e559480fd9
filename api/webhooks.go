package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"code.dny.dev/ssrf"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Webhook is an endpoint to which a tenant's events are posted (X6, R107).
type Webhook struct {
	ID          string   `json:"id" example:"webhook_10001" doc:"Given by the installation; it never changes."`
	Name        string   `json:"name" example:"shop" doc:"Unique among the tenant's webhooks."`
	URL         string   `json:"url" example:"https://example.com/hooks/fanfare" doc:"Where events are posted."`
	Status      string   `json:"status" enum:"active,paused,disabled" doc:"Events of a paused webhook wait. A disabled webhook gets no events until its status is set to active."`
	Reason      *string  `json:"reason" doc:"Why it is disabled."`
	DisabledAt  *string  `json:"disabledAt" format:"date-time" doc:"When it was disabled because requests kept failing; null: it was not."`
	Events      []string `json:"events" nullable:"false" doc:"Kinds of events that it gets; empty: all."`
	Statuses    []string `json:"statuses" nullable:"false" doc:"Statuses of the DELIVERY and READ events that it gets; empty: all."`
	Campaigns   []string `json:"campaigns" nullable:"false" doc:"Campaigns whose events it gets; empty: all campaigns and single sends."`
	Channels    []string `json:"channels" nullable:"false" doc:"Channels whose events it gets; empty: all."`
	BatchSize   int      `json:"batchSize" minimum:"1" maximum:"100" doc:"The most events in one request. Above 1, requests have the type batch and an array of events as data."`
	Secret      string   `json:"secret,omitempty" doc:"Secret that signs the requests (Standard Webhooks). Shown once, in the answer that creates it." example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
	OldSecretTo *string  `json:"oldSecretUntil" format:"date-time" doc:"Until when requests are also signed with the old secret."`
	CreatedBy   string   `json:"createdBy" doc:"Id of the person or API key that created it."`
	CreatedAt   string   `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt   string   `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	DeletedAt   *string  `json:"deletedAt" format:"date-time" doc:"When it was deleted; null: not deleted."`
	Version     uint64   `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// WebhookInput creates or changes a webhook.
type WebhookInput struct {
	Name      problem.Optional[string]   `json:"name,omitzero" doc:"Unique among the tenant's webhooks; default: the host of the URL." example:"shop"`
	URL       problem.Optional[string]   `json:"url,omitzero" doc:"https. It must not be in a private network." example:"https://example.com/hooks/fanfare"`
	Status    problem.Optional[string]   `json:"status,omitzero" doc:"active or paused. After disabled, queue missed events with POST …/recover."`
	Events    problem.Optional[[]string] `json:"events,omitzero" doc:"DELIVERY: a message was sent, delivered, failed or expired. READ: it was opened. CLICK: a person opened a link. OPT_OUT: a recipient opted out by the link in a message or by a keyword. INBOUND: a recipient wrote a message. CAMPAIGN: a campaign changed its state. ENDPOINT: another webhook was disabled. Left out: all."`
	Statuses  problem.Optional[[]string] `json:"statuses,omitzero" doc:"SENT, DELIVERED, ERROR or EXPIRED."`
	Campaigns problem.Optional[[]string] `json:"campaigns,omitzero" doc:"Ids of campaigns."`
	Channels  problem.Optional[[]string] `json:"channels,omitzero" doc:"sms, rcs, whatsapp or voice."`
	BatchSize problem.Optional[int]      `json:"batchSize,omitzero" doc:"1 to 100; 1 by default."`
}

// webhookDoc is the document that the store keeps of a webhook, besides name and status.
type webhookDoc struct {
	schemas.WebhookSettings

	reveal bool // the answer shows the secret
}

const (
	webhookTag  = "Webhooks"
	webhookPath = "/api/webhooks"
	// deliveryStatus is the second path of the same resource, so no webhook can have this name (X6).
	deliveryStatus = "delivery-status"
	maxWebhookURL  = 2000
	maxBatch       = 100
	// maxFilter is the most campaigns of a filter.
	maxFilter = 1000
)

func (s *server) webhooks() *resource[WebhookInput, webhookDoc, Webhook] {
	return &resource[WebhookInput, webhookDoc, Webhook]{
		kind: store.KindWebhook, path: webhookPath, one: "webhook", many: "webhooks", tag: webhookTag, write: store.ScopeCampaigns,
		apply: s.applyWebhook, view: s.viewWebhook,
	}
}

func (s *server) viewWebhook(row *store.Resource, d *webhookDoc) *Webhook {
	v := &Webhook{
		ID: row.ID(), Name: row.Name, URL: d.URL, Status: row.Status, Reason: orNull(d.Reason), DisabledAt: stampOrNull(d.Disabled), Events: words(d.Events),
		Statuses: words(d.Statuses), Campaigns: []string{}, Channels: orEmpty(d.Channels), BatchSize: max(d.Batch, 1), CreatedBy: row.CreatedBy,
		CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated), DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
	}
	for _, n := range d.Campaigns {
		v.Campaigns = append(v.Campaigns, schemas.CampaignID(n))
	}
	if len(d.Secrets) > 1 && s.Now().Before(d.Secrets[1].Until) {
		v.OldSecretTo = stampOrNull(d.Secrets[1].Until)
	}
	if d.reveal {
		v.Secret = d.Secrets[0].Value
	}
	return v
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

// newSecret returns a secret of 32 random bytes in the form of Standard Webhooks.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return "whsec_" + base64.StdEncoding.EncodeToString(b)
}

func (s *server) applyWebhook(ctx context.Context, who *principal, in *WebhookInput, row *store.Resource, d *webhookDoc) error {
	var ps problem.List
	if row.Version == 0 {
		row.Status = store.WebhookActive
		d.Secrets, d.reveal = []schemas.WebhookSecret{{Value: newSecret()}}, true
		d.Batch = 1
	}
	set(&in.Name, &row.Name, nil)
	if in.URL.Set || row.Version == 0 {
		d.URL = strings.TrimSpace(in.URL.Value)
		s.checkWebhookURL(&ps, d.URL)
		if u, err := url.Parse(d.URL); err == nil && row.Name == "" {
			row.Name = u.Host
		}
	}
	if row.Name = strings.TrimSpace(row.Name); row.Name == deliveryStatus {
		ps.Add(problem.CodeInvalid, "name", "%q is a path of the API. Choose another name.", deliveryStatus)
	}
	if in.Status.Set {
		row.Status = in.Status.Value
		allowedWord(&ps, "status", row.Status, store.WebhookActive, store.WebhookPaused)
		d.Reason, d.Disabled = "", time.Time{}
	}
	if in.Events.Set {
		d.Events = nil
		for _, w := range in.Events.Value {
			d.Events = append(d.Events, webhookEvent(&ps, w))
		}
	}
	if in.Statuses.Set {
		d.Statuses = nil
		for _, w := range in.Statuses.Value {
			status := schemas.WebhookStatus(strings.ToUpper(strings.TrimSpace(w)))
			if !slices.Contains(schemas.WebhookStatuses, status) {
				ps.Add(problem.CodeInvalid, "statuses", "%q is not a status: want %s.", problem.Truncate(w, 40), strings.Join(words(schemas.WebhookStatuses), ", "))
			}
			d.Statuses = append(d.Statuses, status)
		}
	}
	if in.Channels.Set {
		d.Channels = nil
		for _, w := range in.Channels.Value {
			if _, ok := schemas.ParseChannel(w); !ok || w != strings.ToLower(w) {
				ps.Add(problem.CodeInvalid, "channels", "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(w, 40))
			}
			d.Channels = append(d.Channels, w)
		}
	}
	if in.BatchSize.Set {
		if d.Batch = in.BatchSize.Value; in.BatchSize.Null {
			d.Batch = 1
		}
		if d.Batch < 1 || d.Batch > maxBatch {
			ps.Add(problem.CodeInvalid, "batchSize", "%d events in a request: want 1 to %d.", d.Batch, maxBatch)
		}
	}
	if len(d.Events) > maxFilter || len(d.Statuses) > maxFilter || len(d.Channels) > maxFilter {
		ps.Add(problem.CodeTooLong, "events", "A filter has at most %d words.", maxFilter)
	}
	if err := ps.Err(); err != nil {
		return err
	}
	if in.Campaigns.Set {
		return s.filterCampaigns(ctx, who, in.Campaigns.Value, d)
	}
	return nil
}

func webhookEvent(ps *problem.List, w string) schemas.WebhookEvent {
	event := schemas.WebhookEvent(strings.ToUpper(strings.TrimSpace(w)))
	switch {
	case slices.Contains(schemas.WebhookEvents, event):
	default:
		ps.Add(problem.CodeInvalid, "events", "%q is not an event: want %s.", problem.Truncate(w, 40), strings.Join(words(schemas.WebhookEvents), ", "))
	}
	return event
}

// filterCampaigns sets the campaigns of the filter. They must be campaigns of the tenant.
func (s *server) filterCampaigns(ctx context.Context, who *principal, ids []string, d *webhookDoc) error {
	if len(ids) > maxFilter {
		return problem.Field(problem.CodeTooLong, "campaigns", "%d campaigns; a filter names at most %d.", len(ids), maxFilter)
	}
	d.Campaigns = nil
	for _, id := range ids {
		c, err := s.Store.Campaign(ctx, who.tenant.ID, id)
		if errors.Is(err, schemas.ErrNotFound) || err == nil && c.Hidden {
			return problem.Field(problem.CodeInvalid, "campaigns", "There is no campaign %q.", problem.Truncate(id, 60))
		}
		if err != nil {
			return s.storeProblem(err)
		}
		d.Campaigns = append(d.Campaigns, c.Number)
	}
	return nil
}

// checkWebhookURL refuses URLs to which the webhook stage would never post. The stage resolves and checks host names
// again when it connects.
func (s *server) checkWebhookURL(ps *problem.List, text string) {
	if text == "" {
		ps.Add(problem.CodeRequired, "url", "url is required: the address to which events are posted.")
		return
	}
	u, err := url.Parse(text)
	switch {
	case len(text) > maxWebhookURL:
		ps.Add(problem.CodeTooLong, "url", "The URL has %d bytes: at most %d are allowed.", len(text), maxWebhookURL)
		return
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		ps.Add(problem.CodeInvalid, "url", "%q is not a URL such as https://example.com/hooks.", problem.Truncate(text, 60))
		return
	case u.User != nil:
		ps.Add(problem.CodeInvalid, "url", "The URL must not carry a user or a password: requests are signed.")
		return
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	ip, notIP := netip.ParseAddr(host)
	inside := host == "localhost" || strings.HasSuffix(host, ".localhost") || notIP == nil && guardOf(nil).SafeAddr(ip.Unmap()) != nil
	allowed := len(s.WebhookAllow) > 0 && (notIP != nil || guardOf(s.WebhookAllow).SafeAddr(ip.Unmap()) == nil)
	switch {
	case inside && !allowed:
		ps.Add(problem.CodeInvalid, "url", "%s is in a private network, which is not allowed. An operator allows ranges with --webhook-allow.", problem.Truncate(host, 60))
	case u.Scheme == "https", u.Scheme == "http" && allowed:
	case u.Scheme == "http":
		ps.Add(problem.CodeInvalid, "url", "The URL must begin with https: events name phone numbers.")
	default:
		ps.Add(problem.CodeInvalid, "url", "%q is not a URL such as https://example.com/hooks.", problem.Truncate(text, 60))
	}
}

// guardOf returns the same check of addresses that the webhook stage uses when it connects.
func guardOf(allow []netip.Prefix) *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
}
