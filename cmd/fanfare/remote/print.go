package remote

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// printer prints answers.
type printer struct {
	w      io.Writer
	format string
}

// columns are the columns of a table, in the order in which people look for them. A column is omitted if no row has the
// field.
var columns = []string{
	"id", "seq", "name", "email", "phoneNumber", "firstName", "lastName", "channel", "type", "status", "state", "tenant", "role", "address", "hint", "scopes",
	"test", "contacts", "totalMessages", "sent", "delivered", "failed", "balance", "reserved", "from", "to", "amount", "country", "price", "by", "reason",
	"tags", "scheduledTime", "createdAt", "time", "code", "count",
}

// print prints the body of an answer: a list as a table, an object as lines.
func (p *printer) print(body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if p.format == "json" || !json.Valid(body) {
		var out bytes.Buffer
		if json.Indent(&out, body, "", "  ") != nil {
			out.Write(body)
		}
		out.WriteByte('\n')
		_, err := p.w.Write(out.Bytes())
		return err
	}
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		_, err = fmt.Fprintf(p.w, "%s\n", body)
		return err
	}
	rows, isList := object["data"].([]any)
	if !isList {
		rows = []any{object}
	}
	if p.format == "csv" {
		return p.csv(rows)
	}
	if !isList {
		return p.lines(object)
	}
	return p.table(rows, object["total"])
}

// headers returns the columns of some rows: first the known ones, and for CSV then all others by name.
func headers(rows []any, all bool) (out []string) {
	seen := map[string]bool{}
	for _, r := range rows {
		row, _ := r.(map[string]any)
		for name, v := range row {
			if v != nil || all {
				seen[name] = true
			}
		}
	}
	for _, name := range columns {
		if seen[name] {
			out = append(out, name)
			delete(seen, name)
		}
	}
	if all || len(out) == 0 {
		out = append(out, slices.Sorted(maps.Keys(seen))...)
	}
	return out
}

func (p *printer) table(rows []any, total any) error {
	w := tabwriter.NewWriter(p.w, 0, 4, 2, ' ', 0)
	names := headers(rows, false)
	for i, name := range names {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, strings.ToUpper(strings.ReplaceAll(flagName(name), "-", " ")))
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		row, _ := r.(map[string]any)
		for i, name := range names {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cut(cell(row[name]), 60))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n, ok := total.(json.Number); ok && n.String() != fmt.Sprint(len(rows)) {
		_, err := fmt.Fprintf(p.w, "%d of %s\n", len(rows), n)
		return err
	}
	return nil
}

// cut shortens a cell that would make a line of the table too long.
func cut(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

func (p *printer) lines(object map[string]any) error {
	w := tabwriter.NewWriter(p.w, 0, 4, 2, ' ', 0)
	for _, name := range headers([]any{object}, true) {
		if v := object[name]; v != nil {
			fmt.Fprintf(w, "%s\t%s\n", name, cell(v))
		}
	}
	return w.Flush()
}

func (p *printer) csv(rows []any) error {
	w := csv.NewWriter(p.w)
	names := headers(rows, true)
	if err := w.Write(names); err != nil {
		return err
	}
	for _, r := range rows {
		row, _ := r.(map[string]any)
		record := make([]string, len(names))
		for i, name := range names {
			record[i] = harmless(cell(row[name]))
		}
		if err := w.Write(record); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// number matches a phone number, which is harmless in a spreadsheet.
var number = regexp.MustCompile(`^\+[0-9]{6,15}$`)

// harmless changes a cell that a spreadsheet would take for a formula.
func harmless(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) || number.MatchString(s) {
		return s
	}
	return "'" + s
}

// cell writes a value on one line.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		return v
	case json.Number, bool:
		return fmt.Sprint(v)
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = cell(v[i])
		}
		return strings.Join(words, ",")
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

const watchEvery = time.Second

// watchStats prints the statistics of a campaign, one line each second, until they cannot change any more.
func watchStats(ctx context.Context, c *client, path string, out *printer) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	last := ""
	for {
		body, err := c.do(ctx, "GET", path, nil, nil, "")
		if err != nil {
			return err
		}
		var s struct {
			State                                                                string
			Settled                                                              bool
			TotalMessages, Sent, Delivered, Failed, Pending, Awaiting, Ambiguous uint64
		}
		if err := json.Unmarshal(body, &s); err != nil {
			return fmt.Errorf("read the statistics: %w", err)
		}
		line := fmt.Sprintf("%s: %d sent, %d delivered, %d failed, %d awaiting a receipt, %d ambiguous, %d pending, of %d",
			s.State, s.Sent, s.Delivered, s.Failed, s.Awaiting, s.Ambiguous, s.Pending, s.TotalMessages)
		if line != last {
			if _, err := fmt.Fprintln(out.w, line); err != nil {
				return err
			}
			last = line
		}
		over := slices.Contains([]string{"cancelled", "aborted", "failed", "rejected"}, s.State) || s.State == "completed" && s.Awaiting+s.Ambiguous+s.Pending == 0
		if over || s.Settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
