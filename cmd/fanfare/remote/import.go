package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// importPoll is how often the command asks for the progress of an import.
const importPoll = 250 * time.Millisecond

// importOptions are the flags of `fanfare import`.
type importOptions struct {
	list, region string
	create       bool
	mapping      []string
}

// importFile adds `fanfare import FILE` to the noun import: it uploads a file, starts its import, and waits for the
// end.
func (s *Setup) importFile(parent *cobra.Command) {
	var o importOptions
	parent.Use = "import FILE"
	parent.Short = "On a server: import a file of contacts into a list"
	parent.Long = `Import a file of contacts (CSV, Excel, vCards or JSON, also packed with gzip) into a list of a server, and wait for the end.

An interrupt leaves the import running: fanfare import show ID says how far it is, fanfare import cancel ID ends it, and
fanfare import rejects ID lists the rows that it refused.`
	parent.Example = "  fanfare import people.xlsx --list customers --map Cellulare=phone --map Nome=first_name"
	parent.Flags().StringVar(&o.list, "list", "", "id or name of the list (needed)")
	parent.Flags().BoolVar(&o.create, "create", false, "make the list if there is none of that name")
	parent.Flags().StringVar(&o.region, "region", "", "region of numbers without a country code, such as IT; the tenant's otherwise")
	parent.Flags().StringArrayVar(&o.mapping, "map", nil, "header=field: phone, first_name, last_name, email, the name of an attribute, or - to leave the column out")
	parent.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || o.list == "" {
			return s.Usage(errors.New("want a file and --list: fanfare import people.csv --list customers"))
		}
		return nil
	}
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		c, out, err := s.connect(cmd)
		if err != nil {
			return s.Usage(err)
		}
		mapping := map[string]string{}
		for _, pair := range o.mapping {
			header, field, ok := strings.Cut(pair, "=")
			if !ok || header == "" || field == "" {
				return s.Usage(fmt.Errorf("--map %q: want header=field", pair))
			}
			mapping[header] = field
		}
		c.http.Timeout = 0 // a large file may take long; the server ends an upload that stalls
		return s.runImport(cmd.Context(), c, out, args[0], &o, mapping)
	}
}

// importState is the part of an import that the command reads.
type importState struct {
	ID       string   `json:"id"`
	Status   string   `json:"status"`
	Error    *string  `json:"error"`
	Progress *float64 `json:"progress"`
	RowsRead uint64   `json:"rowsRead"`
	Invalid  uint64   `json:"invalid"`
}

func (s *Setup) runImport(ctx context.Context, c *client, out *printer, name string, o *importOptions, mapping map[string]string) error {
	f, err := os.Open(name)
	if err != nil {
		return s.Usage(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if o.create {
		if err := c.makeList(ctx, o.list); err != nil {
			return err
		}
	}
	bar := &progressBar{w: s.Progress, terminal: s.Terminal}
	query := url.Values{"filename": {filepath.Base(name)}}
	if o.region != "" {
		query.Set("region", o.region)
	}
	body := &countingReader{r: f, each: func(n int64) { bar.show("uploading", share(n, info.Size()), "") }}
	answer, err := c.do(ctx, http.MethodPost, "/api/contacts/upload", query, body, "application/octet-stream")
	if err != nil {
		bar.end()
		return err
	}
	var uploaded struct {
		UploadID string   `json:"uploadId"`
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal(answer, &uploaded); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	order, err := json.Marshal(map[string]any{"uploadId": uploaded.UploadID, "contactList": o.list, "mapping": mapping, "region": o.region})
	if err != nil {
		return err
	}
	if answer, err = c.do(ctx, http.MethodPost, "/api/contacts/mapped/file", nil, strings.NewReader(string(order)), "application/json"); err != nil {
		bar.end()
		return err
	}
	defer bar.end()
	for {
		var im importState
		if err := json.Unmarshal(answer, &im); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		switch im.Status {
		case "queued", "running":
		default:
			bar.show("importing", 1, fmt.Sprintf("%d rows", im.RowsRead))
			bar.end()
			if err := out.print(answer); err != nil {
				return err
			}
			if im.Status != "done" {
				reason := im.Status
				if im.Error != nil {
					reason += ": " + *im.Error
				}
				return fmt.Errorf("the import %s; what it had read is kept", reason)
			}
			return nil
		}
		done := 0.0
		if im.Progress != nil {
			done = *im.Progress
		}
		bar.show("importing", done, fmt.Sprintf("%d rows, %d refused", im.RowsRead, im.Invalid))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the import runs on: fanfare import show %s", ctx.Err(), im.ID)
		case <-time.After(importPoll):
		}
		if answer, err = c.do(ctx, http.MethodGet, "/api/imports/"+im.ID, nil, nil, ""); err != nil {
			return err
		}
	}
}

// makeList creates a list unless one of that name exists.
func (c *client) makeList(ctx context.Context, name string) error {
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPost, "/api/contacts/list", nil, strings.NewReader(string(body)), "application/json")
	if refusal, ok := errors.AsType[*Refusal](err); ok && refusal.Code == "name_taken" {
		return nil
	}
	return err
}

func share(n, of int64) float64 {
	if of <= 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// countingReader counts the bytes that were read.
type countingReader struct {
	r    io.Reader
	n    int64
	each func(n int64)
}

// Read implements [io.Reader].
func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	r.each(r.n)
	return n, err
}

// progressBar shows progress: on a terminal a bar that is redrawn, elsewhere a line every few seconds.
type progressBar struct {
	w        io.Writer
	terminal bool
	last     string
	at       time.Time
	drawn    bool
}

const (
	barWidth      = 30
	barEvery      = 100 * time.Millisecond
	barLinesEvery = 5 * time.Second
)

func (b *progressBar) show(what string, share float64, note string) {
	if b.w == nil {
		return
	}
	every := barLinesEvery
	if b.terminal {
		every = barEvery
	}
	if time.Since(b.at) < every && share < 1 {
		return
	}
	share = min(max(share, 0), 1)
	line := fmt.Sprintf("%s %3.0f%%", what, 100*share)
	if b.terminal {
		full := int(share * barWidth)
		line = fmt.Sprintf("%-9s [%s%s] %3.0f%%", what, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), 100*share)
	}
	if note != "" {
		line += "  " + note
	}
	if line == b.last {
		return
	}
	b.last, b.at = line, time.Now()
	if b.terminal {
		_, _ = fmt.Fprintf(b.w, "\r\x1b[K%s", line)
		b.drawn = true
		return
	}
	_, _ = fmt.Fprintln(b.w, line)
}

// end leaves the bar on the terminal.
func (b *progressBar) end() {
	if b.drawn {
		_, _ = fmt.Fprintln(b.w)
		b.drawn = false
	}
}
