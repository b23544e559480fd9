package storetest

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
)

// theirs are the rows of one tenant. No call below may read or change them on behalf of another tenant.
type theirs struct {
	list     store.List
	contact  store.Contact
	campaign store.Campaign
	key      store.Key
	imported store.ImportReport
	upload   store.Upload
	hidden   store.Lease
	resource store.Resource
	hook     store.Resource
	job      store.Job
	erasure  store.Job
	// conversation has a message that waits for a review.
	conversation string
	review       uint64
	// replay replays origin.
	origin, replay store.Campaign
}

// A call asks, as tenant me, for the rows of the other tenant. The store must answer as if they did not exist: with
// ErrNotFound, or with no rows.
type call func(e *env, me string, x theirs) error

// missing is what a call returns if the store returned no error and revealed nothing.
var missing = schemas.ErrNotFound

func none[T any](rows []T, err error) error {
	if err == nil && len(rows) == 0 {
		return missing
	}
	return err
}

// calls has an entry for every method of Store that acts on behalf of a tenant.
var calls = map[string]call{
	"Tenant":         nil, // the tenant itself is the argument
	"UpdateTenant":   nil,
	"Prices":         nil,
	"SetPrice":       nil,
	"PutPrices":      nil,
	"PriceList":      nil,
	"Balance":        nil,
	"TopUp":          nil,
	"Withdraw":       nil,
	"SetCredit":      nil,
	"CreateKey":      nil,
	"CreateList":     nil,
	"CreateResource": nil,
	"Domains":        nil, // the tenant itself is the argument
	"DomainUse": func(e *env, me string, x theirs) error {
		rows, err := e.s.DomainUse(e.Context(), me, x.campaign.Number)
		if err == nil && len(rows) == 0 {
			return missing
		}
		return err
	},
	"AllotDomains": func(e *env, me string, x theirs) error {
		_, err := e.s.AllotDomains(e.Context(), schemas.DomainRequest{Tenant: me, Campaign: x.origin.ID(), Number: x.origin.Number, FreezeID: x.origin.FreezeID, Want: 10})
		return err
	},
	"Resource": func(e *env, me string, x theirs) error {
		_, err := e.s.Resource(e.Context(), me, store.KindTemplate, x.resource.Number)
		return err
	},
	"FindResource": func(e *env, me string, x theirs) error {
		_, err := e.s.FindResource(e.Context(), me, store.KindTemplate, x.resource.ID())
		return err
	},
	"Resources": func(e *env, me string, _ theirs) error {
		rows, _, err := e.s.Resources(e.Context(), me, store.KindTemplate, store.ResourceFilter{})
		return none(rows, err)
	},
	"ResourceNames": func(e *env, me string, _ theirs) error {
		return none(e.s.ResourceNames(e.Context(), me, store.KindTemplate))
	},
	"ChangeResource": func(e *env, me string, x theirs) error {
		_, err := e.s.ChangeResource(e.Context(), me, store.KindTemplate, x.resource.Number, 0, func(*store.Resource) error { return nil })
		return err
	},
	"WebhookHealth": func(e *env, me string, x theirs) error {
		_, _, err := e.s.WebhookHealth(e.Context(), me, x.hook.Number)
		return err
	},
	"WebhookItems": func(e *env, me string, x theirs) error {
		return none(e.s.WebhookItems(e.Context(), me, x.hook.Number, store.WebhookFilter{}))
	},
	"WebhookItem": func(e *env, me string, x theirs) error {
		_, err := e.s.WebhookItem(e.Context(), me, x.hook.Number, "evt_theirs")
		return err
	},
	"RecoverWebhook": func(e *env, me string, x theirs) error {
		_, err := e.s.RecoverWebhook(e.Context(), me, x.hook.Number, start)
		return err
	},
	"HurryWebhook": func(e *env, me string, x theirs) error {
		return errors.Join(e.s.HurryWebhook(e.Context(), me, x.hook.Number), missing)
	},
	"DisableWebhook": func(e *env, me string, x theirs) error {
		return errors.Join(e.s.DisableWebhook(e.Context(), me, x.hook.Number, "theirs"), missing)
	},
	"CampaignMoves": func(e *env, me string, x theirs) error {
		return none(e.s.CampaignMoves(e.Context(), me, x.campaign.ID()))
	},
	"CampaignsSending": func(e *env, me string, _ theirs) error {
		return none(e.s.CampaignsSending(e.Context(), me, start.Add(-time.Hour), start.Add(time.Hour), 10))
	},
	"OrderJob":     nil,
	"OrderSegment": nil,
	"OrderErasure": nil,
	"EraseRows": func(e *env, me string, _ theirs) error {
		_, _, err := e.s.EraseRows(e.Context(), me, mobile(1), plainAnswers)
		return errors.Join(err, missing)
	},
	"EraseExports": func(e *env, me string, _ theirs) error {
		_, err := e.s.EraseExports(e.Context(), me)
		return errors.Join(err, missing)
	},
	"EraseWebhooks": func(e *env, me string, _ theirs) error {
		_, err := e.s.EraseWebhooks(e.Context(), me, mobile(9))
		return errors.Join(err, missing)
	},
	"EraseReferences": func(e *env, me string, x theirs) error {
		_, err := e.s.EraseReferences(e.Context(), me, map[string]*roaring.Bitmap{x.origin.ID(): roaring.BitmapOf(0, 1)})
		return errors.Join(err, missing)
	},
	"Erasures": func(e *env, me string, _ theirs) error {
		rows, _, err := e.s.Erasures(e.Context(), me, store.Page{})
		return none(rows, err)
	},
	"Erasure": func(e *env, me string, x theirs) error {
		_, err := e.s.Erasure(e.Context(), me, x.erasure.ID)
		return err
	},
	"ContactsByNumber": func(e *env, me string, x theirs) error {
		return none(e.s.ContactsByNumber(e.Context(), me, []uint64{x.contact.Number}))
	},
	"Job": func(e *env, me string, x theirs) error {
		_, err := e.s.Job(e.Context(), me, x.job.Kind, x.job.ID)
		return err
	},
	"Jobs": func(e *env, me string, x theirs) error {
		rows, _, err := e.s.Jobs(e.Context(), me, store.JobFilter{Kind: x.job.Kind})
		return none(rows, err)
	},
	"JobParts": func(e *env, me string, x theirs) error {
		return e.s.JobParts(e.Context(), me, x.job.Kind, x.job.ID, func([]byte) error { return errors.New("some") })
	},
	"CancelJob": func(e *env, me string, x theirs) error { return e.s.CancelJob(e.Context(), me, x.job.Kind, x.job.ID) },
	"RemoveJob": func(e *env, me string, x theirs) error { return e.s.RemoveJob(e.Context(), me, x.job.Kind, x.job.ID) },
	"PutSender": nil,
	"LeaseSeqs": nil,
	"Suppress":  nil,
	"Keys":      func(e *env, me string, _ theirs) error { return none(e.s.Keys(e.Context(), me)) },
	"RevokeKey": func(e *env, me string, x theirs) error { return e.s.RevokeKey(e.Context(), me, x.key.ID, 0) },
	"Sender": func(e *env, me string, _ theirs) error {
		_, err := e.s.Sender(e.Context(), me, "THEIRS")
		return err
	},
	"Senders": func(e *env, me string, _ theirs) error {
		rows, err := e.s.Senders(e.Context(), me)
		if len(rows) != 1 || rows[0].ID != "FANFARE" {
			return errors.New("not only the own sender")
		}
		return errors.Join(err, missing)
	},
	"DeleteSender": func(e *env, me string, _ theirs) error { return e.s.DeleteSender(e.Context(), me, "THEIRS") },
	"Ledger": func(e *env, me string, x theirs) error {
		_, err := e.s.Ledger(e.Context(), me, x.campaign.ID(), store.Page{})
		return errors.Join(err, none(e.s.Ledger(e.Context(), me, "", store.Page{})))
	},
	"CountCampaigns": func(e *env, me string, _ theirs) error {
		rows, err := e.s.CountCampaigns(e.Context(), me, time.Time{}, time.Time{})
		since, err2 := e.s.CountCampaigns(e.Context(), me, start.Add(-time.Hour), time.Time{})
		return errors.Join(none(rows, err), none(since, err2))
	},
	"Unkept": func(e *env, me string, _ theirs) error { return none(e.s.Unkept(e.Context(), me, 0, 10)) },
	"EachSending": func(e *env, me string, _ theirs) error {
		var found []uint64
		err := e.s.EachSending(e.Context(), me, time.Time{}, time.Time{}, func(_ schemas.Channel, c *store.Sending) { found = append(found, c.Number) })
		return none(found, err)
	},
	"KeepFigures": func(e *env, me string, x theirs) error {
		return e.s.KeepFigures(e.Context(), me, map[uint64]store.KeptFigures{x.campaign.Number: {Total: 1}})
	},
	"CorrectFigures": func(e *env, me string, x theirs) error {
		c := x.campaign
		c.Tenant = me
		return errors.Join(e.s.CorrectFigures(e.Context(), &c, store.KeptFigures{Total: 9}), missing)
	},
	"SumFigures": func(e *env, me string, _ theirs) error {
		if sum, err := e.s.SumFigures(e.Context(), me, time.Time{}, time.Time{}); err != nil || sum != (store.KeptFigures{}) {
			return errors.New("the figures of another tenant")
		}
		return missing
	},
	"LeaseCredit": func(e *env, me string, x theirs) error {
		_, err := e.s.LeaseCredit(e.Context(), me, x.hidden.CampaignID(), 1, 1)
		return err
	},
	"ReturnCredit": func(e *env, me string, x theirs) error {
		return e.s.ReturnCredit(e.Context(), me, x.hidden.CampaignID(), 1)
	},
	"List": func(e *env, me string, x theirs) error {
		_, err := e.s.List(e.Context(), me, x.list.Number)
		return err
	},
	"FindList": func(e *env, me string, x theirs) error {
		_, byID := e.s.FindList(e.Context(), me, x.list.ID())
		_, byName := e.s.FindList(e.Context(), me, x.list.Name)
		if byID == nil || byName == nil {
			return nil
		}
		return byID
	},
	"Lists": func(e *env, me string, _ theirs) error {
		rows, n, err := e.s.Lists(e.Context(), me, store.ListFilter{Search: "theirs", IncludeDeleted: true})
		if n != 0 {
			return nil
		}
		return none(rows, err)
	},
	"UpdateList": func(e *env, me string, x theirs) error {
		_, err := e.s.UpdateList(e.Context(), me, x.list.Number, 0, func(l *store.List) error { l.Name = "mine"; return nil })
		return err
	},
	"DeleteList": func(e *env, me string, x theirs) error { return e.s.DeleteList(e.Context(), me, x.list.Number, 0) },
	"AddToList": func(e *env, me string, x theirs) error {
		_, toTheirs := e.s.AddToList(e.Context(), me, x.list.Number, nil)
		mine, err := e.s.CreateList(e.Context(), me, "mine to fill", false)
		e.must(err)
		_, theirContact := e.s.AddToList(e.Context(), me, mine.Number, []uint64{x.contact.Number})
		e.must(e.s.DeleteList(e.Context(), me, mine.Number, 0))
		if toTheirs == nil || theirContact == nil {
			return nil
		}
		return toTheirs
	},
	"RemoveFromList": func(e *env, me string, x theirs) error {
		_, err := e.s.RemoveFromList(e.Context(), me, x.list.Number, []uint64{x.contact.Number})
		return err
	},
	"CreateContact": func(e *env, me string, x theirs) error {
		// In my tenant the same number is another contact. The store must create it: the number is not taken, and the
		// result is not the other tenant's contact.
		c, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: me, Phone: x.contact.Phone})
		if err == nil && c.Number != x.contact.Number {
			e.must(e.s.DeleteContact(e.Context(), me, c.Number, 0))
			return missing
		}
		return err
	},
	"Contact": func(e *env, me string, x theirs) error {
		_, err := e.s.Contact(e.Context(), me, x.contact.Number)
		return err
	},
	"ContactByPhone": func(e *env, me string, _ theirs) error {
		_, err := e.s.ContactByPhone(e.Context(), me, mobile(2))
		return err
	},
	"Contacts": func(e *env, me string, x theirs) error {
		_, _, ofList := e.s.Contacts(e.Context(), me, store.ContactFilter{List: x.list.Number})
		rows, _, err := e.s.Contacts(e.Context(), me, store.ContactFilter{})
		if ofList == nil {
			return nil
		}
		return none(rows, err)
	},
	"UpdateContact": func(e *env, me string, x theirs) error {
		_, err := e.s.UpdateContact(e.Context(), me, x.contact.Number, 0, func(c *store.Contact) error { c.FirstName = "X"; return nil })
		return err
	},
	"DeleteUnusedList": func(e *env, me string, x theirs) error {
		return e.s.DeleteUnusedList(e.Context(), me, x.list.Number, 0)
	},
	"OptOuts":     nil, // changes only the tenant's own row for the number
	"LiftOptOuts": nil,
	"NewestLedger": func(e *env, me string, x theirs) error {
		_, _, err := e.s.NewestLedger(e.Context(), me, store.LedgerFilter{Campaign: x.campaign.ID()})
		return err
	},
	"Tags": func(e *env, me string, _ theirs) error { return none(e.s.Tags(e.Context(), me)) },
	"ReplaceTag": func(e *env, me string, _ theirs) error {
		n, err := e.s.ReplaceTag(e.Context(), me, "theirs", "mine", user)
		if n == 0 && err == nil {
			return missing
		}
		return err
	},
	"ListsOfContact": func(e *env, me string, x theirs) error {
		return none(e.s.ListsOfContact(e.Context(), me, x.contact.Number))
	},
	"DeleteContact": func(e *env, me string, x theirs) error {
		return e.s.DeleteContact(e.Context(), me, x.contact.Number, 0)
	},
	"Import": func(e *env, me string, x theirs) error {
		_, err := e.s.Import(e.Context(), me, x.list.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader("phone\n"), nil)
		return err
	},
	"ImportReport": func(e *env, me string, x theirs) error {
		_, err := e.s.ImportReport(e.Context(), me, x.imported.ID)
		return err
	},
	"Imports": func(e *env, me string, _ theirs) error {
		rows, _, err := e.s.Imports(e.Context(), me, store.ImportFilter{})
		return none(rows, err)
	},
	"ImportRejects": func(e *env, me string, x theirs) error {
		return e.s.ImportRejects(e.Context(), me, x.imported.ID, func([]store.Rejected) error { return errors.New("some") })
	},
	"CancelImport": func(e *env, me string, x theirs) error { return e.s.CancelImport(e.Context(), me, x.imported.ID) },
	"SaveUpload":   nil, // creates a row of the tenant itself
	"GetUpload": func(e *env, me string, x theirs) error {
		_, err := e.s.GetUpload(e.Context(), me, x.upload.ID)
		return err
	},
	"StartImport": func(e *env, me string, x theirs) error {
		_, err := e.s.StartImport(e.Context(), me, x.list.Number, x.upload.ID, store.ImportOptions{})
		return err
	},
	"CreateCampaign": func(e *env, me string, x theirs) error {
		_, err := e.s.CreateCampaign(e.Context(), store.Campaign{
			Tenant: me, State: draft, Spec: store.Spec{Name: "x", Chain: []schemas.Channel{sms}, Lists: []uint64{x.list.Number}},
		}, user)
		return err
	},
	"Campaign": func(e *env, me string, x theirs) error {
		_, err := e.s.Campaign(e.Context(), me, x.campaign.ID())
		return err
	},
	"Campaigns": func(e *env, me string, _ theirs) error {
		rows, n, err := e.s.Campaigns(e.Context(), me, store.CampaignFilter{IncludeDeleted: true})
		if n != 0 {
			return nil
		}
		return none(rows, err)
	},
	"UpdateCampaign": func(e *env, me string, x theirs) error {
		_, err := e.s.UpdateCampaign(e.Context(), me, x.campaign.ID(), 0, user, func(*store.Campaign) (schemas.Trigger, error) { return "", nil })
		return err
	},
	"OrderAmbiguous": func(e *env, me string, x theirs) error {
		_, err := e.s.OrderAmbiguous(e.Context(), me, x.campaign.ID(), 0, schemas.AmbiguousActionGiveUp, user)
		return err
	},
	"RemoveCampaign": func(e *env, me string, x theirs) error {
		_, err := e.s.RemoveCampaign(e.Context(), me, x.campaign.ID(), 0, user)
		return err
	},
	"CampaignEvents": func(e *env, me string, x theirs) error {
		_, err := e.s.CampaignEvents(e.Context(), me, x.campaign.ID())
		return err
	},
	"Confirm": func(e *env, me string, x theirs) error {
		_, err := e.s.Confirm(e.Context(), me, x.campaign.ID(), 0, user, func(_ store.Confirmation, c *store.Campaign) (uint64, error) {
			c.State = preparing
			return 0, nil
		})
		return err
	},
	"ListFields": func(e *env, me string, x theirs) error {
		_, err := e.s.ListFields(e.Context(), me, []uint64{x.list.Number})
		return err
	},
	"CountCampaign": func(e *env, me string, x theirs) error {
		c := x.campaign
		c.Tenant = me
		_, err := e.s.CountCampaign(e.Context(), &c)
		return err
	},
	"CreateReplay": func(e *env, me string, x theirs) error {
		_, err := e.s.CreateReplay(e.Context(), store.Campaign{Tenant: me, State: configured, Spec: x.campaign.Spec}, &x.campaign, "{}", roaring.BitmapOf(0), user)
		return err
	},
	"ReplayOf": func(e *env, me string, x theirs) error {
		_, err := e.s.ReplayOf(e.Context(), me, x.replay.Number)
		return err
	},
	"Replays": func(e *env, me string, x theirs) error {
		found, err := e.s.Replays(e.Context(), me, x.origin.Number)
		if len(found) == 0 && err == nil {
			return missing
		}
		return err
	},
	"ReplaySample": func(e *env, me string, x theirs) error {
		c := x.replay
		c.Tenant = me
		_, err := e.s.ReplaySample(e.Context(), &c, 1)
		return err
	},
	"CountAudience": func(e *env, me string, x theirs) error {
		_, err := e.s.CountAudience(e.Context(), me, []uint64{x.list.Number}, sms)
		return err
	},
	"Apply": func(e *env, me string, x theirs) error {
		_, err := e.s.Apply(e.Context(), schemas.Change{
			Tenant: me, Campaign: x.campaign.ID(), Version: x.campaign.Version, To: sending, Trigger: schemas.TriggerDeal, Actor: schemas.ActorScheduler,
		})
		return err
	},
	"AudienceSize": func(e *env, me string, x theirs) error {
		_, err := e.s.AudienceSize(e.Context(), me, x.campaign.ID())
		return err
	},
	"Freeze": func(e *env, me string, x theirs) error {
		return e.s.Freeze(e.Context(), me, x.campaign.ID(), x.campaign.Version)
	},
	"Lift": func(e *env, me string, _ theirs) error {
		e.must(e.s.Lift(e.Context(), me, "api", mobile(2)))
		return missing // the test compares the other tenant's rows after all calls
	},
	"RecordOptOut": func(e *env, me string, _ theirs) error {
		e.must(e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{ID: "theirs", Tenant: me, Phone: mobile(4), Source: "link", Time: start}))
		e.must(e.s.Lift(e.Context(), me, "api", mobile(4)))
		return missing // the test compares the other tenant's rows after all calls
	},
	"RecordMessage": func(e *env, me string, _ theirs) error {
		_, err := e.s.RecordMessage(e.Context(), messageFact(me, "theirs", mobile(4), "STOP", schemas.ReplyMeaningOptOut))
		e.must(err)
		e.must(e.s.Lift(e.Context(), me, "api", mobile(4)))
		return missing // the test compares the other tenant's rows after all calls
	},
	"AddReply": func(e *env, me string, x theirs) error {
		return e.s.AddReply(e.Context(), me, &store.ConversationMessage{Conversation: x.conversation, Text: "theirs", Time: start})
	},
	"Conversation": func(e *env, me string, x theirs) error {
		_, err := e.s.Conversation(e.Context(), me, x.conversation)
		return err
	},
	"CountConversations": func(e *env, me string, _ theirs) error {
		n, err := e.s.CountConversations(e.Context(), me)
		if err == nil && n.Reviews == 0 {
			return missing
		}
		return err
	},
	"Conversations": func(e *env, me string, _ theirs) error {
		rows, _, err := e.s.Conversations(e.Context(), me, store.ConversationFilter{Review: true})
		return none(rows, err)
	},
	"ConversationMessages": func(e *env, me string, x theirs) error {
		return none(e.s.ConversationMessages(e.Context(), me, x.conversation, 0, 10))
	},
	"ChangeConversation": func(e *env, me string, x theirs) error {
		_, err := e.s.ChangeConversation(e.Context(), me, x.conversation, 0, store.ConversationChange{State: new(store.ConversationClosed)})
		return err
	},
	"Reviews": func(e *env, me string, _ theirs) error {
		rows, _, err := e.s.Reviews(e.Context(), me, 0, 10)
		return none(rows, err)
	},
	"Review": func(e *env, me string, x theirs) error {
		_, err := e.s.Review(e.Context(), me, x.review)
		return err
	},
	"DecideReview": func(e *env, me string, x theirs) error {
		_, err := e.s.DecideReview(e.Context(), me, x.review, true, "me")
		return err
	},
	"Suppressed": func(e *env, me string, _ theirs) error {
		if out, err := e.s.Suppressed(e.Context(), me, mobile(2), sms); out || err != nil {
			return err
		}
		return missing
	},
	"Suppressions": func(e *env, me string, _ theirs) error {
		rows, n, err := e.s.Suppressions(e.Context(), me, store.Page{}, "")
		if n != 0 {
			return nil
		}
		return none(rows, err)
	},
	"SuppressionLog": func(e *env, me string, _ theirs) error { return none(e.s.SuppressionLog(e.Context(), me, mobile(2))) },
	"WaitPublished": func(e *env, me string, _ theirs) error {
		e.must(e.s.WaitPublished(e.Context(), me, mobile(2))) // the other tenant's opt-out is unpublished: if this call waited, it would reveal that
		return missing
	},
	"Begin": func(e *env, me string, _ theirs) error {
		c, err := e.s.Begin(e.Context(), me, "r", "theirs", []byte("other"))
		if err == nil && c.State == store.ClaimNew {
			return missing
		}
		return err
	},
	"ReserveIDs": func(e *env, me string, _ theirs) error {
		return asConflict(e.s.ReserveIDs(e.Context(), claim(me), []byte("x")))
	},
	"Finish": func(e *env, me string, _ theirs) error {
		return asConflict(e.s.Finish(e.Context(), claim(me), 200, nil))
	},
	"Forget": func(e *env, me string, _ theirs) error { return asConflict(e.s.Forget(e.Context(), claim(me))) },
}

