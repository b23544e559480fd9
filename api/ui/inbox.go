package ui

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// conversation has the fields of a conversation that the inbox shows.
type conversation struct {
	ID          string  `json:"id"`
	PhoneNumber string  `json:"phoneNumber"`
	Channel     string  `json:"channel"`
	Sender      string  `json:"sender"`
	State       string  `json:"state"`
	AssignedTo  *string `json:"assignedTo"`
	Unread      int     `json:"unread"`
	Reviews     int     `json:"reviews"`
	CampaignID  *string `json:"campaignId"`
	LastMessage string  `json:"lastMessage"`
	LastOut     bool    `json:"lastOut"`
	LastAt      string  `json:"lastAt"`
}

// conversationMessage is one message of a thread.
type conversationMessage struct {
	ID         uint64  `json:"id"`
	Direction  string  `json:"direction"`
	Text       string  `json:"text"`
	Meaning    string  `json:"meaning"`
	Review     string  `json:"review"`
	CampaignID *string `json:"campaignId"`
	By         *string `json:"by"`
	At         string  `json:"at"`
}

// optOutReview is a message that waits for a decision.
type optOutReview struct {
	ID             uint64 `json:"id"`
	ConversationID string `json:"conversationId"`
	PhoneNumber    string `json:"phoneNumber"`
	Channel        string `json:"channel"`
	Text           string `json:"text"`
	At             string `json:"at"`
}

// inboxCounts are the figures of the tabs.
type inboxCounts struct {
	Open    int `json:"open"`
	Unread  int `json:"unread"`
	Reviews int `json:"reviews"`
}

// Tabs of the inbox.
var inboxTabs = []string{"open", "unread", "mine", "closed"}

// inboxPage lists conversations.
type inboxPage struct {
	Tab    string
	Tabs   []string
	Search string
	Counts inboxCounts
	Rows   []conversation
	Pager  pager
}

// conversationPage is a thread, with the form of an answer. With Price the form asks whether to send at that price.
type conversationPage struct {
	Conversation conversation
	Messages     []conversationMessage // the oldest first
	Older        string
	Text, Error  string
	Price        *replyPrice
	// Key is of this form: a form that is sent twice is one answer.
	Key    string
	Person *Person
}

type replyPrice struct {
	Segments int     `json:"segments"`
	Cost     float64 `json:"cost"`
	Currency string  `json:"currency"`
}

// reviewsPage is the queue of messages that may ask for an opt-out.
type reviewsPage struct {
	Counts inboxCounts
	Rows   []optOutReview
	Next   string
	Person *Person
}

func (u *UI) inboxScreens(r chi.Router) {
	r.Get("/inbox", u.inboxPage)
	r.Get("/inbox/reviews", u.reviewsPage)
	r.Post("/inbox/reviews/{id}", u.decideReview)
	r.Get("/inbox/{id}", u.conversationPage)
	r.Post("/inbox/{id}/reply", u.reply)
	r.Post("/inbox/{id}", u.changeConversation)
}

func apiConversation(id string) string { return "/api/conversations/" + url.PathEscape(id) }

