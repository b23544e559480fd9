package sender

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Identity returns the submission id that a message's record names in its header; the intent window recognises twins by it.
func Identity(r *kgo.Record) (schemas.ID, error) {
	for i := range r.Headers {
		if r.Headers[i].Key == schemas.HeaderSubmission {
			id, err := schemas.ParseID(string(r.Headers[i].Value))
			if err == nil && id.Try() == 0 {
				return id, fmt.Errorf("%w: a message, want a submission", schemas.ErrID)
			}
			return id, err
		}
	}
	return schemas.ID{}, fmt.Errorf("%w: no header %s", schemas.ErrID, schemas.HeaderSubmission)
}

// sheet has room for a message of a text, which most are, so that a batch of them is one allocation.
type sheet struct {
	message fanfarev1.Message
	body    fanfarev1.Message_Text
	text    fanfarev1.Text
}

// decode reads a message and the id of its submission. What it refuses is poison: nobody can say to whom it goes, or it is in
// the wrong place. id is what the header says even then, zero when it says nothing. The message lies in s, and lives as long.
func decode(keys *schemas.Keys, route string, r *kgo.Record, s *sheet) (m *fanfarev1.Message, id schemas.ID, err error) {
	id, headerErr := Identity(r)
	if m, err = s.read(r.Value); err != nil {
		return nil, id, fmt.Errorf("decode message: %w", err)
	}
	if err := check(m, route); err != nil {
		return nil, id, err
	}
	switch {
	case headerErr != nil: // what the record itself says will do
		return m, keys.Submission(m.GetCampaignNumber(), m.GetSeq(), uint8(m.GetTry())), nil //nolint:nilerr // see above
	case id.CampaignNumber() != m.GetCampaignNumber() || id.Seq() != m.GetSeq() || uint32(id.Try()) != m.GetTry():
		return nil, id, fmt.Errorf("header %s names another message than the record has", schemas.HeaderSubmission)
	}
	return m, id, nil
}

func check(m *fanfarev1.Message, route string) error {
	switch {
	case m.GetTenant() == "" || m.GetTo() == "":
		return errors.New("message without tenant or recipient")
	case m.GetTry() < 1 || m.GetTry() > schemas.MaxTry || m.GetSeq() > schemas.MaxSeq || m.GetCampaignNumber() > schemas.MaxCampaignNumber:
		return errors.New("message with numbers out of range")
	case !campaignIs(m.GetCampaignId(), m.GetCampaignNumber()):
		return errors.New("message whose campaign id and number differ")
	case m.GetRoute() != route:
		return fmt.Errorf("message of route %q", m.GetRoute())
	case m.GetBody() == nil:
		return errors.New("message without a body")
	}
	return nil
}

// campaignIs is id == schemas.CampaignID(n) without making the text.
func campaignIs(id string, n uint64) bool {
	const prefix = "camp_"
	if len(id) <= len(prefix) || id[:len(prefix)] != prefix {
		return false
	}
	i := len(id) - 1
	for ; i >= len(prefix); i-- {
		if id[i] != byte('0'+n%10) {
			return false
		}
		if n /= 10; n == 0 {
			break
		}
	}
	return i == len(prefix)
}

// Numbers of the fields of fanfare.v1.Message and of its text. A fuzz test compares what is read here with the generated code.
const (
	fieldTenant          protowire.Number = 1
	fieldCampaignID      protowire.Number = 2
	fieldCampaignNumber  protowire.Number = 3
	fieldCampaignVersion protowire.Number = 4
	fieldSeq             protowire.Number = 5
	fieldTry             protowire.Number = 6
	fieldLeg             protowire.Number = 7
	fieldChannel         protowire.Number = 8
	fieldRoute           protowire.Number = 9
	fieldSender          protowire.Number = 10
	fieldTo              protowire.Number = 11
	fieldText            protowire.Number = 12
	fieldSegments        protowire.Number = 16
	fieldPrice           protowire.Number = 17
	fieldCurrency        protowire.Number = 18
	fieldVariant         protowire.Number = 19
	fieldNotBefore       protowire.Number = 20
	fieldNotAfter        protowire.Number = 21
	fieldTest            protowire.Number = 22
	fieldCountry         protowire.Number = 23
	fieldZone            protowire.Number = 24
	fieldContactID       protowire.Number = 25
	fieldCustomerRef     protowire.Number = 26

	fieldTextBody     protowire.Number = 1
	fieldTextEncoding protowire.Number = 2
)

