package codes_test

import (
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/codes"
)

func TestAnswer(t *testing.T) {
	table, err := codes.New("answer,0x58,throttled,THROTTLED\nanswer,8,retryable,PROVIDER_ERROR\nanswer,ok,accepted,\n", []string{"answer,0x0401,rejected,NO_CREDITS", "# a comment", "answer,8,rejected,NOT_SENT_OTHER"})
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]codes.Answer{
		"0x00000058": {Outcome: carrier.Throttled, Sub: schemas.CodeThrottled},
		"0x58":       {Outcome: carrier.Throttled, Sub: schemas.CodeThrottled},
		"0X401":      {Outcome: carrier.Rejected, Sub: schemas.CodeNoCredits}, // the account's own
		// The account's own instead of the standard's
		" 008 ": {Outcome: carrier.Rejected, Sub: schemas.CodeNotSentOther},
		"OK":    {Outcome: carrier.Accepted},
	} {
		if got, ok := table.Answer(code); !ok || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", code, got, ok, want)
		}
	}
	for _, code := range []string{"", "58", "0x999"} {
		if got, ok := table.Answer(code); ok {
			t.Errorf("%q: got %+v, want nothing", code, got)
		}
	}
}

const standard = `stat,DELIVRD,delivered,DELIVERED
stat,2,delivered,DELIVERED
stat,UNDELIV,failed,NETWORK_ERROR
stat,5,failed,NETWORK_ERROR
stat,EXPIRED,failed,EXPIRED
stat,REJECTD,failed,OPERATOR_BLACKLIST
stat,ACCEPTD,buffered,ENROUTE
stat,UNKNOWN,unknown,
err,1,,ABSENT_SUBSCRIBER
err,005,,UNKNOWN_SUBSCRIBER
`

func TestReceipt(t *testing.T) {
	table, err := codes.New(standard, []string{"stat,SEEN,delivered,DELIVERED", "err,0E1,,BARRED"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		stat, err string
		status    schemas.ReceiptStatus
		sub       schemas.Code
	}{
		{"DELIVRD", "000", schemas.ReceiptStatusDelivered, schemas.CodeDelivered},
		{"2", "", schemas.ReceiptStatusDelivered, schemas.CodeDelivered},
		// The state counts, not a leftover error
		{"delivrd", "005", schemas.ReceiptStatusDelivered, schemas.CodeDelivered},
		{"UNDELIV", "005", schemas.ReceiptStatusFailed, schemas.CodeUnknownSubscriber},
		{"5", "5", schemas.ReceiptStatusFailed, schemas.CodeUnknownSubscriber},
		{"UNDELIV", "000", schemas.ReceiptStatusFailed, schemas.CodeNetworkError},
		{"UNDELIV", "777", schemas.ReceiptStatusFailed, schemas.CodeNetworkError},
		{"EXPIRED", "", schemas.ReceiptStatusFailed, schemas.CodeExpired},
		{"EXPIRED", "001", schemas.ReceiptStatusFailed, schemas.CodeAbsentSubscriber},
		{"REJECTD", "0e1", schemas.ReceiptStatusFailed, schemas.CodeBarred},
		{"ACCEPTD", "", schemas.ReceiptStatusBuffered, schemas.CodeEnroute},
		{"UNKNOWN", "", schemas.ReceiptStatusUnknown, 0},
		{"SEEN", "", schemas.ReceiptStatusDelivered, schemas.CodeDelivered},
	} {
		status, sub, ok := table.Receipt(tc.stat, tc.err)
		if !ok || status != tc.status || sub != tc.sub {
			t.Errorf("%s %s: got %v, %v, %v, want %v, %v", tc.stat, tc.err, status, sub, ok, tc.status, tc.sub)
		}
	}
	if status, _, ok := table.Receipt("PERHAPS", ""); ok {
		t.Errorf("an unknown state: got %v", status)
	}
}

// TestWait: the account's own line replaces the carrier's, and a code without a line has no wait.
func TestWait(t *testing.T) {
	table, err := codes.New("wait,131056,6s,\nwait,4,1m,", []string{"wait,004,2m,"})
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]time.Duration{"131056": 6 * time.Second, "4": 2 * time.Minute, "5": 0} {
		if got := table.Wait(code); got != want {
			t.Errorf("%s: got %v, want %v", code, got, want)
		}
	}
}

// TestOwnLines: a line that says nothing is an error that names it.
func TestOwnLines(t *testing.T) {
	for line, want := range map[string]string{
		"answer,0x58":                   "fields",
		"answer,,rejected,NO_CREDITS":   "want a code",
		"answer,0x58,perhaps,":          "want answer",
		"stat,DELIVRD,perhaps,":         "want stat",
		"err,005,,":                     "want err",
		"err,005,failed,BARRED":         "want err",
		"err,005,,NO_SUCH_CODE":         "NO_SUCH_CODE",
		"wait,131056,soon,":             "want wait",
		"wait,131056,-6s,":              "want wait",
		"wait,131056,6s,BARRED":         "want wait",
		"receipt,005,,BARRED":           "at its beginning",
		"answer,0x58,rejected,BARRED,x": "fields",
	} {
		if _, err := codes.New("", []string{"", line}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "codes, line 2") {
			t.Errorf("%q: got %v, want an error with %q and the line", line, err, want)
		}
	}
}
