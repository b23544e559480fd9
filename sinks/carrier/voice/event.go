package voice

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"fanfare/sinks/carrier"
)

// event is the part of an Asterisk event that the connector reads. Fields that the event does not have are zero.
type event struct {
	Type        string    `json:"type"`
	Application string    `json:"application"`
	Timestamp   string    `json:"timestamp"`
	Args        []string  `json:"args"`
	Cause       int       `json:"cause"`
	Channel     *channel  `json:"channel"`
	Playback    *playback `json:"playback"`

	at  time.Time
	raw []byte
}

// channel is a call as Asterisk describes it.
type channel struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// up reports whether the call was answered.
func (c *channel) up() bool { return c != nil && c.State == "Up" }

// playback is a message that Asterisk plays, has played, or could not play.
type playback struct {
	ID     string `json:"id"`
	Target string `json:"target_uri"`
	State  string `json:"state"`
}

// timestamp is the format of Asterisk's timestamps: ISO 8601 with a time zone without a colon.
const timestamp = "2006-01-02T15:04:05.999999999-0700"

// parseEvent parses an event that arrived at now. An unknown type is not an error, because each version of Asterisk has
// more types.
func parseEvent(raw []byte, now time.Time) (*event, error) {
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		// The error of package json would contain the event
		return nil, errors.New("the event is not JSON as Asterisk writes it")
	}
	if e.Type == "" {
		return nil, errors.New("the event has no type")
	}
	e.raw, e.at = raw, now
	for _, layout := range []string{timestamp, time.RFC3339Nano} {
		if at, err := time.Parse(layout, e.Timestamp); err == nil && at.Year() > 2000 && at.Year() < 2200 {
			e.at = at
			break
		}
	}
	return &e, nil
}

// channelID returns the id of the event's channel; empty if it has none.
func (e *event) channelID() string {
	switch {
	case e.Channel != nil:
		return e.Channel.ID
	case e.Playback != nil:
		id, ok := strings.CutPrefix(e.Playback.Target, "channel:")
		if !ok {
			return ""
		}
		return id
	default:
		return ""
	}
}

// arg returns the n-th argument with which the dialplan called Stasis; empty if there is none.
func (e *event) arg(n int) string {
	if n >= len(e.Args) {
		return ""
	}
	return e.Args[n]
}

// channelID returns the id of a call at Asterisk: the prefix of the account, followed by our submission id.
func (a *account) channelID(k carrier.Key) string { return a.prefix + hex.EncodeToString(k[:]) }

// keyOf returns the submission id in the id of a channel; ok is false if the channel is not ours.
func (a *account) keyOf(id string) (k carrier.Key, ok bool) {
	text, ok := strings.CutPrefix(id, a.prefix)
	if !ok || len(text) != 2*len(k) || text != strings.ToLower(text) {
		return carrier.Key{}, false
	}
	if _, err := hex.Decode(k[:], []byte(text)); err != nil || k.Try() == 0 {
		return carrier.Key{}, false
	}
	return k, true
}
