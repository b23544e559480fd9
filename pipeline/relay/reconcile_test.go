package relay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// lose simulates a loss: the store has marked the newest version of a row as published, and the last record on the
// topic has an older version. If older is 0, the topic has no record of the row.
func (w *env) lose(t *testing.T, key string, newest []byte, older uint64, value []byte) {
	t.Helper()
	if older > 0 {
		cl, err := w.cluster.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.ProduceSync(t.Context(), &kgo.Record{
			Topic: w.cluster.Names.Campaigns(), Key: []byte(key), Value: value,
			Headers: []kgo.RecordHeader{{Key: schemas.HeaderVersion, Value: fmt.Append(nil, older)}},
		}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	w.out.set(func() {
		version := older + 1
		w.out.rows[key] = schemas.OutboxRow{Type: schemas.TypeCampaign, Key: key, Tenant: "tn_a", Version: version, Value: newest, Time: time.Now()}
		w.out.published[key] = version
		w.out.order = append(w.out.order, key)
	})
}

func republished(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "fanfare_relay_republished_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// P6: what a topic has lost is published again when a relay begins to lead: a newer version, a row that the topic lacks
// altogether, and a tombstone. The relay does not publish again what the topic has, even if the topic has more than the
// store.
func TestWhatTheTopicLostIsPublishedAgain(t *testing.T) {
	w := newEnv(t)
	reg := prometheus.NewRegistry()
	w.cluster.Registry = reg
	w.lose(t, "tn_a/camp_1", []byte("paused"), 1, []byte("sending"))
	w.lose(t, "tn_a/camp_2", []byte("paused"), 0, nil)
	w.lose(t, "tn_a/camp_3", nil, 1, []byte("sending"))
	w.lose(t, "tn_a/camp_4", nil, 0, nil) // a tombstone that was compacted away
	w.lose(t, "tn_a/camp_5", []byte("older"), 1, []byte("from the log"))
	w.lose(t, "tn_a/camp_6", []byte("kept"), 1, nil) // a tombstone where there must be a value
	w.out.set(func() {
		row := w.out.rows["tn_a/camp_5"]
		row.Version = 1
		w.out.rows["tn_a/camp_5"], w.out.published["tn_a/camp_5"] = row, 1
	})
	stop := w.run(t)
	w.newest(t, map[string]string{
		"tn_a/camp_1": "paused", "tn_a/camp_2": "paused", "tn_a/camp_3": "", "tn_a/camp_5": "from the log", "tn_a/camp_6": "kept",
	})
	stop()
	if got := republished(t, reg); got != 4 {
		t.Errorf("republished: got %v, want 4: camp_1, camp_2, camp_3 and camp_6", got)
	}
	// The next leader finds nothing to publish again.
	w.cluster.Registry = prometheus.NewRegistry()
	w.out.set(func() { w.out.again = 0 })
	w.reconcile = 20 * time.Millisecond
	w.run(t)
	w.out.put("tn_a/camp_7", []byte("new"))
	w.newest(t, map[string]string{
		"tn_a/camp_1": "paused", "tn_a/camp_2": "paused", "tn_a/camp_3": "", "tn_a/camp_5": "from the log", "tn_a/camp_6": "kept", "tn_a/camp_7": "new",
	})
	// A later comparison finds what a topic loses while a relay leads.
	w.lose(t, "tn_a/camp_8", []byte("lost"), 0, nil)
	w.newest(t, map[string]string{
		"tn_a/camp_1": "paused", "tn_a/camp_2": "paused", "tn_a/camp_3": "", "tn_a/camp_5": "from the log", "tn_a/camp_6": "kept",
		"tn_a/camp_7": "new", "tn_a/camp_8": "lost",
	})
	w.out.set(func() {
		if w.out.again != 1 {
			t.Errorf("rows published again by the second lead: got %d, want camp_8 alone", w.out.again)
		}
	})
}
