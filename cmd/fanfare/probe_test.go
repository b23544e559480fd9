package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/schemas"
)

// lockedLog keeps what a process logs.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// confidential matches what must not be in a log: a key of the API, a password, a text of a message, or a phone number.
// A number in the log may be a time or an offset, so phone numbers are those with a plus, and those of the test.
var confidential = regexp.MustCompile(`ff_(live|test)_[a-z0-9]{8,}|\+[1-9][0-9]{8,14}\b|\b39347\d{7}\b|Ciao Name`)

// poison returns records that nobody of ours writes: bytes that are no record, in every topic and every partition, with
// keys and headers of all kinds, and a record of each of our types in a topic where it does not belong.
func poison(topics kadm.TopicDetails, tenant string) (out []*kgo.Record) {
	types := []schemas.EventType{
		schemas.TypeCampaign, schemas.TypeControl, schemas.TypeSuppression, schemas.TypeCursor, schemas.TypeHeld, schemas.TypeChunk, schemas.TypeMessage,
		schemas.TypeReceipt, schemas.TypeCallback, schemas.TypeInbound, schemas.TypeReply, schemas.TypeDelivery, schemas.TypeHealth,
	}
	values := map[string][]byte{
		"empty": {}, "not protobuf": []byte("\xff\xff\xff\xff hello"), "a length beyond the end": {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'},
		"a group that never ends": bytes.Repeat([]byte{0x0b}, 10_000), "64 KB of zeros": make([]byte, 64<<10), "a text where a number is": {0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
	}
	for _, topic := range topics {
		for p := range topic.Partitions {
			for i, name := range []string{"", "poison", "a/b/c/d", tenant + "/camp_1", "tenant/" + tenant + "x", "route/\xff\xfe", "tn_nobody/" + strings.Repeat("k", 5000)} {
				out = append(out, &kgo.Record{Topic: topic.Topic, Partition: p, Key: []byte(name), Value: []byte(fmt.Sprint("poison ", i))})
			}
			for _, value := range values {
				out = append(out, &kgo.Record{Topic: topic.Topic, Partition: p, Value: value}, &kgo.Record{
					Topic: topic.Topic, Partition: p, Key: []byte("tn_nobody/x"), Value: value,
					Headers: []kgo.RecordHeader{{Key: schemas.HeaderSubmission, Value: []byte("sub_forged")}, {Key: schemas.HeaderTenant, Value: []byte{0xff}}, {Key: schemas.HeaderVersion, Value: []byte("-1")}},
				})
			}
			for _, kind := range types {
				r := schemas.Event{Topic: topic.Topic, Key: "tn_nobody/x", Tenant: "tn_nobody", Type: kind, Source: "stranger", ID: "1", Time: time.Unix(0, 0)}.Raw([]byte("\x0a\x04none\x12\x06camp_9"))
				r.Partition = p
				out = append(out, r)
			}
			out = append(out, &kgo.Record{Topic: topic.Topic, Partition: p, Key: []byte("tn_nobody/x")}) // a tombstone
		}
	}
	return out
}

// TestPoisonInEveryTopic: a stranger who can write to Kafka puts records into every topic that nobody can read. All roles
// go on: a campaign that begins afterwards is sent and completes, also when the process starts again and reads the
// compacted topics from the beginning. The log, at its most talkative, says nothing confidential meanwhile.
func TestPoisonInEveryTopic(t *testing.T) {
	addr := freeAddr(t)
	cfg := testConfig(t, func(c *Config) { c.HTTP = addr })
	var log lockedLog
	var tenant, key string
	for round := range 2 {
		w := newWiring(cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		ctx, interrupt := context.WithCancel(t.Context())
		served := serveReady(ctx, t, w)
		if round == 0 {
			made, err := w.store.CreateTenant(ctx, store.TenantSpec{Name: "Acme", Region: "IT"})
			if err != nil {
				t.Fatal(err)
			}
			tenant = made.ID
			if _, key, err = w.store.CreateKey(ctx, tenant, "", nil, false); err != nil {
				t.Fatal(err)
			}
			writer, err := kgo.NewClient(append(w.ops.Opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			if err != nil {
				t.Fatal(err)
			}
			topics, err := kadm.NewClient(writer).ListTopics(ctx)
			if err != nil {
				t.Fatal(err)
			}
			records := poison(topics, tenant)
			if err := writer.ProduceSync(ctx, records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			t.Logf("%d records in %d topics", len(records), len(topics))
		}
		api := &client{base: "http://" + addr, key: key}
		var list, campaign struct{ ID string }
		api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": fmt.Sprint("round ", round)}, &list, "")
		api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", italians(40), nil, "text/csv")
		api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
			"name": "Beside poison", "channel": "sms", "message": "Ciao {{first_name}}", "contactList": list.ID, "sendImmediately": true,
		}, &campaign, "")
		api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")
		var stats statsAnswer
		for deadline := time.Now().Add(5 * time.Minute); stats.State != "completed" || stats.Sent != 40; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: the campaign does not complete: %+v\n%s", round+1, stats, tail(log.String()))
			}
			api.must(t, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &stats, "")
		}
		if stats.TotalMessages != 40 {
			t.Errorf("round %d: got %+v, want 40 recipients", round+1, stats)
		}
		interrupt()
		if err := <-served; err != nil {
			t.Errorf("round %d: %v", round+1, err)
		}
		w.close()
	}
	said := log.String()
	if n := strings.Count(said, "\n"); n < 20 {
		t.Errorf("the log has %d lines: the test did not see what it must see", n)
	}
	for line := range strings.Lines(said) {
		if found := confidential.FindString(line); found != "" || strings.Contains(line, key) {
			t.Errorf("the log has %q: %s", found, line)
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }
