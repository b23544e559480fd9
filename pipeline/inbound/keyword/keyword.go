// Package keyword reads what a recipient wrote and decides whether it is a keyword that opts out or in, or a hint: a
// text that a person must review.
//
// The words are data with their sources, in keywords.csv and confirmations.csv. A text is a keyword only if the whole
// message, after normalisation, equals it. A sentence that contains a keyword is never an opt-out by itself; it waits
// for a review.
package keyword

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"fanfare/schemas"
)

//go:embed keywords.csv
var keywordFile []byte

//go:embed confirmations.csv
var confirmationFile []byte

// Words are the keywords of all languages.
type Words struct {
	exact         map[string]found
	hints         []string
	confirmations map[found]string
}

type found struct {
	meaning  schemas.ReplyMeaning
	language string
}

// meanings are the words for meanings in the files. A hint has no confirmation.
var meanings = map[string]schemas.ReplyMeaning{
	"stop": schemas.ReplyMeaningOptOut, "start": schemas.ReplyMeaningOptIn, "hint": schemas.ReplyMeaningReview,
}

// Open reads the files.
func Open() (*Words, error) {
	w := &Words{exact: map[string]found{}, confirmations: map[found]string{}}
	err := rows(keywordFile, func(f found, text string) error {
		n := Normalise(text)
		switch {
		case n == "":
			return errors.New("no text")
		case f.meaning == schemas.ReplyMeaningReview:
			w.hints = append(w.hints, " "+n+" ")
			return nil
		}
		if have, ok := w.exact[n]; ok && have.meaning != f.meaning {
			return fmt.Errorf("%q is a stop and a start", text)
		} else if !ok {
			w.exact[n] = f
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keywords.csv: %w", err)
	}
	err = rows(confirmationFile, func(f found, text string) error {
		if _, ok := w.confirmations[f]; ok || !strings.Contains(text, "{sender}") {
			return errors.New("want one text with {sender} for each language and meaning")
		}
		w.confirmations[f] = text
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("confirmations.csv: %w", err)
	}
	for text, f := range w.exact {
		if w.confirmations[f] == "" {
			return nil, fmt.Errorf("confirmations.csv: %q has no confirmation in %s", text, f.language)
		}
	}
	return w, nil
}

func rows(file []byte, each func(found, string) error) error {
	r := csv.NewReader(bytes.NewReader(file))
	r.Comment, r.FieldsPerRecord = '#', 3
	list, err := r.ReadAll()
	if err != nil {
		return err
	}
	for _, row := range list {
		meaning, ok := meanings[row[1]]
		if !ok {
			return fmt.Errorf("%q is no meaning", row[1])
		}
		if err := each(found{meaning, row[0]}, row[2]); err != nil {
			return fmt.Errorf("%v: %w", row, err)
		}
	}
	return nil
}

// mostRunes is how many characters of a text are read; the rest is ignored.
const mostRunes = 2000

// Read returns the meaning of a text, and the confirmation to send from the sender it was written to ("" if there is
// none).
func (w *Words) Read(text, sender string) (meaning schemas.ReplyMeaning, confirmation string) {
	n := Normalise(text)
	if f, ok := w.exact[n]; ok {
		return f.meaning, strings.ReplaceAll(w.confirmations[f], "{sender}", sender)
	}
	for _, hint := range w.hints {
		if strings.Contains(" "+n+" ", hint) {
			return schemas.ReplyMeaningReview, ""
		}
	}
	return schemas.ReplyMeaningUnspecified, ""
}

// Normalise returns a text in the form in which keywords are compared. It is in lower case. Compatibility forms (such
// as full-width letters) become the usual ones. Accents and other marks are removed. Each sequence of other characters
// becomes one blank, except that apostrophes are dropped; there are none at the ends. A Turkish dotless i becomes an i.
// Only the first 2,000 characters count.
func Normalise(text string) string {
	var b strings.Builder
	gap, n := false, 0
	for _, r := range norm.NFKD.String(cut(strings.ToValidUTF8(text, " "))) {
		r = unicode.ToLower(r)
		switch {
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) || r == '\'' || r == '’':
			continue
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mc, r):
		default:
			gap = true
			continue
		}
		if r == 'ı' {
			r = 'i'
		}
		if n >= mostRunes {
			break
		}
		if gap && n > 0 {
			b.WriteByte(' ')
			n++
		}
		gap = false
		n++
		b.WriteRune(r)
	}
	return b.String()
}

func cut(text string) string {
	n := 0
	for i := range text {
		if n++; n > mostRunes {
			return text[:i]
		}
	}
	return text
}
