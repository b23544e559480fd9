//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/deploy/testinfra"
)

// authority signs certificates for the loopback address. Its own certificate is in the file ca.
type authority struct {
	ca   string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the authority of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{writePEM(t, dir, "ca.pem", "CERTIFICATE", der), cert, key}
}

// sign writes a certificate for the loopback address, and its key.
func (a *authority) sign(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, dir, "server.pem", "CERTIFICATE", der), writePEM(t, dir, "server.key", "PRIVATE KEY", raw)
}

func writePEM(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// listening waits until a service that the test has started accepts connections.
func listening(t *testing.T, p *process, addr string) {
	t.Helper()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s has ended", p.name)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// write makes a file of settings.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func secureRedis(t *testing.T, dir, cert, key string) (addr string) {
	addr = freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := startProcess(t, "redis", "redis-server", "--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-auth-clients", "no", "--requirepass", "secret", "--save", "", "--appendonly", "no", "--dir", dir)
	listening(t, p, addr)
	return addr
}

// securePostgres runs as the user postgres: Postgres does not start as root.
func securePostgres(t *testing.T, cert, key string) (addr string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatalf("no Postgres in /usr/lib/postgresql: %v", err)
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("/var/tmp", "fanfare-tls-") //nolint:usetesting // the user postgres can read no folder of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	setup := exec.Command("/bin/sh", "-ec", `
		cp "$2" "$3" "$1" && printf secret >"$1/password" && chown -R postgres "$1" && chmod 600 "$1"/server.key
		su postgres -c "$4/initdb -D '$1/data' -A scram-sha-256 -U fanfare --pwfile='$1/password'"
		echo "hostssl all all 127.0.0.1/32 scram-sha-256" >"$1/data/pg_hba.conf"
		chown postgres "$1/data/pg_hba.conf"`, "sh", dir, cert, key, bin)
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	addr = freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := startProcess(t, "postgres", "su", "postgres", "-c", fmt.Sprintf(
		"exec %s/postgres -D %s/data -p %s -h 127.0.0.1 -k %s -c fsync=off -c ssl=on -c ssl_cert_file=%s/server.pem -c ssl_key_file=%s/server.key", bin, dir, port, dir, dir, dir))
	t.Cleanup(func() { _, _ = p.stop() }) // su hands the signal on; kill -9 of su would leave Postgres behind
	listening(t, p, addr)
	return addr
}

func secureKafka(t *testing.T, dir, cert, key string) (addr string) {
	t.Helper()
	libs := os.Getenv("FANFARE_SERVICES_DIR")
	if libs == "" {
		libs = "/var/tmp/fanfare-services"
	}
	libs = filepath.Join(libs, "kafka-libs", "*")
	both, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	store := write(t, dir, "kafka.pem", string(both)+string(public))
	addr = freeAddr(t)
	inside, controller := freeAddr(t), freeAddr(t)
	settings := write(t, dir, "kafka.properties", strings.Join([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller,
		fmt.Sprintf("listeners=SASL_SSL://%s,PLAINTEXT://%s,CONTROLLER://%s", addr, inside, controller),
		fmt.Sprintf("advertised.listeners=SASL_SSL://%s,PLAINTEXT://%s", addr, inside),
		"listener.security.protocol.map=SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT", "log.dirs=" + filepath.Join(dir, "kafka-data"),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + store, "sasl.enabled.mechanisms=PLAIN",
		`listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_fanfare="secret";`,
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=2", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=2", "group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000", "auto.create.topics.enable=false",
	}, "\n"))
	format := exec.Command("java", "-cp", libs, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", settings)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}
	p := startProcess(t, "kafka", "java", "-Xmx512m", "-cp", libs, "kafka.Kafka", settings)
	listening(t, p, addr)
	return addr
}

// secureRelay speaks TLS in front of a service that cannot: the ClickHouse of the tests has no TLS listener.
func secureRelay(t *testing.T, to, cert, key string) (addr string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var relays sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); relays.Wait() })
	relays.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
			relays.Go(func() { defer stop(); _, _ = io.Copy(out, in); _ = out.Close() })
			relays.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	return l.Addr().String()
}

// TLS to Kafka (SASL_SSL), Redis, Postgres (verify-full) and ClickHouse, with certificates of an own authority: a
// campaign is sent and completes. Without that authority, or without TLS, Fanfare does not connect, and says why.
func TestIntegrationTLS(t *testing.T) {
	plain := testinfra.Need(t, testinfra.All...) // installs the programs, and gives ClickHouse
	for _, program := range []string{"java", "redis-server", "su"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "" {
			t.Skipf("needs %s on this machine: services in containers are not enough", program)
		}
	}
	bin, dir := fanfareBinary(t), t.TempDir()
	own := newAuthority(t, dir)
	cert, key := own.sign(t, dir)
	elsewhere := t.TempDir()
	stranger := newAuthority(t, elsewhere)
	behind, err := url.Parse(plain[testinfra.ClickHouse])
	if err != nil {
		t.Fatal(err)
	}
	kafka, redis, postgres := secureKafka(t, dir, cert, key), secureRedis(t, dir, cert, key), securePostgres(t, cert, key)
	clickhouse := secureRelay(t, behind.Host, cert, key)
	database := strings.TrimPrefix(behind.Path, "/")

	run := func(ca string, flags ...string) (string, int) {
		cmd := exec.Command(bin, flags...)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+ca, "FANFARE_KAFKA_PASSWORD=secret")
		out, err := cmd.CombinedOutput()
		if _, failed := err.(*exec.ExitError); err != nil && !failed { //nolint:errorlint // as Run returns it
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	prefix := "tls" + shortID() + "."
	connection := func(ca string) []string {
		return []string{
			"--kafka", kafka, "--kafka-tls", "--kafka-ca", ca, "--kafka-user", "fanfare", "--redis", "rediss://:secret@" + redis,
			"--clickhouse", fmt.Sprintf("clickhouse://%s@%s/%s?secure=true", behind.User.String(), clickhouse, database),
			"--store", fmt.Sprintf("postgres://fanfare:secret@%s/postgres?sslmode=verify-full&sslrootcert=%s", postgres, ca), "--prefix", prefix, "--data", dir,
		}
	}
	for _, command := range []string{"migrate", "topics"} {
		if out, code := run(own.ca, append([]string{command}, connection(own.ca)...)...); code != exitOK {
			t.Fatalf("%s: %s", command, out)
		}
	}
	if out, code := run(own.ca, append([]string{"doctor"}, connection(own.ca)...)...); code != exitOK {
		t.Errorf("doctor: exit code %d: %s", code, out)
	}
	out, code := run(stranger.ca, append([]string{"doctor"}, connection(stranger.ca)...)...)
	if n := strings.Count(out, "certificate"); code == exitOK || n < 4 {
		t.Errorf("with certificates of another authority: exit code %d and %d words about certificates, want four: %s", code, n, out)
	}
	without := []string{
		"--kafka", kafka, "--redis", "redis://:secret@" + redis, "--clickhouse", fmt.Sprintf("clickhouse://%s@%s/%s", behind.User.String(), clickhouse, database),
		"--store", fmt.Sprintf("postgres://fanfare:secret@%s/postgres?sslmode=disable", postgres), "--prefix", prefix, "--data", dir,
	}
	if out, code := run(own.ca, append([]string{"doctor"}, without...)...); code == exitOK || strings.Count(out, "speaks TLS") < 3 {
		t.Errorf("without TLS: exit code %d, want three services that speak TLS: %s", code, out)
	}

	flags := connection(own.ca)
	created, code := run(own.ca, append([]string{"tenants", "create", "Acme", "--region", "IT"}, flags...)...)
	if code != exitOK {
		t.Fatal(created)
	}
	secret, code := run(own.ca, append([]string{"keys", "create", "--tenant", "Acme"}, flags...)...)
	if code != exitOK {
		t.Fatal(secret)
	}
	api := &client{base: "http://" + freeAddr(t), key: strings.TrimSpace(secret)}
	serve := append([]string{
		"-c", `SSL_CERT_FILE="$0" FANFARE_KAFKA_PASSWORD=secret exec "$@"`, own.ca, bin, "serve", "--http", strings.TrimPrefix(api.base, "http://"),
		"--sim-profile", "fast", "--sim-rate", "500", "--log-level", "warn",
	}, flags...)
	p := startProcess(t, "fanfare", "/bin/sh", serve...)
	api.waitReady(t)
	id := runningCampaign(t, api, 200)
	var stats statsAnswer
	for deadline := time.Now().Add(5 * time.Minute); stats.State != "completed" || stats.Sent != 200; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the campaign does not complete: %+v", stats)
		}
		api.must(t, http.MethodGet, "/api/campaigns/"+id+"/stats", nil, &stats, "")
	}
	if _, code := p.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if log, err := os.ReadFile(p.log.Name()); err != nil || bytes.Contains(log, []byte("secret")) {
		t.Errorf("the log has a password, or cannot be read: %v", err)
	}
}
