package sim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestLine: what stands in the file, byte by byte, for scripts lean on it.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which it is midnight of 1 January 2000
		path := truthPath(t)
		c, stop := startStop(t, Config{Profile: Profile{Receipt: Lognormal{P50: 1500 * time.Millisecond}, Enroute: 1}, Truth: path})
		defer stop()
		n := c.Connector(Options{})
		batch := messages(t, 1, 2, 2)
		batch[0].Body.Text.Body = "Ciao \"Zoë\" \\ 😀\n\x01\xff €5"
		batch[1].To = magicTable[40].Number()
		batch[1].Key = testKeys(t).Submission(10001, 2, 1)
		batch[1].Body = carrier.Body{Template: &carrier.Template{Name: "order", Language: "it", Params: []string{"Zoë", "8"}}}
		newLog().send(t, n, batch)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := `{"time":"2000-01-01T00:00:00.000Z","message_id":"` + testKeys(t).Message(10001, 1).String() +
			`","submission_id":"` + batch[0].Key.String() + `","to":"+393470000001","body":"Ciao \"Zoë\" \\ 😀\n\u0001` + "\uFFFD" + ` €5"` +
			`,"outcome":"accepted","account":"sim","ref":"` + fmt.Sprint(uint64(946684800000)<<20+1) +
			`","receipts":[{"status":"buffered","code":"ENROUTE","time":"2000-01-01T00:00:00.000Z","due":"2000-01-01T00:00:00.375Z"}` +
			`,{"status":"delivered","code":"DELIVERED","time":"2000-01-01T00:00:01.500Z"}]}` + "\n" +
			`{"time":"2000-01-01T00:00:00.000Z","message_id":"` + testKeys(t).Message(10001, 2).String() +
			`","submission_id":"` + batch[1].Key.String() + `","to":"+393990000040","body":"order/it|Zoë|8"` +
			`,"outcome":"throttled","account":"sim","code":"THROTTLED"}` + "\n"
		if diff := cmp.Diff(want, string(b)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestLineReadsBack: whatever is submitted, the line is JSON that says it again.
func TestLineReadsBack(t *testing.T) {
	keys := testKeys(t)
	rapid.Check(t, func(t *rapid.T) {
		out := carrier.Outbound{
			Key: keys.Submission(rapid.Uint64Max(schemas.MaxCampaignNumber).Draw(t, "campaign"), rapid.Uint32Max(schemas.MaxSeq).Draw(t, "seq"), rapid.Uint8Min(1).Draw(t, "try")),
			To:  rapid.String().Draw(t, "to"), Body: carrier.Body{Text: carrier.Text{Body: string(rapid.SliceOf(rapid.Byte()).Draw(t, "body"))}},
		}
		f := fate{outcome: carrier.Accepted, word: Accepted, ref: rapid.Uint64Min(1<<60).Draw(t, "ref"), silent: rapid.Bool().Draw(t, "silent")}
		var plan []planned
		for range rapid.IntRange(0, 5).Draw(t, "receipts") {
			at := rapid.Int64Range(0, 1<<43).Draw(t, "at")
			plan = append(plan, planned{
				at: at, due: at + rapid.Int64Range(0, 1000).Draw(t, "held back"), status: rapid.SampledFrom([]schemas.ReceiptStatus{delivered, failed, buffered, read, unknown}).Draw(t, "status"),
				sub: rapid.SampledFrom([]schemas.Code{0, schemas.CodeDelivered, schemas.CodeBarred}).Draw(t, "sub"), part: rapid.Byte().Draw(t, "part"), parts: 255,
			})
		}
		now := rapid.Int64Range(0, 1<<43).Draw(t, "now")
		format := rapid.SampledFrom([]RefFormat{RefDecimal, RefHex, RefUUID, RefMixed}).Draw(t, "format")
		line := appendLine(nil, keys, appendTime(nil, now), rapid.String().Draw(t, "account"), &out, &f, format, plan)
		if line[len(line)-1] != '\n' || slices.Contains(line[:len(line)-1], '\n') {
			t.Fatalf("not one line: %q", line)
		}
		e, err := parseEntry(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Submission != out.Key || e.Message != keys.MessageOf(out.Key) || e.Unanswered != f.silent || e.Time.UnixMilli() != now {
			t.Fatalf("%s: got %+v", line, e)
		}
		// encoding/json has the last word on what a string becomes.
		for got, want := range map[string]string{e.To: out.To, e.Body: out.Body.Text.Body} {
			if want = strings.ToValidUTF8(want, "\uFFFD"); got != asJSON(t, out, want, got) {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		if ref, ok := parseRef(e.Ref); !ok || ref != f.ref {
			t.Fatalf("ref %q: got %d, want %d", e.Ref, ref, f.ref)
		}
		if len(e.Receipts) != len(plan) {
			t.Fatalf("got %d receipts, want %d", len(e.Receipts), len(plan))
		}
		for i, r := range e.Receipts {
			got := planned{r.At.UnixMilli(), r.Due.UnixMilli(), r.Status, r.Code, r.Part, r.Parts}
			if got != plan[i] {
				t.Fatalf("receipt %d: got %+v, want %+v", i, got, plan[i])
			}
		}
	})
}

// asJSON returns what encoding/json makes of the text whose cleaned form is want: one U+FFFD per bad byte, where
// strings.ToValidUTF8 has one per run.
func asJSON(t *rapid.T, out carrier.Outbound, want, got string) string {
	for _, s := range []string{out.To, out.Body.Text.Body} {
		if strings.ToValidUTF8(s, "\uFFFD") != want {
			continue
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back == got {
			return back
		}
	}
	return want
}

func TestAppendTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "ms") // years 1 to 9999
		if got, want := string(appendTime(nil, ms)), time.UnixMilli(ms).UTC().Format(timeFormat); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

// TestTorn: a line and an entry that a kill tore are cut off, and what follows is whole.
func TestTorn(t *testing.T) {
	for _, torn := range []string{"", "{", `{"time":"2026-01-01T00:00:00.000Z","mess`, strings.Repeat("x", 200_000)} {
		path := truthPath(t)
		sim, stop := startStop(t, Config{Truth: path})
		l := newLog()
		l.send(t, sim.Connector(Options{}), messages(t, 0, 3, 1))
		stop()
		appendTo(t, path, torn)
		appendTo(t, ackedPath(path), "torn")
		sim, stop = startStop(t, Config{Truth: path})
		n := sim.Connector(Options{})
		l.send(t, n, messages(t, 3, 2, 1))
		l.listen(t, n)
		eventually(t, "five receipts", func() bool { return l.received() == 5 })
		stop()
		truth := readTruth(t, path)
		if got := len(truth.Entries); got != 5 {
			t.Errorf("torn %.20q: got %d lines, want 5", torn, got)
		}
		if owed, err := StillOwed(path); err != nil || owed != 0 {
			t.Errorf("torn %.20q: got %d receipts still owed (error %v), want 0", torn, owed, err)
		}
	}
}

func appendTo(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// TestTail: lines are read once each, as they are completed.
func TestTail(t *testing.T) {
	path := truthPath(t)
	tail := NewTail(path)
	var got []carrier.Key
	poll := func() {
		t.Helper()
		err := tail.Poll(func(e Entry) error {
			got = append(got, e.Submission)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	poll() // of a file that is not there
	c := start(t, Config{Truth: path})
	n := c.Connector(Options{})
	var want []carrier.Key
	for i := range 5 {
		batch := messages(t, 10*i, 3, 1)
		newLog().send(t, n, batch)
		for _, o := range batch {
			want = append(want, o.Key)
		}
		poll()
		if !slices.Equal(got, want) {
			t.Fatalf("after batch %d: got %d lines, want %d", i, len(got), len(want))
		}
	}
	appendTo(t, path, `{"time":`)
	poll()
	stopped := errors.New("enough")
	appendTo(t, path, "\n")
	if err := tail.Poll(func(Entry) error { return stopped }); err == nil || errors.Is(err, stopped) || !strings.Contains(err.Error(), "offset") {
		t.Errorf("a line that is no JSON: got error %v, want one that says where", err)
	}
}

// TestTruthWritesFirst: when the truth cannot be written, nothing was taken.
func TestTruthWritesFirst(t *testing.T) {
	path := truthPath(t)
	c, err := Open(Config{Keys: testKeys(t), Truth: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.journal.truth.Close(); err != nil { // as good as a full disk
		t.Fatal(err)
	}
	l := newLog()
	l.send(t, c.Connector(Options{}), messages(t, 0, 2, 1))
	for key, a := range l.answers {
		if len(a) != 1 || a[0].Outcome != carrier.Retryable {
			t.Errorf("%v: got %v, want retryable", key, a)
		}
	}
	if got := c.Stats(); got.Owed != 0 || got.Submissions[Accepted] != 0 {
		t.Errorf("got %+v, want nothing taken", got)
	}
}

// X20: the record of what the simulated carrier did finds each message that was lost, doubled or reported wrongly.
func TestTruthJudges(t *testing.T) {
	keys := testKeys(t)
	entry := func(seq uint32, try uint8, outcome string, receipts ...Owed) Entry {
		return Entry{Message: keys.Message(1, seq), Submission: keys.Submission(1, seq, try), Outcome: outcome, Receipts: receipts}
	}
	says := func(s schemas.ReceiptStatus, c schemas.Code) Owed { return Owed{Status: s, Code: c} }
	ok, absent, barred := says(delivered, schemas.CodeDelivered), says(failed, schemas.CodeAbsentSubscriber), says(failed, schemas.CodeOperatorBlacklist)
	tr := &Truth{Entries: []Entry{
		entry(1, 1, Accepted, ok),
		entry(2, 1, Throttled), entry(2, 2, Accepted, ok),
		entry(3, 1, Accepted, absent), entry(3, 2, Accepted, ok),
		entry(4, 1, Accepted), entry(4, 2, Accepted), // a double: nothing said that the first was lost
		entry(5, 1, Accepted, barred), entry(5, 2, Accepted, ok), // a double: nothing follows that code
		entry(6, 1, Accepted, says(buffered, schemas.CodeEnroute)),
		entry(7, 1, Refused),
		entry(8, 1, Accepted, absent, ok),
		entry(9, 1, Accepted, ok), entry(9, 1, Accepted, ok), // a double: the same try twice
		// And so it is when another try would have been right
		entry(10, 1, Accepted, absent), entry(10, 1, Accepted, absent),
	}}
	var doubles []string
	for _, e := range tr.Doubles() {
		doubles = append(doubles, fmt.Sprint(e.Submission.Seq(), "/", e.Submission.Try()))
	}
	if diff := cmp.Diff([]string{"4/2", "5/2", "9/1", "10/1"}, doubles); diff != "" {
		t.Errorf("doubles (-want +got):\n%s", diff)
	}
	got := map[uint32]string{}
	for id, p := range tr.Final() {
		got[id.Seq()] = p.Kind().String() + " " + schemas.CodeName(p.Code())
	}
	want := map[uint32]string{
		1: "KIND_DELIVERED DELIVERED", 2: "KIND_DELIVERED DELIVERED", 3: "KIND_DELIVERED DELIVERED", 4: "KIND_SENT ",
		5: "KIND_DELIVERED DELIVERED", 6: "KIND_BUFFERED ENROUTE", 8: "KIND_DELIVERED DELIVERED", 9: "KIND_DELIVERED DELIVERED",
		10: "KIND_UNDELIVERED ABSENT_SUBSCRIBER",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("final (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{Accepted: 14, Throttled: 1, Refused: 1}, tr.Outcomes()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if got := len(tr.Accepted()[keys.Message(1, 4)]); got != 2 {
		t.Errorf("got %d accepted of message 4, want 2", got)
	}
}

// TestAckedFile: entries, watermarks, a torn end, and writing it again without what is over.
func TestAckedFile(t *testing.T) {
	path := truthPath(t)
	entries := []uint64{receiptID(0, 0), receiptID(100, 1), receiptID(5*segment, 0), watermarkBit | 2*segment, receiptID(3*segment+7, 2), watermarkBit | segment, receiptID(100, 2)}
	var b []byte
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, e)
	}
	if err := os.WriteFile(path, append(b, 1, 2, 3), 0o600); err != nil {
		t.Fatal(err)
	}
	want := ackedSet{receiptID(3*segment+7, 2), receiptID(5*segment, 0)}
	for range 2 {
		set, mark, err := readAcked(path)
		if err != nil || mark != 2*segment || !slices.Equal(set, want) {
			t.Fatalf("got %v above %d (error %v), want %v above %d", set, mark, err, want, 2*segment)
		}
		if err := compactAcked(path, set, mark); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != 24 {
			t.Fatalf("got %v (error %v), want 24 bytes", info.Size(), err)
		}
	}
}
