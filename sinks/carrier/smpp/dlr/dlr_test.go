package dlr_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/sinks/carrier/smpp/dlr"
	"fanfare/sinks/carrier/smpp/pdu"
)

func tlv(t testing.TB, pairs ...any) pdu.TLVs {
	t.Helper()
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		var err error
		if b, err = pdu.AppendTLV(b, pairs[i].(pdu.Tag), pairs[i+1].(string)); err != nil {
			t.Fatal(err)
		}
	}
	return pdu.TLVs(b)
}

// TestParse has a receipt of each kind that message centres are known to send.
func TestParse(t *testing.T) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatalf("needs time zones: %v", err)
	}
	const text = "id:0000000015 sub:001 dlvrd:001 submit date:2611221000 done date:2611221001 stat:DELIVRD err:000 text:hello"
	at := time.Date(2026, 11, 22, 10, 1, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		m      pdu.Message
		layout dlr.Layout
		want   dlr.Receipt
		no     bool
	}{
		{
			name: "appendix B", m: pdu.Message{ESMClass: pdu.ESMReceipt, Short: text},
			want: dlr.Receipt{IDs: []string{"0000000015"}, State: "DELIVRD", Stat: "DELIVRD", Err: "000", Done: at},
		},
		{
			name: "the parameter has no final zero, is hexadecimal and differs from the text",
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, Short: text, TLVs: tlv(t, pdu.TagReceiptedMessageID, "00000f", pdu.TagMessageState, "\x02")},
			want: dlr.Receipt{IDs: []string{"00000f", "0000000015"}, State: "2", Stat: "DELIVRD", Err: "000", Done: at},
		},
		{
			name: "parameters only, with the final zero",
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, TLVs: tlv(t, pdu.TagReceiptedMessageID, "a1\x00", pdu.TagMessageState, "\x05", pdu.TagNetworkError, "\x03\x00\x05")},
			want: dlr.Receipt{IDs: []string{"a1"}, State: "5", Err: "5"},
		},
		{name: "not marked, text", m: pdu.Message{Short: text}, want: dlr.Receipt{IDs: []string{"0000000015"}, State: "DELIVRD", Stat: "DELIVRD", Err: "000", Done: at}},
		{
			name: "not marked, parameters", m: pdu.Message{Short: "ok", TLVs: tlv(t, pdu.TagReceiptedMessageID, "7\x00", pdu.TagMessageState, "\x02")},
			want: dlr.Receipt{IDs: []string{"7"}, State: "2"},
		},
		{name: "what a person wrote", m: pdu.Message{Short: "STOP"}, no: true},
		{name: "what a person wrote about an id", m: pdu.Message{Short: "id:7 please"}, no: true},
		{name: "a handset's acknowledgement", m: pdu.Message{ESMClass: pdu.ESMDeliveryAck, Short: text}, no: true},
		{
			name: "an intermediate one without a state", m: pdu.Message{ESMClass: pdu.ESMIntermediate, Short: "id:7"},
			want: dlr.Receipt{IDs: []string{"7"}, State: "ENROUTE"},
		},
		{
			name: "in message_payload", m: pdu.Message{ESMClass: pdu.ESMReceipt, TLVs: tlv(t, pdu.TagPayload, text)},
			want: dlr.Receipt{IDs: []string{"0000000015"}, State: "DELIVRD", Stat: "DELIVRD", Err: "000", Done: at},
		},
		{
			name: "other spellings of the fields",
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, Short: "ID:ab-1 SUB:1 DLVRD:0 done_date:261122100102 STAT:undeliv ERR:5 Text:id:9 stat:DELIVRD"},
			want: dlr.Receipt{IDs: []string{"ab-1"}, State: "undeliv", Stat: "undeliv", Err: "5", Done: at.Add(2 * time.Second)},
		},
		{
			name: "the local time of the account's zone", layout: dlr.Layout{Location: rome},
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, Short: "id:1 done date:2611221101 stat:DELIVRD"},
			want: dlr.Receipt{IDs: []string{"1"}, State: "DELIVRD", Stat: "DELIVRD", Done: at.In(rome)},
		},
		{
			name: "a list without names", layout: dlr.Layout{Fields: []string{"id", "", "stat", "err", "done"}},
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, Short: `"15",393470000001, DELIVRD ,000,20261122100100`},
			want: dlr.Receipt{IDs: []string{"15"}, State: "DELIVRD", Stat: "DELIVRD", Err: "000", Done: at},
		},
		{
			name: "a list with bars that is too short", layout: dlr.Layout{Separator: "|", Fields: []string{"id", "stat", "err"}},
			m:    pdu.Message{ESMClass: pdu.ESMReceipt, Short: "15|EXPIRED"},
			want: dlr.Receipt{IDs: []string{"15"}, State: "EXPIRED", Stat: "EXPIRED"},
		},
		{name: "seconds since 1970", m: pdu.Message{ESMClass: pdu.ESMReceipt, Short: "id:1 stat:DELIVRD done date:1795341660"}, want: dlr.Receipt{IDs: []string{"1"}, State: "DELIVRD", Stat: "DELIVRD", Done: at}},
		{name: "marked and empty", m: pdu.Message{ESMClass: pdu.ESMReceipt}, want: dlr.Receipt{}},
	} {
		got, ok := dlr.Parse(&tc.m, &tc.layout)
		if ok == tc.no {
			t.Errorf("%s: got %v, want %v", tc.name, ok, !tc.no)
			continue
		}
		if !ok {
			continue
		}
		if !got.Done.Equal(tc.want.Done) {
			t.Errorf("%s: got %v, want %v", tc.name, got.Done, tc.want.Done)
		}
		got.Done = tc.want.Done
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// TestSpellings: for each way in which the ids of a message centre differ between answer and receipt, the answer's
// spelling is among the receipt's spellings.
func TestSpellings(t *testing.T) {
	for _, tc := range []struct {
		answer, receipt string
		ids             dlr.IDs
	}{
		{"15", "0000000015", dlr.IDsAny},
		{"15", "f", dlr.IDsAny},
		{"15", "0000000F", dlr.IDsAny},
		{"1a", "26", dlr.IDsAny},
		{"6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", dlr.IDsAny},
		{"15", "015", dlr.IDsSame},
		{"15", "f", dlr.IDsHexToDec},
		{"1a", "26", dlr.IDsDecToHex},
		{"0000001A", "26", dlr.IDsDecToHex},
	} {
		r := dlr.Receipt{IDs: []string{tc.receipt}}
		if got := r.Spellings(tc.ids); !slices.Contains(got, tc.answer) {
			t.Errorf("answer %q, receipt %q: got %q", tc.answer, tc.receipt, got)
		}
	}
	if got := (&dlr.Receipt{IDs: []string{"26"}}).Spellings(dlr.IDsSame); len(got) != 1 {
		t.Errorf("an account that spells its ids the same: got %q, want the one", got)
	}
}

// FuzzParse: Parse does not panic on any text, and returns a limited number of short ids.
func FuzzParse(f *testing.F) {
	f.Add(pdu.ESMReceipt, "id:1 stat:DELIVRD err:000 done date:2611221001 text:id:2", "", "")
	f.Add(byte(0), "", "\x00\x1e\x00\x03a1\x00\x04\x27\x00\x01\x02", "id,stat")
	f.Add(pdu.ESMReceipt, "1,DELIVRD", "", "id,stat")
	f.Fuzz(func(t *testing.T, class byte, short, tlvs, fields string) {
		layout := dlr.Layout{}
		if fields != "" {
			layout.Fields = strings.Split(fields, ",")
		}
		m := pdu.Message{ESMClass: class, Short: short, TLVs: pdu.TLVs(tlvs)}
		r, ok := dlr.Parse(&m, &layout)
		if !ok {
			return
		}
		for _, ids := range []dlr.IDs{dlr.IDsAny, dlr.IDsSame, dlr.IDsHexToDec, dlr.IDsDecToHex} {
			if got := r.Spellings(ids); len(got) > 8 || slices.Contains(got, "") {
				t.Fatalf("got spellings %q", got)
			}
		}
	})
}
