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

// maxForm is the maximum size of an opt-out form in bytes.
const maxForm = 4 << 10

// costOptOut is how many units of an address's rate limit one form costs, because each form writes a record.
const costOptOut = 50

// optOut answers the opt-out page of a recipient. GET shows what would be stopped and changes nothing, because programs
// that check links follow them. POST opts out, and is answered once Kafka has acknowledged the opt-out or the file has
// it. The page works as long as the edge knows the campaign, also after the campaign's links have expired.
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
	// Every other form, such as a one-click request of a mail program, opts out of all channels
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

// publishOptOut publishes that a recipient has opted out. Two forms within the same second are one fact.
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

// scopeOnly is the form's value for the campaign's own channel.
const scopeOnly = "channel"

// onlyChannel returns the name of the campaign's channel if it has only one, otherwise "".
func onlyChannel(c *fanfarev1.Campaign) string {
	if len(c.GetLegs()) != 1 {
		return ""
	}
	return channelNames[c.GetLegs()[0].GetChannel()]
}

// channelNames are the names of channels that people know. They are the same in all languages.
var channelNames = map[schemas.Channel]string{schemas.ChannelSMS: "SMS", schemas.ChannelRCS: "RCS", schemas.ChannelWhatsApp: "WhatsApp"}

// senderName returns the name that the recipient sees as the sender of an SMS. On other channels the sender is an id
// that recipients do not see.
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

// optOutText is the text of the page in one language: the title, the body with and without a sender, and the buttons
// for all channels and for one channel; the same texts after the opt-out, for all channels and for one; and the text if
// the opt-out could not be stored.
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

// optOutPage is the data of the page.
type optOutPage struct {
	Sender string
	// Only is the channel from which the recipient can opt out alone; after the opt-out, the channel that was chosen.
	Only string
}

// The page contains nothing of the request, loads nothing and runs no script. The form is sent to the page's own
// address.
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

// write writes the page, or only its headers for HEAD.
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
