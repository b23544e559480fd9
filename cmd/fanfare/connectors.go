package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"fanfare/api"
	"fanfare/pipeline/sender"
	"fanfare/schemas"
	"fanfare/schemas/credentials"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/httpsms"
	"fanfare/sinks/carrier/rcs"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/voice"
	"fanfare/sinks/carrier/whatsapp"
)

// A connector is a kind of carrier that a route may name. Everything that the program knows about that kind is here.
type connector struct {
	name string
	// simulated: nothing reaches a person. Tests go only there (X14).
	simulated bool
	channels  []schemas.Channel
	// secrets are the paths of settings that are credentials; a last element * means all keys below. The API never
	// returns them.
	secrets []string
	// caps returns what the connector can do with these settings, or what is wrong with them. It connects to nothing.
	caps func(settings []byte) (carrier.Caps, error)
	// open connects. The account is the name of the route.
	open func(ctx context.Context, w *wiring, account string, settings []byte) (carrier.Connector, error)
	// webhook returns what verifies and reads the carrier's callbacks; nil: the carrier makes none. It connects to
	// nothing.
	webhook func(account string, settings []byte) (carrier.Webhook, error)
}

var (
	allChannels = []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice}
	smsOnly     = []schemas.Channel{schemas.ChannelSMS}

	rcsOnly      = []schemas.Channel{schemas.ChannelRCS}
	whatsAppOnly = []schemas.Channel{schemas.ChannelWhatsApp}
	voiceOnly    = []schemas.Channel{schemas.ChannelVoice}
)

// connectors are the kinds of carriers that exist, one a line.
var connectors = []connector{
	{"sim", true, allChannels, nil, simCaps, openSim, nil},
	{"smpp", false, smsOnly, []string{"password", "tls.key"}, smppCaps, openSMPP, nil},
	{"httpsms", false, smsOnly, []string{"values.*"}, httpCaps, openHTTP, httpWebhook},
	{"rcs", false, rcsOnly, []string{"serviceAccount", "serviceAccount.*", "clientToken"}, rcsCaps, openRCS, rcsWebhook},
	{"voice", false, voiceOnly, []string{"password"}, voiceCaps, openVoice, nil},
	{"whatsapp", false, whatsAppOnly, []string{"accessToken", "appSecret", "verifyToken"}, whatsAppCaps, openWhatsApp, whatsAppWebhook},
}

// connectorNamed returns a connector, nil if there is none of that name.
func connectorNamed(name string) *connector {
	for i := range connectors {
		if connectors[i].name == name {
			return &connectors[i]
		}
	}
	return nil
}

// errNoConnector is returned for a route whose connector this version does not have.
func errNoConnector(name string) error {
	names := make([]string, len(connectors))
	for i := range connectors {
		names[i] = connectors[i].name
	}
	return fmt.Errorf("there is no connector %q; this version has %s", name, strings.Join(names, ", "))
}

// simCaps returns the capabilities of all profiles that --sim-profile names.
func simCaps(settings []byte) (carrier.Caps, error) {
	if names, err := credentials.Names(settings); err != nil || len(names) > 0 {
		return carrier.Caps{}, errors.Join(err, errors.New("the simulated carrier has no settings: --sim-profile and --carrier-sim say how it behaves"))
	}
	return carrier.Caps{MaxBatch: sim.MaxBatch, EchoesKey: true, Receipts: carrier.ReceiptsPoll, ReadReceipts: true, AnswerTimeout: sim.DefaultAnswerTimeout}, nil
}

func openSim(ctx context.Context, w *wiring, account string, settings []byte) (carrier.Connector, error) {
	if _, err := simCaps(settings); err != nil {
		return nil, err
	}
	opts := sim.Options{Account: account}
	if c := w.simulated.Load(); c != nil {
		return c.Connector(opts), nil
	}
	if w.cfg.CarrierSim == "" {
		return nil, errors.New("the simulated carrier runs in the process of the senders, and this one has no senders")
	}
	return sim.Dial(ctx, w.cfg.CarrierSim, opts)
}

func smppCaps(settings []byte) (carrier.Caps, error) {
	cfg, err := smpp.Parse(settings)
	if err != nil {
		return carrier.Caps{}, err
	}
	return cfg.Caps()
}

func openSMPP(ctx context.Context, w *wiring, account string, settings []byte) (carrier.Connector, error) {
	cfg, err := smpp.Parse(settings)
	if err != nil {
		return nil, err
	}
	return smpp.Dial(ctx, cfg, smpp.Deps{Account: account, Logger: w.log})
}

func newHTTP(log *slog.Logger, account string, settings []byte) (*httpsms.Connector, error) {
	cfg, err := httpsms.Parse(settings)
	if err != nil {
		return nil, err
	}
	return httpsms.New(cfg, httpsms.Deps{Account: account, Logger: log})
}

