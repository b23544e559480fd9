package voice

import (
	"strconv"
	"time"

	"fanfare/sinks/carrier"
)

// Words of codes.csv that say how a call ended, or that it was found.
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

// call is a call that exists or may exist. It takes up one of the places until it is known to be over. The connector's
// lock guards it.
type call struct {
	id    string
	key   carrier.Key
	plan  plan
	known bool // whether plan is set; if the call was found, examine must read it first

	session int       // the connection on which it was made
	posting bool      // the hand-over has no answer yet
	doubted bool      // no answer came, and Asterisk has not shown that it has the call
	since   time.Time // when the answer came, or the wait for it ended
	seen    bool      // Asterisk has shown that it has the call
	missing int       // how many lists in a row lacked it
	// stranger means that the call was found, and that no receipt has said so yet.
	stranger bool

	stage stage
	amd   string // result of AMD()
	// listener is the word for the one who hears the message: human or voicemail.
	listener  string
	playing   bool // Asterisk plays the message or has played it
	playAsked bool // Asterisk was asked to play it, and may play it
	// said is the word for how the call ended; told says whether a receipt with it is in the box.
	said string
	told bool
	held time.Time // since when the call is kept up for its receipt; zero if it is not

	todo   action
	acting bool
}

// stage is how far a call has come.
type stage uint8

const (
	ringing   stage = iota
	unsure          // the call was found, or events were missed: examine must ask Asterisk
	detecting       // AMD() runs in the dialplan
	talking         // the message must be played, or is being played
	finished        // the message is over
)

// action is the next action for a call. If Asterisk does not answer, the action is done again.
type action uint8

const (
	nothing action = iota
	examine
	detect
	play
	unheardOf // find out whether the message cannot be played, or the person has hung up
	finish
	hangUp
	queue
)

// heard handles one event.
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

// found enters a call that this connector did not make. From now on the call counts towards the limit. The caller holds
// the lock.
func (c *Connector) found(id string, key carrier.Key) *call {
	k := &call{id: id, key: key, stage: unsure, since: time.Now(), session: c.connects, seen: true, stranger: true}
	c.calls[id] = k
	c.push(k, examine)
	return k
}

// show notes that Asterisk has a call. If that was in doubt, a receipt says so. The caller holds the lock.
func (c *Connector) show(k *call) {
	k.seen, k.missing = true, 0
	if k.doubted {
		k.doubted = false
		c.tell(k, wordLiving, time.Now(), []byte("channel "+k.id+" lives"), nil)
	}
}

// started handles StasisStart: the call was answered, or returns from the dialplan. The caller holds the lock.
func (c *Connector) started(k *call, e *event) {
	if e.arg(0) == "amd" {
		k.amd = e.arg(1)
		if k.amd == "" {
			k.amd = "NOTSURE"
		}
	}
	switch {
	case !k.known: // examine is under way and will see it
		c.push(k, examine)
	case k.stage == finished: // the call returns from a queue
		if k.told {
			c.push(k, hangUp)
		}
	default:
		c.answered(k)
	}
}

// answered continues a call that is up and whose plan is known. The caller holds the lock.
func (c *Connector) answered(k *call) {
	switch {
	case k.plan.Machine == "":
		k.listener = wordHuman
	case k.amd == "":
		k.stage = detecting
		c.push(k, detect)
		return
	case k.amd == "HANGUP":
		k.stage = detecting // the person has hung up, and the call ends by itself
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

// played handles the end of a playback: the message is over, or could not be played. The caller holds the lock.
func (c *Connector) played(k *call, e *event) {
	if k.stage != talking || e.Playback == nil || e.Playback.ID != k.id {
		return
	}
	if e.Playback.State == "failed" {
		// Asterisk reports `failed` both for a file that it cannot play and for a person who hangs up.
		c.push(k, unheardOf)
		return
	}
	c.finished(k, k.listener)
}

// finished notes how the call went. The caller holds the lock.
func (c *Connector) finished(k *call, how string) {
	k.stage, k.said = finished, how
	c.push(k, finish)
}

// destroyed handles the end of a call. The caller holds the lock.
func (c *Connector) destroyed(k *call, e *event) {
	if !k.told {
		c.tell(k, c.howEnded(k, e), e.at, e.raw, nil)
	}
	c.gone(k)
}

// howEnded returns the word for the end of a call that has no receipt yet. The caller holds the lock.
func (c *Connector) howEnded(k *call, e *event) string {
	switch {
	case k.said != "":
		return k.said
	case k.stage == talking && k.listener != "": // the person hung up during the message
		return k.listener
	case k.stage == detecting:
		return wordAbandoned
	case k.stage == unsure && e.Channel.up(), k.stage == ringing && e.Channel.up():
		return wordMissed // it was answered, but this process does not know by whom
	}
	return causePrefix + strconv.Itoa(e.Cause)
}

// remember is how long the connector keeps the ids of calls that are over, for late events about them.
const remember = time.Minute

// gone frees the place of a call that is over. The caller holds the lock.
func (c *Connector) gone(k *call) {
	delete(c.calls, k.id)
	c.ended[k.id] = time.Now()
	c.turn.Broadcast()
}
