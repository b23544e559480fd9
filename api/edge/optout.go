package edge

import (
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// maxForm is the most bytes of the form of an opt-out.
const maxForm = 4 << 10

// costOptOut is what the sending of the form costs of an address's room: each is a record that is kept.
const costOptOut = 50

// optOut is the opt-out page of a recipient. GET shows what would be stopped and changes nothing: programs that look at
// links follow them. POST stops it, and is answered once the opt-out is acknowledged or kept. It works as long as the
// campaign is known here, also when its links lead nowhere any more.
func (s *Server) optOut(w http.ResponseWriter, r *http.Request, c *fanfarev1.Campaign, link schemas.Link, place uint64, now time.Time) string {
	p := optOutPage{Sender: senderName(c), Only: onlyChannel(c)}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		p.write(w, r, http.StatusOK, stepAsk)
		return "opt_out_page"
	case http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return "method"
	}
	s.limits.spend(place, costOptOut-costKnown, now)
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	scope := schemas.ChannelUnspecified
	// Whatever else is sent, such as a one-click request of a mail program, is of all
	if r.PostFormValue("scope") == scopeOnly && p.Only != "" {
		scope = c.GetLegs()[0].GetChannel()
	} else {
		p.Only = ""
	}
	if err := s.publishOptOut(r, c, link, scope, now); err != nil {
		w.Header().Set("Retry-After", "5")
		p.write(w, r, http.StatusServiceUnavailable, stepFailed)
		return "opt_out_failed"
	}
	p.write(w, r, http.StatusOK, stepDone)
	return "opted_out"
}

// publishOptOut says that a recipient has opted out. The form sent twice within a second is one fact.
func (s *Server) publishOptOut(r *http.Request, c *fanfarev1.Campaign, link schemas.Link, scope schemas.Channel, now time.Time) error {
	message := s.cfg.Keys.Message(link.Campaign, link.Seq)
	record, err := schemas.InboundEvent(s.cfg.Names.Inbound(), source, &fanfarev1.Inbound{
		Id:  message.String() + "/" + strconv.Itoa(int(scope)) + "/" + strconv.FormatInt(now.Unix(), 10),
		Way: schemas.InboundWayLink, ReceivedMs: now.UnixMilli(), Tenant: c.GetTenant(), CampaignNumber: c.GetNumber(), Seq: link.Seq, Scope: scope,
	}, message).Record()
	if err != nil {
		return fmt.Errorf("opt-out: %w", err)
	}
	return s.publish(r.Context(), record, true)
}

// scopeOnly is the value of the form for the campaign's own channel.
const scopeOnly = "channel"

// onlyChannel is the name of the campaign's channel, when it has one alone.
func onlyChannel(c *fanfarev1.Campaign) string {
	if len(c.GetLegs()) != 1 {
		return ""
	}
	return channelNames[c.GetLegs()[0].GetChannel()]
}

// channelNames are the names that people know, the same in all languages.
var channelNames = map[schemas.Channel]string{schemas.ChannelSMS: "SMS", schemas.ChannelRCS: "RCS", schemas.ChannelWhatsApp: "WhatsApp"}

// senderName is what the recipient sees as the sender of an SMS; other channels have an id there that recipients do not
// see.
func senderName(c *fanfarev1.Campaign) string {
	for _, l := range c.GetLegs() {
		if l.GetChannel() == schemas.ChannelSMS {
			return l.GetSender()
		}
	}
	return ""
}

type step int

const (
	stepAsk step = iota
	stepDone
	stepFailed
)

// optOutText is what the page says in a language: title, body with a sender and without, the button for all channels
// and the one for a single channel; then the same when it is done, of all and of one channel; then when it could not be
// kept.
type optOutText struct {
	Title, From, Body, All, Only       string
	Done, DoneFrom, DoneBody, DoneOnly string
	Failed, FailedBody                 string
}

