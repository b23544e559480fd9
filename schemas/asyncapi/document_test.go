package asyncapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// These are the parts of the document that are not in the code: names and prose. Everything else comes from package
// schemas.

// described is the document's description of a public topic.
type described struct {
	Channel, Operation, Message    string
	Title, Summary, Description    string
	Type                           schemas.EventType
	ProtoMessage, ProtoFile, Proto string
	KeyPattern                     string
	Headers                        []header
	Examples                       []example

	schemas.Topic
}

// header is a header of a record. Without Optional every record has it.
type header struct {
	Name, Description, Const, Pattern string
	Optional                          bool
}

// example is a record in both forms: readable JSON and encoded bytes.
type example struct {
	Name, Summary string
	Headers       map[string]string
	Payload       any
	Key, Value    string
	Precedence    schemas.Precedence
	Bucket        schemas.Bucket
}

// Patterns of the values in keys and headers.
const (
	tenantPattern       = `tn_[0-9a-z]+`
	hashPattern         = `[0-9a-f]{16}`
	campaignPattern     = `camp_[0-9]+`
	conversationPattern = `conv_[0-9a-z]{16}`
	messagePattern      = `msg_[0-9a-hjkmnp-tv-z]{26}`
	eventPattern        = `(msg|sub)_[0-9a-hjkmnp-tv-z]{26}/[a-z_]+(/.+)?`
)

func (d described) Required() (names []string) {
	for _, h := range d.Headers {
		if !h.Optional {
			names = append(names, h.Name)
		}
	}
	return names
}