func claim(me string) store.Claim { return store.Claim{Tenant: me, Route: "r", Key: "theirs"} }

func asConflict(err error) error {
	if errors.Is(err, schemas.ErrConflict) {
		return missing
	}
	return err
}

// notScoped are the methods that are not called on behalf of one tenant, with the reason.
var notScoped = map[string]string{
	"Apply": "", "Freeze": "",
	"Authenticate":            "finds the tenant",
	"Blob":                    "by freeze id, 128 random bits of one campaign",
	"Blobs":                   "by freeze id, 128 random bits of one campaign",
	"BlobsWithout":            "by freeze id, 128 random bits of one campaign",
	"CampaignRecord":          "of the pipeline, which knows a campaign by the number in its ids",
	"Changed":                 "of the process",
	"CheckRegion":             "no rows",
	"UsualZones":              "no rows",
	"Close":                   "of the process",
	"Collect":                 "of the installation",
	"AllDomains":              "of the job that checks them",
	"DomainChecked":           "of the job that checks them",
	"DomainUses":              "by the number of a domain that was found for its tenant",
	"CampaignsWithoutDomains": "of the job that resumes them",
	"CreateTenant":            "makes one",
	"EnsureRoute":             "routes are the installation's",
	"Lead":                    "of the process",
	"MarkPublished":           "of the relay",
	"ParsePhone":              "no rows",
	"Ping":                    "no rows",
	"PreviewUpload":           "of an upload that was found for its tenant",
	"RunImports":              "of the process",
	"RunJobs":                 "of the process",
	"Compact":                 "of the process",
	"PlanRestore":             "of the operator",
	"Published":               "of the relay",
	"Restore":                 "of the operator",
	"Republish":               "of the relay",
	"Route":                   "routes are the installation's",
	"WebhookChanges":          "of the webhook stage, which serves all tenants",
	"Webhooks":                "of the webhook stage",
	"OwnersOf":                "of the inbound stage, which asks whose a sender is",
	"TakeConfirmations":       "of the process",
	"PutBackConfirmation":     "of the process",
	"QueueWebhooks":           "of the webhook stage; each item names its tenant",
	"ClaimWebhooks":           "of the webhook stage",
	"ReleaseWebhooks":         "of the webhook stage",
	"OwnedWebhooks":           "of the webhook stage",
	"DueWebhooks":             "of the webhook stage",
	"SettleWebhooks":          "of the webhook stage",
	"RecoveredWebhook":        "of the webhook stage",
	"Routes":                  "routes are the installation's",
	"TenantByName":            "of the operator",
	"Tenants":                 "of the operator",
	"Unpublished":             "of the relay",
	"CreateUser":              "people belong to the installation; memberships say what they see",
	"User":                    "people belong to the installation",
	"UserByEmail":             "people belong to the installation",
	"UserBySubject":           "people belong to the installation",
	"Users":                   "of the operator; with a tenant, its members",
	"ChangeUser":              "people belong to the installation",
	"UserSeen":                "people belong to the installation",
	"SetMembership":           "of the operator",
	"Memberships":             "of one person",
	"PutSession":              "by the hash of a cookie",
	"Session":                 "by the hash of a cookie",
	"DeleteSession":           "by the hash of a cookie",
	"CreateLoginLink":         "of one person",
	"UseLoginLink":            "by the secret of the link",
	"UpdateRoute":             "routes are the installation's",
	"CreateRoute":             "routes are the installation's",
	"DeleteRoute":             "routes are the installation's",
}

