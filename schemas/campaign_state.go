package schemas

import (
	"slices"
	"strings"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Trigger is the cause of a change of a campaign's state.
type Trigger string

// Triggers of the campaign state machine.
const (
	TriggerCreate     Trigger = "create"
	TriggerConfigure  Trigger = "configure" // every field that the channel requires is set and valid
	TriggerIncomplete Trigger = "incomplete"
	TriggerPrice      Trigger = "price" // calculateGoal, price
	TriggerEdit       Trigger = "edit"
	TriggerConfirm    Trigger = "confirm"
	TriggerReject     Trigger = "reject"
	TriggerUnschedule Trigger = "unschedule"
	TriggerReschedule Trigger = "reschedule" // the time changes; the state stays, except that ready becomes scheduled
	TriggerStart      Trigger = "start"      // a person starts it, or its time has come
	TriggerMissed     Trigger = "missed"
	TriggerDeal       Trigger = "deal" // audience frozen, first chunk dealt
	TriggerCancel     Trigger = "cancel"
	TriggerPause      Trigger = "pause"
	TriggerResume     Trigger = "resume"
	TriggerSuspend    Trigger = "suspend"
	TriggerAbort      Trigger = "abort"
	TriggerFail       Trigger = "fail"
	TriggerComplete   Trigger = "complete"
	// A person orders the ambiguous recipients to be sent again; the state stays
	TriggerResend Trigger = "resend_ambiguous"
	TriggerGiveUp Trigger = "give_up_ambiguous" // a person gives the ambiguous recipients up; the state stays
)

// Actor is who may cause a change of state.
type Actor string

// Actors (requirements §3).
const (
	ActorUser      Actor = "user"
	ActorApprover  Actor = "approver"
	ActorGuard     Actor = "guard"
	ActorScheduler Actor = "scheduler"
	ActorOperator  Actor = "operator"
)

// Transition is one row of the campaign state machine.
type Transition struct {
	From, To State
	Trigger  Trigger
	Actors   []Actor
}

const (
	none           = StateUnspecified
	draft          = StateDraft
	configured     = StateConfigured
	costCalculated = StateCostCalculated
	ready          = StateReady
	scheduled      = StateScheduled
	preparing      = StatePreparing
	sending        = StateSending
	paused         = StatePaused
	suspended      = StateSuspended
	completed      = StateCompleted
	cancelled      = StateCancelled
	aborted        = StateAborted
	rejected       = StateRejected
	failed         = StateFailed
)

// Transitions is the campaign state machine (requirements §3). All other changes of state are refused.
var Transitions = func() []Transition {
	user, guard, sched := []Actor{ActorUser}, []Actor{ActorGuard}, []Actor{ActorScheduler}
	both := []Actor{ActorUser, ActorGuard}
	confirm := []Actor{ActorUser, ActorApprover}
	t := []Transition{
		{none, draft, TriggerCreate, user},
		{none, configured, TriggerCreate, user},
		{draft, configured, TriggerConfigure, user},
		{configured, draft, TriggerIncomplete, user},
		{costCalculated, draft, TriggerIncomplete, user},
		{configured, costCalculated, TriggerPrice, both},
		{costCalculated, costCalculated, TriggerPrice, both},
		{draft, draft, TriggerEdit, user},
		{configured, configured, TriggerEdit, user},
		// An edit, another list or another price list makes the price invalid
		{costCalculated, configured, TriggerEdit, both},
		{rejected, draft, TriggerEdit, user},
		{scheduled, configured, TriggerUnschedule, user},
		{ready, configured, TriggerUnschedule, user},
		{scheduled, scheduled, TriggerReschedule, user},
		{ready, scheduled, TriggerReschedule, user},
		{ready, preparing, TriggerStart, user},
		{scheduled, preparing, TriggerStart, sched},
		{scheduled, suspended, TriggerMissed, guard},
		{preparing, sending, TriggerDeal, sched},
		{preparing, failed, TriggerFail, []Actor{ActorScheduler, ActorGuard}},
		{preparing, completed, TriggerComplete, sched}, // the audience is empty
		{sending, completed, TriggerComplete, sched},
	}
	for _, from := range []State{configured, costCalculated} {
		t = append(t,
			Transition{from, ready, TriggerConfirm, confirm},
			Transition{from, scheduled, TriggerConfirm, confirm},
			Transition{from, preparing, TriggerConfirm, confirm},
			Transition{from, rejected, TriggerReject, guard})
	}
	for _, from := range []State{draft, configured, costCalculated, ready, scheduled, preparing} {
		// from preparing only while no message was submitted
		t = append(t, Transition{from, cancelled, TriggerCancel, user})
	}
	for _, from := range []State{preparing, sending} {
		t = append(t,
			Transition{from, paused, TriggerPause, user},
			Transition{from, suspended, TriggerSuspend, guard})
	}
	for _, from := range []State{paused, suspended} {
		t = append(t,
			Transition{from, preparing, TriggerResume, both},
			Transition{from, sending, TriggerResume, both})
	}
	for _, from := range []State{preparing, sending, paused, suspended} {
		t = append(t, Transition{from, aborted, TriggerAbort, user})
	}
	for _, in := range []State{sending, paused, suspended, completed} {
		t = append(t, Transition{in, in, TriggerResend, user}, Transition{in, in, TriggerGiveUp, user})
	}
	t = append(t, Transition{aborted, aborted, TriggerGiveUp, user})
	// A completed campaign that is not settled may still have tries after a late bounce. Pause suspends these tries;
	// abort ends them, and the state stays completed.
	return append(t, Transition{completed, paused, TriggerPause, user}, Transition{completed, completed, TriggerAbort, user})
}()

// CanTransition reports whether trigger changes the state of a campaign from one state to the other.
func CanTransition(from, to State, trigger Trigger) bool {
	return slices.ContainsFunc(Transitions, func(t Transition) bool {
		return t.From == from && t.To == to && t.Trigger == trigger
	})
}

// Allowed returns the triggers that a user may cause in a state, sorted. An error about a wrong state lists them.
func Allowed(state State) []Trigger {
	var out []Trigger
	for _, t := range Transitions {
		if t.From == state && slices.Contains(t.Actors, ActorUser) && t.Trigger != TriggerConfigure && t.Trigger != TriggerIncomplete {
			out = append(out, t.Trigger)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Active reports whether a campaign counts against the tenant's limit of active campaigns (C22).
func Active(s State) bool {
	switch s {
	case scheduled, ready, preparing, sending, paused, suspended:
		return true
	default:
		return false
	}
}

// Terminal reports whether s is a final state.
func Terminal(s State) bool {
	switch s {
	case completed, cancelled, aborted, rejected, failed:
		return true
	default:
		return false
	}
}

// Editable reports whether every field may be changed (C3).
func Editable(s State) bool {
	switch s {
	case draft, configured, costCalculated, rejected:
		return true
	default:
		return false
	}
}

// Vocabulary is one of the sets of names for the states (C1).
type Vocabulary uint8

// Vocabularies of the systems whose requirements requirements.md combines.
const (
	VocabularyE Vocabulary = iota // the API's words
	VocabularyA                   // also B's
	VocabularyC
	VocabularyD
)

// StateName returns our own name of a state in snake case, such as cost_calculated.
func StateName(s State) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))
}

// ParseState parses our own name of a state.
func ParseState(name string) (State, bool) {
	n, ok := fanfarev1.State_value["STATE_"+strings.ToUpper(name)]
	return State(n), ok && n != 0
}

// aliases has the names of each state in the words of E, A, C and D.
var aliases = map[State][4]string{
	draft:          {"draft", "Draft", "Draft", "Draft"},
	configured:     {"configured", "Draft", "Draft", "Draft"},
	costCalculated: {"cost_calculated", "Draft", "Draft", "Draft"},
	ready:          {"confirmed", "Draft", "Scheduled", "Ready"},
	scheduled:      {"confirmed", "Scheduled", "Scheduled", "Scheduled"},
	preparing:      {"confirmed", "Submitted", "Running", "Processing"},
	sending:        {"sending", "Submitted", "Running", "Sending"},
	paused:         {"sending", "Submitted", "Paused", "Paused"},
	suspended:      {"sending", "Submitted", "Paused", "Suspended"},
	completed:      {"completed", "Submitted", "Completed", "Finished"},
	cancelled:      {"cancelled", "Deleted", "Cancelled", "Aborted"},
	aborted:        {"cancelled", "Submitted", "Cancelled", "Aborted"},
	rejected:       {"rejected", "Draft", "Cancelled", "Rejected"},
	failed:         {"failed", "Failed", "Cancelled", "Aborted"},
}

// Word returns the word of a vocabulary for a state.
func Word(s State, v Vocabulary) string { return aliases[s][v] }

// ChannelName returns sms, rcs, whatsapp or voice.
func ChannelName(c Channel) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CHANNEL_"))
}

// ParseChannel parses the name of a channel.
func ParseChannel(name string) (Channel, bool) {
	n, ok := fanfarev1.Channel_value["CHANNEL_"+strings.ToUpper(name)]
	return Channel(n), ok && n != 0
}
