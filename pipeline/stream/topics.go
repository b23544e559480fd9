package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"fanfare/schemas"
)

// TopicError says that an existing topic has other settings than it must have. Fanfare does not change them: the person
// who set them may have had a reason, and some settings cannot be changed without loss.
type TopicError struct {
	Topic, Setting string
	Got, Want      string
	Fix            string
}

func (e *TopicError) Error() string {
	return fmt.Sprintf("topic %s has %s %s, want %s; fix: %s", e.Topic, e.Setting, e.Got, e.Want, e.Fix)
}

// OffsetError says that a group has no committed offset in a partition, and that any offset to begin at would be a
// guess.
type OffsetError struct {
	Group, Topic string
	Partition    int32
	Start, End   int64 // of the log
}

func (e *OffsetError) Error() string {
	return fmt.Sprintf("group %s has no offset in %s/%d, whose log is [%d, %d): its commits were lost or expired, and to begin anywhere may send again or leave out; "+
		"fix: find the last `source` of %s/%d in the deliveries and commit the offset after it with kafka-consumer-groups.sh --group %s --topic %s:%d --reset-offsets --to-offset N --execute",
		e.Group, e.Topic, e.Partition, e.Start, e.End, e.Topic, e.Partition, e.Group, e.Topic, e.Partition)
}

// minInSync is how many replicas must have a record before it is acknowledged, of three.
const minInSync = 2

// EnsureTopics creates the topics that are missing and verifies those that exist: partitions, replicas and every
// setting that [schemas.Topic] names. It changes nothing that exists; each difference is a [TopicError], all of them
// joined. Replication is 1, or 3 with `min.insync.replicas` 2. It tries once: [Cluster.Prepare] waits for a Kafka that
// is not ready.
func EnsureTopics(ctx context.Context, adm *kadm.Client, replication int16, topics []schemas.Topic) error {
	if replication != 1 && replication != 3 {
		return fmt.Errorf("ensure topics: replication %d, want 1 or 3", replication)
	}
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
	}
	have, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for _, t := range topics {
		if d := have[t.Name]; d.Err == nil {
			continue
		} else if !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("topic %s: %w", t.Name, d.Err)
		}
		configs := map[string]*string{}
		for k, v := range topicConfigs(t, replication) {
			configs[k] = new(v)
		}
		// Another process may create it at the same moment; it is verified below either way.
		if _, err := adm.CreateTopic(ctx, t.Partitions, replication, configs, t.Name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			if errors.Is(err, kerr.InvalidReplicationFactor) {
				err = fmt.Errorf("fewer brokers are registered than the %d replicas it must have; start them, or choose --replication 1 where a lost disk may lose messages: %w", replication, err)
			}
			return fmt.Errorf("create topic %s: %w", t.Name, err)
		}
	}
	if have, err = awaitLeaders(ctx, adm, names); err != nil {
		return err
	}
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	var errs []error
	for _, t := range topics {
		errs = append(errs, verifyTopic(t, replication, have[t.Name], configs)...)
	}
	return errors.Join(errs...)
}

func topicConfigs(t schemas.Topic, replication int16) map[string]string {
	c := t.Configs()
	if replication == 3 {
		c["min.insync.replicas"] = strconv.Itoa(minInSync)
	}
	return c
}

// awaitLeaders waits until every partition has a leader: a topic just created is not known to all brokers at once.
func awaitLeaders(ctx context.Context, adm *kadm.Client, names []string) (kadm.TopicDetails, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := adm.ListTopics(ctx, names...)
		if err != nil {
			return nil, fmt.Errorf("list topics: %w", err)
		}
		waiting := ""
		for _, name := range names {
			d := have[name]
			if d.Err != nil && !Temporary(d.Err) {
				return nil, fmt.Errorf("topic %s: %w", name, d.Err)
			}
			if d.Err != nil || len(d.Partitions) == 0 {
				waiting = name
			}
			for _, p := range d.Partitions {
				if p.Leader < 0 {
					waiting = name
				}
			}
		}
		if waiting == "" {
			return have, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("topic %s has partitions without a leader: %w", waiting, kerr.LeaderNotAvailable)
		case <-tick.C:
		}
	}
}

