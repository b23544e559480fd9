package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/clientaddr"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "edge"

// Campaigns is the control-plane view.
type Campaigns interface {
	// CampaignByNumber returns a campaign, nil when it is unknown.
	CampaignByNumber(n uint64) *fanfarev1.Campaign
	// Domain returns the domain with a host, nil when it is unknown.
	Domain(host string) *fanfarev1.Domain
	// Ready is closed once the topic has been read to its end.
	Ready() <-chan struct{}
}

// Config of a [Server].
type Config struct {
	Names schemas.Names
	Keys  *schemas.Keys
	// Spool is the path of the file of unpublished clicks and opt-outs. SpoolBytes is its maximum size; default 256 MB,
	// about half a million clicks.
	Spool      string
	SpoolBytes int64
	// Patience is how long a request waits for Kafka before its click or opt-out goes to the file; default 100 ms.
	Patience time.Duration
	// Proxies are the addresses of our own proxies. X-Forwarded-For and X-Forwarded-Host are trusted only from them.
	Proxies  clientaddr.Proxies
	Logger   *slog.Logger
	Registry prometheus.Registerer
	Now      func() time.Time
}

// Server answers links.
type Server struct {
	cfg       Config
	campaigns Campaigns
	kafka     *kgo.Client
	spool     *spool
	limits    *limiter
	crowd     *crowd
	metrics   *metrics
	wake      chan struct{}
	warned    atomic.Int64 // nanoseconds
}

// New returns a server. Give the Kafka client ProducerLinger(0): every redirect waits for the linger.
func New(cfg Config, campaigns Campaigns, kafka *kgo.Client) (*Server, error) {
	if cfg.Keys == nil || cfg.Logger == nil || cfg.Registry == nil || cfg.Spool == "" || campaigns == nil || kafka == nil {
		return nil, errors.New("edge: keys, logger, registry, spool path, campaigns and Kafka client are required")
	}
	if cfg.SpoolBytes == 0 {
		cfg.SpoolBytes = 256 << 20
	}
	if cfg.Patience == 0 {
		cfg.Patience = 100 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	sp, err := openSpool(cfg.Spool, cfg.SpoolBytes)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	return &Server{
		cfg: cfg, campaigns: campaigns, kafka: kafka, spool: sp, limits: newLimiter(), crowd: &crowd{},
		metrics: newMetrics(cfg.Registry, sp), wake: make(chan struct{}, 1),
	}, nil
}

// Run publishes the clicks in the file until ctx ends. The next process publishes the clicks that are left.
func (s *Server) Run(ctx context.Context) error {
	s.flush(ctx)
	return s.spool.close()
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex, nofollow")
	result := s.answer(w, r)
	s.metrics.requests.WithLabelValues(result).Inc()
	if result == "redirect" {
		s.metrics.seconds.Observe(time.Since(began).Seconds())
	}
}

// answer writes the response and returns the result label for the metrics.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) string {
	switch r.URL.Path {
	case "/healthz":
		w.WriteHeader(http.StatusOK)
		return "health"
	case "/robots.txt":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("User-agent: *\nDisallow: /\n"))
		return "robots"
	}
	now := s.cfg.Now()
	place := s.limits.place(s.cfg.Proxies.Of(r))
	if !s.limits.allows(place, now) {
		w.Header().Set("Retry-After", "5")
		page(w, r, http.StatusTooManyRequests, textBusy)
		return "limited"
	}
	link, err := s.cfg.Keys.ParseLink(tokenOf(r.URL.Path))
	if err != nil {
		s.limits.spend(place, costGuess, now)
		page(w, r, http.StatusNotFound, textUnknown)
		return "unknown"
	}
	s.limits.spend(place, costKnown, now)
	c := s.campaigns.CampaignByNumber(link.Campaign)
	// The token is signed, so an opt-out is accepted on any host: a proxy that changes the host must not prevent an
	// opt-out.
	misplaced := c != nil && c.GetLinks() != nil && link.Number != schemas.LinkOptOut && !s.answersOn(r, c)
	if c == nil || c.GetLinks() == nil || misplaced {
		select {
		case <-s.campaigns.Ready():
		default:
			// The edge may not have read the campaign, its version with the links, or the domain from the topics yet
			w.Header().Set("Retry-After", "2")
			page(w, r, http.StatusServiceUnavailable, textStarting)
			return "starting"
		}
	}
	if misplaced {
		page(w, r, http.StatusMisdirectedRequest, textUnknown)
		return "host"
	}
	if c != nil && link.Number == schemas.LinkOptOut && c.GetLinks() != nil {
		return s.optOut(w, r, c, link, place, now)
	}
	if c == nil || c.GetLinks() == nil || expired(c, now) {
		page(w, r, http.StatusGone, textExpired)
		return "expired"
	}
	return s.redirect(w, r, c, link, place, now)
}