func httpCaps(settings []byte) (carrier.Caps, error) {
	c, err := newHTTP(nil, "", settings)
	if err != nil {
		return carrier.Caps{}, err
	}
	return c.Caps(), nil
}

func openHTTP(_ context.Context, w *wiring, account string, settings []byte) (carrier.Connector, error) {
	return newHTTP(w.log, account, settings)
}

func httpWebhook(account string, settings []byte) (carrier.Webhook, error) {
	return newHTTP(nil, account, settings)
}

func newWhatsApp(account string, settings []byte) (*whatsapp.Connector, error) {
	cfg, err := whatsapp.Parse(settings)
	if err != nil {
		return nil, err
	}
	return whatsapp.New(cfg, account)
}

func whatsAppCaps(settings []byte) (carrier.Caps, error) {
	c, err := newWhatsApp("", settings)
	if err != nil {
		return carrier.Caps{}, err
	}
	return c.Caps(), nil
}

func openWhatsApp(_ context.Context, _ *wiring, account string, settings []byte) (carrier.Connector, error) {
	return newWhatsApp(account, settings)
}

func whatsAppWebhook(account string, settings []byte) (carrier.Webhook, error) {
	return newWhatsApp(account, settings)
}

func newRCS(account string, settings []byte) (*rcs.Connector, error) {
	cfg, err := rcs.Parse(settings)
	if err != nil {
		return nil, err
	}
	return rcs.New(cfg, account)
}

func rcsCaps(settings []byte) (carrier.Caps, error) {
	c, err := newRCS("", settings)
	if err != nil {
		return carrier.Caps{}, err
	}
	return c.Caps(), nil
}

func openRCS(_ context.Context, _ *wiring, account string, settings []byte) (carrier.Connector, error) {
	return newRCS(account, settings)
}

func rcsWebhook(account string, settings []byte) (carrier.Webhook, error) {
	return newRCS(account, settings)
}

func newVoice(log *slog.Logger, account string, settings []byte) (*voice.Connector, error) {
	cfg, err := voice.Parse(settings)
	if err != nil {
		return nil, err
	}
	return voice.New(cfg, voice.Deps{Account: account, Logger: log})
}

func voiceCaps(settings []byte) (carrier.Caps, error) {
	c, err := newVoice(nil, "", settings)
	if err != nil {
		return carrier.Caps{}, err
	}
	return c.Caps(), nil
}

func openVoice(_ context.Context, w *wiring, account string, settings []byte) (carrier.Connector, error) {
	return newVoice(w.log, account, settings)
}

// settingsOf returns the settings with which the connector of a route is opened: its configuration and its decrypted
// credentials.
func (w *wiring) settingsOf(r *fanfarev1.Route) ([]byte, error) {
	var secret []byte
	if sealed := r.GetSealedCredentials(); len(sealed) > 0 {
		if w.sealing == nil {
			return nil, fmt.Errorf("route %s has credentials, and this process has no key to open them: %s", r.GetName(), giveCredentialsKey)
		}
		var err error
		if secret, err = w.sealing.Open(r.GetName(), sealed); err != nil {
			return nil, fmt.Errorf("route %s: %w: %s, or give the route its credentials again", r.GetName(), err, giveCredentialsKey)
		}
	}
	settings, err := credentials.Settings(r.GetConfiguration(), secret)
	if err != nil {
		return nil, fmt.Errorf("route %s: %w", r.GetName(), err)
	}
	return settings, nil
}

// connect opens the line of a route for the senders of this process.
func (w *wiring) connect(ctx context.Context, r *fanfarev1.Route) (sender.Line, error) {
	kind := connectorNamed(r.GetConnector())
	if kind == nil {
		return sender.Line{}, fmt.Errorf("%w: %w", sender.ErrNotServed, errNoConnector(r.GetConnector()))
	}
	settings, err := w.settingsOf(r)
	if err != nil {
		return sender.Line{}, err
	}
	c, err := kind.open(ctx, w, r.GetName(), settings)
	if err != nil {
		return sender.Line{}, err
	}
	line := sender.Line{Live: c}
	if kind.simulated {
		line.Test = c
	}
	return line, nil
}

// opened caches what is made of a route's settings, until they change.
type opened[T any] struct {
	make func(r *fanfarev1.Route) (T, error)

	mu     sync.Mutex
	routes map[string]openedRoute[T]
}

type openedRoute[T any] struct {
	connector, configuration, sealed string

	value T
	err   error
}

func (o *opened[T]) of(r *fanfarev1.Route) (T, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.routes[r.GetName()]
	if !ok || known.connector != r.GetConnector() || known.configuration != string(r.GetConfiguration()) || known.sealed != string(r.GetSealedCredentials()) {
		known = openedRoute[T]{connector: r.GetConnector(), configuration: string(r.GetConfiguration()), sealed: string(r.GetSealedCredentials())}
		known.value, known.err = o.make(r)
		if o.routes == nil {
			o.routes = map[string]openedRoute[T]{}
		}
		o.routes[r.GetName()] = known
	}
	return known.value, known.err
}

