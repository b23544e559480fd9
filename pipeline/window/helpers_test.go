package window_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
)

// committed returns what a group has committed of a topic.
func committed(t testing.TB, b *streamtest.Broker, group, topic string) map[int32]kadm.OffsetResponse {
	t.Helper()
	have, err := b.Admin.FetchOffsetsForTopics(t.Context(), group, topic)
	if err != nil {
		t.Fatal(err)
	}
	return have[topic]
}

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
