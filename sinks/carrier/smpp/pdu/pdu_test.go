package pdu_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"fanfare/sinks/carrier/smpp/pdu"
)

// unit is a unit with the decoded body of its command.
type unit struct {
	Header pdu.Header
	Body   any
}

// decode reads the body of any command that this package knows. The body is nil for a command that has none.
func decode(h pdu.Header, body string) (unit, error) {
	u := unit{Header: h}
	var err error
	switch h.Command {
	case pdu.BindReceiver, pdu.BindTransmitter, pdu.BindTransceiver:
		u.Body, err = pdu.DecodeBind(h.Command, body)
	case pdu.BindReceiverResp, pdu.BindTransmitterResp, pdu.BindTransceiverResp:
		u.Body = pdu.DecodeBindResp(body)
	case pdu.SubmitSM, pdu.DeliverSM, pdu.DataSM:
		u.Body, err = pdu.DecodeMessage(h.Command, body)
	case pdu.SubmitSMResp, pdu.DeliverSMResp, pdu.DataSMResp:
		u.Body = pdu.DecodeMessageResp(body)
	case pdu.QuerySM:
		u.Body, err = pdu.DecodeQuery(body)
	case pdu.QuerySMResp:
		u.Body, err = pdu.DecodeQueryResp(body)
	case pdu.CancelSM:
		u.Body, err = pdu.DecodeCancel(body)
	case pdu.Outbind:
		u.Body, err = pdu.DecodeOutbind(body)
	default:
	}
	return u, err
}

func (u unit) append(b []byte) ([]byte, error) {
	switch m := u.Body.(type) {
	case pdu.Bind:
		return m.Append(b, u.Header)
	case pdu.BindResp:
		return m.Append(b, u.Header)
	case pdu.Message:
		return m.Append(b, u.Header)
	case pdu.MessageResp:
		return m.Append(b, u.Header)
	case pdu.Query:
		return m.Append(b, u.Header)
	case pdu.QueryResp:
		return m.Append(b, u.Header)
	case pdu.Cancel:
		return m.Append(b, u.Header)
	case pdu.OutbindBody:
		return m.Append(b, u.Header)
	default:
		return u.Header.Append(b), nil
	}
}

func head(c pdu.Command, s pdu.Status, n uint32) pdu.Header {
	return pdu.Header{Command: c, Status: s, Sequence: n}
}

