package schemas_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var update = flag.Bool("update", false, "write golden records that do not exist yet; never rewrites one")

// records returns one record of each type with every field set. It fills them by reflection, so that they include new
// fields automatically.
func records() map[string]proto.Message {
	out := map[string]proto.Message{
		"campaign": &fanfarev1.Campaign{}, "suppression": &fanfarev1.Suppression{},
		"control_route":  &fanfarev1.Control{Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{}}},
		"control_tenant": &fanfarev1.Control{Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{}}},
		"control_sender": &fanfarev1.Control{Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{}}},
		"control_domain": &fanfarev1.Control{Row: &fanfarev1.Control_Domain{Domain: &fanfarev1.Domain{}}},
		"chunk":          &fanfarev1.Chunk{}, "receipt": &fanfarev1.Receipt{}, "delivery": &fanfarev1.Delivery{},
		"message": &fanfarev1.Message{Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{}}},
		"held":    &fanfarev1.Held{}, "inbound": &fanfarev1.Inbound{}, "reply": &fanfarev1.Reply{}, "health": &fanfarev1.RouteHealth{},
	}
	for _, m := range out {
		fill(m.ProtoReflect(), 1)
	}
	return out
}

// fill sets every field outside a oneof to something that is not its zero value.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o := f.ContainingOneof(); o != nil && m.WhichOneof(o) != f {
			continue
		}
		one := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(string(f.Name()))
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(f.Name()))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(f.Enum().Values().Get(f.Enum().Values().Len() - 1).Number())
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(f.Number()) + 300)
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(uint64(f.Number()) + 1<<40)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(int64(f.Number()) + 1_790_000_000_000)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(int32(f.Number()))
			default:
				return m.NewField(f)
			}
		}
		switch {
		case f.IsList() && f.Message() != nil:
			l := m.Mutable(f).List()
			fill(l.AppendMutable().Message(), depth+1)
		case f.IsList():
			l := m.Mutable(f).List()
			if f.Kind() == protoreflect.Int64Kind {
				l.Append(protoreflect.ValueOfInt64(60_000))
			} else {
				l.Append(one())
			}
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, one())
		}
	}
}

// A record of any released version always decodes, and to the same content.
func TestGoldenRecords(t *testing.T) {
	for name, want := range records() {
		path := filepath.Join("golden", "v1", name+".binpb")
		golden, err := os.ReadFile(path)
		if os.IsNotExist(err) && *update {
			golden, err = proto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err == nil {
				err = os.WriteFile(path, golden, 0o644)
			}
		}
		if err != nil {
			t.Errorf("%s: %v (write new ones with go test ./schemas -update)", name, err)
			continue
		}
		got := want.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(golden, got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("%s: golden bytes hold fields that are not known any more", name)
		}
		// Every field of the golden record must still have the same meaning; it does not have the fields that were
		// added since.
		trim(want.ProtoReflect(), got.ProtoReflect())
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// trim clears in want the fields that golden does not have, so that a new field breaks no golden record.
func trim(want, golden protoreflect.Message) {
	want.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case !golden.Has(f):
			want.Clear(f)
		case f.Message() != nil && !f.IsList():
			trim(v.Message(), golden.Get(f).Message())
		case f.Message() != nil:
			for i := range min(v.List().Len(), golden.Get(f).List().Len()) {
				trim(v.List().Get(i).Message(), golden.Get(f).List().Get(i).Message())
			}
		}
		return true
	})
}