var tenancyTests = []test{
	{"no tenant reaches another's row (P7)", func(e *env) {
		for method := range reflect.TypeOf(e.s).Methods() {
			name := method.Name
			_, scoped := calls[name]
			if _, free := notScoped[name]; !scoped && !free {
				e.Errorf("method %s is in neither table: can it reach another tenant's row?", name)
			}
		}
		owner, me := e.limited("owner", 1000), e.limited("me", 0)
		x := theirs{list: e.list(owner, "theirs", mobile(1), mobile(2))}
		var err error
		x.contact, err = e.s.ContactByPhone(e.Context(), owner.ID, mobile(1))
		e.must(err)
		x.key, _, err = e.s.CreateKey(e.Context(), owner.ID, "", nil, false)
		e.must(err)
		x.upload = e.upload(owner, "phone\n"+mobile(3))
		x.imported, err = e.s.Import(e.Context(), owner.ID, x.list.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader("phone\n"+mobile(3)), nil)
		e.must(err)
		x.resource, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: owner.ID, Kind: store.KindTemplate, Name: "theirs", Doc: []byte("{}")})
		e.must(err)
		x.hook = e.webhook(owner, "theirs")
		x.job, err = e.s.OrderJob(e.Context(), store.Job{Tenant: owner.ID, Kind: store.JobExport, By: "key", Options: []byte("{}")})
		e.must(err)
		x.erasure, err = e.s.OrderErasure(e.Context(), store.Job{Tenant: owner.ID, By: "key"}, mobile(9), "")
		e.must(err)
		e.must(e.s.QueueWebhooks(e.Context(), []schemas.WebhookItem{hookItem(x.hook, "theirs", "msg_1")}, nil))
		x.hidden, err = e.s.LeaseSeqs(e.Context(), owner.ID, start, 1)
		e.must(err)
		_, err = e.s.PutSender(e.Context(), store.Sender{Tenant: owner.ID, ID: "THEIRS"})
		e.must(err)
		e.must(e.s.Suppress(e.Context(), owner.ID, "api", mobile(2)))
		x.conversation, err = e.s.RecordMessage(e.Context(), messageFact(owner.ID, "theirs", mobile(2), "please stop this", schemas.ReplyMeaningReview))
		e.must(err)
		reviews, _, err := e.s.Reviews(e.Context(), owner.ID, 0, 10)
		e.must(err)
		x.review = reviews[0].ID
		begun, err := e.s.Begin(e.Context(), owner.ID, "r", "theirs", []byte("b"))
		e.must(err)
		x.origin, _ = e.freeze(e.confirm(e.campaign(owner, "o", x.list), 0))
		x.replay = e.replay(x.origin, 0, 1)
		x.campaign = e.campaign(owner, "c", x.list)
		before := e.dump(owner)
		for name, do := range calls {
			if do == nil {
				continue
			}
			if err := do(e, me.ID, x); !errors.Is(err, schemas.ErrNotFound) {
				e.Errorf("%s: got %v, want not found", name, err)
			}
			if after := e.dump(owner); after != before {
				e.Fatalf("%s changed another tenant's rows:\n%s\nwant\n%s", name, after, before)
			}
		}
		e.must(e.s.Finish(e.Context(), begun, 200, nil)) // the other tenant still holds the claim
	}},
}

