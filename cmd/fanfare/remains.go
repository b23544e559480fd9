package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fanfare/schemas"
)

// stock has the counts of messages when a stop begins.
type stock struct{ inFlight, doubtful float64 }

func (w *wiring) takeStock() stock {
	return stock{w.metric("fanfare_sender_in_flight"), w.metric("fanfare_window_handed_over_doubtful_total")}
}

// metric returns the sum of a metric of this process over all labels.
func (w *wiring) metric(name string) (sum float64) {
	families, err := w.reg.Gather()
	if err != nil {
		w.log.Debug("reading metrics failed", "err", err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// whatRemains says what a stop leaves for the next start, one line for each thing.
func (w *wiring) whatRemains(began stock) []string {
	var lines []string
	if w.cfg.has("sender") {
		doubtful := w.metric("fanfare_window_handed_over_doubtful_total") - began.doubtful
		inFlight, uncertain := "none", "none"
		if began.inFlight > 0 {
			inFlight = fmt.Sprintf("%.0f messages were at carriers when the stop began; %.0f of them have been answered", began.inFlight, max(0, began.inFlight-doubtful))
		}
		if doubtful > 0 {
			uncertain = fmt.Sprintf("%.0f messages without an answer; each is ambiguous until its receipt comes", doubtful)
		}
		lines = append(lines, "in flight: "+inFlight, "uncertain: "+uncertain)
	}
	select {
	case <-w.view.Ready():
	default:
		return append(lines, "campaigns under way: not known, the control plane had not been read yet")
	}
	states := map[schemas.State]int{}
	for _, c := range w.view.Campaigns() {
		if !c.GetHidden() && schemas.Active(c.GetState()) {
			states[c.GetState()]++
		}
	}
	if len(states) == 0 {
		return append(lines, "campaigns under way: none")
	}
	total := 0
	var words []string
	for _, s := range slices.Sorted(maps.Keys(states)) {
		total += states[s]
		words = append(words, fmt.Sprintf("%d %s", states[s], schemas.StateName(s)))
	}
	return append(lines, fmt.Sprintf("campaigns under way: %d (%s); the next start continues them", total, strings.Join(words, ", ")))
}