// Configs are the settings of the topic in the types that the document has them in: the policy is a list, the rest are
// numbers.
func (d described) Configs() (out []struct{ Name, Value string }) {
	settings := d.Topic.Configs()
	for name, value := range settings {
		if name == "cleanup.policy" {
			value = "[" + value + "]"
		}
		out = append(out, struct{ Name, Value string }{name, value})
	}
	slices.SortFunc(out, func(a, b struct{ Name, Value string }) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ProtoName is the message without its package.
func (d described) ProtoName() string { return strings.TrimPrefix(d.ProtoMessage, "fanfare.v1.") }

// publicTopics describes every public topic of the table; it fails the test for a topic without a description.
func publicTopics(t *testing.T) []described {
	t.Helper()
	names, err := schemas.NewNames(schemas.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	campaign, delivery := protoText(t, "campaign"), protoText(t, "delivery")
	words := map[string]described{
		names.Campaigns(): {
			Channel: "campaigns", Operation: "campaignChanged", Message: "campaign", Title: "Campaigns",
			Summary: "The whole current state of a campaign, whenever it has changed.",
			Description: "One record per campaign and change, the newest of each kept (compacted): a reader from the beginning knows every\n" +
				"campaign. A record whose version is not above the one known is to be ignored: two writers may overlap for a moment. A record\n" +
				"without a value (a tombstone) comes a week after a campaign has ended, and takes it off the topic.",
			Type: schemas.TypeCampaign, ProtoMessage: "fanfare.v1.Campaign", ProtoFile: "schemas/fanfare/v1/campaign.proto", Proto: campaign,
			KeyPattern: "^" + tenantPattern + "/" + campaignPattern + "$",
			Headers: append(common(schemas.TypeCampaign, "^"+tenantPattern+"/"+campaignPattern+"@[0-9]+$", "Key and version of the campaign."),
				header{Name: schemas.HeaderVersion, Pattern: "^[0-9]+$", Description: "Version of the campaign in decimal, also of a tombstone."}),
			Examples: campaignExamples(t),
		},
		names.Deliveries(): {
			Channel: "deliveries", Operation: "deliveryHappened", Message: "delivery", Title: "Deliveries",
			Summary: "Something happened to a recipient: handed over, given back, refused, delivered, not delivered, in doubt.",
			Description: "Everything that happens to every recipient of every campaign, and to every single send (hidden campaigns). Events arrive\n" +
				"at least once and in no order. The state of a recipient (campaign_id, seq) is the event of the greatest precedence:\n" +
				"class << 28 | (class == 0 ? try : 0) << 20 | rank << 16 | code, with class = kind >> 4 and rank = kind & 15; kinds of class 7\n" +
				"are facts and no states. Read with isolation.level=read_committed. Holds phone numbers.",
			Type: schemas.TypeDelivery, ProtoMessage: "fanfare.v1.Delivery", ProtoFile: "schemas/fanfare/v1/delivery.proto",
			Proto:      regexp.MustCompile(`(?m)^import .*\n\n?`).ReplaceAllString(delivery, "") + "\n" + enumText(t, campaign, "Channel"),
			KeyPattern: "^" + tenantPattern + "/" + messagePattern + "$",
			Headers: append(common(schemas.TypeDelivery, "^"+eventPattern+"$", "Submission (or message, before there is one), kind and sub-status; the same event has the same id, however often it is written."),
				header{Name: schemas.HeaderSource, Optional: true, Description: "Fanfare's own: where the message of a hand-over stood. Not to be relied on."}),
			Examples: deliveryExamples(t),
		},
		names.Suppressions(): {
			Channel: "suppressions", Operation: "suppressionChanged", Message: "suppression", Title: "Opt-outs",
			Summary: "A number has opted out of a tenant's messages, of all channels or of some; a tombstone: of none any more.",
			Description: "The opt-outs of every tenant as they are now, the newest record of each number kept (compacted): a reader from the\n" +
				"beginning knows all of them. A record replaces the one before it: channels are those that the number has opted out of, and none\n" +
				"means all of them. A record without a value (a tombstone) says that the number has opted out of nothing any more. Fanfare's senders\n" +
				"read this topic too, and ask it before each hand-over. It has no numbers: number_hash is a truncated HMAC with a key of the\n" +
				"installation; GET /api/suppressions tells the numbers.",
			Type: schemas.TypeSuppression, ProtoMessage: "fanfare.v1.Suppression", ProtoFile: "schemas/fanfare/v1/control.proto",
			Proto:      "syntax = \"proto3\";\n\npackage fanfare.v1;\n\n" + messageText(t, "control", "Suppression") + "\n" + enumText(t, campaign, "Channel"),
			KeyPattern: "^" + tenantPattern + "/" + hashPattern + "$",
			Headers: append(common(schemas.TypeSuppression, "^"+tenantPattern+"/"+hashPattern+"@[0-9]+$", "Key and version of the opt-out."),
				header{Name: schemas.HeaderVersion, Pattern: "^[0-9]+$", Description: "Version of the opt-out in decimal, also of a tombstone; it grows with each change."}),
			Examples: suppressionExamples(t),
		},
		names.Replies(): {
			Channel: "replies", Operation: "replyCame", Message: "reply", Title: "Replies",
			Summary: "A recipient wrote a message.",
			Description: "What recipients write to a tenant's senders by SMS, RCS and WhatsApp, each matched to the tenant and, where it is known, to the\n" +
				"last message of that tenant, sender and number. Events arrive at least once; id tells them apart. Holds phone numbers and texts.",
			Type: schemas.TypeReply, ProtoMessage: "fanfare.v1.Reply", ProtoFile: "schemas/fanfare/v1/reply.proto",
			Proto:      regexp.MustCompile(`(?m)^import .*\n\n?`).ReplaceAllString(protoText(t, "reply"), "") + "\n" + enumText(t, campaign, "Channel"),
			KeyPattern: "^" + tenantPattern + "/" + conversationPattern + "$",
			Headers:    common(schemas.TypeReply, "^in_[0-9a-f]{32}$", "The message; the same message has the same id, however often it is written."),
			Examples:   replyExamples(t),
		},
	}
	var out []described
	for _, topic := range names.Fixed() {
		if !topic.Public {
			continue
		}
		d, ok := words[topic.Name]
		if !ok {
			t.Fatalf("topic %s is public, and the document has no words for it", topic.Name)
		}
		d.Topic = topic
		out = append(out, d)
	}
	return out
}

// common are the headers that every record has.
func common(typ schemas.EventType, idPattern, id string) []header {
	return []header{
		{Name: "ce_specversion", Const: "1.0", Description: "Version of CloudEvents."},
		{Name: "ce_type", Const: string(typ), Description: "What the value is. Skip a record of a type that you do not know."},
		{Name: "ce_source", Pattern: "^[a-z]+$", Description: "The stage that wrote it. For people: an event may come from another stage in a later version."},
		{Name: "ce_id", Pattern: idPattern, Description: id},
		{Name: "ce_time", Pattern: `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$`, Description: "When it happened, UTC. For people and charts; never needed to tell which event stands."},
		{Name: "content-type", Const: schemas.ContentType, Description: "Of the value."},
		{Name: schemas.HeaderTenant, Pattern: "^" + tenantPattern + "$", Description: "Whose it is, so that a reader can filter without decoding."},
		{Name: schemas.HeaderTraceparent, Optional: true, Pattern: "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", Description: "W3C trace that the event belongs to."},
	}
}

// protoText is a committed .proto file.
func protoText(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../fanfare/v1/" + name + ".proto")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// enumText is one enum of a .proto file.
func enumText(t *testing.T, file, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?ms)^enum ` + name + ` \{.*?^\}\n`).FindString(file)
	if m == "" {
		t.Fatalf("no enum %s", name)
	}
	return m
}

// messageText is one message of a .proto file, with its comment.
func messageText(t *testing.T, file, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?ms)^(?://[^\n]*\n)*message ` + name + ` \{.*?^\}\n`).FindString(protoText(t, file))
	if m == "" {
		t.Fatalf("no message %s", name)
	}
	return m
}

// tenant of the examples, and when they happened.
const exampleTenant = "tn_5f2kq8vtc0m1xw7r"

var exampleTime = time.Date(2026, 3, 2, 9, 30, 0, 250e6, time.UTC)

func campaignExamples(t *testing.T) []example {
	c := &fanfarev1.Campaign{
		Tenant: exampleTenant, Id: schemas.CampaignID(10_001), Number: 10_001, Version: 9, State: schemas.StateCompleted, Settled: true,
		Name: "Spring", Legs: []*fanfarev1.Leg{{Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{60_000, 300_000}}},
		Content: &fanfarev1.Content{Body: "Ciao {{first_name}}!", Missing: schemas.MissingPolicyEmpty}, MaxSegments: 3,
		ValidityMs: (48 * time.Hour).Milliseconds(), ReceiptWindowMs: (72 * time.Hour).Milliseconds(), Weight: 1, FreezeId: "fz_1", Total: 3, Region: "IT", Currency: "EUR",
		Lists: []string{"list_10001"}, CreatedMs: exampleTime.UnixMilli() - 60_000, ConfirmedMs: exampleTime.UnixMilli() - 5_000,
		StartedMs: exampleTime.UnixMilli() - 4_000, CompletedMs: exampleTime.UnixMilli(), SettledMs: exampleTime.UnixMilli(),
	}
	key := schemas.CampaignKey(c.GetTenant(), c.GetId())
	e := schemas.Event{Key: key, Tenant: c.GetTenant(), Type: schemas.TypeCampaign, Source: "relay", ID: key + "@9", Time: exampleTime, Value: c}
	out := exampleOf(t, "settled", "Completed, and no receipt is awaited any more: its account is final.", e)
	out.Headers[schemas.HeaderVersion] = "9"
	return []example{out}
}

func suppressionExamples(t *testing.T) (out []example) {
	keys, err := schemas.NewKeys([]byte("a key for examples"))
	if err != nil {
		t.Fatal(err)
	}
	hash := keys.NumberHash(exampleTenant, "+393401234560")
	for i, x := range []struct {
		name, summary string
		channels      []schemas.Channel
	}{
		{"all", "Of all channels.", nil},
		{"whatsapp", "Of WhatsApp only: it is written to by SMS.", []schemas.Channel{schemas.ChannelWhatsApp}},
	} {
		version := strconv.Itoa(i + 1)
		s := &fanfarev1.Suppression{Tenant: exampleTenant, NumberHash: hash[:], TimeMs: exampleTime.UnixMilli(), Source: "keyword", Channels: x.channels}
		key := schemas.SuppressionKey(exampleTenant, hash)
		ex := exampleOf(t, x.name, x.summary, schemas.Event{
			Key: key, Tenant: exampleTenant, Type: schemas.TypeSuppression, Source: "relay", ID: key + "@" + version, Time: exampleTime, Value: s,
		})
		ex.Headers[schemas.HeaderVersion] = version
		out = append(out, ex)
	}
	return out
}

func replyExamples(t *testing.T) []example {
	keys, err := schemas.NewKeys([]byte("a key for examples"))
	if err != nil {
		t.Fatal(err)
	}
	message := keys.Message(10_001, 2)
	r := &fanfarev1.Reply{
		Tenant: exampleTenant, Id: "in_3f1c9a5be0d24c7788aa10b2c3d4e5f6", ConversationId: schemas.ConversationID(exampleTenant, schemas.ChannelSMS, "+393399900011", "+393401234560"),
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "+393399900011", From: "+393401234560", Text: "STOP", ReceivedMs: exampleTime.UnixMilli(),
		MessageId: message[:], CampaignId: schemas.CampaignID(10_001), Meaning: schemas.ReplyMeaningOptOut,
	}
	return []example{exampleOf(t, "stop", "A keyword: the number has opted out of SMS.", schemas.ReplyEvent("", "inbound", r))}
}

func deliveryExamples(t *testing.T) []example {
	keys, err := schemas.NewKeys([]byte("a key for examples"))
	if err != nil {
		t.Fatal(err)
	}
	var out []example
	for seq, x := range []struct {
		name, summary, source string
		d                     *fanfarev1.Delivery
	}{
		{"sent", "The carrier took it; what it costs is said here and nowhere else.", "sender", &fanfarev1.Delivery{
			Try: 1, Kind: schemas.KindSent, Code: schemas.CodeAwaitingDLR, Country: "IT", Segments: 1, PriceMicros: 50_000, Currency: "EUR", ProviderId: "5D1C7A", ContactId: 71, CustomerRef: "order-7",
		}},
		{"delivered", "A receipt. It says less than the hand-over: no price, no country.", "tracker", &fanfarev1.Delivery{
			Try: 1, Kind: schemas.KindDelivered, Code: schemas.CodeDelivered, RawCode: "000", ProviderId: "5D1C7A",
		}},
		{"returned", "Given back unsent at the second try, to be dealt again: open, so the try counts in its precedence.", "sender", &fanfarev1.Delivery{
			Try: 2, Kind: schemas.KindReturned, Code: schemas.CodeThrottled, Country: "IT", Segments: 1, PriceMicros: 50_000, Currency: "EUR", AgainAtMs: exampleTime.UnixMilli() + 30_000,
		}},
		{"skipped", "Opted out: never dealt to a sender.", "expander", &fanfarev1.Delivery{Try: 1, Kind: schemas.KindSkipped, Code: schemas.CodeOptedOut, Country: "IT"}},
	} {
		d := x.d
		recipient := uint32(max(seq-1, 0)) // the first two events belong to one recipient
		message, submission := keys.Message(10_001, recipient), keys.Submission(10_001, recipient, uint8(d.GetTry()))
		d.Tenant, d.CampaignId, d.CampaignNumber, d.Seq, d.Leg = exampleTenant, schemas.CampaignID(10_001), 10_001, recipient, 1
		d.Channel, d.Route, d.Sender, d.To, d.TimeMs = schemas.ChannelSMS, "sim", "FANFARE", fmt.Sprintf("+39340123456%d", recipient), exampleTime.UnixMilli()
		d.MessageId, d.SubmissionId = message[:], submission[:]
		ex := exampleOf(t, x.name, x.summary, schemas.DeliveryEvent("", x.source, d, ""))
		ex.Precedence = schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode())
		ex.Bucket = ex.Precedence.Bucket()
		out = append(out, ex)
	}
	return out
}

// exampleOf is a record in both forms.
func exampleOf(t *testing.T, name, summary string, e schemas.Event) example {
	t.Helper()
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(e.Value)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e.Value)
	if err != nil {
		t.Fatal(err)
	}
	out := example{Name: name, Summary: summary, Headers: map[string]string{}, Key: e.Key, Value: base64.StdEncoding.EncodeToString(value)}
	if err := json.Unmarshal(text, &out.Payload); err != nil {
		t.Fatal(err)
	}
	for _, h := range e.Raw(value).Headers {
		out.Headers[h.Key] = string(h.Value)
	}
	return out
}

// render makes the document.
func render(t *testing.T) []byte {
	t.Helper()
	tmpl, err := template.New("asyncapi.yaml.tmpl").Funcs(template.FuncMap{
		"indent": func(n int, s string) string {
			lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
			for i, l := range lines {
				if l != "" {
					lines[i] = strings.Repeat(" ", n) + l
				}
			}
			return strings.Join(lines, "\n")
		},
		"json": func(v any) (string, error) { // JSON is YAML
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			err := enc.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
	}).ParseFiles("asyncapi.yaml.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, map[string]any{"ContentType": schemas.ContentType, "Prefix": schemas.DefaultPrefix, "Topics": publicTopics(t)}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// number reads a setting of a topic as the document has it.
func number(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
