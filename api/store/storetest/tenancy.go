package storetest

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// theirs are the rows of one tenant; none of the calls below may reach them on behalf of another.
type theirs struct {
	list     store.List
	contact  store.Contact
	campaign store.Campaign
	key      store.Key
	imported store.ImportReport
	hidden   store.Lease
}

// A call asks, as tenant me, for something of them. It must answer as if that did not exist: an error of that kind, or none
// of their rows.
type call func(e *env, me string, x theirs) error

// missing is what a call returns that gave nothing away without an error.
var missing = schemas.ErrNotFound

func none[T any](rows []T, err error) error {
	if err == nil && len(rows) == 0 {
		return missing
	}
	return err
}

// calls has an entry for every method of Store that is asked on behalf of a tenant.
var calls = map[string]call{
	"Tenant":       nil, // asked with the tenant itself
	"UpdateTenant": nil,
	"Prices":       nil,
	"SetPrice":     nil,
	"Balance":      nil,
	"TopUp":        nil,
	"SetCredit":    nil,
	"CreateKey":    nil,
	"CreateList":   nil,
	"PutSender":    nil,
	"LeaseSeqs":    nil,
	"Suppress":     nil,
	"Keys":         func(e *env, me string, _ theirs) error { return none(e.s.Keys(e.Context(), me)) },
	"RevokeKey":    func(e *env, me string, x theirs) error { return e.s.RevokeKey(e.Context(), me, x.key.ID) },
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
	"Reserve": func(e *env, me string, x theirs) error { return e.s.Reserve(e.Context(), me, x.hidden.CampaignID(), 1) },
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
		// The same number is another person's row of mine: neither taken nor theirs.
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
	"DeleteContact": func(e *env, me string, x theirs) error {
		return e.s.DeleteContact(e.Context(), me, x.contact.Number, 0)
	},
	"Import": func(e *env, me string, x theirs) error {
		_, err := e.s.Import(e.Context(), me, x.list.Number, store.ImportOptions{Format: store.FormatCSV}, strings.NewReader("phone\n"), nil)
		return err
	},
	"ImportReport": func(e *env, me string, x theirs) error {
		_, err := e.s.ImportReport(e.Context(), me, x.imported.ID)
		return err
	},
	"Imports": func(e *env, me string, _ theirs) error { return none(e.s.Imports(e.Context(), me, store.Page{})) },
	"CreateCampaign": func(e *env, me string, x theirs) error {
		_, err := e.s.CreateCampaign(e.Context(), store.Campaign{
			Tenant: me, State: draft, Spec: store.Spec{Name: "x", Chain: []fanfarev1.Channel{sms}, Lists: []uint64{x.list.Number}},
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
	"Freeze": func(e *env, me string, x theirs) error {
		return e.s.Freeze(e.Context(), me, x.campaign.ID(), x.campaign.Version)
	},
	"Lift": func(e *env, me string, _ theirs) error {
		e.must(e.s.Lift(e.Context(), me, "api", mobile(2)))
		return missing // that theirs still stands is checked with all the rest
	},
	"Suppressed": func(e *env, me string, _ theirs) error {
		if out, err := e.s.Suppressed(e.Context(), me, mobile(2)); out || err != nil {
			return err
		}
		return missing
	},
	"Suppressions": func(e *env, me string, _ theirs) error {
		rows, n, err := e.s.Suppressions(e.Context(), me, store.Page{})
		if n != 0 {
			return nil
		}
		return none(rows, err)
	},
	"SuppressionLog": func(e *env, me string, _ theirs) error { return none(e.s.SuppressionLog(e.Context(), me, mobile(2))) },
	"WaitPublished": func(e *env, me string, _ theirs) error {
		e.must(e.s.WaitPublished(e.Context(), me, mobile(2))) // theirs is not published: to wait would be to know of it
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

// notScoped are the methods that no tenant asks, with the reason.
var notScoped = map[string]string{
	"Apply": "", "Freeze": "",
	"Authenticate":   "finds the tenant",
	"Blob":           "by freeze id, 128 random bits of one campaign",
	"Blobs":          "by freeze id, 128 random bits of one campaign",
	"CampaignRecord": "of the pipeline, which knows a campaign by the number in its ids",
	"Changed":        "of the process",
	"CheckRegion":    "no rows",
	"Close":          "of the process",
	"Collect":        "of the installation",
	"CreateTenant":   "makes one",
	"EnsureRoute":    "routes are the installation's",
	"Lead":           "of the process",
	"MarkPublished":  "of the relay",
	"ParsePhone":     "no rows",
	"Ping":           "no rows",
	"Republish":      "of the relay",
	"Route":          "routes are the installation's",
	"Routes":         "routes are the installation's",
	"TenantByName":   "of the operator",
	"Tenants":        "of the operator",
	"Unpublished":    "of the relay",
	"UpdateRoute":    "routes are the installation's",
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
		x.imported, err = e.s.Import(e.Context(), owner.ID, x.list.Number, store.ImportOptions{Format: store.FormatCSV}, strings.NewReader("phone\n"+mobile(3)), nil)
		e.must(err)
		x.hidden, err = e.s.LeaseSeqs(e.Context(), owner.ID, start, 1)
		e.must(err)
		_, err = e.s.PutSender(e.Context(), store.Sender{Tenant: owner.ID, ID: "THEIRS"})
		e.must(err)
		e.must(e.s.Suppress(e.Context(), owner.ID, "api", mobile(2)))
		begun, err := e.s.Begin(e.Context(), owner.ID, "r", "theirs", []byte("b"))
		e.must(err)
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
		e.must(e.s.Finish(e.Context(), begun, 200, nil)) // still theirs
	}},
}

// dump is what a tenant owns.
func (e *env) dump(t store.Tenant) string {
	e.Helper()
	var b strings.Builder
	for _, table := range []string{"api_keys", "senders", "prices", "balances", "ledger", "contact_lists", "contacts", "list_members", "imports", "suppressions", "campaigns", "campaign_events", "freezes", "idempotency"} {
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
