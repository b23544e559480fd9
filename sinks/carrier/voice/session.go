package voice

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"fanfare/sinks/carrier"

	"github.com/coder/websocket"
)

// Times and limits of a session.
const (
	// settle is how long after connecting the connector lists the calls. A process that has just died may have sent a
	// request that Asterisk has not read yet.
	settle = 200 * time.Millisecond
	// look is the interval of lookAfter, which repeats actions that got no answer, and hangs up calls that were held
	// for too long.
	look = time.Second
	// listEvery is how often, in looks, the connector also lists the calls, because events may be lost.
	listEvery = 5
	// doubtSettles is how long a hand-over in doubt takes up its place while Asterisk does not list the call.
	doubtSettles = 5 * time.Second
	// replacedFor is how long the connector leaves an application to the process that has taken it over, unless that
	// process disconnects before.
	replacedFor = 30 * time.Second
	// strangerFor is how long after a call was found a receipt says that it exists, because the process that made the
	// call may have died before it knew. If the call ends earlier, the receipt for its end says it, too.
	strangerFor = 10 * time.Second
	// alive is how long a connection may take to answer a ping.
	alive = 10 * time.Second
	// mostEvent is the size limit of an event, in octets.
	mostEvent = 1 << 20
)

// Errors of a session.
var (
	errUnread   = errors.New("the answer of Asterisk cannot be read")
	errReplaced = errors.New("another process has taken the application over")
)

// socketClient returns the client for the WebSocket of events.
func socketClient(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 5 * time.Second,
	}}
}

// run keeps the account connected until ctx ends.
func (c *Connector) run(ctx context.Context) {
	var pause carrier.Backoff
	for ctx.Err() == nil {
		worked, err := c.session(ctx)
		c.mu.Lock()
		wasReady := c.ready
		c.ready = false
		if !worked || errors.Is(err, errReplaced) {
			c.failed = err
		} else {
			c.failed = nil // Send waits for the next attempt, which follows at once
		}
		c.turn.Broadcast()
		c.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errReplaced):
			c.log.WarnContext(ctx, "another process has taken the calls of the account over")
			c.stepBack(ctx)
		case wasReady:
			c.log.WarnContext(ctx, "the events of Asterisk broke off", "err", err)
		}
		if worked {
			pause.Reset()
			continue
		}
		pause.Wait(ctx)
	}
}

// session connects, finds existing calls, and follows them until the connection breaks. worked says whether it came so
// far that calls could be made.
func (c *Connector) session(ctx context.Context) (worked bool, err error) {
	header := http.Header{}
	basic, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.base, nil)
	if err != nil {
		return false, errors.New("the address cannot be used")
	}
	basic.SetBasicAuth(c.cfg.Username, string(c.cfg.Password))
	header.Set("Authorization", basic.Header.Get("Authorization"))
	dialing, cancelDial := context.WithTimeout(ctx, alive)
	defer cancelDial()
	address := c.cfg.events + "?" + url.Values{"app": {c.cfg.App}}.Encode()
	conn, resp, err := websocket.Dial(dialing, address, &websocket.DialOptions{HTTPClient: c.socket, HTTPHeader: header})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		if resp != nil {
			return false, fmt.Errorf("events of Asterisk: it answers %d", resp.StatusCode)
		}
		return false, fmt.Errorf("events of Asterisk: no connection: %w", without(err))
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(mostEvent)
	c.mu.Lock()
	c.connects++
	c.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := make(chan error, 1)
	go func() { read <- c.listen(ctx, conn) }()
	defer func() {
		cancel()
		_ = conn.CloseNow()
		if read != nil {
			<-read //nolint:errcheck // of a connection that was closed here
		}
	}()
	timer := time.NewTimer(settle)
	defer timer.Stop()
	count := 0
	for {
		select {
		case err := <-read:
			read = nil
			return worked, err
		case <-ctx.Done():
			return worked, ctx.Err()
		case <-timer.C:
		}
		missing := false
		if count%listEvery == 0 {
			if missing, err = c.reconcile(ctx, !worked); err != nil {
				return worked, err
			}
			if !worked {
				worked = true
				c.connected()
			}
		}
		if count++; missing {
			count = 0
		}
		c.lookAfter()
		if err := ping(ctx, conn); err != nil {
			return worked, err
		}
		timer.Reset(look)
	}
}

// without removes the address from an error. It adds nothing: the application and the host are in the configuration.
func without(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return errors.New("the handshake failed")
}

func ping(ctx context.Context, conn *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, alive)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		return errors.New("the connection is silent")
	}
	return nil
}

// connected allows calls.
func (c *Connector) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.failed = true, nil
	c.turn.Broadcast()
}

