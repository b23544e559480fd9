package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"google.golang.org/protobuf/proto"

	"fanfare/cmd/fanfare/services/servicestest"
	"fanfare/deploy/embedded"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// builtOnce builds the product once for all tests of the package.
var builtOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fanfare-e2e-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "fanfare/cmd/fanfare", "fanfare/cmd/carriersim", "fanfare/cmd/loadgen")
	// As releases are built; make build has compiled most of it already
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "fanfare"), nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtBinary {
		if path, err := builtOnce(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// builtBinary is set by the first test that needs the binary, so that a run of other tests does not build it.
var builtBinary bool

func fanfareBinary(t testing.TB) string {
	t.Helper()
	builtBinary = true
	path, err := builtOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A process is one running fanfare.
type process struct {
	t    testing.TB
	name string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// startProcess starts a program; its output goes to a file that is shown when the test fails.
func startProcess(t testing.TB, name, bin string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, args: append([]string{bin}, args...)}
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p.log = log
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			if len(b) > 12_000 {
				b = b[len(b)-12_000:]
			}
			t.Logf("output of %s:\n%s", name, b)
		}
		_ = log.Close()
	})
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "GOTRACEBACK=single")
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), p.cmd
	p.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop sends SIGTERM. It returns how long the process took to end, and its exit code.
func (p *process) stop() (time.Duration, int) {
	p.t.Helper()
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s did not stop within 30 s", p.name)
		p.kill()
	}
	return time.Since(began), p.cmd.ProcessState.ExitCode()
}

func freeAddr(t testing.TB) string { return servicestest.FreeAddr(t) }

// client speaks to the API.
type client struct {
	base, key string
}

// call sends body (nil, JSON, or an io.Reader sent as it is) and decodes the answer into out unless nil. It returns the
// status, 0 with an error.
func (c *client) call(ctx context.Context, method, path string, body, out any, contentType string) (int, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return 0, err
		}
		r, contentType = bytes.NewReader(j), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Api-Key", c.key)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s: %w in %s", method, path, err, b)
		}
	}
	return resp.StatusCode, nil
}

// must is call, but ends the test when it fails. It retries for 30 s while the process is being restarted.
func (c *client) must(t testing.TB, method, path string, body, out any, contentType string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var status int
		status, err = c.call(t.Context(), method, path, body, out, contentType)
		if err == nil {
			return
		}
		_, isReader := body.(io.Reader)
		if status != 0 && status != http.StatusServiceUnavailable || isReader {
			break
		}
	}
	t.Fatal(err)
}

// waitReady waits until /readyz says so and returns how long that took.
func (c *client) waitReady(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if !c.untilReady(ctx) {
		t.Fatal("not ready after 60 s")
	}
	return time.Since(began)
}

