package storetest

import (
	"fmt"
	"slices"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

const ourNumber = "+393399900011"

// messageFact is a message that a recipient wrote.
func messageFact(tenant, id, phone, text string, meaning schemas.ReplyMeaning) *schemas.MessageFact {
	f := &schemas.MessageFact{ID: id, Tenant: tenant, Phone: phone, Sender: ourNumber, Channel: sms, Route: "sim", Text: text, Time: start, Meaning: meaning}
	if meaning == schemas.ReplyMeaningOptOut || meaning == schemas.ReplyMeaningOptIn {
		f.Confirmation = "confirmed " + text
	}
	return f
}

var conversationTests = []test{
	{"a message of a recipient is recorded once, with what follows from it (X10)", func(e *env) {
		a := e.limited("a", 1000)
		stop := messageFact(a.ID, "in_1", mobile(1), "STOP", schemas.ReplyMeaningOptOut)
		stop.Message, stop.Campaign = "msg_1", "camp_1"
		for range 2 { // the stage reads the record from its topic a second time
			id, err := e.s.RecordMessage(e.Context(), stop)
			e.must(err)
			equal(e, "id", id, schemas.ConversationID(a.ID, sms, ourNumber, mobile(1)))
		}
		for c, want := range map[schemas.Channel]bool{sms: true, schemas.ChannelWhatsApp: false} {
			out, err := e.s.Suppressed(e.Context(), a.ID, mobile(1), c)
			e.must(err)
			equal(e, "opted out of "+schemas.ChannelName(c), out, want)
		}
		log, err := e.s.SuppressionLog(e.Context(), a.ID, mobile(1))
		e.must(err)
		equal(e, "entries of proof", len(log), 1)
		equal(e, "proof", fmt.Sprint(log[0].Source, log[0].By, log[0].Reason, log[0].Scope), fmt.Sprint("keyword", "msg_1", "STOP", sms))
		// A second STOP changes nothing, so it gets no second confirmation. START removes the opt-out.
		again := messageFact(a.ID, "in_2", mobile(1), "stop", schemas.ReplyMeaningOptOut)
		_, err = e.s.RecordMessage(e.Context(), again)
		e.must(err)
		_, err = e.s.RecordMessage(e.Context(), messageFact(a.ID, "in_3", mobile(1), "START", schemas.ReplyMeaningOptIn))
		e.must(err)
		_, err = e.s.RecordMessage(e.Context(), messageFact(a.ID, "in_4", mobile(2), "START", schemas.ReplyMeaningOptIn)) // this number has not opted out
		e.must(err)
		out, err := e.s.Suppressed(e.Context(), a.ID, mobile(1), sms)
		e.must(err)
		equal(e, "opted out after START", out, false)
		var texts []string
		for range 3 {
			list, err := e.s.TakeConfirmations(e.Context(), 1)
			e.must(err)
			for _, n := range list {
				texts = append(texts, n.Text+" to "+n.Conversation.Phone)
			}
		}
		equal(e, "confirmations", fmt.Sprint(texts), fmt.Sprint([]string{"confirmed STOP to " + mobile(1), "confirmed START to " + mobile(1)}))
		_, err = e.s.RecordMessage(e.Context(), messageFact("tn_none", "in_5", mobile(1), "x", 0))
		e.wantErr(err, schemas.ErrNotFound)
	}},
	{"a START that is handled late does not end a newer opt-out; confirmations are few, and can be put back", func(e *env) {
		a := e.limited("a", 1000)
		say := func(n int, meaning schemas.ReplyMeaning, at time.Duration) {
			f := messageFact(a.ID, fmt.Sprint("in_", n), mobile(1), fmt.Sprint("text ", n), meaning)
			f.Time = start.Add(at)
			_, err := e.s.RecordMessage(e.Context(), f)
			e.must(err)
		}
		out := func(what string, want bool) {
			got, err := e.s.Suppressed(e.Context(), a.ID, mobile(1), sms)
			e.must(err)
			equal(e, what, got, want)
		}
		say(1, schemas.ReplyMeaningOptOut, time.Hour)
		say(2, schemas.ReplyMeaningOptIn, 59*time.Minute)
		out("opted out after an older START", true)
		for n := 3; n < 11; n++ {
			meaning := schemas.ReplyMeaningOptIn
			if n%2 == 0 {
				meaning = schemas.ReplyMeaningOptOut
			}
			say(n, meaning, time.Hour+time.Duration(n)*time.Second)
			out(fmt.Sprint("opted out after text ", n), n%2 == 0)
		}
		list, err := e.s.TakeConfirmations(e.Context(), 100)
		e.must(err)
		equal(e, "confirmations", len(list), 4)
		equal(e, "what they confirm", fmt.Sprint(list[0].OptedOut, list[1].OptedOut, list[2].OptedOut), "true false true")
		e.must(e.s.PutBackConfirmation(e.Context(), &list[1]))
		again, err := e.s.TakeConfirmations(e.Context(), 100)
		e.must(err)
		equal(e, "put back", len(again), 1)
		equal(e, "the same", fmt.Sprint(again[0].Text, again[0].OptedOut, again[0].Created), fmt.Sprint(list[1].Text, list[1].OptedOut, list[1].Created))
	}},
	{"conversations are listed, answered, read, assigned and closed", func(e *env) {
		a := e.limited("a", 1000)
		var ids []string
		for i := range 5 {
			f := messageFact(a.ID, fmt.Sprint("in_", i), mobile(i), fmt.Sprint("hello ", i), 0)
			f.Time = start.Add(time.Duration(i) * time.Minute)
			id, err := e.s.RecordMessage(e.Context(), f)
			e.must(err)
			ids = append(ids, id)
		}
		slices.Reverse(ids) // newest first
		var got []string
		f := store.ConversationFilter{Page: store.Page{Limit: 2}}
		for {
			rows, total, err := e.s.Conversations(e.Context(), a.ID, f)
			e.must(err)
			equal(e, "total", total, 5)
			if len(rows) == 0 {
				break
			}
			for _, c := range rows {
				got = append(got, c.ID)
			}
			last := rows[len(rows)-1]
			f.Before, f.BeforeID = last.Last, last.ID
		}
		equal(e, "conversations", fmt.Sprint(got), fmt.Sprint(ids))

		id := ids[4] // the oldest conversation; the answer makes it the newest
		e.must(e.s.AddReply(e.Context(), a.ID, &store.ConversationMessage{Conversation: id, Text: "hi", Message: "msg_9", By: "ann", Segments: 1, Price: 50_000, Time: start.Add(time.Hour)}))
		c, err := e.s.Conversation(e.Context(), a.ID, id)
		e.must(err)
		equal(e, "conversation", fmt.Sprint(c.Phone, c.Sender, c.State, c.Unread, c.LastText, c.LastOut, c.Last.Equal(start.Add(time.Hour)), c.Came.Equal(start)), fmt.Sprint(mobile(0), ourNumber, "open", 1, "hi", true, true, true))
		messages, err := e.s.ConversationMessages(e.Context(), a.ID, id, 0, 10)
		e.must(err)
		equal(e, "messages", fmt.Sprint(len(messages), messages[0].Text, messages[0].Price, messages[1].Text), fmt.Sprint(2, "hi", 50_000, "hello 0"))
		older, err := e.s.ConversationMessages(e.Context(), a.ID, id, messages[0].ID, 10)
		e.must(err)
		equal(e, "older", len(older), 1)

		// A message that arrives after the user has read the conversation stays unread.
		late := messageFact(a.ID, "late", mobile(0), "one more", 0)
		_, err = e.s.RecordMessage(e.Context(), late)
		e.must(err)
		c, err = e.s.ChangeConversation(e.Context(), a.ID, id, 0, store.ConversationChange{Read: &messages[0].ID, Assigned: new("ann"), State: new(store.ConversationClosed)})
		e.must(err)
		equal(e, "changed", fmt.Sprint(c.Unread, c.Assigned, c.State), fmt.Sprint(1, "ann", "closed"))
		_, err = e.s.ChangeConversation(e.Context(), a.ID, id, c.Version-1, store.ConversationChange{Assigned: new("bob")})
		e.wantErr(err, schemas.ErrConflict)
		for name, x := range map[string]struct {
			f    store.ConversationFilter
			want int
		}{
			"closed": {store.ConversationFilter{State: "closed"}, 1}, "open": {store.ConversationFilter{State: "open"}, 4}, "hers": {store.ConversationFilter{Assigned: "ann"}, 1},
			"nobody's": {store.ConversationFilter{Unassigned: true}, 4}, "unread": {store.ConversationFilter{Unread: true}, 5}, "of a number": {store.ConversationFilter{Phone: mobile(3)[4:]}, 1},
		} {
			_, n, err := e.s.Conversations(e.Context(), a.ID, x.f)
			e.must(err)
			equal(e, name, n, x.want)
		}
		_, err = e.s.RecordMessage(e.Context(), messageFact(a.ID, "again", mobile(0), "hello?", 0))
		e.must(err)
		c, err = e.s.Conversation(e.Context(), a.ID, id)
		e.must(err)
		equal(e, "opened again", c.State, store.ConversationOpen)
	}},
	{"a message that may ask for an opt-out waits for a decision (X10)", func(e *env) {
		a := e.limited("a", 1000)
		for i := range 3 {
			_, err := e.s.RecordMessage(e.Context(), messageFact(a.ID, fmt.Sprint("in_", i), mobile(i), "leave me alone", schemas.ReplyMeaningReview))
			e.must(err)
		}
		rows, total, err := e.s.Reviews(e.Context(), a.ID, 0, 2)
		e.must(err)
		equal(e, "reviews", fmt.Sprint(len(rows), total, rows[0].Phone, rows[0].Text), fmt.Sprint(2, 3, mobile(0), "leave me alone"))
		decided, err := e.s.DecideReview(e.Context(), a.ID, rows[0].ID, true, "ann")
		e.must(err)
		equal(e, "decided", fmt.Sprint(decided.Review, decided.By), "opted_outann")
		_, err = e.s.DecideReview(e.Context(), a.ID, rows[1].ID, false, "ann")
		e.must(err)
		_, err = e.s.DecideReview(e.Context(), a.ID, rows[0].ID, false, "bob")
		e.wantErr(err, schemas.ErrTransition)
		_, err = e.s.DecideReview(e.Context(), a.ID, 999, false, "bob")
		e.wantErr(err, schemas.ErrNotFound)
		for i, want := range []bool{true, false, false} {
			out, err := e.s.Suppressed(e.Context(), a.ID, mobile(i), sms)
			e.must(err)
			equal(e, fmt.Sprint("opted out ", i), out, want)
		}
		log, err := e.s.SuppressionLog(e.Context(), a.ID, mobile(0))
		e.must(err)
		equal(e, "proof", fmt.Sprint(len(log), log[0].By, log[0].Reason), "1annleave me alone")
		n, err := e.s.CountConversations(e.Context(), a.ID)
		e.must(err)
		equal(e, "counts", n, store.ConversationCounts{Open: 3, Unread: 3, Reviews: 1})
	}},
	{"a sender that receives belongs to a tenant", func(e *env) {
		a, b := e.limited("a", 1000), e.limited("b", 1000)
		add := func(t store.Tenant, kind store.Kind, name, status, doc string) {
			_, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: kind, Name: name, Status: status, Doc: []byte(doc)})
			e.must(err)
		}
		add(a, store.KindSender, ourNumber, "approved", `{"Type":"number","TwoWay":true}`)
		add(b, store.KindSender, ourNumber, "pending", `{"Type":"number","TwoWay":true}`)
		add(b, store.KindSender, "48000", "approved", `{"Type":"short_code"}`) // this sender cannot receive
		add(b, store.KindAgent, "shop", "launched", `{"ProviderID":"shop_agent"}`)
		add(b, store.KindChannel, "wa", "active", `{"Channel":"whatsapp","Address":"+393401112223","ProviderID":"9001"}`)
		for _, x := range []struct {
			channel schemas.Channel
			address string
			want    []string
		}{
			{sms, ourNumber, []string{a.ID}},
			{sms, "48000", nil},
			{sms, "+390000", nil},
			{schemas.ChannelRCS, "shop_agent", []string{b.ID}},
			{schemas.ChannelRCS, "agent", nil},
			{schemas.ChannelWhatsApp, "+393401112223", []string{b.ID}},
			{schemas.ChannelWhatsApp, "9001", []string{b.ID}},
			{schemas.ChannelVoice, ourNumber, nil},
		} {
			got, err := e.s.OwnersOf(e.Context(), x.channel, x.address)
			e.must(err)
			equal(e, "owners of "+x.address, fmt.Sprint(got), fmt.Sprint(x.want))
		}
	}},
	{"an erased person's messages are gone, and an opt-out that comes later holds by its hash (X10)", func(e *env) {
		a := e.limited("a", 1000)
		gone := mobile(1)
		_, err := e.s.RecordMessage(e.Context(), messageFact(a.ID, "in_1", gone, "STOP", schemas.ReplyMeaningOptOut))
		e.must(err)
		removed, _, err := e.s.EraseRows(e.Context(), a.ID, gone, plainAnswers)
		e.must(err)
		equal(e, "removed", fmt.Sprint(removed.Messages, removed.OptOuts), "1 2")
		_, n, err := e.s.Conversations(e.Context(), a.ID, store.ConversationFilter{})
		e.must(err)
		equal(e, "conversations", n, 0)
		left, err := e.s.TakeConfirmations(e.Context(), 10)
		e.must(err)
		equal(e, "confirmations", len(left), 0)
		// Suppress names the erased number, so the store has the number and the history of the opt-out again.
		e.must(e.s.Suppress(e.Context(), a.ID, "api", gone))
		log, err := e.s.SuppressionLog(e.Context(), a.ID, gone)
		e.must(err)
		equal(e, "history", len(log), 2)

		// If the person had not opted out before the erasure, the store has only the hash of the number.
		other := mobile(2)
		e.list(a, "people", other)
		_, _, err = e.s.EraseRows(e.Context(), a.ID, other, plainAnswers)
		e.must(err)
		hash := fmt.Sprintf("%x", e.keys.NumberHash(a.ID, other))
		fact := &schemas.OptOutFact{ID: "late", Tenant: a.ID, Hash: hash, Channel: sms, Source: "link", By: "msg_1", Text: "x", Time: start}
		for range 2 {
			e.must(e.s.RecordOptOut(e.Context(), fact))
		}
		out, err := e.s.Suppressed(e.Context(), a.ID, other, sms)
		e.must(err)
		equal(e, "opted out by hash", out, true)
		e.must(e.s.Lift(e.Context(), a.ID, "api", other)) // the API names the number, so the row has it again
		fact.ID = "later"
		e.must(e.s.RecordOptOut(e.Context(), fact))
		out, err = e.s.Suppressed(e.Context(), a.ID, other, sms)
		e.must(err)
		equal(e, "opted out by hash, with a number again", out, true)
		log, err = e.s.SuppressionLog(e.Context(), a.ID, other)
		e.must(err)
		equal(e, "history", len(log), 3)
		fact.Hash = "no hash"
		if err := e.s.RecordOptOut(e.Context(), fact); err == nil {
			e.Error("an opt-out without a number and a hash was recorded")
		}
	}},
	{"a form that is sent every second does not fill the log", func(e *env) {
		a := e.limited("a", 1000)
		for day := range 3 {
			for i := range 50 {
				e.must(e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{
					ID: fmt.Sprint(day, "/", i), Tenant: a.ID, Phone: mobile(1), Source: "link", Time: start.Add(time.Duration(day)*25*time.Hour + time.Duration(i)*time.Second),
				}))
			}
		}
		log, err := e.s.SuppressionLog(e.Context(), a.ID, mobile(1))
		e.must(err)
		equal(e, "entries after three days of it", len(log), 15)
	}},
}