func verifyTopic(t schemas.Topic, replication int16, d kadm.TopicDetail, configs kadm.ResourceConfigs) (errs []error) {
	if got := len(d.Partitions); got != int(t.Partitions) {
		e := &TopicError{Topic: t.Name, Setting: "partitions", Got: strconv.Itoa(got), Want: strconv.Itoa(int(t.Partitions))}
		e.Fix = fmt.Sprintf("kafka-topics.sh --alter --topic %s --partitions %d", t.Name, t.Partitions)
		if got > int(t.Partitions) || strings.Contains(t.Name, "messages.") {
			// Kafka cannot reduce the partitions of a topic. More partitions of a topic of messages would move keys
			// away from the state that is kept for their partition.
			e.Fix = "take another route for a topic of messages, another --prefix for the rest: the number cannot be changed without sending again"
		}
		errs = append(errs, e)
	}
	if replicas := d.Partitions.NumReplicas(); replicas < int(replication) {
		errs = append(errs, &TopicError{
			Topic: t.Name, Setting: "replicas", Got: strconv.Itoa(replicas), Want: strconv.Itoa(int(replication)),
			Fix: "kafka-reassign-partitions.sh, or --replication 1 where a lost disk may lose messages",
		})
	}
	have, err := configs.On(t.Name, nil)
	if err == nil {
		err = have.Err
	}
	if err != nil {
		return append(errs, fmt.Errorf("describe topic %s: %w", t.Name, err))
	}
	want := topicConfigs(t, replication)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		got := "nothing"
		for _, c := range have.Configs {
			if c.Key == key && c.Value != nil {
				got = *c.Value
			}
		}
		if got != want[key] {
			errs = append(errs, &TopicError{
				Topic: t.Name, Setting: key, Got: got, Want: want[key],
				Fix: fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", t.Name, key, want[key]),
			})
		}
	}
	return errs
}

// EnsureOffsets commits the beginning of the log for the partitions of a topic in which the group never committed, so
// that its readers need no offset reset, which would send the messages of the log again. It is called when the topic is
// created and at every start.
//
// Where the beginning of the log is gone already, a missing commit was lost or has expired: that is an [OffsetError],
// unless the log is empty. It tries once: [Cluster.Prepare] waits for a Kafka that is not ready.
func EnsureOffsets(ctx context.Context, adm *kadm.Client, group, topic string) error {
	missing, err := missingOffsets(ctx, adm, group, topic)
	if err != nil || len(missing) == 0 {
		return err
	}
	starts, err := Answer(adm.ListStartOffsets(ctx, topic))
	if err != nil {
		return fmt.Errorf("list the beginning of %s: %w", topic, err)
	}
	ends, err := Answer(adm.ListEndOffsets(ctx, topic))
	if err != nil {
		return fmt.Errorf("list the end of %s: %w", topic, err)
	}
	offsets := kadm.Offsets{}
	for _, p := range missing {
		start, _ := starts.Lookup(topic, p)
		end, _ := ends.Lookup(topic, p)
		if start.Offset > 0 && start.Offset < end.Offset {
			return &OffsetError{Group: group, Topic: topic, Partition: p, Start: start.Offset, End: end.Offset}
		}
		offsets.AddOffset(topic, p, start.Offset, -1)
	}
	if err = adm.CommitAllOffsets(ctx, group, offsets); err == nil {
		return nil
	}
	// While the group has members, only they may commit: another process was quicker and already works.
	if missing, again := missingOffsets(ctx, adm, group, topic); again == nil && len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("commit the first offsets of group %s in %s: %w", group, topic, err)
}

// missingOffsets returns the partitions of topic in which group has no offset.
func missingOffsets(ctx context.Context, adm *kadm.Client, group, topic string) ([]int32, error) {
	topics, err := Answer(adm.ListTopics(ctx, topic))
	if err != nil {
		return nil, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	have, err := Answer(adm.FetchOffsets(kadm.RequireStable(ctx), group))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("fetch the offsets of group %s in %s: %w", group, topic, err)
	}
	var missing []int32
	for p := range topics[topic].Partitions {
		if o, ok := have.Lookup(topic, p); !ok || o.At < 0 {
			missing = append(missing, p)
		}
	}
	slices.Sort(missing)
	return missing, nil
}
