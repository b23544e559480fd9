package doctor

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

	"fanfare/cmd/fanfare/services"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// examineKafka looks at brokers, their settings, our topics and our rights.
func examineKafka(ctx context.Context, cfg Config) []Finding {
	if cfg.embeddedKafka() {
		return []Finding{ok("kafka", "embedded in fanfare serve")}
	}
	cl, _, p := services.OpenKafka(ctx, cfg.Kafka)
	if p != nil {
		return []Finding{problem("kafka", p)}
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*services.Timeout)
	defer cancel()
	names, err := schemas.NewNames(cfg.Prefix)
	if err != nil {
		return []Finding{bad("kafka", err.Error(), "correct --prefix")}
	}
	k := &kafkaExamination{cfg: cfg, names: names, cl: cl, adm: kadm.NewClient(cl)}
	if err := k.brokers(ctx); err != nil {
		return append(k.all, bad("kafka", fmt.Sprintf("the cluster cannot be described (%v)", err), k.grant("--cluster", "Describe")))
	}
	k.settings(ctx)
	k.topics(ctx)
	k.groupsAndTransactions(ctx)
	return k.all
}

// kafkaExamination collects the findings about one cluster.
type kafkaExamination struct {
	cfg   Config
	names schemas.Names
	cl    *kgo.Client
	adm   *kadm.Client

	live []int32 // ids of brokers
	// internal topics that exist. The brokers create the others with their current settings.
	internal map[string]bool
	all      []Finding
}

func (k *kafkaExamination) add(f Finding) { k.all = append(k.all, f) }

// grant returns the command that gives our user a right.
func (k *kafkaExamination) grant(resource, operation string) string {
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal User:%s --operation %s %s", k.cfg.Kafka.Brokers[0], orElse(k.cfg.Kafka.User, "NAME"), operation, resource)
}

// grantOurs returns the command that gives our user all rights on names that begin with our prefix.
func (k *kafkaExamination) grantOurs() string {
	p := k.cfg.Prefix
	return k.grant(fmt.Sprintf("--resource-pattern-type prefixed --topic %s --group %s --transactional-id %s", p, p, p), "All")
}

