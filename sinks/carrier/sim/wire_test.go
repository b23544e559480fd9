package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// wireSamples are messages of every kind of body.
func wireSamples() []carrier.Outbound {
	key := carrier.Key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	at := time.UnixMilli(1_800_000_000_123)
	return []carrier.Outbound{
		{Key: key, Channel: schemas.ChannelSMS, To: "+393470000001", From: "FANFARE", NotAfter: at, Body: carrier.Body{Text: carrier.Text{Body: "Ciao 😀", Encoding: schemas.EncodingUCS2, Segments: 2}}},
		{Key: key, Channel: schemas.ChannelWhatsApp, Body: carrier.Body{Template: &carrier.Template{Name: "a", Language: "it", Params: []string{"1", ""}}}},
		{Key: key, Channel: schemas.ChannelRCS, Body: carrier.Body{Rich: &carrier.Rich{JSON: []byte(`{"a":1}`)}}},
		{Key: key, Channel: schemas.ChannelVoice, Body: carrier.Body{Call: &carrier.Call{Queue: "q", MachineAction: "hangup", Media: "m"}}},
	}
}

func TestWire(t *testing.T) {
	for i, want := range wireSamples() {
		n, got, err := parseOutbound(appendOutbound(nil, i, &want))
		if err != nil || n != i {
			t.Fatalf("message %d: got number %d, error %v", i, n, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("message %d (-want +got):\n%s", i, diff)
		}
	}
	result := carrier.Result{Outcome: carrier.Throttled, Ref: "r", Code: "88", Sub: schemas.CodeThrottled, RetryAfter: 1500 * time.Millisecond, Parts: 3}
	if n, got, err := parseResult(appendResult(nil, 7, &result)); err != nil || n != 7 || !cmp.Equal(got, result) {
		t.Errorf("result: got %+v, number %d, error %v, want %+v", got, n, err, result)
	}
	cost := carrier.Receipt{
		Ref: "FF", AltRefs: []string{"255", "0255"}, Key: wireSamples()[0].Key, To: "+39347", Status: failed, Code: "001",
		Sub: schemas.CodeAbsentSubscriber, At: time.UnixMilli(1_800_000_000_123), Part: 1, Parts: 2, Raw: []byte("raw"),
	}
	got, err := parseReceipt(appendReceipt(nil, &cost))
	if diff := cmp.Diff(cost, got); err != nil || diff != "" {
		t.Errorf("receipt: error %v (-want +got):\n%s", err, diff)
	}
}

// FuzzWire: no bytes make the parsers fail otherwise than by saying so, and what they understand they write again so
// that it says the same.
func FuzzWire(f *testing.F) {
	for i, o := range wireSamples() {
		f.Add(appendOutbound(nil, i, &o))
	}
	f.Add(appendResult(nil, 1, &carrier.Result{Outcome: carrier.Accepted, Ref: "r"}))
	f.Add(appendReceipt(nil, &carrier.Receipt{Ref: "r", AltRefs: []string{"s"}, Raw: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, o, err := parseOutbound(b); err == nil {
			i2, o2, err := parseOutbound(appendOutbound(nil, i, &o))
			if err != nil || i2 != i || !cmp.Equal(o, o2) {
				t.Errorf("message: %v\n%s", err, cmp.Diff(o, o2))
			}
		} else if !errors.Is(err, errFrame) {
			t.Errorf("message: got error %v, want errFrame", err)
		}
		if i, r, err := parseResult(b); err == nil {
			if i2, r2, err := parseResult(appendResult(nil, i, &r)); err != nil || i2 != i || !cmp.Equal(r2, r) {
				t.Errorf("result: %v, got %+v, want %+v", err, r2, r)
			}
		}
		if r, err := parseReceipt(b); err == nil {
			if r2, err := parseReceipt(appendReceipt(nil, &r)); err != nil || !cmp.Equal(r, r2) {
				t.Errorf("receipt: %v\n%s", err, cmp.Diff(r, r2))
			}
		}
	})
}
