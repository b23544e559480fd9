package smpp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"fanfare/deploy/testinfra/peers"
	"fanfare/schemas/text"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/smsc"
)

// TestIntegrationTshark: Wireshark finds no malformed unit in what the connector and our message centre write, and
// decodes the texts correctly.
func TestIntegrationTshark(t *testing.T) {
	peers.Need(t, peers.Tshark)
	texts := []string{"hello", "@£$¥èéùì {[~]} |€^\\", strings.Repeat("Ciao Ada! ", 30), "жук", strings.Repeat("Привет ", 20), "Ciao 😀", strings.Repeat("€", 153)}
	variants := []struct {
		name   string
		cfg    smpp.Config
		quirks smsc.Quirks
	}{
		{"plain", smpp.Config{}, smsc.Quirks{}},
		{"references of 16 bits", smpp.Config{Long: "udh16"}, smsc.Quirks{IDs: smsc.Hex, ReceiptTLVIDs: smsc.HexUpper}},
		{"SAR parameters", smpp.Config{Long: "sar", Split: true}, smsc.Quirks{NoNUL: true, Unmarked: true}},
		{"message_payload", smpp.Config{Long: "payload"}, smsc.Quirks{Form: smsc.TLVsOnly}},
		{"packed", smpp.Config{Alphabet: "gsm7-packed"}, smsc.Quirks{Form: smsc.CSV}},
		{"Latin-1, absolute validity, version 5.0", smpp.Config{Alphabet: "latin1", Validity: "absolute", Version: "5.0"}, smsc.Quirks{Form: smsc.TextOnly, ReceiptIDs: smsc.Zeros}},
		{"a wrong password", smpp.Config{Password: "wrong"}, smsc.Quirks{}},
	}
	recording := peers.NewRecording()
	least := 0
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			peer := startPeer(t, sim.Profile{}, smsc.Config{Echo: true, Quirks: v.quirks, Authenticate: func(_, password string) pdu.Status {
				if password == "wrong" {
					return pdu.InvalidPassword
				}
				return pdu.OK
			}})
			cfg := v.cfg
			cfg.Host, cfg.Port, cfg.SystemID, cfg.ReferenceTLV = "127.0.0.1", peer.addr.Port, "fanfare", uint16(smsc.DefaultReferenceTLV)
			cfg.EnquireLink, cfg.AnswerTimeout = smpp.Duration(100*time.Millisecond), smpp.Duration(time.Second)
			if v.quirks.Form == smsc.CSV {
				cfg.ReceiptFields = []string{"id", "stat", "err", "done"}
			}
			c, err := smpp.Dial(t.Context(), cfg, smpp.Deps{Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					return nil, err
				}
				return recording.Conn(conn), nil
			}})
			switch {
			case cfg.Password == "wrong":
				if err == nil {
					t.Error("bound with a wrong password")
				}
			case err != nil:
				t.Fatal(err)
			default:
				least += talk(t, c, peer, texts)
			}
		})
	}
	const malformed = "_ws.malformed or _ws.expert.severity == 8388608"
	if found := recording.Dissect(t, malformed, "frame.number", "_ws.expert.message"); len(found) > 0 {
		t.Errorf("malformed: %q", found)
	}
	// Wireshark must find this malformed unit: its text has two octets, but its length says twenty.
	torn, ours := peers.NewRecording(), pdu.Message{Dest: pdu.Address{Addr: "1"}, Short: "hi"}
	unit, err := ours.Append(nil, pdu.Header{Command: pdu.SubmitSM, Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	unit[len(unit)-3] = 20
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	if _, err := torn.Conn(near).Write(unit); err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	if found := torn.Dissect(t, malformed, "frame.number"); len(found) != 1 {
		t.Errorf("got %q of a torn unit, want it found malformed", found)
	}
	counts := map[string]int{}
	var said strings.Builder
	for _, line := range recording.Dissect(t, "smpp", "smpp.command_id", "smpp.message_text", "gsm_sms.sms_text") {
		commands, read, _ := strings.Cut(line, "\t")
		for c := range strings.SplitSeq(commands, "|") {
			counts[c]++
		}
		said.WriteString(read + "\n")
	}
	submits, delivered := counts["0x00000004"], counts["0x00000005"]
	if submits < least || submits != counts["0x80000004"] || delivered <= submits || delivered != counts["0x80000005"] {
		t.Errorf("got units %v, want at least %d submits, each with its answer and its receipt", counts, least)
	}
	for _, c := range []string{"0x00000009", "0x80000009", "0x00000001", "0x00000002", "0x00000006", "0x80000006", "0x00000015", "0x80000015"} {
		if counts[c] == 0 {
			t.Errorf("got units %v, want a %s among them", counts, c)
		}
	}
	for _, s := range append([]string{"STOP", strings.Repeat("Ciao Ada! ", 30)[:153]}, texts[0], texts[1], texts[3]) {
		if !strings.Contains(said.String(), s) {
			t.Errorf("%q is not among the texts that it read", s)
		}
	}
	t.Logf("units %v, none malformed", counts)
}

// talk makes both ends send all kinds of units: texts, receipts, a message from a recipient, enquire_link, unbind. It
// returns how many units the texts took.
func talk(t *testing.T, c *smpp.Connector, peer *peer, texts []string) int {
	t.Helper()
	rec := receipts(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	written := make(chan carrier.Inbound, 1)
	go func() {
		_ = c.Inbound(ctx, func(list []carrier.Inbound) error {
			written <- list[0]
			return nil
		})
	}()
	want := 0
	for i, s := range texts {
		r := newResults()
		out := message(t, uint32(i), s)
		out.To, out.Body.Text.Encoding = fmt.Sprintf("+39347%07d", i), text.Measure(s).Encoding
		out.NotAfter = time.Now().Add(time.Hour)
		send(t, c, r.done, out)
		got := r.next()
		if got.Outcome != carrier.Accepted {
			t.Fatalf("%q: got %+v, want accepted", s, got)
		}
		want += max(1, len(got.PartRefs))
	}
	for range want {
		select {
		case <-rec:
		case <-time.After(20 * time.Second):
			t.Fatalf("waited 20 s for %d receipts", want)
		}
	}
	if err := peer.server.Deliver(t.Context(), "fanfare", pdu.Message{
		Source: pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"}, Dest: pdu.Address{Addr: "48333"}, Short: "STOP",
	}); err != nil {
		t.Fatal(err)
	}
	<-written
	time.Sleep(250 * time.Millisecond) // time for an enquire_link
	drain(t, c, time.Second)
	return want
}
