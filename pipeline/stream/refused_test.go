package stream

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// A partition that is suspended, begins anew or is handed over while a commit of it is on its way stays so when that is
// refused: else the next commit that is accepted would start it again, without what was taken back from it.
func TestARefusalDoesNotStartWhatIsStoppedForMore(t *testing.T) {
	w, err := NewWindow(WindowConfig{
		Cluster: Cluster{Brokers: []string{"127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler)}, Topic: "messages", Group: "sender",
		Size: func() int { return 10 }, Identity: func(*kgo.Record) (schemas.ID, error) { return schemas.ID{}, nil },
	}, ReleaserFunc(func([]*Item) {}))
	if err != nil {
		t.Fatal(err)
	}
	for why, want := range map[stop]stop{
		stopNone: stopRefused, stopProbing: stopRefused, stopSuspended: stopSuspended, stopReset: stopReset, stopLeaving: stopLeaving,
	} {
		p := newPart(w, 0, "member", 0, -1, intent{}, newSeen(), nil)
		if why != stopNone {
			p.stop(why)
		}
		w.refused(p, kerr.RebalanceInProgress)
		if p.why != want {
			t.Errorf("a part stopped for %d was refused a commit: got %d, want %d", why, p.why, want)
		}
	}
}