// dump returns everything that a tenant owns, as text.
func (e *env) dump(t store.Tenant) string {
	e.Helper()
	var b strings.Builder
	for _, table := range []string{"api_keys", "senders", "prices", "balances", "ledger", "contact_lists", "contacts", "list_members", "list_fields", "imports", "uploads", "suppressions", "domains", "domain_shares", "campaigns", "campaign_events", "replays", "resources", "webhook_items", "webhook_health", "jobs", "erasures", "conversations", "conversation_messages", "confirmations", "freezes", "idempotency"} {
		e.dumpTable(&b, table, t)
	}
	return b.String()
}

func (e *env) dumpTable(w io.StringWriter, table string, t store.Tenant) {
	e.Helper()
	rows, err := e.sql.QueryContext(e.Context(), "SELECT * FROM "+table+" WHERE tenant = '"+t.ID+"' ORDER BY 1, 2, 3")
	e.must(err)
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	e.must(err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		e.must(rows.Scan(values...))
		writeRow(w, table, values)
	}
	e.must(rows.Err())
}

func writeRow(w io.StringWriter, table string, values []any) {
	_, _ = w.WriteString(table)
	for _, v := range values {
		_, _ = w.WriteString(" " + reflectText(v))
	}
	_, _ = w.WriteString("\n")
}

func reflectText(v any) string { return fmt.Sprint(*v.(*any)) }
