package asyncapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var update = flag.Bool("update", false, "rewrite asyncapi.yaml")

const path = "asyncapi.yaml"

// TestDocument: the committed document is the one that the code generates.
func TestDocument(t *testing.T) {
	want := render(t)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says (go generate ./schemas/asyncapi rewrites it):\n%s", path, cmp.Diff(string(got), string(want)))
	}
}

// document has the parts of asyncapi.yaml that the tests below read.
type document struct {
	AsyncAPI           string
	DefaultContentType string
	Channels           map[string]struct {
		Address  string
		Messages map[string]ref
		Bindings struct{ Kafka channelBinding }
	}
	Operations map[string]struct {
		Action   string
		Channel  ref
		Messages []ref
	}
	Components struct{ Messages map[string]message }
}

type ref struct {
	Ref string `json:"$ref"`
}

type channelBinding struct {
	Topic              string
	Partitions         int32
	TopicConfiguration map[string]any
}

type message struct {
	Name         string
	ContentType  string
	ProtoMessage string `json:"x-proto-message"`
	ProtoFile    string `json:"x-proto-file"`
	Headers      struct {
		Required   []string
		Properties map[string]struct{ Const, Pattern string }
	}
	Payload  struct{ SchemaFormat, Schema string }
	Bindings struct {
		Kafka struct{ Key struct{ Pattern string } }
	}
	Examples []struct {
		Name    string
		Headers map[string]string
		Payload json.RawMessage
	}
	Records []struct {
		Name, Key, Value, Bucket string
		Precedence               uint32
	} `json:"x-example-records"`
}

// committed reads the document as an outside program does: from the file alone.
func committed(t *testing.T) document {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := yaml.Parser().Unmarshal(raw)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	checkReferences(t, tree, tree)
	return d
}

// checkReferences checks that every reference points to a node of the document.
func checkReferences(t *testing.T, root map[string]any, node any) {
	t.Helper()
	switch n := node.(type) {
	case map[string]any:
		if to, ok := n["$ref"].(string); ok {
			var at any = root
			for step := range strings.SplitSeq(strings.TrimPrefix(to, "#/"), "/") {
				m, _ := at.(map[string]any)
				at = m[step]
			}
			if at == nil {
				t.Errorf("$ref %s leads nowhere", to)
			}
		}
		for _, v := range n {
			checkReferences(t, root, v)
		}
	case []any:
		for _, v := range n {
			checkReferences(t, root, v)
		}
	}
}

// TestTopics: the document has every public topic and no other, with the settings with which it is created.
func TestTopics(t *testing.T) {
	d := committed(t)
	if got, want := d.AsyncAPI+" "+d.DefaultContentType, "3.0.0 "+schemas.ContentType; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	names, _ := schemas.NewNames(schemas.DefaultPrefix)
	var want []string
	for _, topic := range names.Fixed() {
		if !topic.Public {
			continue
		}
		want = append(want, topic.Name)
		channel := strings.TrimPrefix(topic.Name, schemas.DefaultPrefix)
		c := d.Channels[channel]
		k := c.Bindings.Kafka
		if c.Address != topic.Name || k.Topic != topic.Name || k.Partitions != topic.Partitions {
			t.Errorf("%s: got address %q, topic %q, %d partitions, want %d", topic.Name, c.Address, k.Topic, k.Partitions, topic.Partitions)
		}
		settings := topic.Configs()
		if got, want := slices.Sorted(maps.Keys(k.TopicConfiguration)), slices.Sorted(maps.Keys(settings)); !slices.Equal(got, want) {
			t.Errorf("%s: got settings %v, want %v", topic.Name, got, want)
		}
		for name, value := range settings {
			got := k.TopicConfiguration[name]
			if name == "cleanup.policy" {
				if d := cmp.Diff([]any{value}, got); d != "" {
					t.Errorf("%s: cleanup.policy (-want +got):\n%s", topic.Name, d)
				}
			} else if got != number(t, value) {
				t.Errorf("%s: %s: got %v, want %s", topic.Name, name, got, value)
			}
		}
	}
	var got []string
	for _, c := range d.Channels {
		got = append(got, c.Address)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("channels: got %v, want %v", got, want)
	}
	for name, o := range d.Operations {
		if o.Action != "send" || len(o.Messages) != 1 {
			t.Errorf("operation %s: got action %q with %d messages, want send with one", name, o.Action, len(o.Messages))
		}
	}
}

