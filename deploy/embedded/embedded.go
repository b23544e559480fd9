package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Config of the embedded services.
type Config struct {
	// Dir is the data directory. The process must have locked it, see [Lock].
	Dir    string
	Logger *slog.Logger
	// Kafka and Redis say which to start.
	Kafka, Redis bool
	// Login has the accounts of the services, see [OpenLogin]. Without it every program on this machine may use them,
	// as in tests.
	Login Login
	// Public are the topics that Login.Consumer may read.
	Public []string
}

// Services are a running broker and Redis, on loopback.
type Services struct {
	// Kafka and Redis are addresses, host:port; "" for a service that was not started.
	Kafka, Redis string

	dir    string
	kafka  *kfake.Cluster
	redis  *miniredis.Miniredis
	failed chan error
	stop   chan struct{}
	once   sync.Once
}

// Endpoints is the content of DIR/endpoints.json while the services run. Tools find the broker there.
type Endpoints struct {
	Kafka string `json:"kafka"`
	Redis string `json:"redis"`
	PID   int    `json:"pid"`
}

const endpointsFile = "endpoints.json"

// ReadEndpoints reads the endpoints that the process which uses dir has written.
func ReadEndpoints(dir string) (Endpoints, error) {
	var e Endpoints
	b, err := os.ReadFile(filepath.Join(dir, endpointsFile))
	if err != nil {
		return e, fmt.Errorf("read endpoints: %w", err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("read endpoints: %w", err)
	}
	return e, nil
}

// Start starts the services on the data of cfg.Dir. The caller must call Stop.
func Start(cfg Config) (_ *Services, err error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, errors.New("embedded services: a directory and a logger are needed")
	}
	s := &Services{dir: cfg.Dir, failed: make(chan error, 1), stop: make(chan struct{})}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if cfg.Kafka {
		if err := s.startKafka(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.Redis {
		s.redis = miniredis.NewMiniRedis()
		if cfg.Login.Redis != "" {
			s.redis.RequireAuth(cfg.Login.Redis)
		}
		if err := s.redis.StartAddr("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("embedded redis: %w", err)
		}
		s.Redis = s.redis.Addr()
		go expireKeys(s.redis, s.stop)
	}

	if err := writeFile(s.dir, endpointsFile, Endpoints{Kafka: s.Kafka, Redis: s.Redis, PID: os.Getpid()}); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	if account := cfg.Login.Consumer; cfg.Kafka && account.User != "" {
		c := Connection{Brokers: s.Kafka, SASLMechanism: "PLAIN", User: account.User, Password: account.Password, Topics: cfg.Public}
		if err := writeFile(s.dir, consumerFile, c); err != nil {
			return nil, fmt.Errorf("connection of consumers: %w", err)
		}
	}
	return s, nil
}

func (s *Services) startKafka(cfg Config) error {
	opts := []kfake.Opt{
		kfake.Ports(0), // one broker, on a free port
		kfake.DataDir(filepath.Join(s.dir, "kafka")),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(context.Background(), network, address)
		}),
		kfake.WithLogger(brokerLog{cfg.Logger, s.fail}),
		kfake.GroupMinSessionTimeout(time.Second),
		// Compaction and retention run at this interval. The default of an hour is too long for the topic cursors.
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "300000"}),
	}
	if cfg.Login.Kafka.User != "" {
		opts = append(opts, accounts(cfg.Login, cfg.Public)...)
	}
	var err error
	if s.kafka, err = kfake.NewCluster(opts...); err != nil {
		return fmt.Errorf("embedded kafka in %s: %w", filepath.Join(s.dir, "kafka"), err)
	}
	s.Kafka = s.kafka.ListenAddrs()[0]
	return nil
}

// accounts returns the options for a broker that everybody must log in to: Fanfare may do everything, a consumer may
// read the public topics in a group of any name.
func accounts(l Login, public []string) []kfake.Opt {
	const plain = "PLAIN"
	rights := []kfake.ACL{{
		Resource: kmsg.ACLResourceTypeGroup, Name: "*", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true,
	}}
	for _, topic := range public {
		for _, operation := range []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationDescribe} {
			rights = append(rights, kfake.ACL{
				Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true,
			})
		}
	}
	return []kfake.Opt{
		kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser(plain, l.Kafka.User, l.Kafka.Password),
		kfake.User(plain, l.Consumer.User, l.Consumer.Password, rights...),
	}
}

// Failed receives an error when the broker could not write. Records that it acknowledges from then on may be lost, so
// the process must end.
func (s *Services) Failed() <-chan error { return s.failed }

func (s *Services) fail(err error) {
	select {
	case s.failed <- err:
	default: // one is enough
	}
}

// Stop stops both services.
func (s *Services) Stop() {
	s.once.Do(func() {
		close(s.stop)
		if s.kafka != nil {
			s.kafka.Close()
		}
		if s.redis != nil {
			s.redis.Close()
		}
		_ = os.Remove(filepath.Join(s.dir, endpointsFile))
		_ = os.Remove(filepath.Join(s.dir, consumerFile))
	})
}

// brokerLog logs what kfake logs, and reports errors of writing. The log is the only sign of such an error: kfake
// acknowledges a batch that it could not write.
type brokerLog struct {
	log  *slog.Logger
	fail func(error)
}

// writeErrors are the first words of the messages that kfake logs when it could not write.
var writeErrors = []string{"persist ", "endTx: failed to persist", "rebuildSegments ", "save session state"}

// Logf implements kfake.Logger.
func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn {
		return
	}
	msg := fmt.Sprintf(format, args...)
	for _, prefix := range writeErrors {
		if strings.HasPrefix(format, prefix) {
			l.fail(fmt.Errorf("embedded kafka cannot write: %s", msg))
			return
		}
	}
	// The rest is for debugging: a segment that was cut by a kill and is truncated, a transaction that took 5 ms.
	l.log.Debug("embedded kafka", "detail", msg)
}
