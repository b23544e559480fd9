package voice

import (
	"encoding/json"
	"net/url"
	"strings"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// plan says what must happen in a call. A variable of the channel has the plan, so that a process that finds the call
// later can continue it.
type plan struct {
	To      string `json:"to,omitempty"`
	Media   string `json:"media,omitempty"`
	Queue   string `json:"queue,omitempty"`
	Machine string `json:"machine,omitempty"` // empty, hangup or voicemail
}

// Variables of a channel. The dialplan may use the first four.
const (
	varApp     = "CALL_APP"
	varMachine = "CALL_MACHINE"
	varQueue   = "CALL_QUEUE"
	varPlan    = "CALL_PLAN"
	// varSaid says how the call went. The connector sets it when the message is over.
	varSaid = "CALL_SAID"
	// varStatus is set by AMD().
	varStatus = "AMDSTATUS"
)

// Codes of messages for which this account cannot make a call. Fanfare sets them, not Asterisk.
const (
	codeNumber  = "number"
	codeNoAudio = "no audio"
	codeNoVoice = "no text to speech"
	codeNoAMD   = "no machine context"
	codeQueue   = "queue"
)

// plan returns what must happen in the call of a message, or a result that says why there cannot be a call.
func (a *account) plan(o *carrier.Outbound) (plan, *carrier.Result) {
	refuse := func(sub schemas.Code, code string) (plan, *carrier.Result) {
		return plan{}, &carrier.Result{Outcome: carrier.Rejected, Sub: sub, Code: code}
	}
	if !number(o.To) {
		return refuse(schemas.CodeInvalidNumber, codeNumber)
	}
	b := carrier.Call{Text: o.Body.Text.Body}
	if o.Body.Call != nil {
		b = *o.Body.Call
	}
	p := plan{To: o.To, Queue: b.Queue, Machine: b.MachineAction}
	switch {
	case b.Media != "":
		p.Media = media(b.Media)
	case b.Text == "":
		return refuse(schemas.CodeRenderError, codeNoAudio)
	case a.TextToSpeech == "":
		return refuse(schemas.CodeNotSentOther, codeNoVoice)
	default:
		p.Media = media(a.speech(b.Text, b.Language))
	}
	switch p.Machine {
	case "":
	case "hangup", "voicemail":
		if a.MachineContext == "" {
			return refuse(schemas.CodeNotSentOther, codeNoAMD)
		}
	default:
		return refuse(schemas.CodeNotSentOther, codeNoAMD)
	}
	if p.Queue != "" && (a.QueueContext == "" || !word.MatchString(p.Queue)) {
		return refuse(schemas.CodeNotSentOther, codeQueue)
	}
	return p, nil
}

// number reports whether s is E.164. No other text may become part of what Asterisk dials.
func number(s string) bool {
	if len(s) < 7 || len(s) > 16 || s[0] != '+' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// media returns an address in the form in which Asterisk plays it.
func media(address string) string {
	if strings.HasPrefix(address, "sound:") {
		return address
	}
	return "sound:" + address
}

// speech returns the address of the audio of a text.
func (a *account) speech(text, language string) string {
	if language == "" {
		language = a.Language
	}
	return strings.NewReplacer("{text}", url.QueryEscape(text), "{language}", url.QueryEscape(language)).Replace(a.TextToSpeech)
}

// variables returns the body of the request that makes the call.
func (p *plan) variables(app string) ([]byte, error) {
	own, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"variables": map[string]string{
		varApp: app, varMachine: p.Machine, varQueue: p.Queue, varPlan: string(own),
	}})
}
