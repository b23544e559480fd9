package voice

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/once"
)

// Words of codes.csv for how a call ended, or was found.
const (
	wordHuman     = "human"
	wordVoicemail = "voicemail"
	wordMachine   = "machine"
	wordAbandoned = "abandoned"
	wordUnplayed  = "unplayed"
	wordLiving    = "living"
	wordMissed    = "missed"
	causePrefix   = "q850:"
	causeOther    = "q850:other"
)

// call is one that lives, or may: it holds a place until it is known to be over. The connector's lock guards it.
type call struct {
	id    string
	key   carrier.Key
	plan  plan
	known bool // the plan is; a call that was found must be asked for it

	session int       // in which it was made
	posting bool      // the answer to its hand-over is awaited
	doubted bool      // no answer came, and nothing has shown that Asterisk has it
	since   time.Time // of the answer, or of its absence
	seen    bool      // Asterisk has shown it
	missing int       // how often in a row Asterisk did not list it
	// stranger: it was found, and no receipt has said so.
	stranger bool

	stage stage
	amd   string // what AMD() said
	// listener is who hears the message, as a word: human or voicemail.
	listener string
	playing  bool // Asterisk has begun to play it
	// said is how it ended, told whether that is in the box.
	said string
	told bool
	held time.Time // since when it is kept up for its receipt; zero: it is not

	todo   action
	acting bool
}

// stage is how far a call is.
type stage uint8

const (
	ringing   stage = iota
	unsure          // it was found, or nobody listened for a time: it is to be examined
	detecting       // AMD() runs in the dialplan
	talking         // the message is to be played, or is
	finished        // the message is over
)

// action is what is to be done next about a call. One that meets no answer is done again.
type action uint8

const (
	nothing action = iota
	examine
	detect
	play
	unheardOf // see whether the message could not be played, or nobody hears it any more
	finish
	hangUp
	queue
)

// push says what is to be done next about a call. The caller holds the lock.
func (c *Connector) push(k *call, a action) {
	if c.calls[k.id] != k {
		return
	}
	k.todo = a
	c.act(k)
}

// act does what is to be done about a call, in a goroutine of its own. The caller holds the lock.
func (c *Connector) act(k *call) {
	if k.acting || k.todo == nothing || c.life.Err() != nil {
		return
	}
	k.acting = true
	c.acting.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for k.todo != nothing && c.calls[k.id] == k {
			doing := k.todo
			k.todo = nothing
			c.mu.Unlock()
			err := c.do(c.life, k, doing)
			c.mu.Lock()
			if err != nil { // the next look does it again
				if k.todo == nothing {
					k.todo = doing
				}
				break
			}
		}
		k.acting = false
	})
}

// do does one thing about a call. An error says that Asterisk did not answer.
func (c *Connector) do(ctx context.Context, k *call, a action) error {
	switch a {
	case examine:
		return c.examine(ctx, k)
	case detect:
		return c.goOn(ctx, k, c.cfg.MachineContext, "s")
	case queue:
		return c.goOn(ctx, k, c.cfg.QueueContext, k.plan.Queue)
	case play:
		return c.play(ctx, k)
	case unheardOf:
		return c.checkPlayed(ctx, k)
	case finish:
		return c.finish(ctx, k)
	case hangUp:
		_, err := c.ask(ctx, http.MethodDelete, "channels/"+k.id, url.Values{"reason": {"normal"}}, nil)
		return err
	default:
		return nil
	}
}

// heard takes in one event.
func (c *Connector) heard(e *event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := e.channelID()
	key, ok := c.cfg.keyOf(id)
	if !ok {
		return
	}
	k := c.calls[id]
	if k == nil {
		if _, over := c.ended[id]; over {
			return
		}
		k = c.found(id, key)
	}
	c.show(k)
	switch e.Type {
	case "StasisStart":
		c.started(k, e)
	case "PlaybackFinished":
		c.played(k, e)
	case "ChannelDestroyed":
		c.destroyed(k, e)
	}
}

// found enters a call that this connector did not make. It counts at once. The caller holds the lock.
func (c *Connector) found(id string, key carrier.Key) *call {
	k := &call{id: id, key: key, stage: unsure, since: time.Now(), session: c.connects, seen: true, stranger: true}
	c.calls[id] = k
	c.push(k, examine)
	return k
}

// show notes that Asterisk has a call. That ends the doubt about it. The caller holds the lock.
func (c *Connector) show(k *call) {
	k.seen, k.missing = true, 0
	if k.doubted {
		k.doubted = false
		c.tell(k, wordLiving, time.Now(), []byte("channel "+k.id+" lives"), nil)
	}
}