func (u *UI) inboxPage(w http.ResponseWriter, r *http.Request) {
	p, q := personOf(r.Context()), r.URL.Query()
	v := &inboxPage{Tab: q.Get("tab"), Tabs: inboxTabs, Search: q.Get("search")}
	if !slices.Contains(inboxTabs, v.Tab) {
		v.Tab = inboxTabs[0]
	}
	page, _ := strconv.Atoi(q.Get("page"))
	page = max(page, 0)
	ask := url.Values{"search": {v.Search}, "page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(resourceRows)}}
	switch v.Tab {
	case "closed":
		ask.Set("state", "closed")
	case "unread":
		ask.Set("unread", "true")
	case "mine":
		ask.Set("assignedTo", p.User.Name)
	default:
		ask.Set("state", "open")
	}
	var found struct {
		Data  []conversation `json:"data"`
		Total int            `json:"total"`
	}
	err := u.get(r.Context(), p, "/api/conversations", ask, &found)
	if err == nil {
		err = u.get(r.Context(), p, "/api/conversations/summary", nil, &v.Counts)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Rows, v.Pager = found.Data, newPager(r.URL.RequestURI(), page, resourceRows, found.Total, "pager.inbox")
	u.render(w, r, http.StatusOK, "inbox", v)
}

// conversationPage shows a conversation, and marks it as read if the user may send.
func (u *UI) conversationPage(w http.ResponseWriter, r *http.Request) {
	u.showConversation(w, r, http.StatusOK, &conversationPage{})
}

func (u *UI) showConversation(w http.ResponseWriter, r *http.Request, status int, v *conversationPage) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	v.Person, v.Key = p, cmp.Or(v.Key, rand.Text())
	var found struct {
		Data []conversationMessage `json:"data"`
		Next *string               `json:"next"`
	}
	before := r.URL.Query().Get("before")
	err := u.get(r.Context(), p, apiConversation(id), nil, &v.Conversation)
	if err == nil {
		err = u.get(r.Context(), p, apiConversation(id)+"/messages", url.Values{"cursor": {before}}, &found)
	}
	if err == nil && before == "" && v.Conversation.Unread > 0 && len(found.Data) > 0 && p.Can("send") {
		// A message that comes at this moment may make the change fail. The page still shows the conversation, which
		// stays unread.
		if failed := u.call(r.Context(), p, http.MethodPut, apiConversation(id), map[string]uint64{"readUpTo": found.Data[0].ID}, nil); failed != nil {
			u.Logger.InfoContext(r.Context(), "a conversation could not be marked as read", "conversation", id, "err", failed)
		}
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	slices.Reverse(found.Data)
	v.Messages = found.Data
	if found.Next != nil {
		v.Older = "/inbox/" + url.PathEscape(id) + "?before=" + url.QueryEscape(*found.Next)
	}
	u.render(w, r, status, "conversation", v)
}

// The second of two equal forms asks repliesWait times, every replyWait, how the first one ended.
const (
	repliesWait = 50
	replyWait   = 100 * time.Millisecond
)

// reply shows the price of an answer, and sends it when the form comes back with it.
func (u *UI) reply(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	v := &conversationPage{Text: strings.TrimSpace(r.PostFormValue("message"))}
	send := r.PostFormValue("step") == "send"
	price := &replyPrice{}
	key := ""
	if send {
		key = r.PostFormValue("key")
	}
	err := u.sendReply(r.Context(), p, id, key, map[string]any{"message": v.Text, "preview": !send}, price)
	if problem, ok := asProblem(err); ok && problem.Status < http.StatusInternalServerError && problem.Status != http.StatusNotFound {
		v.Error = problem.Error()
		if problem.Code == "idempotency_in_flight" {
			v.Key = key // it may have been sent: the same form again is the same answer
		}
		u.showConversation(w, r, problem.Status, v)
		return
	}
	switch {
	case err != nil:
		u.fail(w, r, err)
	case send:
		u.done(w, r, "/inbox/"+url.PathEscape(id), mustSay("done.replied"))
	default:
		v.Price = price
		u.showConversation(w, r, http.StatusOK, v)
	}
}

// sendReply sends an answer, or asks for its price. When another form with the same key is still on its way, it waits for
// the outcome of that one.
func (u *UI) sendReply(ctx context.Context, p *Person, id, key string, in map[string]any, out *replyPrice) error {
	for tries := 0; ; tries++ {
		err := u.callOnce(ctx, p, http.MethodPost, apiConversation(id)+"/messages", key, in, out)
		if problem, ok := asProblem(err); !ok || problem.Code != "idempotency_in_flight" || tries == repliesWait {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(replyWait):
		}
	}
}

func (u *UI) changeConversation(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	in := map[string]any{}
	var say string
	switch r.PostFormValue("action") {
	case "take":
		in["assignedTo"], say = p.User.Name, "done.taken"
	case "leave":
		in["assignedTo"], say = nil, "done.left"
	case "open":
		in["state"], say = "open", "done.opened"
	default:
		in["state"], say = "closed", "done.closed"
	}
	to := "/inbox/" + url.PathEscape(id)
	if err := u.call(r.Context(), p, http.MethodPut, apiConversation(id), in, nil); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay(say))
}

func (u *UI) reviewsPage(w http.ResponseWriter, r *http.Request) {
	p := personOf(r.Context())
	v := &reviewsPage{Person: p}
	var found struct {
		Data []optOutReview `json:"data"`
		Next *string        `json:"next"`
	}
	err := u.get(r.Context(), p, "/api/opt-out-reviews", url.Values{"cursor": {r.URL.Query().Get("after")}}, &found)
	if err == nil {
		err = u.get(r.Context(), p, "/api/conversations/summary", nil, &v.Counts)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Rows = found.Data
	if found.Next != nil {
		v.Next = "/inbox/reviews?after=" + url.QueryEscape(*found.Next)
	}
	u.render(w, r, http.StatusOK, "reviews", v)
}

func (u *UI) decideReview(w http.ResponseWriter, r *http.Request) {
	decision, say := r.PostFormValue("decision"), "done.dismissed"
	if decision == "opt_out" {
		say = "done.review_opted_out"
	}
	err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, "/api/opt-out-reviews/"+url.PathEscape(chi.URLParam(r, "id")), map[string]string{"decision": decision}, nil)
	if err != nil {
		u.refused(w, r, "/inbox/reviews", err)
		return
	}
	u.done(w, r, "/inbox/reviews", mustSay(say))
}
