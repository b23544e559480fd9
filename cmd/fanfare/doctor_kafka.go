package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// examineKafka looks at brokers, their settings, our topics and our rights.
func examineKafka(ctx context.Context, cfg Config) []finding {
	if cfg.embeddedBroker() {
		return []finding{well("kafka", "embedded in fanfare serve")}
	}
	cl, _, t := openKafka(ctx, cfg)
	if t != nil {
		return []finding{bad("kafka", t.found, t.fix)}
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	names, err := schemas.NewNames(cfg.Prefix)
	if err != nil {
		return []finding{bad("kafka", err.Error(), "correct --prefix")}
	}
	k := &kafkaDoctor{cfg: cfg, names: names, cl: cl, adm: kadm.NewClient(cl)}
	if err := k.brokers(ctx); err != nil {
		return append(k.all, bad("kafka", fmt.Sprintf("the cluster cannot be described (%v)", err), k.grant("--cluster", "Describe")))
	}
	k.settings(ctx)
	k.topics(ctx)
	k.groupsAndTransactions(ctx)
	return k.all
}

// kafkaDoctor gathers findings of one cluster.
type kafkaDoctor struct {
	cfg   Config
	names schemas.Names
	cl    *kgo.Client
	adm   *kadm.Client

	live []int32 // ids of brokers
	// internal topics that exist: those that do not will be made with the settings of the brokers
	internal map[string]bool
	all      []finding
}

func (k *kafkaDoctor) add(f finding) { k.all = append(k.all, f) }

// grant is the command that gives us rights.
func (k *kafkaDoctor) grant(resource, operation string) string {
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal User:%s --operation %s %s", k.cfg.Kafka[0], orElse(k.cfg.KafkaUser, "NAME"), operation, resource)
}

// grantOurs gives us all rights on what begins with our prefix.
func (k *kafkaDoctor) grantOurs() string {
	p := k.cfg.Prefix
	return k.grant(fmt.Sprintf("--resource-pattern-type prefixed --topic %s --group %s --transactional-id %s", p, p, p), "All")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// needed are the requests without which we cannot do, and since when brokers know them.
var needed = []struct {
	key     kmsg.Key
	version int16
	since   string
	why     string
}{
	{kmsg.TxnOffsetCommit, 3, "2.5", "a transaction that commits for a group (KIP-447)"},
	{kmsg.InitProducerID, 3, "2.5", "a producer that goes on after an error (KIP-360)"},
	{kmsg.OffsetFetch, 7, "2.5", "offsets that no open transaction holds (KIP-447)"},
	{kmsg.Metadata, 10, "2.8", "ids of topics (KIP-516)"},
}

// leastKafka is the oldest version that knows all of them.
const leastKafka = "2.8"

func (k *kafkaDoctor) brokers(ctx context.Context) error {
	meta, err := k.adm.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	var addrs []string
	for _, b := range meta.Brokers {
		k.live = append(k.live, b.NodeID)
		addrs = append(addrs, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, k.cl)
	if err != nil {
		return err
	}
	version := kversion.FromApiVersionsResponse(resp)
	k.add(well("kafka", fmt.Sprintf("%s, %d broker(s), version %s", strings.Join(k.cfg.Kafka, ","), len(meta.Brokers), version.VersionGuess())))
	for _, n := range needed {
		if have, ok := version.LookupMaxKeyVersion(n.key.Int16()); !ok || have < n.version {
			k.add(bad("kafka", fmt.Sprintf("version %s does not know %s, which came with %s", version.VersionGuess(), n.why, n.since), "use Kafka "+leastKafka+" or newer"))
			break
		}
	}
	for i, t := range dialAll(ctx, "--kafka", addrs) {
		if t != nil {
			t = advertisedTrouble(strings.Join(k.cfg.Kafka, ","), addrs[i], t)
			k.add(bad("kafka", t.found, t.fix))
		}
	}
	for i, t := range dialAll(ctx, "--kafka", k.cfg.Kafka) {
		if t != nil {
			k.add(bad("kafka", k.cfg.Kafka[i]+": "+t.found, t.fix))
		}
	}
	switch n := len(meta.Brokers); {
	case n < k.cfg.Replication:
		k.add(bad("kafka", fmt.Sprintf("--replication %d with %d broker(s): no topic can be created", k.cfg.Replication, n), fmt.Sprintf("add brokers, or give --replication 1 where a lost disk may lose messages (now: %d)", n)))
	case n >= 3 && k.cfg.Replication == 1:
		k.add(note("kafka", fmt.Sprintf("--replication 1 with %d brokers: a lost disk loses messages", n), "give --replication 3 before the first start"))
	}
	return nil
}

// What clients of ours ask of a broker; see pipeline/stream.
const (
	groupSession     = 10 * time.Second // session time-outs of our groups, and of transactions
	offsetMetadata   = 4096             // bytes of an intent in a commit, at most
	largestBatch     = 1 << 20          // bytes of a batch, at most: franz-go's default
	leastOffsetsKept = 7 * 24 * 60      // minutes
)

// settings looks at those of the brokers.
func (k *kafkaDoctor) settings(ctx context.Context) {
	configs, err := k.adm.DescribeBrokerConfigs(ctx, k.live...)
	if err == nil {
		for _, c := range configs {
			err = errors.Join(err, c.Err)
		}
	}
	if err != nil {
		k.add(note("kafka", fmt.Sprintf("the settings of the brokers cannot be seen (%v)", err), k.grant("--cluster", "DescribeConfigs")))
		return
	}
	k.internal = map[string]bool{}
	if topics, err := k.adm.ListTopicsWithInternal(ctx, "__transaction_state", "__consumer_offsets"); err == nil {
		for _, t := range topics {
			k.internal[t.Topic] = t.Err == nil
		}
	}
	replication, brokers := float64(k.cfg.Replication), float64(len(k.live))
	checks := []struct {
		key       string
		at, least float64 // bounds
		skip      bool
		serious   bool
		why       string
	}{
		{"group.min.session.timeout.ms", ms(groupSession), 0, false, true, "no stage could join its group"},
		{"group.max.session.timeout.ms", math.Inf(1), ms(groupSession), false, true, "no stage could join its group"},
		{"transaction.max.timeout.ms", math.Inf(1), ms(groupSession), false, true, "no transaction could begin"},
		{"offset.metadata.max.bytes", math.Inf(1), offsetMetadata, false, true, "senders could not write down what is in flight"},
		{"message.max.bytes", math.Inf(1), largestBatch, false, true, "batches would be refused"},
		{"min.insync.replicas", replication, 0, false, true, fmt.Sprintf("topics have --replication %d, so nothing would be acknowledged", k.cfg.Replication)},
		{"transaction.state.log.replication.factor", brokers, 0, k.internal["__transaction_state"], true, "there are not so many brokers, so no transaction could begin"},
		{"offsets.topic.replication.factor", brokers, 0, k.internal["__consumer_offsets"], true, "there are not so many brokers, so no group could form"},
		{"offsets.retention.minutes", math.Inf(1), leastOffsetsKept, false, false, "senders that are stopped for longer forget where they were, and serve refuses to guess"},
	}
	for _, c := range checks {
		if c.skip {
			continue
		}
		for _, of := range configs {
			i := slices.IndexFunc(of.Configs, func(have kadm.Config) bool { return have.Key == c.key })
			if i < 0 || of.Configs[i].Value == nil {
				continue
			}
			got, err := strconv.ParseFloat(*of.Configs[i].Value, 64)
			if err != nil || got <= c.at && got >= c.least {
				continue
			}
			word, want := "most", c.at
			if got < c.least {
				word, want = "least", c.least
			}
			say := note
			if c.serious {
				say = bad
			}
			k.add(say("kafka", fmt.Sprintf("broker %s has %s=%s: %s", of.Name, c.key, *of.Configs[i].Value, c.why), fmt.Sprintf("set %s to at %s %.0f on every broker", c.key, word, want)))
			break // the others will be the same
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Milliseconds()) }

// routes are those that have topics, and the one that every installation has.
func (k *kafkaDoctor) routes(all kadm.TopicDetails) []string {
	routes := []string{simRoute}
	for name := range all {
		rest, ours := strings.CutPrefix(name, k.cfg.Prefix+"messages.")
		if route, is := strings.CutSuffix(rest, "."+string(schemas.LaneBulk)); ours && is && schemas.ValidRoute(route) == nil && route != simRoute {
			routes = append(routes, route)
		}
	}
	slices.Sort(routes)
	return routes
}

// topics compares ours with what they must be.
func (k *kafkaDoctor) topics(ctx context.Context) {
	everything, err := k.adm.ListTopics(ctx)
	if err != nil {
		everything = nil // it may be that not all are ours to see; ours are asked for by name
	}
	want := k.names.Fixed()
	for _, r := range k.routes(everything) {
		want = append(want, k.names.Route(r)...)
	}
	var names []string
	for _, t := range want {
		names = append(names, t.Name)
	}
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &n
		req.Topics = append(req.Topics, t)
	}
	meta, err := req.RequestWith(ctx, k.cl)
	if err != nil {
		k.add(bad("topics", fmt.Sprintf("topics cannot be described (%v)", err), k.grantOurs()))
		return
	}
	var existing, missing []schemas.Topic
	var forbidden, behind []string
	for _, t := range meta.Topics {
		spec := want[slices.Index(names, *t.Topic)]
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, spec)
		case err != nil:
			forbidden = append(forbidden, fmt.Sprintf("%s (%s)", spec.Name, kerr.TypedErrorForCode(t.ErrorCode).Message))
		default:
			existing = append(existing, spec)
			if lack := lacking(t.AuthorizedOperations, kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs); len(lack) > 0 {
				forbidden = append(forbidden, fmt.Sprintf("%s (%s)", spec.Name, strings.Join(lack, ", ")))
			}
			for _, p := range t.Partitions {
				if p.Leader < 0 || k.cfg.Replication == 3 && len(p.ISR) < 2 {
					behind = append(behind, fmt.Sprintf("%s/%d", spec.Name, p.Partition))
				}
			}
		}
	}
	if len(forbidden) > 0 {
		k.add(bad("topics", fmt.Sprintf("rights are missing on %s", few(forbidden)), k.grantOurs()))
	}
	if len(behind) > 0 {
		k.add(bad("topics", fmt.Sprintf("too few replicas are in sync of %s: nothing more is acknowledged there", few(behind)), "bring the brokers back that are away"))
	}
	k.missing(ctx, missing, len(want))
	if len(existing) == 0 || len(forbidden) > 0 || len(behind) > 0 {
		return
	}
	err = stream.EnsureTopics(ctx, k.adm, int16(k.cfg.Replication), existing) //nolint:gosec // 1 or 3, validated
	if err == nil {
		k.add(well("topics", fmt.Sprintf("%d as they must be", len(existing))))
	}
	for _, err := range flatten(err) {
		if differs, ok := errors.AsType[*stream.TopicError](err); ok {
			k.add(bad("topics", fmt.Sprintf("%s has %s %s, want %s", differs.Topic, differs.Setting, differs.Got, differs.Want), differs.Fix))
		} else {
			k.add(bad("topics", fmt.Sprintf("topics cannot be verified (%v)", err), k.grantOurs()))
		}
	}
}

// missing asks whether what is missing could be created, without creating it.
func (k *kafkaDoctor) missing(ctx context.Context, topics []schemas.Topic, of int) {
	if len(topics) == 0 {
		return
	}
	for _, t := range topics {
		configs := map[string]*string{}
		for key, value := range t.Configs() {
			configs[key] = &value
		}
		answers, err := k.adm.ValidateCreateTopics(ctx, t.Partitions, int16(k.cfg.Replication), configs, t.Name) //nolint:gosec // 1 or 3, validated
		why := ""
		if err == nil {
			err, why = answers[t.Name].Err, answers[t.Name].ErrMessage
		}
		switch {
		case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
			k.add(bad("topics", fmt.Sprintf("%d of %d are not there, and we may not create them", len(topics), of), k.grantOurs()))
			return
		case errors.Is(err, kerr.TopicAlreadyExists): // made meanwhile
		case err != nil:
			k.add(bad("topics", fmt.Sprintf("%s is not there and cannot be created (%v %s)", t.Name, err, why), "mend what the broker says, or create it as fanfare topics --print shows"))
			return
		}
	}
	k.add(note("topics", fmt.Sprintf("%d of %d are not there yet", len(topics), of), "fanfare serve creates them, or fanfare topics"))
}

// groupsAndTransactions tries what only a coordinator can answer.
func (k *kafkaDoctor) groupsAndTransactions(ctx context.Context) {
	// The heartbeat of a member that there is not changes nothing: who may be a member hears that it is unknown.
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = k.names.Group("doctor"), "doctor", -1
	resp, err := patiently(ctx, func(ctx context.Context) (int16, error) {
		r, err := beat.RequestWith(ctx, k.cl)
		if err != nil {
			return 0, err
		}
		return r.ErrorCode, nil
	})
	if err == nil {
		err = kerr.ErrorForCode(resp)
	}
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		k.add(bad("kafka", "we may not join groups named "+k.cfg.Prefix+"*", k.grantOurs()))
	case err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) && !errors.Is(err, kerr.IllegalGeneration):
		k.add(bad("kafka", fmt.Sprintf("no coordinator of groups answers (%v)", err), "see that topic __consumer_offsets has leaders, and offsets.topic.replication.factor is not above the number of brokers"))
	}

	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = new(k.names.TransactionalID("doctor", "")), int32(groupSession.Milliseconds())
	init.ProducerID, init.ProducerEpoch = -1, -1
	code, err := patiently(ctx, func(ctx context.Context) (int16, error) {
		r, err := init.RequestWith(ctx, k.cl)
		if err != nil {
			return 0, err
		}
		return r.ErrorCode, nil
	})
	if err == nil {
		err = kerr.ErrorForCode(code)
	}
	switch {
	case err == nil:
		k.add(well("kafka", "groups and transactions work"))
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		k.add(bad("kafka", "we may not use transactional ids named "+k.cfg.Prefix+"*", k.grantOurs()))
	default:
		k.add(bad("kafka", fmt.Sprintf("no coordinator of transactions answers (%v)", err), "see that topic __transaction_state has leaders, and transaction.state.log.replication.factor and .min.isr are not above the number of brokers"))
	}
}

// patiently repeats while a coordinator is not there yet: the first one to ask for it has its topic made.
func patiently(ctx context.Context, try func(context.Context) (int16, error)) (int16, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		code, err := try(ctx)
		got := err
		if got == nil {
			got = kerr.ErrorForCode(code)
		}
		if got == nil || !kerr.IsRetriable(got) && !errors.Is(got, kerr.CoordinatorNotAvailable) || ctx.Err() != nil {
			return code, err
		}
		select {
		case <-ctx.Done():
			return code, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lacking are the operations that a topic's answer does not allow us; none when the broker does not say.
func lacking(allowed int32, operations ...kmsg.ACLOperation) []string {
	if allowed == math.MinInt32 {
		return nil
	}
	var lack []string
	for _, op := range operations {
		if allowed&(1<<op) == 0 {
			lack = append(lack, op.String())
		}
	}
	return lack
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// flatten returns the errors that errors.Join has joined.
func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if err == nil {
		return nil
	}
	if errors.As(err, &joined) {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}