// started: the call was answered, or comes back from the dialplan. The caller holds the lock.
func (c *Connector) started(k *call, e *event) {
	if e.arg(0) == "amd" {
		k.amd = e.arg(1)
		if k.amd == "" {
			k.amd = "NOTSURE"
		}
	}
	switch {
	case !k.known: // examine, which is on its way, sees it
		c.push(k, examine)
	case k.stage == finished: // it comes back from a queue
		if k.told {
			c.push(k, hangUp)
		}
	default:
		c.answered(k)
	}
}

// answered goes on with a call that is up, whose plan is known. The caller holds the lock.
func (c *Connector) answered(k *call) {
	switch {
	case k.plan.Machine == "":
		k.listener = wordHuman
	case k.amd == "":
		k.stage = detecting
		c.push(k, detect)
		return
	case k.amd == "HANGUP":
		k.stage = detecting // it ends by itself
		return
	case k.amd == "MACHINE" || k.amd != "HUMAN" && c.cfg.unsureMachine:
		if k.plan.Machine == "hangup" {
			c.finished(k, wordMachine)
			return
		}
		k.listener = wordVoicemail
	default:
		k.listener = wordHuman
	}
	k.stage = talking
	c.push(k, play)
}

// played: the message is over, or could not be played. The caller holds the lock.
func (c *Connector) played(k *call, e *event) {
	if k.stage != talking || e.Playback == nil || e.Playback.ID != k.id {
		return
	}
	if e.Playback.State == "failed" {
		// Asterisk says so of a file that it cannot play, and of a person who hangs up.
		c.push(k, unheardOf)
		return
	}
	c.finished(k, k.listener)
}

// finished: it is known how the call went. The caller holds the lock.
func (c *Connector) finished(k *call, how string) {
	k.stage, k.said = finished, how
	c.push(k, finish)
}

// destroyed: the call is over. The caller holds the lock.
func (c *Connector) destroyed(k *call, e *event) {
	if !k.told {
		c.tell(k, c.howEnded(k, e), e.at, e.raw, nil)
	}
	c.gone(k)
}

// howEnded is the word for the end of a call about which nothing was told yet. The caller holds the lock.
func (c *Connector) howEnded(k *call, e *event) string {
	switch {
	case k.said != "":
		return k.said
	case k.stage == talking && k.listener != "": // who answered hung up within the message
		return k.listener
	case k.stage == detecting:
		return wordAbandoned
	case k.stage == unsure && e.Channel.up(), k.stage == ringing && e.Channel.up():
		return wordMissed // it was answered, and nobody here knows by whom
	}
	return causePrefix + strconv.Itoa(e.Cause)
}

// remember is how long the ids of calls that are over are kept, for what is said of them late.
const remember = time.Minute

// gone frees the place of a call that is over. The caller holds the lock.
func (c *Connector) gone(k *call) {
	delete(c.calls, k.id)
	c.ended[k.id] = time.Now()
	c.turn.Broadcast()
}

// channelOf asks for a call. It is nil when Asterisk has none.
func (c *Connector) channelOf(ctx context.Context, id string) (*channel, error) {
	a, err := c.ask(ctx, http.MethodGet, "channels/"+id, nil, nil)
	switch {
	case err != nil:
		return nil, err
	case a.Status == http.StatusNotFound:
		return nil, nil //nolint:nilnil // none
	case a.Status/100 != 2:
		return nil, done(a, nil)
	}
	var ch channel
	if err := json.Unmarshal(a.Body, &ch); err != nil || a.Torn {
		return nil, errUnread
	}
	return &ch, nil
}

// variable asks for a variable of a channel; empty: it has none.
func (c *Connector) variable(ctx context.Context, id, name string) (string, error) {
	a, err := c.ask(ctx, http.MethodGet, "channels/"+id+"/variable", url.Values{"variable": {name}}, nil)
	if err != nil {
		return "", err
	}
	var doc struct {
		Value string `json:"value"`
	}
	if a.Status/100 == 2 && (a.Torn || json.Unmarshal(a.Body, &doc) != nil) {
		return "", errUnread
	}
	return doc.Value, nil
}