// indexed returns a function that reports whether the receipts of a route are matched through the index of provider
// ids: they are if the carrier does not echo our id, or if the route's settings cannot be read.
func (w *wiring) indexed() func(*fanfarev1.Route) bool {
	known := &opened[bool]{make: func(r *fanfarev1.Route) (bool, error) {
		kind := connectorNamed(r.GetConnector())
		if kind == nil {
			return true, nil
		}
		settings, err := w.settingsOf(r)
		if err != nil {
			return true, err
		}
		caps, err := kind.caps(settings)
		return err != nil || !caps.EchoesKey, err
	}}
	return func(r *fanfarev1.Route) bool {
		through, err := known.of(r)
		return through || err != nil
	}
}

// apiConnectors returns what the API may know of the connectors.
func (w *wiring) apiConnectors() api.Connectors {
	out := api.Connectors{Sealing: w.sealing, Test: w.testRoute, Verify: w.verifier()}
	for i := range connectors {
		kind := &connectors[i]
		out.List = append(out.List, api.Connector{
			Name: kind.name, Simulated: kind.simulated, Channels: slices.Clone(kind.channels), Secrets: slices.Clone(kind.secrets), Callbacks: kind.webhook != nil,
			Check: func(settings []byte) error { _, err := kind.caps(settings); return err },
		})
	}
	return out
}

// testRoute connects to the carrier of a route as a sender does, and disconnects.
func (w *wiring) testRoute(ctx context.Context, name, connector string, settings []byte) error {
	kind := connectorNamed(connector)
	if kind == nil {
		return errNoConnector(connector)
	}
	c, err := kind.open(ctx, w, name, settings)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUpTime)
		defer cancel()
		_ = c.Drain(end)
	}()
	if p, ok := c.(interface {
		Reach(ctx context.Context) error
	}); ok {
		return p.Reach(ctx)
	}
	return nil
}

// webhooks returns a function that finds the webhook of a route, which verifies and reads the carrier's callbacks. Its
// error is [api.ErrNoCallbacks] for a route that is not there or whose carrier makes none.
func (w *wiring) webhooks() func(route string) (carrier.Webhook, error) {
	known := &opened[carrier.Webhook]{make: func(r *fanfarev1.Route) (carrier.Webhook, error) {
		kind := connectorNamed(r.GetConnector())
		if kind == nil || kind.webhook == nil {
			return nil, fmt.Errorf("%w: its connector is %s", api.ErrNoCallbacks, r.GetConnector())
		}
		settings, err := w.settingsOf(r)
		if err != nil {
			return nil, err
		}
		return kind.webhook(r.GetName(), settings)
	}}
	return func(name string) (carrier.Webhook, error) {
		r := w.view.Route(name)
		if r == nil {
			return nil, fmt.Errorf("%w: there is no route %q", api.ErrNoCallbacks, name)
		}
		return known.of(r)
	}
}

// verifier returns the function that verifies the callbacks of carriers for the API. If the connector knows its public
// address, the verifier uses that and not the address of the request: proxies change the address that the carrier has
// called, and some carriers sign it.
func (w *wiring) verifier() func(*http.Request, *fanfarev1.Callback) (api.Called, error) {
	find := w.webhooks()
	return func(r *http.Request, c *fanfarev1.Callback) (api.Called, error) {
		select {
		case <-w.view.Ready():
		default: // a route that is not known yet may exist, and some carriers do not call again after a 404
			return api.Called{}, errNotReady
		}
		hook, err := find(c.GetRoute())
		if err != nil {
			return api.Called{}, err
		}
		if known, ok := hook.(interface{ CallbackURL() string }); ok && known.CallbackURL() != "" {
			c.Url = known.CallbackURL()
			if r.URL.RawQuery != "" {
				c.Url += "?" + r.URL.RawQuery
			}
		}
		from, _ := netip.ParseAddrPort(r.RemoteAddr) // invalid when it is not known
		called := &carrier.Callback{Method: c.GetMethod(), URL: c.GetUrl(), Header: r.Header, Body: c.GetBody(), From: from.Addr()}
		if shaker, ok := hook.(carrier.Handshaker); ok {
			answer, is, err := shaker.Handshake(called)
			if err != nil {
				return api.Called{}, fmt.Errorf("%w: %w", api.ErrUnverified, err)
			}
			if is {
				return api.Called{Handshake: answer}, nil
			}
		}
		if err := hook.Verify(called); err != nil {
			return api.Called{}, fmt.Errorf("%w: %w", api.ErrUnverified, err)
		}
		out := api.Called{}
		if teller, ok := hook.(carrier.TemplateTeller); ok {
			for _, n := range teller.Templates(called) {
				out.Templates = append(out.Templates, api.TemplateNotice(n))
			}
		}
		return out, nil
	}
}
