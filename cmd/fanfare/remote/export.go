package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// jobState is the part of an export or a segment that the commands read.
type jobState struct {
	ID          string   `json:"id"`
	Status      string   `json:"status"`
	Error       *string  `json:"error"`
	Progress    *float64 `json:"progress"`
	Rows        uint64   `json:"rows"`
	Done        uint64   `json:"done"`
	DownloadURL *string  `json:"downloadUrl"`
}

// waiting describes a command that orders a job and waits for its end.
type waiting struct {
	path   string // path of the job, without its id
	what   string
	save   *string
	detach *bool
}

// waitingFor returns how a command waits for the job that its operation orders; nil if the operation orders none.
func waitingFor(op *operation, cmd *cobra.Command) *waiting {
	export := op.method == http.MethodPost && strings.HasPrefix(op.path, "/api/exports/")
	if !export && op.ID != "createSegment" {
		return nil
	}
	w := &waiting{detach: cmd.Flags().Bool("detach", false, "only order it, and print its id; it runs on by itself")}
	if !export {
		w.path, w.what = "/api/segments/", "segment"
		return w
	}
	w.path, w.what = "/api/exports/", "export"
	w.save = cmd.Flags().String("save", "", "write the file here, - for the standard output; by default under the name that the server gives it")
	cmd.Long += "\n\nThe command waits until the file is ready, and writes it. An interrupt leaves the export running: fanfare export show ID says how far it is."
	return w
}

// wait shows the progress of a job until it ends, and returns the last answer.
func (w *waiting) wait(ctx context.Context, s *Setup, c *client, answer []byte) ([]byte, *jobState, error) {
	bar := &progressBar{w: s.Progress, terminal: s.Terminal}
	defer bar.end()
	for {
		var j jobState
		if err := json.Unmarshal(answer, &j); err != nil {
			return nil, nil, fmt.Errorf("read the answer: %w", err)
		}
		note := fmt.Sprintf("%d rows", max(j.Rows, j.Done))
		switch j.Status {
		case "queued", "running":
		case "done":
			bar.show(w.what, 1, note)
			return answer, &j, nil
		default:
			reason := j.Status
			if j.Error != nil {
				reason += ": " + *j.Error
			}
			return nil, nil, fmt.Errorf("the %s %s", w.what, reason)
		}
		done := 0.0
		if j.Progress != nil {
			done = min(*j.Progress, 0.99)
		}
		bar.show(w.what, done, note)
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w; it runs on: fanfare %s show %s", ctx.Err(), w.what, j.ID)
		case <-time.After(importPoll):
		}
		var err error
		if answer, err = c.do(ctx, http.MethodGet, w.path+j.ID, nil, nil, ""); err != nil {
			return nil, nil, err
		}
	}
}

// finish waits for the end of the job, and saves its file if it has one.
func (w *waiting) finish(ctx context.Context, s *Setup, c *client, out *printer, answer []byte) error {
	if *w.detach {
		return out.print(answer)
	}
	answer, j, err := w.wait(ctx, s, c, answer)
	if err != nil {
		return err
	}
	if w.save == nil {
		return out.print(answer)
	}
	if j.DownloadURL == nil {
		return errors.New("the export is done, but the server gives no link to its file")
	}
	name, n, err := c.download(ctx, *j.DownloadURL, *w.save, s.Stdout)
	if err != nil {
		return fmt.Errorf("download %s: %w; fanfare export show %s has a new link", j.ID, err, j.ID)
	}
	if name != "-" && s.Progress != nil {
		_, _ = fmt.Fprintf(s.Progress, "%s: %d rows, %d bytes\n", name, j.Rows, n)
	}
	return nil
}

// download saves the file at a link under a name; the name - means out. It returns the name and the size of the file.
// It removes the file if the download breaks off.
func (c *client) download(ctx context.Context, link, name string, out io.Writer) (saved string, n int64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+link, nil)
	if err != nil {
		return "", 0, err
	}
	patient := *c.http
	patient.Timeout = 0 // a large file may take long
	resp, err := patient.Do(r)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		refusal := &Refusal{Status: resp.StatusCode}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(refusal)
		return "", 0, refusal
	}
	if name == "-" {
		n, err = io.Copy(out, resp.Body)
		return name, n, err
	}
	if name == "" {
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
		if name = filepath.Base(params["filename"]); err != nil || name == "." || name == string(filepath.Separator) {
			return "", 0, errors.New("the server does not name the file: give --save")
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // it contains phone numbers
	if err != nil {
		return "", 0, err
	}
	n, err = io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", 0, errors.Join(err, os.Remove(name))
	}
	return name, n, nil
}