// answersOn reports whether recipients may open the links of a campaign on the host that a request names: the host of
// the installation, or a domain of the campaign's tenant or of all tenants. Links on a paused or spent domain still
// work.
func (s *Server) answersOn(r *http.Request, c *fanfarev1.Campaign) bool {
	host := s.hostOf(r)
	base, err := url.Parse(c.GetLinks().GetBase())
	if err == nil && strings.EqualFold(base.Hostname(), host) && host != "" {
		return true
	}
	d := s.campaigns.Domain(host)
	return d != nil && (d.GetTenant() == "" || d.GetTenant() == c.GetTenant())
}

// hostOf returns the host that a request names, in lower case and without a port. Our own proxies may name it in
// X-Forwarded-Host.
func (s *Server) hostOf(r *http.Request) string {
	host := r.Host
	if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" && s.cfg.Proxies.Sends(r) {
		host = forwarded
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// tokenOf returns the token of a path. It drops punctuation at the end, because phones that detect links in a text
// include the punctuation that follows the link.
func tokenOf(path string) string {
	return strings.TrimRight(strings.TrimPrefix(path, "/"), "/.,;:!?)'\"*")
}

// expired reports whether the links of a campaign have expired. Links never expire before the campaign has ended.
func expired(c *fanfarev1.Campaign, now time.Time) bool {
	end := max(c.GetCompletedMs(), c.GetSettledMs())
	return end > 0 && now.UnixMilli() > end+c.GetLinks().GetValidAfterEndMs()
}

// redirect publishes the click and redirects to the link's target.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, c *fanfarev1.Campaign, link schemas.Link, place uint64, now time.Time) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return "method"
	}
	var to *fanfarev1.Link
	for _, l := range c.GetLinks().GetLinks() {
		if l.GetNumber() == uint32(link.Number) {
			to = l
		}
	}
	if to == nil { // the MAC is right but the campaign's table has no such link: the token was made with another table
		page(w, r, http.StatusGone, textExpired)
		return "expired"
	}
	who := classify(r)
	if s.crowd.many(s.limits.placeAndAgent(place, r.UserAgent()), link.Campaign<<24|uint64(link.Seq), now) && who.code == schemas.CodeUnspecified {
		who = class{schemas.CodeBot, "many_recipients"}
	}
	message := s.cfg.Keys.Message(link.Campaign, link.Seq)
	event := schemas.DeliveryEvent(s.cfg.Names.Deliveries(), source, &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetId(), CampaignNumber: c.GetNumber(), Seq: link.Seq, Kind: schemas.KindClicked, Code: who.code, RawCode: who.rule,
		TimeMs: now.UnixMilli(), LinkId: to.GetId(), Variant: to.GetVariant(), MessageId: message[:], Test: c.GetTest(),
	}, fact(now))
	if record, err := event.Record(); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "click lost: cannot encode its event", "err", err)
	} else {
		_ = s.publish(r.Context(), record, false) // publish logs a lost click; the person is redirected in any case
	}
	s.metrics.clicks.WithLabelValues(schemas.ClickClass(who.code)).Inc()
	target := to.GetTarget()
	if target == "" {
		target = to.GetUrl()
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusFound)
	return "redirect"
}

// fact returns a string that differs between two clicks of one recipient.
func fact(now time.Time) string {
	return strconv.FormatInt(now.UnixMilli(), 10) + "/" + strconv.FormatUint(rand.Uint64(), 36)
}
