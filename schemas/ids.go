package schemas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// Bounds of the fields of an ID.
const (
	MaxCampaignNumber = 1<<48 - 1
	MaxSeq            = 1<<24 - 1
	MaxTry            = 1<<8 - 1
)

// Limits of the numbers in a delivery event. Stores of statistics have this much room for each.
const (
	// MaxSegments is the most segments of one message. A longer text is too long, and its outcome has this number.
	MaxSegments = 1<<8 - 1
	// MaxPriceMicros is the highest price of one segment, in millionths of the currency: about 4,294 units.
	MaxPriceMicros = 1<<32 - 1
)

// An ID names a message (campaign, seq), with try 0, or a submission of it (campaign, seq, try), with try 1..255. Its
// 128 bits are campaign number 48 | seq 24 | try 8 | truncated HMAC-SHA256 48: a component that receives an id, such as
// the receipt endpoint, finds the message without a look-up, and only the holder of the key can make an id. The same
// message and try always have the same id, so work that is done twice does not get a second id.
type ID [16]byte

// CampaignNumber returns the number of the campaign.
func (id ID) CampaignNumber() uint64 { return binary.BigEndian.Uint64(id[:]) >> 16 }

// Seq returns the recipient's number within the audience.
func (id ID) Seq() uint32 { return binary.BigEndian.Uint32(id[5:]) & MaxSeq }

// Try returns the try of a submission, 0 of a message.
func (id ID) Try() uint8 { return id[9] }

// IsZero reports whether id is the zero value, which is not an id.
func (id ID) IsZero() bool { return id == ID{} }

// idText is Crockford's base32 alphabet, which has no letters that look like others.
var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const (
	messagePrefix    = "msg_"
	submissionPrefix = "sub_"
	idTextLen        = len(messagePrefix) + 26
)

// String returns the public form, `msg_…` of a message and `sub_…` of a submission: 30 characters.
func (id ID) String() string {
	var buf [idTextLen]byte
	return string(id.AppendTo(buf[:0]))
}

// AppendTo appends the public form to b.
func (id ID) AppendTo(b []byte) []byte {
	if id.Try() == 0 {
		b = append(b, messagePrefix...)
	} else {
		b = append(b, submissionPrefix...)
	}
	return idText.AppendEncode(b, id[:])
}

// ErrID is returned for a text that is not an id, and for an id that is not signed by one of our keys.
var ErrID = errors.New("not an id of this installation")

// ParseID parses the public form. It does not check the signature: see [Keys.Verify].
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != idTextLen {
		return ID{}, fmt.Errorf("%w: want %d characters, got %d", ErrID, idTextLen, len(s))
	}
	if _, err := idText.Decode(id[:], []byte(s[len(messagePrefix):])); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrID, err)
	}
	want := submissionPrefix
	if id.Try() == 0 {
		want = messagePrefix
	}
	if s[:len(want)] != want {
		return ID{}, fmt.Errorf("%w: prefix %q, want %q", ErrID, s[:len(want)], want)
	}
	return id, nil
}

// IDFromBytes reads the 16 bytes of an id, as records carry it.
func IDFromBytes(b []byte) (ID, error) {
	if len(b) != len(ID{}) {
		return ID{}, fmt.Errorf("%w: want 16 bytes, got %d", ErrID, len(b))
	}
	return ID(b), nil
}

// Keys sign ids and hash numbers. The first key signs; all of them verify. To rotate a key, put the new one first.
type Keys struct {
	macs []*sync.Pool
}

// NewKeys returns Keys of one or two secrets of at least 16 bytes each.
func NewKeys(secrets ...[]byte) (*Keys, error) {
	if len(secrets) < 1 || len(secrets) > 2 {
		return nil, fmt.Errorf("id keys: want one or two, got %d", len(secrets))
	}
	k := &Keys{}
	for _, s := range secrets {
		if len(s) < 16 {
			return nil, fmt.Errorf("id keys: want at least 16 bytes, got %d", len(s))
		}
		k.macs = append(k.macs, &sync.Pool{New: func() any { return &mac{h: hmac.New(sha256.New, s)} }})
	}
	return k, nil
}