// listen handles events until the connection breaks.
func (c *Connector) listen(ctx context.Context, conn *websocket.Conn) error {
	for {
		_, raw, err := conn.Read(ctx)
		if err != nil {
			return errors.New("the connection broke")
		}
		e, err := parseEvent(raw, time.Now())
		if err != nil {
			c.log.ErrorContext(ctx, "an event cannot be read", "err", err, "octets", len(raw))
			continue
		}
		if e.Type == "ApplicationReplaced" && e.Application == c.cfg.App {
			c.mu.Lock()
			c.ready = false // from here on no call is made
			c.mu.Unlock()
			return errReplaced
		}
		c.heard(e)
	}
}

// stepBack drops all calls, because the other process follows them now. It waits until that process disconnects, or has
// had the application for replacedFor.
func (c *Connector) stepBack(ctx context.Context) {
	c.mu.Lock()
	for id, k := range c.calls {
		if !k.posting {
			delete(c.calls, id)
		}
	}
	c.turn.Broadcast()
	c.mu.Unlock()
	for until := time.Now().Add(replacedFor); time.Now().Before(until); {
		t := time.NewTimer(look)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		a, err := c.ask(ctx, http.MethodGet, "applications/"+c.cfg.App, nil, nil)
		if err == nil && a.Status == http.StatusNotFound {
			return
		}
	}
}

// follow subscribes to the events of a channel.
func (c *Connector) follow(ctx context.Context, id string) error {
	source := url.Values{"eventSource": {"channel:" + id}}
	a, err := c.ask(ctx, http.MethodPost, "applications/"+c.cfg.App+"/subscription", source, nil)
	return done(a, err, http.StatusUnprocessableEntity) // 422: the channel does not exist any more
}

// reconcile compares the calls with Asterisk's list. Unknown calls in the list count from now on. Calls that are not in
// the list any more are over. first says that this is the first list of the session. missing says that some calls are
// not in the list but may only just have ended; the next list decides.
func (c *Connector) reconcile(ctx context.Context, first bool) (missing bool, err error) {
	asked := time.Now()
	a, err := c.ask(ctx, http.MethodGet, "channels", nil, nil)
	if err != nil {
		return false, fmt.Errorf("list the calls: %w", err)
	}
	var list []channel
	if a.Status/100 != 2 {
		return false, fmt.Errorf("list the calls: Asterisk answers %d", a.Status)
	}
	if err := json.Unmarshal(a.Body, &list); err != nil || a.Torn {
		return false, errUnread
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := map[string]bool{}
	for i := range list {
		id := list[i].ID
		key, ok := c.cfg.keyOf(id)
		if !ok {
			continue
		}
		listed[id] = true
		switch k := c.calls[id]; {
		case k != nil:
			c.show(k)
			if first && !k.posting {
				c.again(k)
			}
		case c.ended[id].IsZero():
			c.found(id, key)
		}
	}
	now := time.Now()
	for id, k := range c.calls {
		if listed[id] || k.posting || k.since.After(asked) {
			continue
		}
		if k.doubted {
			if now.Sub(k.since) > doubtSettles { // Asterisk does not have the call but may have had it, so the doubt stays
				delete(c.calls, id)
				c.turn.Broadcast()
			}
			continue
		}
		if k.missing++; k.missing < 2 {
			missing = true // the event of its end may be under way
			continue
		}
		if !k.told {
			c.tell(k, unheard(k), now, []byte("channel "+id+" is not listed any more"), nil)
		}
		c.gone(k)
	}
	for id, at := range c.ended {
		if now.Sub(at) > remember {
			delete(c.ended, id)
		}
	}
	return missing, nil
}

// unheard returns the word for a call whose end was missed: how it went if that is known, otherwise missed.
func unheard(k *call) string {
	if k.said != "" {
		return k.said
	}
	return wordMissed
}

// again makes a call be examined, because events of it may have been missed. The caller holds the lock.
func (c *Connector) again(k *call) {
	if k.stage == finished {
		if !k.told {
			c.push(k, finish)
		} else {
			c.act(k)
		}
		return
	}
	if k.stage != talking {
		k.stage = unsure
	}
	c.push(k, examine)
}

// lookAfter repeats actions that got no answer, and hangs up calls that were held for too long.
func (c *Connector) lookAfter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, k := range c.calls {
		switch {
		case !k.held.IsZero() && now.Sub(k.held) > c.cfg.hold && k.todo == nothing:
			k.todo = hangUp
		case k.stranger && !k.told && now.Sub(k.since) > strangerFor:
			k.stranger = false
			c.tell(k, wordLiving, now, []byte("channel "+k.id+" lives"), nil)
		}
		c.act(k)
	}
}
