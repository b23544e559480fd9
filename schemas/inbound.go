package schemas

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"
)

// OptOutFact is one action of a recipient that changes which messages the recipient gets.
type OptOutFact struct {
	// ID is the same for the same fact. A fact that was recorded once is not recorded again, whatever has happened
	// since.
	ID     string
	Tenant string
	// Phone is the recipient's number, E.164 with +. For an erased person the number is not known, and Hash is its
	// keyed hash in hexadecimal.
	Phone, Hash string
	// Channel is the channel that the recipient opts out of; unspecified: all.
	Channel Channel
	// Source is how the recipient did it: link or keyword. By is the id of the message that it answers, if that is
	// known. Text is what the recipient wrote.
	Source, By, Text string
	Time             time.Time
}

// MessageFact is a message that a recipient wrote, matched to a tenant.
type MessageFact struct {
	// ID is the same for the same message. A message that was recorded once is not recorded again.
	ID     string
	Tenant string
	// Phone wrote it, E.164 with +, to Sender, which is the tenant's.
	Phone, Sender string
	Channel       Channel
	Route, Text   string
	Time          time.Time
	// Message and Campaign are the last message from Sender to Phone and its campaign; "" when none is known.
	Message, Campaign string
	Test              bool
	Meaning           ReplyMeaning
	// Confirmation is sent to Phone when the message has changed its opt-out; "": nothing is sent.
	Confirmation string
}

// ConversationID returns the id of all messages between one number and one sender of a tenant on one channel.
func ConversationID(tenant string, channel Channel, sender, phone string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{tenant, ChannelName(channel), sender, NumberKey(phone)}, "\x00")))
	return "conv_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
}

// MayReceive reports whether recipients can write to a sender of a channel: to a number or a short code by SMS, and to
// every sender by RCS and WhatsApp.
func MayReceive(channel Channel, sender string) bool {
	switch channel {
	case ChannelRCS, ChannelWhatsApp:
		return true
	case ChannelSMS:
		digits := strings.TrimPrefix(sender, "+")
		return digits != "" && strings.Trim(digits, "0123456789") == ""
	default:
		return false
	}
}
