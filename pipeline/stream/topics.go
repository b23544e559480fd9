package stream

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/schemas"
)

// EnsureTopics creates the topics that are missing and verifies those that exist.
func EnsureTopics(ctx context.Context, adm *kadm.Client, replication int16, topics []schemas.Topic) error {
	return errors.ErrUnsupported
}

// EnsureOffsets commits offset 0 for the partitions of a topic that the group never committed, so that its readers can do
// without a reset, which would send a log again.
func EnsureOffsets(ctx context.Context, adm *kadm.Client, group, topic string) error {
	return errors.ErrUnsupported
}
