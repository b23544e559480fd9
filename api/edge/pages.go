package edge

import (
	"html/template"
	"net/http"
	"strings"
)

// text is the title and the sentence of a page.
type text struct {
	Title, Body string
}

// texts holds a page's text by language.
type texts map[string]text

var (
	textUnknown = texts{
		"en": {"Not found", "This link does not exist. Check that it is complete."},
		"it": {"Pagina non trovata", "Questo link non esiste. Controlla che sia completo."},
		"es": {"No encontrado", "Este enlace no existe. Comprueba que esté completo."},
		"fr": {"Introuvable", "Ce lien n’existe pas. Vérifiez qu’il est complet."},
		"de": {"Nicht gefunden", "Diesen Link gibt es nicht. Bitte prüfen, ob er vollständig ist."},
	}
	textExpired = texts{
		"en": {"This link has expired", "The page it led to is no longer offered here."},
		"it": {"Questo link è scaduto", "La pagina a cui portava non è più disponibile da qui."},
		"es": {"Este enlace ha caducado", "La página a la que llevaba ya no se ofrece aquí."},
		"fr": {"Ce lien a expiré", "La page vers laquelle il menait n’est plus proposée ici."},
		"de": {"Dieser Link ist abgelaufen", "Die Seite, auf die er führte, wird hier nicht mehr angeboten."},
	}
	//nolint:misspell // texts of other languages
	textStarting = texts{
		"en": {"One moment", "Please try again in a few seconds."},
		"it": {"Un momento", "Riprova tra qualche secondo."},
		"es": {"Un momento", "Vuelve a intentarlo en unos segundos."},
		"fr": {"Un instant", "Réessayez dans quelques secondes."},
		"de": {"Einen Moment", "Bitte in ein paar Sekunden noch einmal versuchen."},
	}
	textBusy = texts{
		"en": {"Too many requests", "Please wait a few seconds and try again."},
		"it": {"Troppe richieste", "Attendi qualche secondo e riprova."},
		"es": {"Demasiadas solicitudes", "Espera unos segundos y vuelve a intentarlo."},
		"fr": {"Trop de requêtes", "Attendez quelques secondes et réessayez."},
		"de": {"Zu viele Anfragen", "Bitte ein paar Sekunden warten und noch einmal versuchen."},
	}
)

// languageOf returns the first of a reader's languages that texts has. It ignores the weights, because browsers send
// languages in their order.
func languageOf[T any](accept string, t map[string]T) string {
	for _, part := range strings.SplitN(accept[:min(len(accept), 200)], ",", 10) {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		tag, _, _ = strings.Cut(strings.ToLower(tag), "-")
		if _, ok := t[tag]; ok {
			return tag
		}
	}
	return "en"
}

// The page contains nothing of the request, loads nothing and runs no script.
var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="{{.Language}}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body{font:17px/1.5 system-ui,sans-serif;max-width:30rem;margin:12vh auto;padding:0 1.25rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;line-height:1.25}
@media (prefers-color-scheme:dark){body{color:#e6e8eb;background:#14171a}}
</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Body}}</p>
</main>
</body>
</html>
`))

// pageHeaders sets the headers of a page in a language. forms is the source, in the words of Content-Security-Policy,
// to which the page may send forms.
func pageHeaders(w http.ResponseWriter, language, forms string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", language)
	h.Set("Vary", "Accept-Language")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action "+forms+"; frame-ancestors 'none'; base-uri 'none'")
}

// page writes a page, or only its headers for HEAD.
func page(w http.ResponseWriter, r *http.Request, status int, t texts) {
	language := languageOf(r.Header.Get("Accept-Language"), t)
	pageHeaders(w, language, "'none'")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_ = pageTemplate.Execute(w, struct { // the only error is that the client disconnected
		text
		Language string
	}{t[language], language})
}