// golden are units byte for byte, written by hand from the tables of the standard (SMPP 3.4 §4).
var golden = []struct {
	name string
	hex  string
	unit unit
}{
	{
		"bind_transceiver (§4.1.5)", "00000024 00000009 00000000 00000001 66616e6661726500 73656372657400 00 34 00 00 00",
		unit{head(pdu.BindTransceiver, 0, 1), pdu.Bind{SystemID: "fanfare", Password: "secret", Version: pdu.Version34}},
	},
	{
		"bind_transmitter_resp with its version (§4.1.2)", "0000001a 80000002 00000000 00000001 534d534300 0210 0001 34",
		unit{head(pdu.BindTransmitterResp, 0, 1), pdu.BindResp{SystemID: "SMSC", TLVs: "\x02\x10\x00\x01\x34"}},
	},
	{
		"submit_sm (§4.4.1)",
		"0000004c 00000004 00000000 00000007 00 05 00 46414e4641524500 01 01 33393334373030303030303100 40 00 00 00 30303030303030313030303030303052 00 01 00 00 00 08 050003aa0201 4869",
		unit{head(pdu.SubmitSM, 0, 7), pdu.Message{
			Source: pdu.Address{TON: pdu.TONAlphanumeric, Addr: "FANFARE"}, Dest: pdu.Address{TON: 1, NPI: 1, Addr: "393470000001"},
			ESMClass: pdu.ESMUDHI, Validity: "000000010000000R", Registered: 1, Short: "\x05\x00\x03\xaa\x02\x01Hi",
		}},
	},
	{
		"submit_sm_resp that refuses, without a body (§4.4.2)", "00000010 80000004 00000058 00000007",
		unit{head(pdu.SubmitSMResp, pdu.Throttled, 7), pdu.MessageResp{}},
	},
	{
		"deliver_sm with TLVs (§4.6.1)",
		"0000003f 00000005 00000000 00000002 00 01 01 3339333437303000 00 00 3132333400 04 00 00 00 00 00 00 00 00 00 0427 0001 02 001e 0003 613100 0423 0003 030005",
		unit{head(pdu.DeliverSM, 0, 2), pdu.Message{
			Source: pdu.Address{TON: 1, NPI: 1, Addr: "3934700"}, Dest: pdu.Address{Addr: "1234"}, ESMClass: pdu.ESMReceipt,
			TLVs: "\x04\x27\x00\x01\x02\x00\x1e\x00\x03a1\x00\x04\x23\x00\x03\x03\x00\x05",
		}},
	},
	{
		"data_sm (§4.7.1)", "00000022 00000103 00000000 00000009 00 01 01 3100 01 01 3200 00 01 08 0424 0002 0041",
		unit{head(pdu.DataSM, 0, 9), pdu.Message{
			Source: pdu.Address{TON: 1, NPI: 1, Addr: "1"}, Dest: pdu.Address{TON: 1, NPI: 1, Addr: "2"}, Registered: 1, Coding: pdu.CodingUCS2,
			TLVs: "\x04\x24\x00\x02\x00A",
		}},
	},
	{"query_sm (§4.8.1)", "00000017 00000003 00000000 00000003 613100 01 01 3100", unit{head(pdu.QuerySM, 0, 3), pdu.Query{ID: "a1", Source: pdu.Address{TON: 1, NPI: 1, Addr: "1"}}}},
	{"query_sm_resp (§4.8.2)", "00000016 80000003 00000000 00000003 613100 00 02 00", unit{head(pdu.QuerySMResp, 0, 3), pdu.QueryResp{ID: "a1", State: pdu.StateDelivered}}},
	{
		"cancel_sm (§4.9.1)", "0000001c 00000008 00000000 00000004 00 613100 01 01 3100 01 01 3200",
		unit{head(pdu.CancelSM, 0, 4), pdu.Cancel{ID: "a1", Source: pdu.Address{TON: 1, NPI: 1, Addr: "1"}, Dest: pdu.Address{TON: 1, NPI: 1, Addr: "2"}}},
	},
	{"outbind (§4.1.7)", "00000017 0000000b 00000000 00000005 534d534300 7000", unit{head(pdu.Outbind, 0, 5), pdu.OutbindBody{SystemID: "SMSC", Password: "p"}}},
	{"enquire_link (§4.11.1)", "00000010 00000015 00000000 00000006", unit{Header: head(pdu.EnquireLink, 0, 6)}},
	{"unbind_resp (§4.2.2)", "00000010 80000006 00000000 00000006", unit{Header: head(pdu.UnbindResp, 0, 6)}},
	{"generic_nack (§4.3.1)", "00000010 80000000 00000003 00000006", unit{Header: head(pdu.GenericNack, pdu.InvalidCommand, 6)}},
}

func goldenBytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := goldenBytes(t, g.hex)
			got, err := g.unit.append(nil)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("written:\n got %x, %v\nwant %x", got, err, want)
			}
			h, body, err := pdu.NewReader(bytes.NewReader(want)).Next()
			if err != nil {
				t.Fatal(err)
			}
			back, err := decode(h, string(body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(g.unit, back); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReader reads a stream that arrives one byte at a time, and checks the results of Next and Ready.
func TestReader(t *testing.T) {
	var stream []byte
	for _, g := range golden {
		stream = append(stream, goldenBytes(t, g.hex)...)
	}
	long := pdu.Message{TLVs: pdu.TLVs(mustTLV(t, nil, pdu.TagPayload, strings.Repeat("x", 65_535)))}
	stream, err := long.Append(stream, head(pdu.SubmitSM, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]io.Reader{"whole": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream))} {
		r := pdu.NewReader(in)
		for i := range len(golden) + 1 {
			if i == 1 && r.Ready() != (name == "whole") {
				t.Errorf("%s: Ready is %v", name, r.Ready())
			}
			h, body, err := r.Next()
			if err != nil {
				t.Fatalf("%s: unit %d: %v", name, i, err)
			}
			if i == len(golden) {
				if m, err := pdu.DecodeMessage(h.Command, string(body)); err != nil || m != long {
					t.Errorf("%s: the long unit came back with %d octets, %v", name, len(m.Text()), err)
				}
			}
		}
		if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: got %v, want EOF", name, err)
		}
	}
	for in, want := range map[string]error{
		"\x00\x00\x00\x0f" + strings.Repeat("x", 20):            pdu.ErrLength,
		"\x7f\xff\xff\xff" + strings.Repeat("x", 20):            pdu.ErrLength,
		"\x00\x00\x00\x10" + strings.Repeat("x", 5):             io.ErrUnexpectedEOF,
		"\x00\x00\x00\x20" + strings.Repeat("x", 20):            io.ErrUnexpectedEOF,
		"\x00\x01\x10\x00" + strings.Repeat("x", 20):            io.ErrUnexpectedEOF,
		"\x00\x01\x10\x01" + strings.Repeat("x", pdu.HeaderLen): pdu.ErrLength,
	} {
		if _, _, err := pdu.NewReader(strings.NewReader(in)).Next(); !errors.Is(err, want) {
			t.Errorf("%x: got %v, want %v", in[:4], err, want)
		}
	}
}