// Message returns the id of a message.
func (k *Keys) Message(campaign uint64, seq uint32) ID { return k.Submission(campaign, seq, 0) }

// Submission returns the id of the given try of a message; try 0 is the message itself. The arguments are truncated to
// 48, 24 and 8 bits; the code that assigns the numbers ensures these limits.
func (k *Keys) Submission(campaign uint64, seq uint32, try uint8) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:], campaign<<16|uint64(seq>>8)&0xffff)
	id[8], id[9] = byte(seq), try
	tag := k.sum(0, 'i', id[:10])
	copy(id[10:], tag[:])
	return id
}

// MessageOf returns the id of the message that id is a submission of.
func (k *Keys) MessageOf(id ID) ID { return k.Message(id.CampaignNumber(), id.Seq()) }

// Verify returns [ErrID] when none of the keys has signed id.
func (k *Keys) Verify(id ID) error {
	for i := range k.macs {
		tag := k.sum(i, 'i', id[:10])
		if hmac.Equal(tag[:6], id[10:]) {
			return nil
		}
	}
	return ErrID
}

// NumberHash returns the hash of a phone number in the suppressions of a tenant. The number cannot be computed from it;
// it differs between tenants, and is the same for all forms of a number ([NumberKey]). It uses only the first key:
// after a rotation, the suppressions must be published again.
func (k *Keys) NumberHash(tenant, e164 string) [8]byte {
	buf := make([]byte, 0, 64)
	buf = append(buf, tenant...)
	buf = append(buf, 0)
	buf = append(buf, NumberKey(e164)...)
	return k.sum(0, 'n', buf)
}

// Sign returns the MAC of a text, such as a link that expires. The text must include its purpose, so that its MAC is
// not valid for another purpose.
func (k *Keys) Sign(text string) []byte { return k.whole(0, text) }

// Signed reports whether one of the keys has signed the text.
func (k *Keys) Signed(text string, mac []byte) bool {
	for i := range k.macs {
		if hmac.Equal(k.whole(i, text), mac) {
			return true
		}
	}
	return false
}

// whole returns the MAC of a text, not truncated.
func (k *Keys) whole(key int, text string) []byte {
	m, _ := k.macs[key].Get().(*mac)
	defer k.macs[key].Put(m)
	m.h.Reset()
	m.h.Write(append([]byte{'l'}, text...))
	return m.h.Sum(nil)
}

// mac is a keyed hash and the memory that its input and output pass through: both escape to the heap, and one is made
// per message.
type mac struct {
	h   hash.Hash
	buf [sha256.Size]byte
}

// sum is the truncated MAC; purpose keeps the uses of one key apart.
func (k *Keys) sum(key int, purpose byte, b []byte) (out [8]byte) {
	m, _ := k.macs[key].Get().(*mac)
	m.h.Reset()
	m.buf[0] = purpose
	n := copy(m.buf[1:], b)
	m.h.Write(m.buf[:1+n])
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = copy(m.buf[:], b)
		m.h.Write(m.buf[:n])
	}
	copy(out[:], m.h.Sum(m.buf[:0]))
	k.macs[key].Put(m)
	return out
}

const campaignPrefix = "camp_"

// CampaignID returns the public id of a campaign, such as camp_12345 (R105).
func CampaignID(number uint64) string { return campaignPrefix + strconv.FormatUint(number, 10) }

// CampaignNumber reads the public id of a campaign.
func CampaignNumber(id string) (uint64, error) {
	digits, ok := strings.CutPrefix(id, campaignPrefix)
	if !ok {
		return 0, fmt.Errorf("campaign id %q: want %s and a number", id, campaignPrefix)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > MaxCampaignNumber || digits != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("campaign id %q: want %s and a number", id, campaignPrefix)
	}
	return n, nil
}
