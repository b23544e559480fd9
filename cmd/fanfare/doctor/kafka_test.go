package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"fanfare/cmd/fanfare/services/servicestest"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

func kafkaConfig(t testing.TB, c *kfake.Cluster, change func(*Config)) Config {
	t.Helper()
	return testConfig(t, func(cfg *Config) {
		cfg.Kafka.Brokers = c.ListenAddrs()
		if change != nil {
			change(cfg)
		}
	})
}

func kafkaAdmin(t testing.TB, c *kfake.Cluster) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// An empty cluster has no bad finding; a cluster on which serve has started has no note either.
func TestKafkaWell(t *testing.T) {
	t.Parallel()
	c := fakeKafka(t)
	cfg := kafkaConfig(t, c, nil)
	all := examineKafka(t.Context(), cfg)
	if bad := of(all, Bad); len(bad) > 0 {
		t.Fatalf("got %+v, want nothing bad", bad)
	}
	if notes := of(all, Note); len(notes) != 1 || !strings.Contains(notes[0].Found, "do not exist yet") {
		t.Errorf("got notes %+v, want one that topics are missing", notes)
	}
	adm := kafkaAdmin(t, c)
	if topics, err := adm.ListTopics(t.Context()); err != nil || len(topics) > 0 {
		t.Fatalf("got %v, %v: the doctor made topics", topics.Names(), err)
	}
	names, _ := schemas.NewNames(cfg.Prefix)
	if err := stream.EnsureTopics(t.Context(), adm, 1, append(names.Fixed(), append(names.Route("sim"), names.Route("other")...)...)); err != nil {
		t.Fatal(err)
	}
	all = examineKafka(t.Context(), cfg)
	if len(of(all, OK)) != len(all) {
		t.Errorf("got %+v, want all well", all)
	}
}

func TestKafkaTopics(t *testing.T) {
	t.Parallel()
	c := fakeKafka(t)
	cfg := kafkaConfig(t, c, nil)
	adm := kafkaAdmin(t, c)
	names, _ := schemas.NewNames(cfg.Prefix)
	create := func(name string, partitions int32, configs map[string]string) {
		t.Helper()
		all := map[string]*string{}
		for k, v := range configs {
			all[k] = &v
		}
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, all, name); err != nil {
			t.Fatal(err)
		}
	}
	create(names.Chunks(), 23, map[string]string{"cleanup.policy": "delete", "retention.ms": "2592000000"})
	create(names.Receipts(), 6, map[string]string{"cleanup.policy": "compact"})
	create(names.Messages("wide", schemas.LaneBulk), 12, map[string]string{"cleanup.policy": "delete", "retention.ms": "1000"})
	all := examineKafka(t.Context(), cfg)
	wantBad(t, all, "test.chunks has partitions 23, want 24", "--alter --topic test.chunks --partitions 24")
	wantBad(t, all, "test.receipts has cleanup.policy compact, want delete", "kafka-configs.sh")
	wantBad(t, all, "test.messages.wide.bulk has partitions 12, want 6", "another route")
	wantBad(t, all, "test.messages.wide.bulk has retention.ms 1000", "retention.ms=259200000")
}

func TestKafkaSettings(t *testing.T) {
	t.Parallel()
	for key, c := range map[string]struct{ value, fix string }{
		"group.min.session.timeout.ms": {"30000", "at most 10000"},
		"group.max.session.timeout.ms": {"9000", "at least 10000"},
		"transaction.max.timeout.ms":   {"5000", "at least 10000"},
		"message.max.bytes":            {"100000", "at least 1048576"},
		"min.insync.replicas":          {"2", "at most 1"},
	} {
		cluster := fakeKafka(t, kfake.BrokerConfigs(map[string]string{key: c.value}))
		all := examineKafka(t.Context(), kafkaConfig(t, cluster, nil))
		wantBad(t, all, key+"="+c.value, "set "+key+" to "+c.fix)
		if bad := of(all, Bad); len(bad) > 2 { // a time-out that is too short also shows at the transaction
			t.Errorf("%s: got %+v, want that alone", key, bad)
		}
	}
}

func TestKafkaBrokers(t *testing.T) {
	t.Parallel()
	t.Run("too few", func(t *testing.T) {
		t.Parallel()
		all := examineKafka(t.Context(), kafkaConfig(t, fakeKafka(t), func(c *Config) { c.Replication = 3 }))
		wantBad(t, all, "--replication 3 with 1 broker", "add brokers")
	})
	t.Run("more than replicas", func(t *testing.T) {
		t.Parallel()
		all := examineKafka(t.Context(), kafkaConfig(t, fakeKafka(t, kfake.NumBrokers(3)), nil))
		if notes := of(all, Note); len(of(all, Bad)) > 0 || len(notes) != 2 || !strings.Contains(notes[0].Fix, "--replication 3") {
			t.Errorf("got %+v, want a note on replication", all)
		}
	})
	t.Run("too old", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			version *kversion.Versions
			why     string
		}{{kversion.V2_4_0(), "KIP-447"}, {kversion.V2_7_0(), "KIP-516"}} {
			all := examineKafka(t.Context(), kafkaConfig(t, fakeKafka(t, kfake.MaxVersions(c.version)), nil))
			wantBad(t, all, c.why, "Kafka 2.8 or newer")
		}
		if all := examineKafka(t.Context(), kafkaConfig(t, fakeKafka(t, kfake.MaxVersions(kversion.V2_8_0())), nil)); len(of(all, Bad)) > 0 {
			t.Errorf("got %+v of the oldest version that will do", all)
		}
	})
	t.Run("advertised elsewhere", func(t *testing.T) {
		t.Parallel()
		c := fakeKafka(t)
		c.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			resp := req.ResponseKind().(*kmsg.MetadataResponse)
			b := kmsg.NewMetadataResponseBroker()
			b.Host, b.Port = "127.0.0.1", 1
			resp.Brokers = append(resp.Brokers, b)
			return resp, nil, true
		})
		all := examineKafka(t.Context(), kafkaConfig(t, c, nil))
		wantBad(t, all, "advertises the address 127.0.0.1:1, but nothing listens", "advertised.listeners")
	})
	t.Run("one of several is away", func(t *testing.T) {
		t.Parallel()
		c := fakeKafka(t)
		away := servicestest.FreeAddr(t)
		all := examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.Brokers = []string{away, c.ListenAddrs()[0]} }))
		wantBad(t, all, "nothing listens at "+away, "--kafka")
		if len(of(all, Bad)) != 1 {
			t.Errorf("got %+v, want that alone", all)
		}
	})
}