// TestMessages: the document's types, headers and keys are those of the records that the code makes.
func TestMessages(t *testing.T) {
	d := committed(t)
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, c := range map[string]struct {
		typ   schemas.EventType
		value proto.Message
		extra string
		event schemas.Event
	}{
		"campaign": {schemas.TypeCampaign, &fanfarev1.Campaign{}, schemas.HeaderVersion, schemas.Event{
			Key: schemas.CampaignKey("tn_a", "camp_7"), ID: "tn_a/camp_7@12", Tenant: "tn_a", Type: schemas.TypeCampaign, Source: "relay", Time: time.UnixMilli(1),
		}},
		"suppression": {schemas.TypeSuppression, &fanfarev1.Suppression{}, schemas.HeaderVersion, schemas.Event{
			Key: schemas.SuppressionKey("tn_a", [8]byte{1}), ID: schemas.SuppressionKey("tn_a", [8]byte{1}) + "@3", Tenant: "tn_a", Type: schemas.TypeSuppression, Source: "relay", Time: time.UnixMilli(1),
		}},
		"delivery": {schemas.TypeDelivery, &fanfarev1.Delivery{}, schemas.HeaderSource, schemas.DeliveryEvent("", "sender", &fanfarev1.Delivery{
			Tenant: "tn_a", Kind: schemas.KindSent, MessageId: bytes.Repeat([]byte{7, 0}, 8),
		}, "")},
		"reply": {schemas.TypeReply, &fanfarev1.Reply{}, schemas.HeaderTraceparent, schemas.ReplyEvent("", "inbound", &fanfarev1.Reply{
			Tenant: "tn_a", Id: "in_3f1c9a5be0d24c7788aa10b2c3d4e5f6", ConversationId: schemas.ConversationID("tn_a", schemas.ChannelSMS, "48000", "+393401234560"),
		})},
	} {
		m := d.Components.Messages[name]
		if got, want := m.Name, string(c.typ); got != want {
			t.Errorf("%s: got name %q, want %q", name, got, want)
		}
		if got, want := m.ProtoMessage, string(c.value.ProtoReflect().Descriptor().FullName()); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got, want := m.ProtoFile, "schemas/"+c.value.ProtoReflect().Descriptor().ParentFile().Path(); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		c.event.Traceparent = trace
		record := c.event.Raw(nil)
		said := map[string]bool{c.extra: true}
		for _, h := range record.Headers {
			said[h.Key] = true
			p, ok := m.Headers.Properties[h.Key]
			if !ok || p.Const != "" && p.Const != string(h.Value) || !regexp.MustCompile(p.Pattern).Match(h.Value) {
				t.Errorf("%s: header %s is %q, which the document does not allow (%+v)", name, h.Key, h.Value, p)
			}
			if optional := h.Key == schemas.HeaderTraceparent; slices.Contains(m.Headers.Required, h.Key) == optional {
				t.Errorf("%s: header %s: required is %v, want %v", name, h.Key, optional, !optional)
			}
		}
		for h := range m.Headers.Properties {
			if !said[h] {
				t.Errorf("%s: no record has header %s", name, h)
			}
		}
		if !regexp.MustCompile(m.Bindings.Kafka.Key.Pattern).Match(record.Key) {
			t.Errorf("%s: key %q does not match %s", name, record.Key, m.Bindings.Kafka.Key.Pattern)
		}
	}
}

var (
	fieldLine = regexp.MustCompile(`(?m)^  (?:repeated )?([A-Za-z0-9_.]+) ([a-z0-9_]+) = ([0-9]+);`)
	valueLine = regexp.MustCompile(`(?m)^  ([A-Z0-9_]+) = ([0-9]+);`)
	blockText = regexp.MustCompile(`(?ms)^(message|enum) ([A-Za-z]+) \{\n(.*?)^\}`)
)

