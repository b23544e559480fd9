package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/hours"
)

// WebhookRotation replaces the secret of a webhook.
type WebhookRotation struct {
	OverlapHours *int `json:"overlapHours,omitzero" doc:"How many hours requests are also signed with the old secret, so that the receiver can change to the new one: 0 to 168; default: 24."`
}

// WebhookRecovery says from which time on events are posted again.
type WebhookRecovery struct {
	Since string `json:"since" format:"date-time" doc:"At most 35 days ago." example:"2025-04-15T09:00:00Z"`
}

// WebhookRecovering is the answer to a recovery.
type WebhookRecovering struct {
	Since       string `json:"since" format:"date-time" doc:"Events from this time on are posted again."`
	QueuedAgain int    `json:"queuedAgain" doc:"Failed events that are tried again. Events that were never queued for the webhook are read from Kafka and follow within seconds to minutes."`
}

// WebhookHealth is the health of a webhook.
type WebhookHealth struct {
	Pending         int     `json:"pending" doc:"Events that wait, counted up to 10,000."`
	Failures        int     `json:"failures" doc:"Failed requests in a row."`
	FailingSince    *string `json:"failingSince" format:"date-time" doc:"All requests since then have failed; after five days the webhook is disabled."`
	LastSuccess     *string `json:"lastSuccessAt" format:"date-time" doc:"When the endpoint last took an event; null: it never has."`
	NextTry         *string `json:"notBefore" format:"date-time" doc:"Nothing is posted before this time, because requests failed or the endpoint sent Retry-After."`
	RecoveringSince *string `json:"recoveringSince" format:"date-time" doc:"Events since this time are being read from Kafka again."`
}

// WebhookDelivery is one event for a webhook, with the answer of its endpoint.
type WebhookDelivery struct {
	ID         string  `json:"id" example:"4711" doc:"Value for the parameter after."`
	EventID    string  `json:"eventId" example:"evt_5f2vgyd3kxq4mbbq2x7e3m5a" doc:"Value of the header webhook-id, or id within a batch."`
	Type       string  `json:"type" example:"message.delivered" doc:"What happened."`
	Subject    string  `json:"subject" doc:"Id of the message or campaign that the event is about."`
	Time       string  `json:"time" format:"date-time" doc:"When it happened."`
	State      string  `json:"state" enum:"pending,delivered,failed" doc:"pending: it waits for a try. delivered: the endpoint took it. failed: it is not tried again."`
	Tries      int     `json:"tries" doc:"Requests made so far."`
	NextTryAt  *string `json:"nextTryAt" format:"date-time" doc:"Not before this time; null: no try follows."`
	TriedAt    *string `json:"triedAt" format:"date-time" doc:"When it was last tried; null: not yet."`
	StatusCode *int    `json:"statusCode" doc:"HTTP status of the last answer; null: no answer."`
	Answer     *string `json:"answer" doc:"The first 512 bytes of the last answer."`
	Error      *string `json:"error" doc:"Why the last try failed."`
	DurationMS int64   `json:"durationMs" doc:"How long the last try took."`
}

type (
	webhookRotateIn struct {
		ID      string `path:"id" doc:"Id or name."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    *problem.Body[WebhookRotation]
	}
	webhookRecoverIn struct {
		ID   string `path:"id" doc:"Id or name."`
		Body problem.Body[WebhookRecovery]
	}
	webhookRecoverOut struct{ Body *WebhookRecovering }
	webhookHealthOut  struct{ Body *WebhookHealth }
	webhookTestOut    struct{ Body *WebhookDelivery }
	webhookItemsIn    struct {
		ID    string `path:"id" doc:"Id or name."`
		State string `query:"state" enum:"pending,delivered,failed" doc:"Only those in this state."`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"10" doc:"The most rows of the answer."`
		After string `query:"after" doc:"Id of the last event of the page before: continues behind it, without gap or repetition when events are added meanwhile."`
	}
	webhookItemsOut struct{ Body *Page[*WebhookDelivery] }
)

// registerWebhooks registers webhooks at both of their paths (X6).
func (s *server) registerWebhooks() {
	main, alias := s.webhooks(), s.webhooks()
	alias.path, alias.alias = webhookPath+"/"+deliveryStatus, "DeliveryStatusWebhook"
	for _, r := range []*resource[WebhookInput, webhookDoc, Webhook]{alias, main} {
		registerResource(s, r)
		s.registerWebhookActions(r)
	}
}