// untilReady waits until /readyz says so, and returns false when ctx ends before.
func (c *client) untilReady(ctx context.Context) bool {
	for ctx.Err() == nil {
		if _, err := c.call(ctx, http.MethodGet, "/readyz", nil, nil, ""); err == nil {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// runBinary runs a command to its end and returns what it printed.
func runBinary(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(fanfareBinary(t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fanfare %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// truthFile reads the record of the carrier while it grows.
type truthFile struct {
	path string

	mu       sync.Mutex
	offset   int64
	accepted map[string]bool // numbers
	last     time.Time       // of the last accepted submission
}

// read reads what was added and returns how many numbers the carrier has accepted so far.
func (f *truthFile) read() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted == nil {
		f.accepted = map[string]bool{}
	}
	file, err := os.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if _, err := file.Seek(f.offset, io.SeekStart); err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return len(f.accepted), nil // the last line is still being written
		}
		f.offset += int64(len(line))
		var s submission
		if json.Unmarshal(line, &s) != nil {
			continue // a kill has cut this line
		}
		if s.accepted() {
			f.accepted[s.To] = true
			f.last = s.Time
		}
	}
}

// all returns every submission of the file with the fates of those that were accepted.
func (f *truthFile) all(t testing.TB) ([]submission, map[string]fate) {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	var subs []submission
	fates := map[string]fate{}
	for line := range bytes.Lines(b) {
		var s struct {
			submission
			Receipts []struct {
				Status string `json:"status"`
			} `json:"receipts"`
		}
		if json.Unmarshal(line, &s) != nil {
			continue
		}
		subs = append(subs, s.submission)
		for _, r := range s.Receipts {
			switch strings.ToLower(r.Status) {
			case "delivered", "read":
				fates[s.SubmissionID] = fateDelivered
			case "failed":
				if fates[s.SubmissionID] != fateDelivered {
					fates[s.SubmissionID] = fateFailed
				}
			}
		}
	}
	return subs, fates
}

// deliveriesFollower reads `deliveries` as any downstream consumer would, through restarts of the broker.
type deliveriesFollower struct {
	names    schemas.Names
	campaign string
	brokers  func() ([]string, []kgo.Opt, error)

	mu     sync.Mutex
	all    []*fanfarev1.Delivery
	states map[uint32]schemas.Precedence
	points []pendingPoint
	total  int
	// gaps are the times when the broker was down or this reader had not caught up again, so that states is old. The
	// last gap may still be open.
	gaps []gap
}

// A gap begins with a kill and ends when the product is ready and this reader has read the topic to its end again; end
// is zero until then.
type gap struct {
	start, end time.Time
	down       bool
}

// lost is called right before the broker is killed.
func (f *deliveriesFollower) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaps = append(f.gaps, gap{start: time.Now(), down: true})
}

// back is called when the product is ready again.
func (f *deliveriesFollower) back() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaps[len(f.gaps)-1].down = false
}

// run reads until ctx ends.
func (f *deliveriesFollower) run(ctx context.Context) {
	offsets := map[int32]kgo.Offset{}
	for p := range int32(6) {
		offsets[p] = kgo.NewOffset().AtStart()
	}
	for ctx.Err() == nil {
		f.session(ctx, offsets)
	}
}

// session reads with one client until the broker is gone.
func (f *deliveriesFollower) session(ctx context.Context, offsets map[int32]kgo.Offset) {
	brokers, login, err := f.brokers()
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return
	}
	topic := f.names.Deliveries()
	cl, err := kgo.NewClient(append(login, kgo.SeedBrokers(brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		return
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic) // having read up to here, the reader has caught up
	if err != nil || ends.Error() != nil {
		return
	}
	for ctx.Err() == nil {
		poll, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		fetches := cl.PollFetches(poll)
		cancel()
		f.mu.Lock()
		var oldest time.Time
		fetches.EachRecord(func(r *kgo.Record) {
			if oldest.IsZero() || r.Timestamp.Before(oldest) {
				oldest = r.Timestamp
			}
			offsets[r.Partition] = kgo.NewOffset().At(r.Offset + 1)
			d := &fanfarev1.Delivery{}
			if proto.Unmarshal(r.Value, d) == nil && d.GetCampaignId() == f.campaign {
				f.all = append(f.all, d)
				f.states[d.GetSeq()] = schemas.Join(f.states[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
			}
		})
		if fetches.NumRecords() > 0 && f.total > 0 {
			f.points = append(f.points, pendingPoint{at: time.Now(), pending: f.pending(), oldest: oldest})
		}
		if n := len(f.gaps); n > 0 && f.gaps[n-1].end.IsZero() && !f.gaps[n-1].down {
			behind := false
			ends.Each(func(o kadm.ListedOffset) {
				at := offsets[o.Partition].EpochOffset().Offset
				behind = behind || at < o.Offset-1 // the last record may be the end marker of a transaction
			})
			if !behind {
				f.gaps[n-1].end = time.Now()
			}
		}
		f.mu.Unlock()
		if now, _, err := f.brokers(); err != nil || now[0] != brokers[0] {
			return // the broker was restarted and has another address
		}
	}
}

func (f *deliveriesFollower) pending() int {
	open := f.total
	for _, p := range f.states {
		if p.Bucket() != schemas.BucketPending {
			open--
		}
	}
	return open
}

// setTotal sets the number of recipients once it is known.
func (f *deliveriesFollower) setTotal(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total == 0 {
		f.total = n
		f.points = append(f.points, pendingPoint{at: time.Now(), pending: f.pending()})
	}
}

func (f *deliveriesFollower) snapshot() ([]*fanfarev1.Delivery, []pendingPoint, []gap) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all, f.points, f.gaps
}

// embeddedBrokers finds the broker of the process that uses dir, and logs in as a consumer.
func embeddedBrokers(dir string) ([]string, []kgo.Opt, error) {
	c, err := embedded.ReadConnection(dir)
	if err != nil {
		return nil, nil, err
	}
	return []string{c.Brokers}, []kgo.Opt{kgo.SASL(plain.Auth{User: c.User, Pass: c.Password}.AsMechanism())}, nil
}
