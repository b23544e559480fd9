package httpsms_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/httpsms"
)

// scripted is a provider that gives the answers a test sets, and keeps the requests.
type scripted struct {
	*httptest.Server
	requests chan string
	answers  chan func(http.ResponseWriter)
}

func script(t testing.TB) *scripted {
	t.Helper()
	s := &scripted{requests: make(chan string, 100), answers: make(chan func(http.ResponseWriter), 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s\n", r.Method, r.URL.RequestURI())
		for _, h := range []string{"Authorization", "Content-Type", "X-Api-Key", "Api-Key", "I-Twilio-Idempotency-Token"} {
			if v := r.Header.Get(h); v != "" {
				fmt.Fprintf(&b, "%s: %s\n", h, v)
			}
		}
		b.Write(body)
		s.requests <- strings.TrimSpace(b.String())
		(<-s.answers)(w)
	}))
	t.Cleanup(s.Close)
	return s
}

// say sets the next answer.
func (s *scripted) say(status int, body string) {
	s.answers <- func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const callbackURL = "https://edge.example.org/api/callback/r"

// preset is the traffic of one provider: our request, its answer, its callback.
type preset struct {
	values    map[string]httpsms.Secret
	change    func(*carrier.Outbound)
	request   string
	answer    string
	status    int
	want      carrier.Result
	refusals  []refusal
	callbacks []callback
}

type refusal struct {
	status int
	body   string
	want   carrier.Result
}

type callback struct {
	cb       carrier.Callback
	receipts []carrier.Receipt
	inbound  []carrier.Inbound
}

func form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

var (
	formHeader = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	jsonHeader = http.Header{"Content-Type": {"application/json"}}
)

func presets(t testing.TB, base string) map[string]preset {
	key := message(t, 1, "").Key
	k, b := key.String(), httpsms.Secret(base)
	at := time.Date(2026, 11, 22, 10, 0, 5, 0, time.UTC)
	rejected := func(code string, sub schemas.Code) carrier.Result {
		return carrier.Result{Outcome: carrier.Rejected, Code: code, Sub: sub}
	}
	const to = "+393470000001"
	return map[string]preset{
		"twilio": {
			values: map[string]httpsms.Secret{"accountSid": "AC1", "authToken": "token", "baseUrl": b},
			change: func(o *carrier.Outbound) { o.NotAfter = time.Now().Add(48 * time.Hour) },
			request: "POST /2010-04-01/Accounts/AC1/Messages.json\nAuthorization: Basic QUMxOnRva2Vu\nContent-Type: application/x-www-form-urlencoded\nI-Twilio-Idempotency-Token: " + k + "\n" +
				form("To", to, "From", "FANFARE", "Body", `Ciao "Ada" & {{from}}`, "StatusCallback", callbackURL+"?k="+k, "ValidityPeriod", "36000", "SmartEncoded", "false"),
			status: 201, answer: `{"sid":"SM1","status":"queued","num_segments":"2"}`, want: carrier.Result{Outcome: carrier.Accepted, Ref: "SM1", Parts: 2},
			refusals: []refusal{
				{400, `{"code":21211,"message":"x"}`, rejected("21211", schemas.CodeInvalidNumber)},
				{400, `{"code":21610,"message":"x"}`, rejected("21610", schemas.CodeOptedOut)},
				{429, `{"code":20429,"message":"x"}`, carrier.Result{Outcome: carrier.Throttled, Code: "20429", Sub: schemas.CodeThrottled}},
				{401, `{"code":20003}`, carrier.Result{Outcome: carrier.Retryable, Code: "20003", Sub: schemas.CodeProviderError}},
				{500, `oops`, carrier.Result{Outcome: carrier.Unknown, Code: "500"}},
			},
			callbacks: []callback{
				{
					cb:       carrier.Callback{Method: "POST", URL: callbackURL + "?k=" + k, Header: formHeader, Body: []byte(form("MessageSid", "SM1", "MessageStatus", "undelivered", "ErrorCode", "30005", "To", to))},
					receipts: []carrier.Receipt{{Ref: "SM1", Key: key, To: to, Status: schemas.ReceiptStatusFailed, Code: "30005", Sub: schemas.CodeUnknownSubscriber}},
				},
				{
					cb:      carrier.Callback{Method: "POST", URL: callbackURL, Header: formHeader, Body: []byte(form("MessageSid", "SM2", "SmsStatus", "received", "Body", "STOP", "From", to, "To", "+393331234567"))},
					inbound: []carrier.Inbound{{Channel: schemas.ChannelSMS, Ref: "SM2", From: to, To: "+393331234567", Text: "STOP"}},
				},
			},
		},
		"infobip": {
			values:  map[string]httpsms.Secret{"baseUrl": b, "apiKey": "secret", "callbackUser": "u", "callbackPassword": "p"},
			request: "POST /sms/3/messages\nAuthorization: App secret\nContent-Type: application/json\n" + `{"messages":[{"content":{"text":"Ciao \"Ada\" \u0026 {{from}}"},"destinations":[{"messageId":"` + k + `","to":"393470000001"}],"sender":"FANFARE","webhooks":{"callbackData":"` + k + `","contentType":"application/json","delivery":{"intermediateReport":true,"url":"` + callbackURL + `"}}}]}`,
			status:  200, answer: `{"bulkId":"1","messages":[{"messageId":"` + k + `","status":{"groupId":1,"groupName":"PENDING","id":26,"name":"PENDING_ACCEPTED"},"destination":"393470000001"}]}`,
			want: carrier.Result{Outcome: carrier.Accepted, Ref: k},
			refusals: []refusal{
				{200, `{"messages":[{"messageId":"` + k + `","status":{"groupId":5,"name":"REJECTED_NOT_ENOUGH_CREDITS"}}]}`, rejected("REJECTED_NOT_ENOUGH_CREDITS", schemas.CodeNoCredits)},
				{200, `{"messages":[]}`, carrier.Result{Outcome: carrier.Unknown, Code: "answer without the message"}},
				{200, `<html>`, carrier.Result{Outcome: carrier.Unknown, Code: "answer not understood"}},
				{400, `{"errorCode":"E400"}`, rejected("E400", schemas.CodeNotSentOther)},
			},
			callbacks: []callback{{
				cb: carrier.Callback{Method: "POST", URL: callbackURL, Header: jsonHeader, Body: []byte(`{"results":[{"messageId":"x","callbackData":"` + k + `","to":"393470000001","doneAt":"2026-11-22T10:00:05.000+0000","status":{"groupId":3,"groupName":"DELIVERED"},"error":{"name":"NO_ERROR"}},{"messageId":"y","callbackData":"nonsense","status":{"groupName":"EXPIRED"},"error":{"name":"EC_ABSENT_SUBSCRIBER"}},{"status":{"groupName":"DELIVERED"}}]}`)},
				receipts: []carrier.Receipt{
					{Ref: "x", Key: key, To: to, Status: schemas.ReceiptStatusDelivered, Code: "NO_ERROR", Sub: schemas.CodeDelivered, At: at},
					{Ref: "y", Status: schemas.ReceiptStatusFailed, Code: "EC_ABSENT_SUBSCRIBER", Sub: schemas.CodeAbsentSubscriber},
				},
			}},
		},
		"vonage": {
			values: map[string]httpsms.Secret{"baseUrl": b, "apiKey": "key", "apiSecret": "secret", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"},
			change: func(o *carrier.Outbound) {
				o.Body.Text.Encoding, o.NotAfter = schemas.EncodingUCS2, time.Now().Add(5*time.Second)
			},
			request: "POST /sms/json\nContent-Type: application/x-www-form-urlencoded\n" + form("api_key", "key", "api_secret", "secret", "from", "FANFARE", "to", "393470000001", "text", `Ciao "Ada" & {{from}}`, "type", "unicode", "client-ref", k, "callback", callbackURL+"?t=s3cr3t-s3cr3t-s3cr3t", "status-report-req", "1", "ttl", "20000"),
			status:  200, answer: `{"message-count":"2","messages":[{"status":"0","message-id":"a"},{"status":"0","message-id":"b"}]}`,
			want: carrier.Result{Outcome: carrier.Accepted, Ref: "a", Parts: 2, PartRefs: []string{"a", "b"}},
			refusals: []refusal{
				{200, `{"messages":[{"status":"1","error-text":"Throttled"}]}`, carrier.Result{Outcome: carrier.Throttled, Code: "1", Sub: schemas.CodeThrottled}},
				{200, `{"messages":[{"status":"9"}]}`, rejected("9", schemas.CodeNoCredits)},
				{200, `{"messages":[{"status":"0","message-id":"a"},{"status":"9"}]}`, carrier.Result{Outcome: carrier.Unknown, Code: "9"}},
			},
			callbacks: []callback{{
				cb:       carrier.Callback{Method: "GET", URL: callbackURL + "?t=s3cr3t-s3cr3t-s3cr3t&messageId=a&status=failed&err-code=3&msisdn=393470000001&message-timestamp=2026-11-22+10:00:05"},
				receipts: []carrier.Receipt{{Ref: "a", To: to, Status: schemas.ReceiptStatusFailed, Code: "3", Sub: schemas.CodeUnknownSubscriber, At: at}},
			}, {
				cb:      carrier.Callback{Method: "POST", URL: callbackURL + "?t=s3cr3t-s3cr3t-s3cr3t", Header: jsonHeader, Body: []byte(`{"messageId":"m","msisdn":"393470000001","to":"48333","text":"STOP"}`)},
				inbound: []carrier.Inbound{{Channel: schemas.ChannelSMS, Ref: "m", From: to, To: "48333", Text: "STOP"}},
			}},
		},
		"kaleyra": {
			values:  map[string]httpsms.Secret{"baseUrl": b, "sid": "S1", "apiKey": "secret", "callbackProfileId": "CB1", "addresses": "192.0.2.0/24"},
			request: "POST /v1/S1/messages\nContent-Type: application/x-www-form-urlencoded\nApi-Key: secret\n" + form("to", to, "sender", "FANFARE", "type", "MKT", "body", `Ciao "Ada" & {{from}}`, "ref", k, "callback_profile_id", "CB1"),
			status:  202, answer: `{"id":"u","data":[{"message_id":"u:1","recipient":"393470000001"}],"totalCount":1,"error":{}}`,
			want:     carrier.Result{Outcome: carrier.Accepted, Ref: "u:1"},
			refusals: []refusal{{400, `{"code":"RBC001","message":"x"}`, rejected("RBC001", schemas.CodeNotSentOther)}},
			callbacks: []callback{{
				cb:       carrier.Callback{Method: "POST", URL: callbackURL, Header: jsonHeader, Body: []byte(`{"message_id":"u:1","status":"Failed","error_code":"ABSENT-SUB","ref":"` + k + `"}`)},
				receipts: []carrier.Receipt{{Ref: "u:1", Key: key, Status: schemas.ReceiptStatusFailed, Code: "ABSENT-SUB"}},
			}},
		},
		"kannel": {
			values: map[string]httpsms.Secret{"url": b + "/cgi-bin/sendsms", "username": "u", "password": "p", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"},
			request: "GET /cgi-bin/sendsms?" + form("username", "u", "password", "p", "to", to, "from", "FANFARE", "text", `Ciao "Ada" & {{from}}`, "charset", "UTF-8", "coding", "0", "dlr-mask", "31",
				"dlr-url", callbackURL+"?t=s3cr3t-s3cr3t-s3cr3t&k="+k+"&type=%d&id=%F&at=%T"),
			status: 202, answer: "0: Accepted for delivery", want: carrier.Result{Outcome: carrier.Accepted, Ref: k},
			refusals: []refusal{{503, "Temporary failure, try again later.", carrier.Result{Outcome: carrier.Retryable, Code: "503", Sub: schemas.CodeProviderError}}},
			callbacks: []callback{{
				cb:       carrier.Callback{Method: "GET", URL: callbackURL + "?t=s3cr3t-s3cr3t-s3cr3t&k=" + k + "&type=1&id=77&at=1795341605"},
				receipts: []carrier.Receipt{{Ref: "77", Key: key, Status: schemas.ReceiptStatusDelivered, Code: "1", Sub: schemas.CodeDelivered, At: time.Unix(1795341605, 0)}},
			}},
		},
		"agile": {
			values:  map[string]httpsms.Secret{"baseUrl": b, "apiKey": "secret", "callbackSecret": "s3cr3t-s3cr3t-s3cr3t"},
			request: "POST /api/message-server/sms/send\nContent-Type: application/json\nX-Api-Key: secret\n" + `{"enableNotification":true,"message":"Ciao \"Ada\" \u0026 {{from}}","messageId":"` + k + `","phoneNumber":"+393470000001","sender":"FANFARE"}`,
			status:  200, answer: `{"messageId":"m1","results":[{"destination":"+393470000001","messageId":"m1","accepted":true,"parts":1,"reasons":[]}]}`,
			want:     carrier.Result{Outcome: carrier.Accepted, Ref: "m1", Parts: 1},
			refusals: []refusal{{200, `{"results":[{"accepted":false,"reasons":["OPTED_OUT"]}]}`, rejected("OPTED_OUT", schemas.CodeOptedOut)}},
			callbacks: []callback{{
				cb:       carrier.Callback{Method: "POST", URL: callbackURL + "?t=s3cr3t-s3cr3t-s3cr3t", Header: jsonHeader, Body: []byte(`{"messageId":"m1","customerMessageId":"` + k + `","status":"DELIVERED"}`)},
				receipts: []carrier.Receipt{{Ref: "m1", Key: key, Status: schemas.ReceiptStatusDelivered, Code: "DELIVERED", Sub: schemas.CodeDelivered}},
			}},
		},
	}
}

// TestPresets: for each known provider, the request is as it expects, its answers and refusals are understood, and its
// callbacks are parsed.
func TestPresets(t *testing.T) {
	s := script(t)
	all := presets(t, s.URL)
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	if diff := cmp.Diff(httpsms.Presets(), names); diff != "" {
		t.Errorf("presets without a test, or the reverse:\n%s", diff)
	}
	for name, p := range all {
		t.Run(name, func(t *testing.T) {
			c := open(t, httpsms.Config{Preset: name, Values: p.values, CallbackURL: callbackURL})
			out := message(t, 1, `Ciao "Ada" & {{from}}`)
			if p.change != nil {
				p.change(&out)
			}
			s.say(p.status, p.answer)
			got := hand(t, c, out)
			if diff := cmp.Diff(p.want, got[0]); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(p.request, <-s.requests); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			for _, r := range p.refusals {
				s.say(r.status, r.body)
				got := hand(t, c, out)
				if diff := cmp.Diff(r.want, got[0]); diff != "" {
					t.Errorf("%d %s (-want +got):\n%s", r.status, r.body, diff)
				}
				<-s.requests
			}
			for _, cb := range p.callbacks {
				receipts, inbound, err := c.Parse(&cb.cb)
				if err != nil {
					t.Errorf("%s: %v", cb.cb.URL, err)
				}
				for i := range receipts {
					if len(receipts[i].Raw) == 0 || receipts[i].Account != "twilio" {
						t.Errorf("receipt %d: account %q, %d octets as they came", i, receipts[i].Account, len(receipts[i].Raw))
					}
					receipts[i].Raw, receipts[i].Account, receipts[i].At = nil, "", receipts[i].At.UTC()
				}
				for i := range cb.receipts {
					cb.receipts[i].At = cb.receipts[i].At.UTC()
				}
				for i := range inbound {
					inbound[i].Raw, inbound[i].Account = nil, ""
				}
				if diff := cmp.Diff(cb.receipts, receipts); diff != "" {
					t.Errorf("%s (-want +got):\n%s", cb.cb.URL, diff)
				}
				if diff := cmp.Diff(cb.inbound, inbound); diff != "" {
					t.Errorf("%s, inbound (-want +got):\n%s", cb.cb.URL, diff)
				}
			}
		})
	}
}

// TestBatch: one request has many messages, and each gets its own answer, in whatever order the answers are.
func TestBatch(t *testing.T) {
	s := script(t)
	c := open(t, httpsms.Config{Preset: "infobip", Values: presets(t, s.URL)["infobip"].values, Window: 100})
	batch := []carrier.Outbound{message(t, 1, "a"), message(t, 2, "b"), message(t, 3, "c")}
	batch[1].Deadline = time.Now().Add(-time.Second)
	batch[2].NotAfter = time.Now().Add(90 * time.Minute)
	s.say(200, fmt.Sprintf(`{"messages":[{"messageId":%q,"status":{"groupId":5,"name":"REJECTED_SENDER"}},{"messageId":%q,"status":{"groupId":1}}]}`, batch[2].Key, batch[0].Key))
	got := hand(t, c, batch...)
	if got[0].Outcome != carrier.Accepted || got[1].Code != carrier.CodeDeadline || got[2].Sub != schemas.CodeSenderInvalid {
		t.Errorf("got %+v, want accepted, kept back, rejected", got)
	}
	request := <-s.requests
	if strings.Contains(request, `"b"`) || !strings.Contains(request, `"a"`) || !strings.Contains(request, `{"validityPeriod":{"amount":89,"timeUnit":"MINUTES"}}`) || strings.Count(request, "validityPeriod") != 1 || strings.Contains(request, "webhooks") {
		t.Errorf("got request %s, want the two that were not late, the validity of one, and no callbacks", request)
	}
	if got := c.Caps(); got.MaxBatch != 100 || !got.EchoesKey || got.Receipts != carrier.ReceiptsNone {
		t.Errorf("got %+v, want batches of 100, our ids echoed, and no receipts without a callback's address", got)
	}
}