// examine finds out how far a call is that nobody has listened to, and goes on with it.
func (c *Connector) examine(ctx context.Context, k *call) error {
	// First the events, then the state: nothing may fall between the two.
	if err := c.follow(ctx, k.id); err != nil {
		return err
	}
	ch, err := c.channelOf(ctx, k.id)
	if ch == nil || err != nil {
		return err // when it is over, the list of calls tells
	}
	c.mu.Lock()
	known := k.known
	c.mu.Unlock()
	var p plan
	if !known {
		text, err := c.variable(ctx, k.id, varPlan)
		if err != nil {
			return err
		}
		_ = json.Unmarshal([]byte(text), &p) // one that cannot be read: the call is only waited for
	}
	how, err := c.variable(ctx, k.id, varSaid)
	if err != nil {
		return err
	}
	amd, err := c.variable(ctx, k.id, varStatus)
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, http.MethodGet, "playbacks/"+k.id, nil, nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.stage == finished {
		return nil // it went on meanwhile
	}
	if !k.known {
		k.plan, k.known = p, true
	}
	if k.amd == "" {
		k.amd = amd
	}
	switch {
	case !ch.up():
		k.stage = ringing
	case slices.Contains([]string{wordHuman, wordVoicemail, wordMachine, wordUnplayed}, how):
		c.finished(k, how)
	case k.plan.Media == "":
	case a.Status/100 == 2: // the message is being played
		k.stage, k.listener, k.playing = talking, c.heardBy(k), true
	case k.stage == talking && k.playing: // it was, and is over
		c.finished(k, k.listener)
	default:
		c.answered(k)
	}
	return nil
}

// heardBy is who hears a message that is being played, as a word. The caller holds the lock.
func (c *Connector) heardBy(k *call) string {
	if k.plan.Machine != "" && (k.amd == "MACHINE" || k.amd != "HUMAN" && c.cfg.unsureMachine) {
		return wordVoicemail
	}
	return wordHuman
}

// notInStasis is the status of Asterisk for a call that the dialplan has, so that nothing can be done with it now.
const notInStasis = http.StatusConflict

// goOn gives a call to the dialplan. It may be there already.
func (c *Connector) goOn(ctx context.Context, k *call, context, extension string) error {
	body, err := json.Marshal(map[string]any{"context": context, "extension": extension, "priority": 1})
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, http.MethodPost, "channels/"+k.id+"/continue", nil, body)
	if err == nil && refused(a) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if k.stage == finished {
			c.push(k, hangUp)
		} else {
			c.finished(k, wordUnplayed)
		}
		return nil
	}
	return done(a, err, notInStasis)
}

// refused reports whether Asterisk will never do what was asked of it.
func refused(a *once.Answer) bool {
	return a.Status/100 == 4 && a.Status != http.StatusNotFound && a.Status != notInStasis && a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden
}

// done is the error of an action that is to be done again. A call that is gone needs no more.
func done(a *once.Answer, err error, fine ...int) error {
	if err != nil || a.Status/100 == 2 || a.Status == http.StatusNotFound || slices.Contains(fine, a.Status) {
		return err
	}
	return errors.New("Asterisk answers " + strconv.Itoa(a.Status))
}

// play plays the message. The playback has the id of the call, so that a second one is refused.
func (c *Connector) play(ctx context.Context, k *call) error {
	body, err := json.Marshal(map[string]any{"media": []string{k.plan.Media}})
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, http.MethodPost, "channels/"+k.id+"/play/"+k.id, nil, body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case a.Status/100 == 2:
		k.playing = true
		return nil
	case a.Status == http.StatusNotFound, k.stage != talking:
		return nil
	case a.Status == notInStasis:
		if k.plan.Machine != "" { // the dialplan still has it, and gives it back with what AMD() says
			k.stage, k.listener = detecting, ""
		}
		return nil
	case refused(a):
		c.finished(k, wordUnplayed)
		return nil
	default:
		return done(a, nil)
	}
}

// mournFor is how long a call is looked at whose message could not be played, for its end: a person has hung up.
const mournFor = 300 * time.Millisecond

// checkPlayed finds out why a message was not played to its end.
func (c *Connector) checkPlayed(ctx context.Context, k *call) error {
	t := time.NewTimer(mournFor)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	}
	ch, err := c.channelOf(ctx, k.id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch != nil && k.stage == talking && c.calls[k.id] == k {
		c.finished(k, wordUnplayed)
	}
	return nil
}

// finish says how a call went: first to Asterisk, for whoever finds the call when this process is no more, and then in a receipt. The call
// is kept up until the receipt is durable, unless a queue takes it.
func (c *Connector) finish(ctx context.Context, k *call) error {
	c.mu.Lock()
	how := k.said
	c.mu.Unlock()
	body, err := json.Marshal(map[string]string{"variable": varSaid, "value": how})
	if err != nil {
		return err
	}
	_, _ = c.ask(ctx, http.MethodPost, "channels/"+k.id+"/variable", nil, body) // without it, the call tells less to who finds it
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.told || c.calls[k.id] != k {
		return nil
	}
	k.told = true
	raw := []byte("call " + k.id + ": " + how)
	if how == wordHuman && k.plan.Queue != "" {
		c.tell(k, how, time.Now(), raw, nil)
		k.todo = queue
		return nil
	}
	k.held = time.Now()
	c.tell(k, how, k.held, raw, func() { c.push(k, hangUp) })
	return nil
}