func (s *server) registerWebhookActions(r *resource[WebhookInput, webhookDoc, Webhook]) {
	name, at := "Webhook", r.path+"/{id}"
	if r.alias != "" {
		name = r.alias
	}
	register(s, operation{
		id: "rotate" + name, method: http.MethodPost, path: at + "/rotate", summary: "Replace the secret of a webhook", scope: r.write, tag: r.tag,
		errors: []int{400, 404, 409, 412, 422}, describe: "Requests are signed with the new secret and, for overlapHours, also with the old one.",
	}, func(ctx context.Context, in *webhookRotateIn) (*resourceOut[Webhook], error) {
		return s.rotateWebhook(ctx, r, in)
	})
	register(s, operation{
		id: "recover" + name, method: http.MethodPost, path: at + "/recover", summary: "Post events since a time again", scope: r.write, tag: r.tag,
		status: http.StatusAccepted, errors: []int{400, 404, 422},
		describe: "Posts events that failed, and events that the webhook missed while it was disabled or did not exist. Events that it has accepted within the last seven days are not posted again.",
	}, func(ctx context.Context, in *webhookRecoverIn) (*webhookRecoverOut, error) {
		return s.recoverWebhook(ctx, r, in)
	})
	register(s, operation{
		id: "test" + name, method: http.MethodPost, path: at + "/test", summary: "Post a test event to a webhook and return its answer", scope: r.write, tag: r.tag,
		errors: []int{404}, describe: "The event has the type webhook.test, and is tried once. When no process with the role webhook runs, its state stays pending.",
	}, func(ctx context.Context, in *resourceIn) (*webhookTestOut, error) {
		return s.testWebhook(ctx, r, in.ID)
	})
	register(s, operation{
		id: "get" + name + "Health", method: http.MethodGet, path: at + "/health", summary: "Get the health of a webhook", scope: store.ScopeRead, tag: r.tag, errors: []int{404},
	}, func(ctx context.Context, in *resourceIn) (*webhookHealthOut, error) {
		row, err := r.find(ctx, s, in.ID)
		if err != nil {
			return nil, err
		}
		h, pending, err := s.Store.WebhookHealth(ctx, row.Tenant, row.Number)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return &webhookHealthOut{&WebhookHealth{
			Pending: pending, Failures: h.Failures, FailingSince: stampOrNull(h.Failing), LastSuccess: stampOrNull(h.Succeeded), NextTry: stampOrNull(h.NotBefore),
			RecoveringSince: stampOrNull(h.Recover),
		}}, nil
	})
	register(s, operation{
		id: "list" + name + "Deliveries", method: http.MethodGet, path: at + "/deliveries", summary: "List the events of a webhook with the answers, newest first",
		scope: store.ScopeRead, tag: r.tag, errors: []int{404, 422}, describe: "Events are kept for seven days after they were delivered or given up. total counts only the events of the page.",
	}, func(ctx context.Context, in *webhookItemsIn) (*webhookItemsOut, error) {
		return s.webhookItems(ctx, r, in)
	})
}

// maxSecrets is the most secrets that sign: the new one and old ones in their overlap. With more rotations, the oldest
// secret is dropped.
const maxSecrets = 3