// TestPayloads: the .proto text of a payload has the fields and numbers that the generated code has, all of them, and
// needs no other file.
func TestPayloads(t *testing.T) {
	for name, m := range committed(t).Components.Messages {
		if m.Payload.SchemaFormat != "application/vnd.google.protobuf;version=3" || strings.Contains(m.Payload.Schema, "import ") {
			t.Errorf("%s: got format %q, and a schema that must stand alone:\n%s", name, m.Payload.SchemaFormat, m.Payload.Schema)
		}
		found := map[string]bool{}
		for _, block := range blockText.FindAllStringSubmatch(m.Payload.Schema, -1) {
			found[block[2]] = true
			full := protoreflect.FullName("fanfare.v1." + block[2])
			desc, err := protoregistry.GlobalFiles.FindDescriptorByName(full)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got, want := map[string]string{}, map[string]string{}
			switch desc := desc.(type) {
			case protoreflect.MessageDescriptor:
				for _, f := range fieldLine.FindAllStringSubmatch(block[3], -1) {
					got[f[2]] = f[1] + " " + f[3]
				}
				for i := range desc.Fields().Len() {
					f := desc.Fields().Get(i)
					want[string(f.Name())] = fmt.Sprintf("%s %d", fieldType(f), f.Number())
				}
			case protoreflect.EnumDescriptor:
				for _, v := range valueLine.FindAllStringSubmatch(block[3], -1) {
					got[v[1]] = v[2]
				}
				for i := range desc.Values().Len() {
					v := desc.Values().Get(i)
					want[string(v.Name())] = fmt.Sprint(v.Number())
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s (-code +document):\n%s", name, full, d)
			}
		}
		root, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(m.ProtoMessage))
		if err != nil {
			t.Fatal(err)
		}
		for _, need := range needs(root.(protoreflect.MessageDescriptor)) {
			if !found[need] {
				t.Errorf("%s: the schema lacks %s", name, need)
			}
		}
	}
}

// fieldType is the type of a field as a .proto file spells it.
func fieldType(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Message() != nil:
		return string(f.Message().Name())
	case f.Enum() != nil:
		return string(f.Enum().Name())
	default:
		return f.Kind().String()
	}
}

// needs returns the types that a message uses, including its own.
func needs(m protoreflect.MessageDescriptor) []string {
	out := []string{string(m.Name())}
	for i := range m.Fields().Len() {
		switch f := m.Fields().Get(i); {
		case f.Message() != nil:
			out = append(out, needs(f.Message())...)
		case f.Enum() != nil:
			out = append(out, string(f.Enum().Name()))
		}
	}
	return out
}

// TestExamples: every example decodes, its JSON has the same content as its bytes, and its precedence is the one that
// the code computes.
func TestExamples(t *testing.T) {
	for name, m := range committed(t).Components.Messages {
		typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.ProtoMessage))
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Examples) == 0 || len(m.Records) != len(m.Examples) {
			t.Fatalf("%s: got %d examples and %d records of them", name, len(m.Examples), len(m.Records))
		}
		for i, e := range m.Examples {
			r := m.Records[i]
			fromJSON, fromWire := typ.New().Interface(), typ.New().Interface()
			if err := protojson.Unmarshal(e.Payload, fromJSON); err != nil {
				t.Errorf("%s %s: %v", name, e.Name, err)
			}
			b, err := base64.StdEncoding.DecodeString(r.Value)
			if err == nil {
				err = proto.Unmarshal(b, fromWire)
			}
			if err != nil || len(fromWire.ProtoReflect().GetUnknown()) > 0 || r.Name != e.Name {
				t.Errorf("%s %s: record %s: %v", name, e.Name, r.Name, err)
			}
			if d := cmp.Diff(fromJSON, fromWire, protocmp.Transform()); d != "" {
				t.Errorf("%s %s (-JSON +wire):\n%s", name, e.Name, d)
			}
			if !regexp.MustCompile(m.Bindings.Kafka.Key.Pattern).MatchString(r.Key) {
				t.Errorf("%s %s: key %q does not match", name, e.Name, r.Key)
			}
			for _, h := range m.Headers.Required {
				p := m.Headers.Properties[h]
				if v, ok := e.Headers[h]; !ok || p.Const != "" && v != p.Const || !regexp.MustCompile(p.Pattern).MatchString(v) {
					t.Errorf("%s %s: header %s is %q, want %+v", name, e.Name, h, v, p)
				}
			}
			if d, ok := fromWire.(*fanfarev1.Delivery); ok {
				p := schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode())
				if uint32(p) != r.Precedence || p.Bucket().String() != r.Bucket {
					t.Errorf("%s %s: got precedence %d %s, want %d %s", name, e.Name, r.Precedence, r.Bucket, p, p.Bucket())
				}
			}
		}
	}
}
