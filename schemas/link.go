package schemas

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/bits"
)

// A Link identifies a link of a campaign's text for one recipient. Its text form is the token that follows the base
// address in the message. A token contains the campaign, the recipient, the number of the link and a MAC. So no row per
// recipient is needed, and only the installation can make tokens.
type Link struct {
	Campaign uint64
	Seq      uint32
	// Number within the campaign's [LinkTable]; [LinkOptOut] leads to the opt-out page.
	Number uint8
}

// Bounds of links.
const (
	// LinkOptOut is the number of {{opt_out}}, the opt-out page of every campaign.
	LinkOptOut = 0
	// MaxLink is the greatest number of a link of a campaign.
	MaxLink = 1<<6 - 1

	// shortCampaign is the greatest campaign number whose tokens have [linkShort] letters. Tokens of later campaigns
	// have [linkLong].
	shortCampaign = 1<<25 - 1
	linkShort     = 16
	linkLong      = 20
	// linkMAC is how many bits of the MAC a token has. At the rate limit of the edge for one address, guessing one
	// valid token takes thousands of years, and the attacker would gain only a link that the campaign's author chose.
	linkMAC = 40
)

// ErrLink is returned for a text that is not a token of this installation.
var ErrLink = errors.New("not a link of this installation")

// LinkLen is how many letters the tokens of a campaign have: 16, and 20 for a number of 2^25 and more.
func LinkLen(campaign uint64) int {
	if campaign > shortCampaign {
		return linkLong
	}
	return linkShort
}

const (
	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	// tenDigits is 62^10, the most powers of 62 that fit into 63 bits.
	tenDigits = 839_299_365_868_340_224
)

// base62Value has the value of each letter; 0xff marks a byte that is not one.
var base62Value = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i := range len(base62) {
		v[base62[i]] = byte(i)
	}
	return v
}()

// AppendLink appends the token of a link to b. The fields are cut to 48, 24 and 6 bits.
func (k *Keys) AppendLink(b []byte, l Link) []byte {
	l.Campaign, l.Seq, l.Number = l.Campaign&MaxCampaignNumber, l.Seq&MaxSeq, l.Number&MaxLink
	mac := k.linkMAC(0, l)
	// campaign | seq 24 | number 6 | MAC 40 as one number of 128 bits.
	hi, lo := uint64(0), l.Campaign
	for _, part := range []struct{ width, value uint64 }{{24, uint64(l.Seq)}, {6, uint64(l.Number)}, {linkMAC, mac}} {
		hi, lo = hi<<part.width|lo>>(64-part.width), lo<<part.width|part.value
	}
	n := LinkLen(l.Campaign)
	high, low := bits.Div64(hi, lo, tenDigits)
	start := len(b)
	b = append(b, "00000000000000000000"[:n]...)
	token := b[start:]
	for i := n - 1; i >= 0; i-- {
		v := &low
		if i < n-10 {
			v = &high
		}
		token[i] = base62[*v%62]
		*v /= 62
	}
	return b
}

// ParseLink parses a token and checks its MAC. The error is [ErrLink] for a text that is not a token of this
// installation. It takes less than a microsecond and allocates nothing, for any input.
func (k *Keys) ParseLink(token string) (Link, error) {
	if len(token) != linkShort && len(token) != linkLong {
		return Link{}, ErrLink
	}
	var high, low uint64
	for i := range len(token) {
		d := base62Value[token[i]]
		if d == 0xff {
			return Link{}, ErrLink
		}
		if i < len(token)-10 {
			high = high*62 + uint64(d)
		} else {
			low = low*62 + uint64(d)
		}
	}
	hi, lo := bits.Mul64(high, tenDigits)
	lo, carry := bits.Add64(lo, low, 0)
	hi += carry
	take := func(width uint64) uint64 {
		v := lo & (1<<width - 1)
		hi, lo = hi>>width, lo>>width|hi<<(64-width)
		return v
	}
	mac := take(linkMAC)
	number := take(6)
	seq := take(24)
	l := Link{Campaign: lo, Seq: uint32(seq), Number: uint8(number)}
	if hi != 0 || lo > MaxCampaignNumber || LinkLen(lo) != len(token) {
		return Link{}, ErrLink
	}
	for key := range k.macs {
		var want, got [8]byte
		binary.BigEndian.PutUint64(want[:], k.linkMAC(key, l))
		binary.BigEndian.PutUint64(got[:], mac)
		if subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
			return l, nil
		}
	}
	return Link{}, ErrLink
}

// linkMAC is the MAC of a link by one of the keys.
func (k *Keys) linkMAC(key int, l Link) uint64 {
	var b [13]byte
	binary.BigEndian.PutUint64(b[:], l.Campaign)
	binary.BigEndian.PutUint32(b[8:], l.Seq)
	b[12] = l.Number
	tag := k.sum(key, 'l', b[:])
	return binary.BigEndian.Uint64(tag[:]) >> (64 - linkMAC)
}

// ClickClass returns who opened a link, from the code of the event, in the words of the API and the metrics.
func ClickClass(code Code) string {
	switch code {
	case CodeUnspecified:
		return "person"
	case CodePreview:
		return "preview"
	case CodeBot:
		return "scanner"
	default:
		return "unknown"
	}
}