func mustTLV(t testing.TB, b []byte, tag pdu.Tag, v string) []byte {
	t.Helper()
	b, err := pdu.AppendTLV(b, tag, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTooLong: a field that does not fit gives an error that names it, and the buffer keeps nothing of the unit.
func TestTooLong(t *testing.T) {
	const before = "before"
	long := strings.Repeat("x", 300)
	for field, u := range map[string]unit{
		"system_id":        {head(pdu.BindReceiver, 0, 1), pdu.Bind{SystemID: long}},
		"password":         {head(pdu.BindReceiver, 0, 1), pdu.Bind{Password: long}},
		"system_type":      {head(pdu.BindReceiver, 0, 1), pdu.Bind{SystemType: long}},
		"service_type":     {head(pdu.SubmitSM, 0, 1), pdu.Message{ServiceType: long}},
		"destination_addr": {head(pdu.SubmitSM, 0, 1), pdu.Message{Dest: pdu.Address{Addr: long}}},
		"source_addr":      {head(pdu.SubmitSM, 0, 1), pdu.Message{Source: pdu.Address{Addr: "a\x00b"}}},
		"validity_period":  {head(pdu.SubmitSM, 0, 1), pdu.Message{Validity: long}},
		"short_message":    {head(pdu.SubmitSM, 0, 1), pdu.Message{Short: long}},
		"message_id":       {head(pdu.SubmitSMResp, 0, 1), pdu.MessageResp{ID: long}},
		"unit":             {head(pdu.SubmitSM, 0, 1), pdu.Message{TLVs: pdu.TLVs(strings.Repeat("x", pdu.MaxLen))}},
	} {
		b, err := u.append([]byte(before))
		if !errors.Is(err, pdu.ErrTooLong) || !strings.Contains(err.Error(), field) || string(b) != before {
			t.Errorf("%s: got %q, %v, want an error that names it and nothing written", field, b, err)
		}
	}
	if _, err := pdu.AppendTLV(nil, pdu.TagPayload, strings.Repeat("x", 70_000)); !errors.Is(err, pdu.ErrTooLong) {
		t.Errorf("a TLV of 70,000 octets: got %v", err)
	}
}

// TestTorn: a body that ends within a field gives an error, except at the places where known message centres end their
// bodies.
func TestTorn(t *testing.T) {
	for _, g := range golden {
		body := string(goldenBytes(t, g.hex)[pdu.HeaderLen:])
		for n := range len(body) {
			u, err := decode(g.unit.Header, body[:n])
			switch u.Body.(type) {
			case pdu.MessageResp, pdu.BindResp, nil:
				if err != nil {
					t.Errorf("%s: cut at %d: got %v, want no error", g.name, n, err)
				}
			case pdu.Message:
				// A body cut within the TLVs has all mandatory fields and decodes, but Whole reports that something is
				// missing.
				if m, ok := u.Body.(pdu.Message); ok && err == nil && m.TLVs.Whole() && n < len(body)-len(g.unit.Body.(pdu.Message).TLVs) {
					t.Errorf("%s: cut at %d: got no error", g.name, n)
				}
			case pdu.Bind, pdu.OutbindBody: // the last text may lack its zero, or the whole field
				if err == nil && n < len(body)-2 {
					t.Errorf("%s: cut at %d: got no error", g.name, n)
				}
			default:
				if err == nil {
					t.Errorf("%s: cut at %d: got no error", g.name, n)
				}
			}
			if err != nil && !errors.Is(err, pdu.ErrMalformed) {
				t.Errorf("%s: cut at %d: got %v, want ErrMalformed", g.name, n, err)
			}
		}
	}
}

func TestTLVs(t *testing.T) {
	b := mustTLV(t, nil, pdu.TagMessageState, "\x02")
	b = mustTLV(t, b, pdu.TagReceiptedMessageID, "a1\x00")
	b = mustTLV(t, b, pdu.TagMessageState, "\x05")
	tlvs := pdu.TLVs(b)
	if v, ok := tlvs.Byte(pdu.TagMessageState); !ok || v != 2 {
		t.Errorf("message_state: got %d, %v, want the first", v, ok)
	}
	if v, ok := tlvs.Get(pdu.TagReceiptedMessageID); !ok || v != "a1\x00" {
		t.Errorf("receipted_message_id: got %q, %v", v, ok)
	}
	if _, ok := tlvs.Byte(pdu.TagReceiptedMessageID); ok {
		t.Error("a parameter of three octets was read as one octet")
	}
	if _, ok := tlvs.Get(pdu.TagPayload); ok || !tlvs.Whole() || tlvs[:len(tlvs)-1].Whole() || !pdu.TLVs("").Whole() {
		t.Error("found what is not there, or a torn list is whole")
	}
}

// TestNoAllocations: the work per message allocates nothing but the string of the body.
func TestNoAllocations(t *testing.T) {
	g := golden[2]
	m := g.unit.Body.(pdu.Message)
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf, _ = m.Append(buf[:0], g.unit.Header) }); n != 0 {
		t.Errorf("writing a submit_sm: got %v allocations, want 0", n)
	}
	body := string(buf[pdu.HeaderLen:])
	if n := testing.AllocsPerRun(100, func() { m, _ = pdu.DecodeMessage(pdu.SubmitSM, body) }); n != 0 {
		t.Errorf("reading a submit_sm: got %v allocations, want 0", n)
	}
	stream := bytes.Repeat(buf, 1000)
	r := pdu.NewReader(bytes.NewReader(stream))
	if n := testing.AllocsPerRun(900, func() { _, _, _ = r.Next() }); n != 0 {
		t.Errorf("cutting a stream: got %v allocations, want 0", n)
	}
}

// FuzzUnit: no stream makes the reader or a decoder panic, and a unit that was read is the same after it is written and
// read again.
func FuzzUnit(f *testing.F) {
	for _, g := range golden {
		f.Add(goldenBytes(f, g.hex))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := pdu.NewReader(bytes.NewReader(stream))
		for {
			h, body, err := r.Next()
			if err != nil {
				return
			}
			u, err := decode(h, string(body))
			if err != nil {
				continue
			}
			for range pdu.TLVs(body).All() {
			}
			written, err := u.append(nil)
			if err != nil {
				if errors.Is(err, pdu.ErrTooLong) {
					continue // the decoder accepts it, the encoder does not write it like this
				}
				t.Fatal(err)
			}
			h2, body2, err := pdu.NewReader(bytes.NewReader(written)).Next()
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(h2, string(body2))
			if diff := cmp.Diff(u, again); err != nil || diff != "" {
				t.Fatalf("%v, read again (-first +second):\n%s", err, diff)
			}
		}
	})
}

func BenchmarkSubmit(b *testing.B) {
	m := golden[2].unit.Body.(pdu.Message)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = m.Append(buf[:0], golden[2].unit.Header)
	}
}