var optOutTexts = map[string]optOutText{
	"en": {
		"Stop messages?", "You will get no more messages from %s.", "You will get no more messages from this sender.", "Stop all messages", "Stop only %s",
		"Stopped", "You will get no more messages from %s.", "You will get no more messages from this sender.", "You will get no more messages from this sender by %s.",
		"That did not work", "Your request was not saved. Please try again in a few seconds.",
	},
	"it": {
		"Interrompere i messaggi?", "Non riceverai più messaggi da %s.", "Non riceverai più messaggi da questo mittente.", "Interrompi tutti i messaggi", "Interrompi solo %s",
		"Fatto", "Non riceverai più messaggi da %s.", "Non riceverai più messaggi da questo mittente.", "Non riceverai più messaggi %s da questo mittente.",
		"Non ha funzionato", "La richiesta non è stata salvata. Riprova tra qualche secondo.",
	},
	"es": {
		"¿Detener los mensajes?", "No recibirás más mensajes de %s.", "No recibirás más mensajes de este remitente.", "Detener todos los mensajes", "Detener solo %s",
		"Hecho", "No recibirás más mensajes de %s.", "No recibirás más mensajes de este remitente.", "No recibirás más mensajes por %s de este remitente.",
		"No ha funcionado", "La solicitud no se ha guardado. Vuelve a intentarlo en unos segundos.",
	},
	"fr": {
		"Arrêter les messages ?", "Vous ne recevrez plus de messages de %s.", "Vous ne recevrez plus de messages de cet expéditeur.", "Arrêter tous les messages", "Arrêter seulement %s",
		"C’est fait", "Vous ne recevrez plus de messages de %s.", "Vous ne recevrez plus de messages de cet expéditeur.", "Vous ne recevrez plus de messages par %s de cet expéditeur.",
		"Cela n’a pas fonctionné", "Votre demande n’a pas été enregistrée. Réessayez dans quelques secondes.",
	},
	"de": {
		"Nachrichten abbestellen?", "Von %s kommen dann keine Nachrichten mehr.", "Von diesem Absender kommen dann keine Nachrichten mehr.", "Alle Nachrichten abbestellen", "Nur %s abbestellen",
		"Abbestellt", "Von %s kommen keine Nachrichten mehr.", "Von diesem Absender kommen keine Nachrichten mehr.", "Von diesem Absender kommen keine Nachrichten mehr per %s.",
		"Das hat nicht geklappt", "Der Wunsch wurde nicht gespeichert. Bitte in ein paar Sekunden noch einmal versuchen.",
	},
}

// optOutPage is what is shown of a campaign.
type optOutPage struct {
	Sender string
	// Only is the channel that may be stopped by itself; of what is done, the channel that was.
	Only string
}

// The page holds nothing of the request, loads nothing and runs nothing. The form goes to the address that it stands
// at.
var optOutTemplate = template.Must(template.New("opt-out").Parse(`<!doctype html>
<html lang="{{.Language}}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body{font:17px/1.5 system-ui,sans-serif;max-width:30rem;margin:12vh auto;padding:0 1.25rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;line-height:1.25}
button{font:inherit;display:block;width:100%;margin:.75rem 0;padding:.7rem 1rem;border-radius:.5rem;border:1px solid #1b1f24;background:#1b1f24;color:#fff}
button.only{background:transparent;color:inherit;border-color:currentColor}
@media (prefers-color-scheme:dark){body{color:#e6e8eb;background:#14171a}button{background:#e6e8eb;color:#14171a;border-color:#e6e8eb}}
</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Body}}</p>
{{- if .All}}
<form method="post">
<button name="scope" value="all">{{.All}}</button>
{{- if .Only}}
<button class="only" name="scope" value="channel">{{.Only}}</button>
{{- end}}
</form>
{{- end}}
</main>
</body>
</html>
`))

// write writes the page; of HEAD its headers.
func (p optOutPage) write(w http.ResponseWriter, r *http.Request, status int, at step) {
	language := languageOf(r.Header.Get("Accept-Language"), optOutTexts)
	t := optOutTexts[language]
	v := struct{ Language, Title, Body, All, Only string }{Language: language}
	named := func(from, body string) string {
		if p.Sender == "" {
			return body
		}
		return strings.Replace(from, "%s", p.Sender, 1)
	}
	switch at {
	case stepAsk:
		v.Title, v.Body, v.All = t.Title, named(t.From, t.Body), t.All
		if p.Only != "" {
			v.Only = strings.Replace(t.Only, "%s", p.Only, 1)
		}
	case stepDone:
		v.Title, v.Body = t.Done, named(t.DoneFrom, t.DoneBody)
		if p.Only != "" {
			v.Body = strings.Replace(t.DoneOnly, "%s", p.Only, 1)
		}
	case stepFailed:
		v.Title, v.Body = t.Failed, t.FailedBody
	}
	pageHeaders(w, language, "'self'")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_ = optOutTemplate.Execute(w, v) // a client that has gone
}
