package schemas_test

import (
	"slices"
	"testing"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func states() (out []schemas.State) {
	for n := range fanfarev1.State_name {
		if n != 0 {
			out = append(out, schemas.State(n))
		}
	}
	slices.Sort(out)
	return out
}

// Every state can be reached, no transition leaves a final state, and every state has its names (C1).
func TestStateMachine(t *testing.T) {
	reached := map[schemas.State]bool{schemas.StateUnspecified: true}
	for range states() {
		for _, tr := range schemas.Transitions {
			if reached[tr.From] {
				reached[tr.To] = true
			}
		}
	}
	for _, s := range states() {
		if !reached[s] {
			t.Errorf("%v cannot be reached", s)
		}
		for v := schemas.VocabularyE; v <= schemas.VocabularyD; v++ {
			if schemas.Word(s, v) == "" {
				t.Errorf("%v has no word in vocabulary %d", s, v)
			}
		}
		if back, ok := schemas.ParseState(schemas.StateName(s)); !ok || back != s {
			t.Errorf("%v: its name reads back as %v", s, back)
		}
		if schemas.Active(s) && (schemas.Terminal(s) || schemas.Editable(s)) {
			t.Errorf("%v is active and also terminal or editable", s)
		}
	}
	for _, tr := range schemas.Transitions {
		if len(tr.Actors) == 0 {
			t.Errorf("%v: no actor may make this transition", tr)
		}
		pausesRetries := tr.From == schemas.StateCompleted && tr.Trigger == schemas.TriggerPause // until settled
		if schemas.Terminal(tr.From) && tr.From != tr.To && tr.Trigger != schemas.TriggerEdit && !pausesRetries {
			t.Errorf("%v leaves a terminal state", tr)
		}
	}
}

// The rows of requirements §3 that are most easily wrong in a table.
func TestTransitions(t *testing.T) {
	const (
		draft, configured, cost = schemas.StateDraft, schemas.StateConfigured, schemas.StateCostCalculated
		preparing, sending      = schemas.StatePreparing, schemas.StateSending
		paused, completed       = schemas.StatePaused, schemas.StateCompleted
		cancelled, aborted      = schemas.StateCancelled, schemas.StateAborted
	)
	for _, c := range []struct {
		from, to schemas.State
		trigger  schemas.Trigger
		want     bool
	}{
		{configured, preparing, schemas.TriggerConfirm, true},
		{cost, preparing, schemas.TriggerConfirm, true},
		{draft, preparing, schemas.TriggerConfirm, false},                             // R71
		{sending, cancelled, schemas.TriggerCancel, false},                            // R65
		{preparing, cancelled, schemas.TriggerCancel, true},                           // C2
		{sending, aborted, schemas.TriggerAbort, true},                                // R80
		{completed, completed, schemas.TriggerAbort, true},                            // until settled
		{completed, paused, schemas.TriggerPause, true},                               // while retries go on
		{completed, sending, schemas.TriggerResume, false},                            // latches
		{sending, paused, schemas.TriggerPause, true},                                 // R84
		{sending, sending, schemas.TriggerResend, true},                               // X15
		{schemas.StateReady, schemas.StateScheduled, schemas.TriggerReschedule, true}, // X9
		{sending, schemas.StateScheduled, schemas.TriggerReschedule, false},
		{schemas.StateAborted, schemas.StateAborted, schemas.TriggerGiveUp, true},
		{schemas.StateAborted, schemas.StateAborted, schemas.TriggerResend, false},
		{paused, preparing, schemas.TriggerResume, true},          //
		{cancelled, preparing, schemas.TriggerConfirm, false},     // R61
		{schemas.StateRejected, draft, schemas.TriggerEdit, true}, // R53
	} {
		if got := schemas.CanTransition(c.from, c.to, c.trigger); got != c.want {
			t.Errorf("%v -> %v by %s: got %v, want %v", c.from, c.to, c.trigger, got, c.want)
		}
	}
	if got, want := schemas.Allowed(sending), []schemas.Trigger{schemas.TriggerAbort, schemas.TriggerGiveUp, schemas.TriggerPause, schemas.TriggerResend}; !slices.Equal(got, want) {
		t.Errorf("allowed while sending: got %v, want %v", got, want)
	}
}

func TestTopicsAreSetExplicitly(t *testing.T) {
	n, err := schemas.NewNames("t1.")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, topic := range append(n.Fixed(), n.Route("sim")...) {
		if seen[topic.Name] {
			t.Errorf("%s: twice", topic.Name)
		}
		seen[topic.Name] = true
		c := topic.Configs()
		switch c["cleanup.policy"] {
		case "compact":
			if topic.Retention != 0 || c["delete.retention.ms"] == "" {
				t.Errorf("%s: %v", topic.Name, c)
			}
		case "compact,delete":
			if topic.Retention <= 0 || !topic.Compact {
				t.Errorf("%s: %v", topic.Name, c)
			}
		case "delete":
			if topic.Retention <= 0 || c["retention.ms"] == "0" {
				t.Errorf("%s: no retention", topic.Name)
			}
		default:
			t.Errorf("%s: no cleanup policy", topic.Name)
		}
		if topic.Partitions < 1 || topic.Key == "" {
			t.Errorf("%s: %d partitions, key %q", topic.Name, topic.Partitions, topic.Key)
		}
	}
	for _, name := range []string{n.Campaigns(), n.Deliveries(), n.DeadLetters(n.Chunks()), n.Messages("sim", schemas.LaneTxn), n.DeadLetters(n.Messages("sim", schemas.LaneBulk))} {
		if !seen[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, p := range []string{"", "Upper", "1st", "sp ace", "x/y"} {
		if _, err := schemas.NewNames(p); err == nil {
			t.Errorf("prefix %q: no error", p)
		}
	}
}
