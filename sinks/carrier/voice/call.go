package voice

import (
	"strconv"
	"time"

	"fanfare/sinks/carrier"
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
	listener  string
	playing   bool // Asterisk has begun to play it
	playAsked bool // Asterisk was asked to play it, and may have begun
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
	unsure          // the call was found, or its events were missed for a time: it is to be examined
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
	unheardOf // see whether the message could not be played, or no caller hears it any more
	finish
	hangUp
	queue
)

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
		return wordMissed // it was answered, and this process does not know by whom
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
