package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fanfare/schemas"
)

// answer is the result of a request.
type answer struct {
	status int    // 0: none came
	text   string // the first bytes of its body
	err    string // why the request failed; "" if the endpoint accepted it
	// after: the endpoint asked for a pause of this length (Retry-After).
	after time.Duration
	took  time.Duration
}

// poster makes requests.
type poster struct {
	client *http.Client
	cfg    Config
}

// answerMost is how many bytes of an answer are kept: enough for an error message, and too few to fill a store.
const answerMost = 512

func newPoster(cfg Config) *poster {
	var v4, v6 []netip.Prefix
	for _, p := range cfg.Allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	// The guard checks the address that is dialled, after the name was resolved, so no name can bypass it.
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: guard.Safe}
	return &poster{cfg: cfg, client: &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: cfg.Requests, MaxIdleConns: 4 * cfg.Most, IdleConnTimeout: 30 * time.Second,
			TLSHandshakeTimeout: cfg.Timeout, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// post makes one signed request.
func (p *poster) post(ctx context.Context, w *schemas.Webhook, id string, body []byte) answer {
	began := time.Now()
	a := p.try(ctx, w, id, body)
	a.took = time.Since(began)
	return a
}

func (p *poster) try(ctx context.Context, w *schemas.Webhook, id string, body []byte) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return answer{err: "the address of the endpoint is no URL"}
	}
	now := p.cfg.Now()
	signature, err := sign(w.Secrets, now, id, body)
	if err != nil {
		return answer{err: err.Error()}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Fanfare-Webhooks/1")
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{err: p.explain(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	text, readErr := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	a := answer{status: resp.StatusCode, text: strings.ToValidUTF8(strings.ReplaceAll(string(text), "\x00", ""), "")}
	switch {
	case a.status >= 300:
		a.err = fmt.Sprintf("the endpoint answered %d", a.status)
		a.after = retryAfter(resp.Header.Get("Retry-After"), now)
	// the status is known, but an endpoint that cuts off its answer may not have accepted the event
	case readErr != nil:
		a.err = p.explain(readErr)
	}
	return a
}

// sign returns the header of a request: a signature by each secret that is in force, the newest first.
func sign(secrets []schemas.WebhookSecret, now time.Time, id string, body []byte) (string, error) {
	var out []string
	for _, s := range secrets {
		if !s.Until.IsZero() && !now.Before(s.Until) {
			continue
		}
		wh, err := standardwebhooks.NewWebhook(s.Value)
		if err != nil {
			return "", errors.New("the secret of the endpoint can't be read: rotate it")
		}
		sig, err := wh.Sign(id, now, body)
		if err != nil {
			return "", fmt.Errorf("sign: %w", err)
		}
		out = append(out, sig)
	}
	if len(out) == 0 {
		return "", errors.New("the endpoint has no secret: rotate it")
	}
	return strings.Join(out, " "), nil
}

// explain returns the error in words that the owner of the endpoint understands.
func (p *poster) explain(err error) string {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) { // the text of such an error begins with the address
		err = wrapped.Err
	}
	dns, timeout := (*net.DNSError)(nil), net.Error(nil)
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP):
		return "the address is private or special, and not allowed"
	case errors.Is(err, context.Canceled):
		return "interrupted: the process stopped"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the name of the host is not known"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer within " + p.cfg.Timeout.String()
	}
	return strings.ToValidUTF8(trim(err.Error(), 200), "")
}

func trim(s string, most int) string { return s[:min(len(s), most)] }

// retryAfter reads the header: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, patienceMost)
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), patienceMost)
	}
	return 0
}
