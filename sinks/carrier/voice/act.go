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

	"fanfare/sinks/carrier/once"
)

// push sets the next action for a call and starts it. The caller holds the lock.
func (c *Connector) push(k *call, a action) {
	if c.calls[k.id] != k {
		return
	}
	k.todo = a
	c.act(k)
}

// act runs the actions of a call in a goroutine. The caller holds the lock.
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
			if err != nil { // lookAfter does it again
				if k.todo == nothing {
					k.todo = doing
				}
				break
			}
		}
		k.acting = false
	})
}

// do does one action. An error means that Asterisk did not answer.
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

// channelOf asks Asterisk for the channel of a call. It returns nil if Asterisk has none.
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

// variable asks Asterisk for a variable of a channel; empty if it has none.
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

// examine asks Asterisk for the state of a call, because this process has missed events of it, and continues the call.
func (c *Connector) examine(ctx context.Context, k *call) error {
	// Subscribe first and read the state afterwards, so that no event is missed in between.
	if err := c.follow(ctx, k.id); err != nil {
		return err
	}
	ch, err := c.channelOf(ctx, k.id)
	if ch == nil || err != nil {
		return err // if the call is over, the list of calls will show it
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
		_ = json.Unmarshal([]byte(text), &p) // if the plan cannot be read, the connector only waits for the end of the call
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
		return nil // the call has ended meanwhile
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
	case a.Status/100 == 2: // Asterisk is playing the message
		k.stage, k.listener, k.playing = talking, c.heardBy(k), true
	case k.stage == talking && k.playing: // Asterisk has finished playing it
		c.finished(k, k.listener)
	default:
		c.answered(k)
	}
	return nil
}

// heardBy returns the word for the listener of a message that is being played. The caller holds the lock.
func (c *Connector) heardBy(k *call) string {
	if k.plan.Machine != "" && (k.amd == "MACHINE" || k.amd != "HUMAN" && c.cfg.unsureMachine) {
		return wordVoicemail
	}
	return wordHuman
}

// notInStasis is Asterisk's status for a request about a call that is in the dialplan, outside the application.
const notInStasis = http.StatusConflict

// goOn hands a call to the dialplan. It may be there already.
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

// refused reports whether Asterisk will never do what it was asked to do.
func refused(a *once.Answer) bool {
	passing := []int{http.StatusNotFound, notInStasis, http.StatusUnauthorized, http.StatusForbidden}
	return a.Status/100 == 4 && !slices.Contains(passing, a.Status)
}

// done returns an error if the action must be done again. If the call is gone, there is no error.
func done(a *once.Answer, err error, fine ...int) error {
	if err != nil || a.Status/100 == 2 || a.Status == http.StatusNotFound || slices.Contains(fine, a.Status) {
		return err
	}
	return errors.New("Asterisk answers " + strconv.Itoa(a.Status))
}

// play plays the message. Asterisk accepts a second playback, even with the same id, and plays it after the first. So
// if an earlier request got no answer, play first asks whether Asterisk has the playback. The playback has the id of
// the call.
func (c *Connector) play(ctx context.Context, k *call) error {
	body, err := json.Marshal(map[string]any{"media": []string{k.plan.Media}})
	if err != nil {
		return err
	}
	c.mu.Lock()
	again := k.playAsked
	k.playAsked = true
	c.mu.Unlock()
	if again {
		a, err := c.ask(ctx, http.MethodGet, "playbacks/"+k.id, nil, nil)
		if err != nil {
			return err
		}
		if a.Status/100 == 2 {
			c.mu.Lock()
			defer c.mu.Unlock()
			k.playing = true
			return nil
		}
		if a.Status != http.StatusNotFound { // it does not say that it lacks the playback
			return errors.New("Asterisk answers " + strconv.Itoa(a.Status))
		}
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
		if k.plan.Machine != "" { // the call is still in the dialplan, which returns it with the result of AMD()
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

// mournFor is how long the connector waits, after a message could not be played, to see whether the reason is that the
// person has hung up.
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

// finish reports how a call went: first to Asterisk, for the process that finds the call if this process dies, and then
// in a receipt. The call stays up until the receipt is durable, unless it goes to a queue.
func (c *Connector) finish(ctx context.Context, k *call) error {
	c.mu.Lock()
	how := k.said
	c.mu.Unlock()
	body, err := json.Marshal(map[string]string{"variable": varSaid, "value": how})
	if err != nil {
		return err
	}
	// An error is ignored: it only means that another process that finds the call knows less about it.
	_, _ = c.ask(ctx, http.MethodPost, "channels/"+k.id+"/variable", nil, body)
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
