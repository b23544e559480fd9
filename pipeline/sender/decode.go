package sender

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/wire"
)

// errForged is the cause in the dead letter of a record whose submission id was not signed with one of our keys.
var errForged = errors.New("the signature of the submission id is not of this installation's keys")

// identify returns the submission id in the header of a message's record, once its signature is verified: a process
// that can write to the topic but does not have the keys must not be able to have a message sent, or a real one dropped
// as its duplicate.
func identify(keys *schemas.Keys, r *kgo.Record) (schemas.ID, error) {
	text := schemas.Header(r, schemas.HeaderSubmission)
	if text == nil {
		return schemas.ID{}, fmt.Errorf("%w: no header %s", schemas.ErrID, schemas.HeaderSubmission)
	}
	id, err := schemas.ParseID(string(text))
	switch {
	case err != nil:
		return schemas.ID{}, err
	case id.Try() == 0:
		return schemas.ID{}, fmt.Errorf("%w: a message, want a submission", schemas.ErrID)
	case keys.Verify(id) != nil:
		return schemas.ID{}, errForged
	}
	return id, nil
}

// decode reads the message of the submission id, which [identify] has verified. An error means poison: the record has
// no recipient, is in the wrong topic, or is not the message that the id names. The message may point into buf, so it
// is valid only as long as buf is.
func decode(id schemas.ID, route string, r *kgo.Record, buf *wire.MessageBuf) (*fanfarev1.Message, error) {
	m, err := buf.Read(r.Value)
	if err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	if err := check(m, route); err != nil {
		return nil, err
	}
	if id.CampaignNumber() != m.GetCampaignNumber() || id.Seq() != m.GetSeq() || uint32(id.Try()) != m.GetTry() {
		return nil, fmt.Errorf("header %s names another message than the record has", schemas.HeaderSubmission)
	}
	return m, nil
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

// campaignIs is id == schemas.CampaignID(n) without an allocation.
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
