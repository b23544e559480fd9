package stream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
)

func TestTopicsAreCreatedAsTheTableSays(t *testing.T) {
	b := streamtest.New(t)
	topics := append(b.Names.Fixed(), b.Names.Route("sim")...)
	for range 2 { // the second time the topics exist and are verified
		if err := stream.EnsureTopics(t.Context(), b.Admin, 1, topics); err != nil {
			t.Fatal(err)
		}
	}
	have, err := b.Admin.ListTopics(t.Context(), b.Names.Messages("sim", schemas.LaneBulk))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(have[b.Names.Messages("sim", schemas.LaneBulk)].Partitions); got != schemas.MessagePartitions {
		t.Errorf("partitions: got %d, want %d", got, schemas.MessagePartitions)
	}
}

func TestATopicThatDiffersIsNamedWithItsFix(t *testing.T) {
	b := streamtest.New(t)
	want := schemas.Topic{Name: b.Names.Prefix() + "messages.x.bulk", Partitions: 6, Retention: time.Hour, MaxBytes: 2 << 20}
	other := want
	other.Partitions, other.Retention, other.MaxBytes = 3, 2*time.Hour, 1<<20
	if err := stream.EnsureTopics(t.Context(), b.Admin, 1, []schemas.Topic{other}); err != nil {
		t.Fatal(err)
	}
	err := stream.EnsureTopics(t.Context(), b.Admin, 1, []schemas.Topic{want})
	var first *stream.TopicError
	if !errors.As(err, &first) || first.Topic != want.Name {
		t.Fatalf("got %v, want a TopicError of %s", err, want.Name)
	}
	for _, text := range []string{"partitions 3, want 6", "retention.ms 7200000, want 3600000", "max.message.bytes 1048576, want 2097152", "another route", "--add-config retention.ms=3600000"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error does not say %q: %v", text, err)
		}
	}
}

func TestThreeReplicasNeedTwoInSync(t *testing.T) {
	streamtest.FakeOnly(t)
	b := streamtest.New(t, kfake.NumBrokers(3))
	topic := schemas.Topic{Name: b.Names.Campaigns(), Partitions: 1, Compact: true}
	if err := stream.EnsureTopics(t.Context(), b.Admin, 3, []schemas.Topic{topic}); err != nil {
		t.Fatal(err)
	}
	configs, err := b.Admin.DescribeTopicConfigs(t.Context(), topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	rc, _ := configs.On(topic.Name, nil)
	got := map[string]string{}
	for _, c := range rc.Configs {
		got[c.Key] = c.MaybeValue()
	}
	if got["min.insync.replicas"] != "2" || got["cleanup.policy"] != "compact" {
		t.Errorf("got min.insync.replicas %q and cleanup.policy %q, want 2 and compact", got["min.insync.replicas"], got["cleanup.policy"])
	}
	if err := stream.EnsureTopics(t.Context(), b.Admin, 2, []schemas.Topic{topic}); err == nil {
		t.Error("replication 2: got no error")
	}
}

func committed(t testing.TB, b *streamtest.Broker, group, topic string) map[int32]kadm.OffsetResponse {
	t.Helper()
	have, err := b.Admin.FetchOffsetsForTopics(t.Context(), group, topic)
	if err != nil {
		t.Fatal(err)
	}
	return have[topic]
}

func TestFirstOffsetsAreCommittedOnce(t *testing.T) {
	b := streamtest.New(t)
	topic := b.Topic(t, "messages", 3)
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic); err != nil {
		t.Fatal(err)
	}
	for p, o := range committed(t, b, b.Names.Group("g"), topic) {
		if o.At != 0 {
			t.Errorf("partition %d: got %d, want 0", p, o.At)
		}
	}
	b.Produce(t, topic, 3, 10)
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 1, 7, -1)
	if err := b.Admin.CommitAllOffsets(t.Context(), b.Names.Group("g"), offsets); err != nil {
		t.Fatal(err)
	}
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic); err != nil {
		t.Fatal(err)
	}
	if got := committed(t, b, b.Names.Group("g"), topic)[1].At; got != 7 {
		t.Errorf("a committed offset: got %d, want 7 as it was", got)
	}
}

// If a commit is missing and the log has lost its beginning, the commit was lost: any offset to begin at would be a
// guess.
func TestLostOffsetsAreNotGuessed(t *testing.T) {
	b := streamtest.New(t)
	topic := b.Topic(t, "messages", 1)
	b.Produce(t, topic, 1, 10)
	cut := kadm.Offsets{}
	cut.AddOffset(topic, 0, 4, -1)
	if _, err := b.Admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic)
	var lost *stream.OffsetError
	if !errors.As(err, &lost) || lost.Start != 4 || lost.End != 10 {
		t.Fatalf("got %v, want an OffsetError of [4, 10)", err)
	}
	cut.AddOffset(topic, 0, 10, -1)
	if _, err := b.Admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic); err != nil {
		t.Fatalf("an empty log: %v", err)
	}
	if got := committed(t, b, b.Names.Group("g"), topic)[0].At; got != 10 {
		t.Errorf("an empty log: got %d, want 10, its end", got)
	}
}

func TestFirstOffsetsBesideAWorkingGroup(t *testing.T) {
	b := streamtest.New(t)
	topic := b.Topic(t, "messages", 2)
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic); err != nil {
		t.Fatal(err)
	}
	member, err := b.Named("member").Client(kgo.ConsumerGroup(b.Names.Group("g")), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	b.Produce(t, topic, 2, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := member.PollFetches(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("g"), topic); err != nil {
		t.Errorf("with a member at work: %v", err)
	}
}
