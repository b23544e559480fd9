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
)

// Config of the embedded services.
type Config struct {
	// Dir holds everything; it is created. Only one process may use it at a time.
	Dir    string
	Logger *slog.Logger
	// Kafka and Redis say which to start.
	Kafka, Redis bool
	// KafkaPort on loopback; 0 takes a free one.
	KafkaPort int
}

// Services are a running broker and Redis, on loopback.
type Services struct {
	// Kafka and Redis are their addresses, host:port; "" of one that was not asked for.
	Kafka, Redis string

	dir    string
	lock   *os.File
	kafka  *kfake.Cluster
	redis  *miniredis.Miniredis
	failed chan error
	once   sync.Once
}

// ErrInUse is wrapped when another process holds the data directory.
var ErrInUse = errors.New("the data directory is in use by another process")

// Endpoints is what DIR/endpoints.json says while the services run: where tools find the broker.
type Endpoints struct {
	Kafka string `json:"kafka"`
	Redis string `json:"redis"`
	PID   int    `json:"pid"`
}

const endpointsFile = "endpoints.json"

// ReadEndpoints returns what the process that holds dir has written.
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

// Start starts what is asked for on the data of dir. Stop must be called.
func Start(cfg Config) (_ *Services, err error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, errors.New("embedded services: a directory and a logger are needed")
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Services{dir: cfg.Dir, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}

	if cfg.Kafka {
		if err := s.startKafka(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.Redis {
		s.redis = miniredis.NewMiniRedis()
		s.redis.ClockTTL(true) // its keys expire by the clock, as in a real one
		if err := s.redis.StartAddr("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("embedded redis: %w", err)
		}
		s.Redis = s.redis.Addr()
	}

	b, err := json.Marshal(Endpoints{Kafka: s.Kafka, Redis: s.Redis, PID: os.Getpid()})
	if err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, endpointsFile), b, 0o600); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	return s, nil
}

func (s *Services) startKafka(cfg Config) error {
	var err error
	s.kafka, err = kfake.NewCluster(
		kfake.Ports(cfg.KafkaPort), // one broker
		kfake.DataDir(filepath.Join(cfg.Dir, "kafka")),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(context.Background(), network, address)
		}),
		kfake.WithLogger(brokerLog{cfg.Logger, s.fail}),
		kfake.GroupMinSessionTimeout(time.Second),
		// Compaction and retention run by this clock, by default once an hour: too seldom for `cursors`.
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "300000"}),
	)
	if err != nil {
		return fmt.Errorf("embedded kafka in %s: %w", filepath.Join(cfg.Dir, "kafka"), err)
	}
	s.Kafka = s.kafka.ListenAddrs()[0]
	return nil
}

// Failed yields an error when the broker could not write: what it acknowledges from then on may be lost, so the process must end.
func (s *Services) Failed() <-chan error { return s.failed }

func (s *Services) fail(err error) {
	select {
	case s.failed <- err:
	default: // one is enough
	}
}

// Stop ends both and lets go of the directory.
func (s *Services) Stop() {
	s.once.Do(func() {
		if s.kafka != nil {
			s.kafka.Close()
		}
		if s.redis != nil {
			s.redis.Close()
		}
		if s.lock != nil {
			_ = os.Remove(filepath.Join(s.dir, endpointsFile))
			_ = s.lock.Close() // and with it the lock
		}
	})
}

// brokerLog passes kfake's log on and tells an error of writing from the rest. There is no other sign of it: kfake
// acknowledges a batch whose write failed.
type brokerLog struct {
	log  *slog.Logger
	fail func(error)
}

// writeErrors begin the messages that kfake logs when it could not write.
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
	// The rest is told to those who look: a segment that a kill tore and that is cut back, a transaction that took 5 ms.
	l.log.Debug("embedded kafka", "detail", msg)
}