func (k *kafkaExamination) brokers(ctx context.Context) error {
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
	k.add(ok("kafka", fmt.Sprintf("%s, %d broker(s), version %s", strings.Join(k.cfg.Kafka.Brokers, ","), len(meta.Brokers), version.VersionGuess())))
	for i, p := range services.DialAll(ctx, "--kafka", addrs) {
		if p != nil {
			k.add(problem("kafka", services.AdvertisedProblem(strings.Join(k.cfg.Kafka.Brokers, ","), addrs[i], p)))
		}
	}
	for i, p := range services.DialAll(ctx, "--kafka", k.cfg.Kafka.Brokers) {
		if p != nil {
			k.add(bad("kafka", k.cfg.Kafka.Brokers[i]+": "+p.Found, p.Fix))
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

// What our clients need from a broker; see pipeline/stream.
const (
	groupSession     = 10 * time.Second // session time-out of our groups, and time-out of our transactions
	offsetMetadata   = 4096             // most bytes of an intent in the metadata of a commit
	largestBatch     = 1 << 20          // most bytes of a batch, franz-go's default
	leastOffsetsKept = 7 * 24 * 60      // minutes
)

// settings looks at the settings of the brokers.
func (k *kafkaExamination) settings(ctx context.Context) {
	configs, err := k.adm.DescribeBrokerConfigs(ctx, k.live...)
	if err == nil {
		for _, c := range configs {
			err = errors.Join(err, c.Err)
		}
	}
	if err != nil {
		k.add(note("kafka", fmt.Sprintf("the settings of the brokers cannot be read (%v)", err), k.grant("--cluster", "DescribeConfigs")))
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
		key         string
		most, least float64
		skip        bool
		serious     bool
		why         string
	}{
		{"group.min.session.timeout.ms", ms(groupSession), 0, false, true, "no stage could join its group"},
		{"group.max.session.timeout.ms", math.Inf(1), ms(groupSession), false, true, "no stage could join its group"},
		{"transaction.max.timeout.ms", math.Inf(1), ms(groupSession), false, true, "no transaction could begin"},
		{"offset.metadata.max.bytes", math.Inf(1), offsetMetadata, false, true, "senders could not commit their intent"},
		{"message.max.bytes", math.Inf(1), largestBatch, false, true, "batches would be refused"},
		{"min.insync.replicas", replication, 0, false, true, fmt.Sprintf("topics have --replication %d, so nothing would be acknowledged", k.cfg.Replication)},
		{"transaction.state.log.replication.factor", brokers, 0, k.internal["__transaction_state"], true, "there are fewer brokers, so no transaction could begin"},
		{"offsets.topic.replication.factor", brokers, 0, k.internal["__consumer_offsets"], true, "there are fewer brokers, so no group could form"},
		{"offsets.retention.minutes", math.Inf(1), leastOffsetsKept, false, false, "the offsets of senders that are stopped for longer are lost, and serve then refuses to start them"},
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
			if err != nil || got <= c.most && got >= c.least {
				continue
			}
			word, want := "most", c.most
			if got < c.least {
				word, want = "least", c.least
			}
			finding := note
			if c.serious {
				finding = bad
			}
			k.add(finding("kafka", fmt.Sprintf("broker %s has %s=%s: %s", of.Name, c.key, *of.Configs[i].Value, c.why), fmt.Sprintf("set %s to at %s %.0f on every broker", c.key, word, want)))
			break // one broker is enough: the others usually have the same setting
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Milliseconds()) }

// routes returns the routes that have topics, and the default route.
func (k *kafkaExamination) routes(all kadm.TopicDetails) []string {
	routes := []string{k.cfg.DefaultRoute}
	for name := range all {
		rest, ours := strings.CutPrefix(name, k.cfg.Prefix+"messages.")
		if route, is := strings.CutSuffix(rest, "."+string(schemas.LaneBulk)); ours && is && schemas.ValidRoute(route) == nil && route != k.cfg.DefaultRoute {
			routes = append(routes, route)
		}
	}
	slices.Sort(routes)
	return routes
}

// topics compares our topics with what they must be.
func (k *kafkaExamination) topics(ctx context.Context) {
	everything, err := k.adm.ListTopics(ctx)
	if err != nil {
		everything = nil // we may have no right to list all topics; ours are described by name below
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
		k.add(bad("topics", fmt.Sprintf("%s has too few replicas in sync: brokers acknowledge nothing more there", few(behind)), "start the brokers that are down"))
	}
	k.missing(ctx, missing, len(want))
	if len(existing) == 0 || len(forbidden) > 0 || len(behind) > 0 {
		return
	}
	err = stream.EnsureTopics(ctx, k.adm, int16(k.cfg.Replication), existing) //nolint:gosec // 1 or 3, validated
	if err == nil {
		k.add(ok("topics", fmt.Sprintf("%d as they must be", len(existing))))
	}
	for _, err := range flatten(err) {
		if differs, ok := errors.AsType[*stream.TopicError](err); ok {
			k.add(bad("topics", fmt.Sprintf("%s has %s %s, want %s", differs.Topic, differs.Setting, differs.Got, differs.Want), differs.Fix))
		} else {
			k.add(bad("topics", fmt.Sprintf("topics cannot be verified (%v)", err), k.grantOurs()))
		}
	}
}

// missing asks the broker whether the missing topics could be created, without creating them.
func (k *kafkaExamination) missing(ctx context.Context, topics []schemas.Topic, of int) {
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
			k.add(bad("topics", fmt.Sprintf("%d of %d do not exist, and we may not create them", len(topics), of), k.grantOurs()))
			return
		case errors.Is(err, kerr.TopicAlreadyExists): // created in the meantime
		case err != nil:
			k.add(bad("topics", fmt.Sprintf("%s does not exist and cannot be created (%v %s)", t.Name, err, why), "do what the broker says, or create it as fanfare topics --print shows"))
			return
		}
	}
	k.add(note("topics", fmt.Sprintf("%d of %d do not exist yet", len(topics), of), "fanfare serve creates them, or fanfare topics"))
}

// groupsAndTransactions sends requests that only the coordinators of groups and of transactions can answer.
func (k *kafkaExamination) groupsAndTransactions(ctx context.Context) {
	// A heartbeat of a member that does not exist changes nothing. A user with rights on the group gets
	// UNKNOWN_MEMBER_ID.
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
		k.add(bad("kafka", fmt.Sprintf("no group coordinator answers (%v)", err), "check that the topic __consumer_offsets has leaders and that offsets.topic.replication.factor is at most the number of brokers"))
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
		k.add(ok("kafka", "groups and transactions work"))
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		k.add(bad("kafka", "we may not use transactional ids named "+k.cfg.Prefix+"*", k.grantOurs()))
	default:
		k.add(bad("kafka", fmt.Sprintf("no transaction coordinator answers (%v)", err), "check that the topic __transaction_state has leaders and that transaction.state.log.replication.factor and .min.isr are at most the number of brokers"))
	}
}

// patiently repeats a request while its coordinator is not available: the first request for a coordinator makes the
// brokers create its topic.
func patiently(ctx context.Context, try func(context.Context) (int16, error)) (int16, error) {
	ctx, cancel := context.WithTimeout(ctx, services.Timeout)
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

// lacking returns which of the operations our user may not do on a topic. It returns none if the broker does not say.
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
