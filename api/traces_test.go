package api

import (
	"errors"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/trace"
)

// A send that no request asked for, such as the confirmation of an opt-out, has a span from its own beginning.
func TestTraceWithoutRequest(t *testing.T) {
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	spans := tracetest.NewSpanRecorder()
	began := time.Unix(1_700_000_000, 0)
	s := &server{Deps: Deps{
		Traces: trace.New(sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(trace.IDs{}), sdktrace.WithSpanProcessor(spans)), 1, keys),
		Now:    func() time.Time { return began.Add(time.Second) },
	}}
	m := &single{who: &principal{}, route: &store.Route{Name: "sim"}, now: began}
	s.traceSend(t.Context(), m, &target{id: keys.Message(10009, 7)}, errors.New("not acknowledged"))
	ended := spans.Ended()
	if len(ended) != 1 || !ended[0].StartTime().Equal(began) || !ended[0].EndTime().Equal(began.Add(time.Second)) {
		t.Errorf("got %v, want a span of the second from %s", ended, began)
	}
}