// read decodes a message. One of a text, written as all of ours are, takes one allocation, for a copy that all its texts lie
// in; whatever else it meets it leaves to the generated code.
func (s *sheet) read(value []byte) (*fanfarev1.Message, error) {
	if s.quick(value) {
		return &s.message, nil
	}
	m := &fanfarev1.Message{}
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, err
	}
	return m, nil
}

// quick reads fields of known numbers and types into the sheet; false when there is anything else. Of a field that comes twice
// the last one stands, as in the generated code.
func (s *sheet) quick(value []byte) bool {
	texts := string(value)
	for at := 0; at < len(value); {
		num, typ, n := protowire.ConsumeTag(value[at:])
		if n < 0 {
			return false
		}
		at += n
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(value[at:])
			if n < 0 || !s.number(num, v) {
				return false
			}
			at += n
		case protowire.BytesType:
			size, n := protowire.ConsumeVarint(value[at:])
			if n < 0 || size > uint64(len(value)-at-n) {
				return false
			}
			at += n
			end := at + int(size)
			if num == fieldText {
				if !s.readText(value[at:end], texts[at:end]) {
					return false
				}
			} else if text := texts[at:end]; !utf8.ValidString(text) || !s.string(num, text) {
				return false
			}
			at = end
		default:
			return false
		}
	}
	return true
}

func (s *sheet) number(num protowire.Number, v uint64) bool {
	m := &s.message
	switch num {
	case fieldCampaignNumber:
		m.CampaignNumber = v
	case fieldCampaignVersion:
		m.CampaignVersion = v
	case fieldSeq:
		m.Seq = uint32(v)
	case fieldTry:
		m.Try = uint32(v)
	case fieldLeg:
		m.Leg = uint32(v)
	case fieldChannel:
		m.Channel = fanfarev1.Channel(v & math.MaxUint32)
	case fieldSegments:
		m.Segments = uint32(v)
	case fieldPrice:
		m.PriceMicros = v
	case fieldVariant:
		m.Variant = uint32(v)
	case fieldNotBefore:
		m.NotBeforeMs = int64(v)
	case fieldNotAfter:
		m.NotAfterMs = int64(v)
	case fieldTest:
		m.Test = protowire.DecodeBool(v)
	case fieldContactID:
		m.ContactId = v
	default:
		return false
	}
	return true
}

func (s *sheet) string(num protowire.Number, text string) bool {
	m := &s.message
	switch num {
	case fieldTenant:
		m.Tenant = text
	case fieldCampaignID:
		m.CampaignId = text
	case fieldRoute:
		m.Route = text
	case fieldSender:
		m.Sender = text
	case fieldTo:
		m.To = text
	case fieldCurrency:
		m.Currency = text
	case fieldCountry:
		m.Country = text
	case fieldZone:
		m.Zone = text
	case fieldCustomerRef:
		m.CustomerRef = text
	default:
		return false
	}
	return true
}

func (s *sheet) readText(value []byte, texts string) bool {
	for at := 0; at < len(value); {
		num, typ, n := protowire.ConsumeTag(value[at:])
		if n < 0 {
			return false
		}
		at += n
		switch {
		case num == fieldTextBody && typ == protowire.BytesType:
			size, n := protowire.ConsumeVarint(value[at:])
			if n < 0 || size > uint64(len(value)-at-n) {
				return false
			}
			at += n
			end := at + int(size)
			if s.text.Body = texts[at:end]; !utf8.ValidString(s.text.Body) {
				return false
			}
			at = end
		case num == fieldTextEncoding && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(value[at:])
			if n < 0 {
				return false
			}
			s.text.Encoding = fanfarev1.Encoding(v & math.MaxUint32)
			at += n
		default:
			return false
		}
	}
	s.body.Text = &s.text
	s.message.Body = &s.body
	return true
}