func (s *server) rotateWebhook(ctx context.Context, r *resource[WebhookInput, webhookDoc, Webhook], in *webhookRotateIn) (*resourceOut[Webhook], error) {
	overlap := 24
	if in.Body != nil && in.Body.Value.OverlapHours != nil {
		overlap = *in.Body.Value.OverlapHours
	}
	if overlap < 0 || overlap > 168 {
		return nil, problem.Field(problem.CodeInvalid, "overlapHours", "%d hours: want 0 to 168.", overlap)
	}
	secret, now := newSecret(), s.Now()
	out, err := r.change(ctx, s, in.ID, in.IfMatch, func(_ *principal, _ *store.Resource, d *webhookDoc) error {
		old := slices.DeleteFunc(d.Secrets, func(o schemas.WebhookSecret) bool { return !o.Until.IsZero() && !now.Before(o.Until) })
		for i := range old {
			if until := now.Add(time.Duration(overlap) * time.Hour); old[i].Until.IsZero() || until.Before(old[i].Until) {
				old[i].Until = until
			}
		}
		d.Secrets = append([]schemas.WebhookSecret{{Value: secret}}, old...)
		d.Secrets = d.Secrets[:min(len(d.Secrets), maxSecrets)]
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Body.Secret = secret
	return out, nil
}

func (s *server) recoverWebhook(ctx context.Context, r *resource[WebhookInput, webhookDoc, Webhook], in *webhookRecoverIn) (*webhookRecoverOut, error) {
	row, err := r.find(ctx, s, in.ID)
	if err != nil {
		return nil, err
	}
	since, _, err := hours.ParseInstant(in.Body.Value.Since)
	switch now := s.Now(); {
	case in.Body.Value.Since == "":
		return nil, problem.Field(problem.CodeRequired, "since", "since is required: the time from which events are posted again, such as %s.", stamp(now.Add(-time.Hour)))
	case err != nil:
		return nil, problem.Field(problem.CodeInvalid, "since", "%s: want RFC 3339, such as %s.", err.Error(), stamp(now.Add(-time.Hour)))
	case since.After(now):
		return nil, problem.Field(problem.CodeInvalid, "since", "%s is in the future.", stamp(since))
	case since.Before(now.Add(-refSpan)):
		return nil, problem.Field(problem.CodeInvalid, "since", "%s is too long ago: events are kept for 35 days, since %s.", stamp(since), stamp(now.Add(-refSpan)))
	}
	if row.Status != store.WebhookActive {
		return nil, problem.New(problem.CodeWrongState, "The webhook is %s.", row.Status).WithFix("Set its status to active first.")
	}
	n, err := s.Store.RecoverWebhook(ctx, row.Tenant, row.Number, since)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &webhookRecoverOut{&WebhookRecovering{Since: stamp(since), QueuedAgain: n}}, nil
}

// webhookTestWait is how long a test waits for the endpoint's answer: somewhat longer than a request may take.
const webhookTestWait = 7 * time.Second

func (s *server) testWebhook(ctx context.Context, r *resource[WebhookInput, webhookDoc, Webhook], ref string) (*webhookTestOut, error) {
	row, err := r.find(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	if row.Status != store.WebhookActive {
		return nil, problem.New(problem.CodeWrongState, "The webhook is %s.", row.Status).WithFix("Set its status to active first.")
	}
	data, err := json.Marshal(map[string]string{"event": string(schemas.WebhookTest), "endpointId": row.ID(), "message": "This is a test."})
	if err != nil {
		return nil, err
	}
	event := schemas.WebhookEventID("test", row.ID(), rand.Text())
	err = s.Store.QueueWebhooks(ctx, []schemas.WebhookItem{{
		Tenant: row.Tenant, Endpoint: row.Number, EventID: event, Type: schemas.WebhookTestType, Order: event, Data: data, Time: s.Now(),
		Due: time.UnixMilli(1), // before all waiting events
	}}, nil)
	if err == nil {
		err = s.Store.HurryWebhook(ctx, row.Tenant, row.Number)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	wait, cancel := context.WithTimeout(ctx, webhookTestWait)
	defer cancel()
	for {
		it, err := s.Store.WebhookItem(ctx, row.Tenant, row.Number, event)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		if it.State != schemas.WebhookPending || wait.Err() != nil {
			return &webhookTestOut{viewWebhookItem(&it)}, nil
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-wait.Done():
			timer.Stop()
		}
	}
}

func (s *server) webhookItems(ctx context.Context, r *resource[WebhookInput, webhookDoc, Webhook], in *webhookItemsIn) (*webhookItemsOut, error) {
	f := store.WebhookFilter{Limit: in.Limit}
	if in.State != "" {
		for _, state := range []schemas.WebhookItemState{schemas.WebhookPending, schemas.WebhookDone, schemas.WebhookGivenUp} {
			if state.String() == in.State {
				f.State = &state
			}
		}
		if f.State == nil {
			return nil, problem.Field(problem.CodeInvalid, "state", "%q is not a state: want pending, delivered or failed.", problem.Truncate(in.State, 40))
		}
	}
	if in.After != "" {
		var err error
		if f.After, err = strconv.ParseUint(in.After, 10, 63); err != nil {
			return nil, problem.Field(problem.CodeInvalid, "after", "%q is not the id of a delivery.", problem.Truncate(in.After, 40))
		}
	}
	row, err := r.find(ctx, s, in.ID)
	if err != nil {
		return nil, err
	}
	items, err := s.Store.WebhookItems(ctx, row.Tenant, row.Number, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*WebhookDelivery]{Data: []*WebhookDelivery{}, Limit: in.Limit, Total: len(items)}
	for i := range items {
		out.Data = append(out.Data, viewWebhookItem(&items[i]))
	}
	return &webhookItemsOut{out}, nil
}

func viewWebhookItem(it *schemas.WebhookItem) *WebhookDelivery {
	v := &WebhookDelivery{
		ID: strconv.FormatUint(it.ID, 10), EventID: it.EventID, Type: it.Type, Subject: it.Order, Time: stamp(it.Time), State: it.State.String(), Tries: it.Tries,
		TriedAt: stampOrNull(it.Tried), Answer: orNull(it.Answer), Error: orNull(it.Error), DurationMS: it.Took.Milliseconds(),
	}
	if it.State == schemas.WebhookPending {
		v.NextTryAt = stampOrNull(it.Due)
	}
	if it.Status != 0 {
		v.StatusCode = new(it.Status)
	}
	return v
}
