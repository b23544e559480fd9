package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ErrUnexplained is returned when an audit found a difference that nothing explains.
var ErrUnexplained = errors.New("the sources differ, and nothing explains it")

// auditWait is how many seconds a request waits for the end of an audit. It is less than the time-out of usual proxies.
const auditWait = "20"

// auditAnswer is the part of an audit that the command reads.
type auditAnswer struct {
	CampaignID  string  `json:"campaignId"`
	Status      string  `json:"status"`
	Error       *string `json:"error"`
	Unexplained int     `json:"unexplained"`
	Figures     []struct {
		Name   string `json:"name"`
		Values []struct {
			Source string      `json:"source"`
			Value  json.Number `json:"value"`
		} `json:"values"`
		Difference  json.Number `json:"difference"`
		Explained   bool        `json:"explained"`
		Explanation *string     `json:"explanation"`
	} `json:"figures"`
	Notes []string `json:"notes"`
}

// audit orders an audit, waits until it is done, and prints it. The error is [ErrUnexplained] if a difference has no
// explanation.
func (s *Setup) audit(ctx context.Context, c *client, path string, out *printer) error {
	if _, err := c.do(ctx, http.MethodPost, path, nil, nil, ""); err != nil {
		return err
	}
	for {
		answer, err := c.do(ctx, http.MethodGet, path, url.Values{"wait": {auditWait}}, nil, "")
		if err != nil {
			return err
		}
		var a auditAnswer
		if err := json.Unmarshal(answer, &a); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		switch a.Status {
		case "queued", "running":
			if s.Progress != nil {
				_, _ = fmt.Fprintln(s.Progress, "the log is being read")
			}
			continue
		case "done":
		default:
			reason := a.Status
			if a.Error != nil {
				reason += ": " + *a.Error
			}
			return fmt.Errorf("the audit %s", reason)
		}
		if err := s.printAudit(&a, answer, out); err != nil {
			return err
		}
		if a.Unexplained > 0 {
			return fmt.Errorf("%w: %d figures of %s", ErrUnexplained, a.Unexplained, a.CampaignID)
		}
		return nil
	}
}

// printAudit prints an audit: a table with one line per figure, and below it the explanations of the differences.
func (s *Setup) printAudit(a *auditAnswer, answer []byte, out *printer) error {
	if out.format != "table" {
		return out.print(answer)
	}
	var b strings.Builder
	for _, f := range a.Figures {
		fmt.Fprintf(&b, "%-20s", f.Name)
		for _, v := range f.Values {
			fmt.Fprintf(&b, "  %s %s", v.Source, v.Value)
		}
		switch {
		case f.Difference == "0":
			b.WriteString("  equal\n")
		case f.Explained:
			fmt.Fprintf(&b, "  differ by %s: %s\n", f.Difference, deref(f.Explanation))
		default:
			fmt.Fprintf(&b, "  DIFFER BY %s, UNEXPLAINED. %s\n", f.Difference, deref(f.Explanation))
		}
	}
	for _, note := range a.Notes {
		b.WriteString(note + "\n")
	}
	_, err := fmt.Fprint(out.w, b.String())
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