func TestKafkaRights(t *testing.T) {
	t.Parallel()
	const user, pass = "fan", "fare"
	allow := func(resource kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		pattern := kmsg.ACLResourcePatternTypePrefixed
		if resource == kmsg.ACLResourceTypeCluster {
			pattern = kmsg.ACLResourcePatternTypeLiteral
		}
		return kfake.ACL{Resource: resource, Name: name, Pattern: pattern, Operation: op, Allow: true}
	}
	cluster := allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationAll)
	describe := allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationDescribe)
	topics := allow(kmsg.ACLResourceTypeTopic, "test.", kmsg.ACLOperationAll)
	groups := allow(kmsg.ACLResourceTypeGroup, "test.", kmsg.ACLOperationAll)
	txns := allow(kmsg.ACLResourceTypeTransactionalId, "test.", kmsg.ACLOperationAll)
	examineAs := func(t *testing.T, acls ...kfake.ACL) []Finding {
		t.Helper()
		c := fakeKafka(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", user, pass, acls...))
		return examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.User, cfg.Kafka.Password = user, pass }))
	}
	if bad := of(examineAs(t, cluster, topics, groups, txns), Bad); len(bad) > 0 {
		t.Errorf("with all rights: got %+v, want nothing bad", bad)
	}
	const fix = "kafka-acls.sh"
	read, write := allow(kmsg.ACLResourceTypeTopic, "test.", kmsg.ACLOperationRead), allow(kmsg.ACLResourceTypeTopic, "test.", kmsg.ACLOperationWrite)
	see := allow(kmsg.ACLResourceTypeTopic, "test.", kmsg.ACLOperationDescribe)
	wantBad(t, examineAs(t, describe, groups, txns), "rights are missing on test.campaigns", "--topic test.")
	wantBad(t, examineAs(t, describe, groups, txns, read, write, see), "may not create them", fix)
	wantBad(t, examineAs(t, cluster, topics, txns), "may not join groups named test.*", "--group test.")
	wantBad(t, examineAs(t, cluster, topics, groups), "may not use transactional ids named test.*", "--transactional-id test.")

	// The topics exist, and our user may only read them.
	c := fakeKafka(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(24, "test.chunks"), kfake.User("PLAIN", user, pass, cluster, groups, txns, read, see))
	all := examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.User, cfg.Kafka.Password = user, pass }))
	wantBad(t, all, "rights are missing on test.chunks (WRITE", "User:fan --operation All")
}

func TestKafkaLogin(t *testing.T) {
	t.Parallel()
	c := fakeKafka(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "fan", "fare"))
	login := func(user, pass, how string) []Finding {
		return examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.User, cfg.Kafka.Password, cfg.Kafka.SASL = user, pass, how }))
	}
	wantBad(t, login("", "", "plain"), "wants a login", "--kafka-user")
	wantBad(t, login("fan", "wrong", "scram-sha-512"), "at the login", "--kafka-password")
	if bad := of(login("fan", "fare", "scram-sha-512"), Bad); len(bad) > 0 {
		t.Errorf("got %+v, want nothing bad", bad)
	}
}

func TestKafkaTLS(t *testing.T) {
	t.Parallel()
	certificate, ca := selfSigned(t)
	c := fakeKafka(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}))
	wantBad(t, examineKafka(t.Context(), kafkaConfig(t, c, nil)), "speaks TLS", "add --kafka-tls")
	wantBad(t, examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.TLS = true })), "does not know the authority", "--kafka-ca")
	if bad := of(examineKafka(t.Context(), kafkaConfig(t, c, func(cfg *Config) { cfg.Kafka.TLS, cfg.Kafka.CA = true, ca })), Bad); len(bad) > 0 {
		t.Errorf("got %+v, want nothing bad", bad)
	}
	wantBad(t, examineKafka(t.Context(), kafkaConfig(t, fakeKafka(t), func(cfg *Config) { cfg.Kafka.TLS = true })), "does not speak TLS", "leave --kafka-tls out")
}

// selfSigned returns a certificate of 127.0.0.1 and the file that holds it.
func selfSigned(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}
