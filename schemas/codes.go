package schemas

import (
	"strings"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Retry says whether a failure is worth another try.
type Retry uint8

// Retry policies of a sub-status.
const (
	RetryNo   Retry = iota
	RetryYes        // after the backoff of the channel
	RetryLong       // after the last, longest backoff at once: the cause takes time to go
	RetryOnce       // one more hand-over at most
)

// CodeInfo is one row of the table of sub-statuses. Retry, Fallback and Billed are our defaults, not the carriers' (requirements §4).
type CodeInfo struct {
	Code        fanfarev1.Code
	Bucket      Bucket
	Retry       Retry
	Fallback    bool   // the next channel of the chain may be tried
	Billed      bool   // counts for the bill when the message was handed over
	Suppress    bool   // the number itself is bad
	Description string // what a person sees hovering over it (R145)
}

// Codes is the one table of sub-statuses, by number. A code not in it keeps its raw value and counts in the bucket of its kind.
var Codes = []CodeInfo{
	{fanfarev1.Code_CODE_BOT, BucketFact, RetryNo, false, false, false, "Opened by a scanner or a link preview, not by a person."},

	{fanfarev1.Code_CODE_DELIVERED, BucketDelivered, RetryNo, false, true, false, "Delivered to the handset."},
	{fanfarev1.Code_CODE_READ, BucketDelivered, RetryNo, false, true, false, "Read by the recipient."},
	{fanfarev1.Code_CODE_ANSWERED, BucketDelivered, RetryNo, false, true, false, "The call was answered by a person."},
	{fanfarev1.Code_CODE_VOICEMAIL_LEFT, BucketDelivered, RetryNo, false, true, false, "A voicemail was left."},

	{fanfarev1.Code_CODE_AWAITING_DLR, BucketAwaiting, RetryNo, false, true, false, "Taken by the carrier; no receipt yet."},
	{fanfarev1.Code_CODE_ENROUTE, BucketAwaiting, RetryNo, false, true, false, "The carrier is still trying."},
	{fanfarev1.Code_CODE_NO_DLR, BucketAwaiting, RetryNo, false, true, false, "No receipt came within the receipt window."},

	{fanfarev1.Code_CODE_PAUSED, BucketPending, RetryYes, false, false, false, "Given back: the campaign was paused."},
	{fanfarev1.Code_CODE_SUSPENDED, BucketPending, RetryYes, false, false, false, "Given back: the campaign was suspended."},
	{fanfarev1.Code_CODE_WINDOW, BucketPending, RetryYes, false, false, false, "Given back: calling hours are over."},
	{fanfarev1.Code_CODE_RATE, BucketPending, RetryYes, false, false, false, "Given back: a limit below the route's had no room."},
	{fanfarev1.Code_CODE_BREAKER, BucketPending, RetryYes, false, false, false, "Given back: the carrier is not answering."},
	{fanfarev1.Code_CODE_UNSUPPORTED, BucketPending, RetryYes, true, false, false, "Given back: this channel cannot reach the recipient."},
	{fanfarev1.Code_CODE_THROTTLED, BucketPending, RetryYes, false, false, false, "Given back: the carrier asked to slow down."},
	{fanfarev1.Code_CODE_CONTROL_BEHIND, BucketPending, RetryYes, false, false, false, "Given back: the campaign's newest state had not arrived."},

	{fanfarev1.Code_CODE_TIMEOUT, BucketAmbiguous, RetryNo, false, false, false, "The carrier did not answer in time; it may have the message."},
	{fanfarev1.Code_CODE_CRASH, BucketAmbiguous, RetryNo, false, false, false, "A process ended while handing over; the carrier may have the message."},
	{fanfarev1.Code_CODE_LOST, BucketAmbiguous, RetryNo, false, false, false, "No outcome was ever recorded."},

	{fanfarev1.Code_CODE_RENDER_ERROR, BucketNotSent, RetryNo, false, false, false, "The text could not be made for this recipient."},
	{fanfarev1.Code_CODE_VALIDITY_EXPIRED, BucketNotSent, RetryNo, false, false, false, "Its time was over before it could be sent."},
	{fanfarev1.Code_CODE_TRIES_SPENT, BucketNotSent, RetryNo, false, false, false, "Given back too often."},

	{fanfarev1.Code_CODE_EXPIRED, BucketUndelivered, RetryOnce, true, true, false, "The carrier gave up within the validity period."},
	{fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, BucketUndelivered, RetryYes, true, true, false, "The handset was out of reach."},
	{fanfarev1.Code_CODE_HANDSET_OFF, BucketUndelivered, RetryYes, true, true, false, "The handset was switched off."},
	{fanfarev1.Code_CODE_HANDSET_BUSY, BucketUndelivered, RetryYes, true, true, false, "The handset was busy."},
	{fanfarev1.Code_CODE_MEMORY_FULL, BucketUndelivered, RetryLong, true, true, false, "The handset's memory was full."},
	{fanfarev1.Code_CODE_NETWORK_ERROR, BucketUndelivered, RetryYes, true, true, false, "An error in the operator's network."},
	{fanfarev1.Code_CODE_ROAMING_OR_OPERATOR_FAIL, BucketUndelivered, RetryYes, true, true, false, "The operator failed to deliver, possibly while roaming."},
	{fanfarev1.Code_CODE_PROVIDER_ERROR, BucketUndelivered, RetryYes, true, false, false, "An error at the provider."},
	{fanfarev1.Code_CODE_UNDELIVERED_OTHER, BucketUndelivered, RetryNo, true, true, false, "Not delivered, for a reason the carrier's code names."},
	{fanfarev1.Code_CODE_HANDSET_ERROR, BucketUndelivered, RetryNo, true, true, false, "The handset refused the message."},
	{fanfarev1.Code_CODE_PARTIAL, BucketUndelivered, RetryNo, false, true, false, "Some parts of a long message did not arrive."},
	{fanfarev1.Code_CODE_BARRED, BucketUndelivered, RetryNo, true, true, false, "The operator bars this number from receiving."},
	{fanfarev1.Code_CODE_OPERATOR_SERIES_BLOCK, BucketUndelivered, RetryNo, true, true, false, "The operator blocks this number range."},
	{fanfarev1.Code_CODE_OPERATOR_BLACKLIST, BucketUndelivered, RetryNo, false, true, false, "The operator has blacklisted the number or the sender."},
	{fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER, BucketUndelivered, RetryNo, true, true, true, "The number is not in use."},

	{fanfarev1.Code_CODE_NOT_SENT_OTHER, BucketNotSent, RetryNo, false, false, false, "Refused, for a reason the carrier's code names."},
	{fanfarev1.Code_CODE_NO_CREDITS, BucketNotSent, RetryNo, false, false, false, "The account had no credit."},
	{fanfarev1.Code_CODE_QUIET_HOURS_EXPIRED, BucketNotSent, RetryNo, false, false, false, "Calling hours left no time before its end."},
	{fanfarev1.Code_CODE_RCS_NOT_CAPABLE, BucketNotSent, RetryNo, true, false, false, "The recipient has no RCS."},
	{fanfarev1.Code_CODE_NOT_WHATSAPP_USER, BucketNotSent, RetryNo, true, false, false, "The recipient is not on WhatsApp."},
	{fanfarev1.Code_CODE_TEMPLATE_NOT_FOUND, BucketNotSent, RetryNo, true, false, false, "The template does not exist."},
	{fanfarev1.Code_CODE_TEMPLATE_MISMATCH, BucketNotSent, RetryNo, true, false, false, "The text does not match its template."},
	{fanfarev1.Code_CODE_TEMPLATE_PAUSED, BucketNotSent, RetryNo, true, false, false, "The template is paused."},
	{fanfarev1.Code_CODE_SENDER_INVALID, BucketNotSent, RetryNo, false, false, false, "The sender id is not allowed."},
	{fanfarev1.Code_CODE_TOO_LONG, BucketNotSent, RetryNo, false, false, false, "The text has more segments than allowed."},
	{fanfarev1.Code_CODE_SPAM_CONTENT, BucketNotSent, RetryNo, false, false, false, "The text was classed as spam."},
	{fanfarev1.Code_CODE_SERIES_BLOCKED, BucketNotSent, RetryNo, false, false, false, "This number range is blocked."},
	{fanfarev1.Code_CODE_COUNTRY_NOT_ENABLED, BucketNotSent, RetryNo, false, false, false, "The country is not enabled."},
	{fanfarev1.Code_CODE_TENANT_DISABLED, BucketNotSent, RetryNo, false, false, false, "The account is disabled."},
	{fanfarev1.Code_CODE_KYC, BucketNotSent, RetryNo, false, false, false, "The account's identity check is missing."},
	{fanfarev1.Code_CODE_INVALID_NUMBER, BucketNotSent, RetryNo, false, false, true, "Not a number that can receive messages."},

	{fanfarev1.Code_CODE_CANCELLED, BucketSkipped, RetryNo, false, false, false, "The campaign was ended first."},
	{fanfarev1.Code_CODE_FREQUENCY_CAP, BucketSkipped, RetryNo, false, false, false, "The recipient already had enough messages."},
	{fanfarev1.Code_CODE_QUOTA_COUNTRY, BucketSkipped, RetryNo, false, false, false, "The country's quota was used up."},
	{fanfarev1.Code_CODE_DUPLICATE_CONTENT, BucketSkipped, RetryNo, false, false, false, "The recipient already had this text."},
	{fanfarev1.Code_CODE_DUPLICATE_RECIPIENT, BucketSkipped, RetryNo, false, false, false, "The number is in the audience twice; it is sent to once."},
	{fanfarev1.Code_CODE_NOT_OPTED_IN, BucketSkipped, RetryNo, false, false, false, "The recipient has not opted in."},
	{fanfarev1.Code_CODE_DND_REGISTRY, BucketSkipped, RetryNo, false, false, false, "The number is in a do-not-disturb registry."},
	{fanfarev1.Code_CODE_BLACKLISTED, BucketSkipped, RetryNo, false, false, false, "The number is on the blacklist."},
	{fanfarev1.Code_CODE_OPTED_OUT, BucketSkipped, RetryNo, false, false, false, "The recipient has opted out."},
}

var codeTable = func() map[fanfarev1.Code]*CodeInfo {
	t := make(map[fanfarev1.Code]*CodeInfo, len(Codes))
	for i := range Codes {
		t[Codes[i].Code] = &Codes[i]
	}
	return t
}()

// LookupCode returns the row of code; ok is false for a code that is not in the table.
func LookupCode(code fanfarev1.Code) (info CodeInfo, ok bool) {
	if row := codeTable[code]; row != nil {
		return *row, true
	}
	return CodeInfo{Code: code}, false
}

// CodeName returns the sub-status as the API spells it, such as ABSENT_SUBSCRIBER; "" of none.
func CodeName(code fanfarev1.Code) string {
	if code == fanfarev1.Code_CODE_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(code.String(), "CODE_")
}

// ParseCode reads the name of a sub-status.
func ParseCode(name string) (fanfarev1.Code, bool) {
	n, ok := fanfarev1.Code_value["CODE_"+name]
	return fanfarev1.Code(n), ok && n != 0
}
