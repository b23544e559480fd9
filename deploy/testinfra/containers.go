package testinfra

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// byContainer starts a service in Docker. Containers are removed by testcontainers' reaper when the test process has
// ended.
func byContainer(s Service) (addr string, err error) {
	defer func() {
		if r := recover(); r != nil { // testcontainers panics without Docker
			err = fmt.Errorf("docker: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	switch s {
	case Redis:
		return container(ctx, "redis:7", "6379/tcp", nil, "%s")
	case Postgres:
		return container(ctx, "postgres:16", "5432/tcp", map[string]string{"POSTGRES_USER": "fanfare", "POSTGRES_HOST_AUTH_METHOD": "trust"}, "postgres://fanfare@%s/postgres?sslmode=disable")
	case ClickHouse:
		return container(ctx, "clickhouse/clickhouse-server:26.7", "9000/tcp", map[string]string{"CLICKHOUSE_SKIP_USER_SETUP": "1"}, "clickhouse://default@%s/default")
	case Kafka:
		// A broker advertises its address, so the port outside the container must be known before it starts.
		port, err := freePort()
		if err != nil {
			return "", err
		}
		return container(ctx, "apache/kafka:4.1.0", port+":19092/tcp", map[string]string{
			"KAFKA_NODE_ID": "1", "KAFKA_PROCESS_ROLES": "broker,controller", "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
			"KAFKA_LISTENERS": "PLAINTEXT://:19092,CONTROLLER://:9093", "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://127.0.0.1:" + port,
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1", "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0", "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000", "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
		}, "%s")
	default:
		return "", fmt.Errorf("no image for %s", s)
	}
}

// container runs an image and returns its address outside the container, put into format.
func container(ctx context.Context, image, port string, env map[string]string, format string) (string, error) {
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: testcontainers.ContainerRequest{
			Image: image, ExposedPorts: []string{port}, Env: env, WaitingFor: wait.ForExposedPort().WithStartupTimeout(2 * time.Minute),
		},
		Started: true,
	})
	if err != nil {
		return "", fmt.Errorf("container %s: %w", image, err)
	}
	endpoint, err := c.Endpoint(ctx, "")
	if err != nil {
		return "", fmt.Errorf("container %s: %w", image, err)
	}
	return fmt.Sprintf(format, endpoint), nil
}

func freePort() (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}
