package callback

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// webhook answers what a test says.
type webhook struct {
	receipts []carrier.Receipt
	inbound  []carrier.Inbound
	err      error
	got      *carrier.Callback
}

func (w *webhook) Verify(*carrier.Callback) error { return errors.New("verified before") }

func (w *webhook) Parse(c *carrier.Callback) ([]carrier.Receipt, []carrier.Inbound, error) {
	w.got = c
	return w.receipts, w.inbound, w.err
}

func TestHandle(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1_700_000_000_123)
	event := schemas.CallbackEvent(names.Callbacks(), "api", &fanfarev1.Callback{
		Route: "acme", Method: "POST", Url: "https://edge.example.org/api/callback/acme?k=1", Body: []byte("status=delivered"), ReceivedMs: at.UnixMilli(),
		Headers: []*fanfarev1.CallbackHeader{{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}},
	})
	record, err := event.Record()
	if err != nil {
		t.Fatal(err)
	}
	delivered := carrier.Receipt{Ref: "ref-\xff", Status: schemas.ReceiptStatusDelivered, Code: "000", To: "+393331234567"}
	for name, c := range map[string]struct {
		hook          *webhook
		unknown       error
		value         []byte
		publish, dead int
	}{
		"receipts":        {hook: &webhook{receipts: []carrier.Receipt{delivered, delivered}}, publish: 2},
		"nothing in it":   {hook: &webhook{}},
		"not understood":  {hook: &webhook{err: errors.New("no JSON")}, dead: 1},
		"unknown route":   {unknown: errors.New("there is no such route"), dead: 1},
		"does not decode": {hook: &webhook{}, value: []byte("\xff"), dead: 1},
		"a message of a recipient beside a receipt": {hook: &webhook{receipts: []carrier.Receipt{delivered}, inbound: []carrier.Inbound{{Text: "STOP", From: "+393401234567"}}}, publish: 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := &handler{names, func(route string) (carrier.Webhook, error) {
				if route != "acme" {
					t.Errorf("got route %q, want acme", route)
				}
				return c.hook, c.unknown
			}, newMetrics(prometheus.NewRegistry())}
			in := *record
			if c.value != nil {
				in.Value = c.value
			}
			got, err := h.Handle(t.Context(), []*kgo.Record{&in})
			if err != nil || len(got.Publish) != c.publish || len(got.Dead) != c.dead {
				t.Fatalf("got %d records and %d dead letters, %v, want %d and %d", len(got.Publish), len(got.Dead), err, c.publish, c.dead)
			}
			if c.publish == 0 {
				return
			}
			receipt := &fanfarev1.Receipt{}
			if err := proto.Unmarshal(got.Publish[0].Value, receipt); err != nil {
				t.Fatal(err)
			}
			if receipt.GetRoute() != "acme" || receipt.GetReceivedMs() != at.UnixMilli() || receipt.GetStatus() != schemas.ReceiptStatusDelivered || receipt.GetProviderId() != "ref-\uFFFD" {
				t.Errorf("got %v", receipt)
			}
			if got.Publish[0].Topic != names.Receipts() || c.hook.got.URL != "https://edge.example.org/api/callback/acme?k=1" || c.hook.got.Header.Get("Content-Type") == "" {
				t.Errorf("got topic %s of callback %+v", got.Publish[0].Topic, c.hook.got)
			}
		})
	}
}
