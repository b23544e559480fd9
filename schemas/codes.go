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
	RetryLong       // immediately with the last, longest wait, because the cause lasts for some time
	RetryOnce       // one more hand-over at most
)

// CodeInfo is one row of the table of sub-statuses. Retry, Fallback and Billed are our own defaults, not rules of the
// carriers (requirements §4).
type CodeInfo struct {
	Code        Code
	Bucket      Bucket
	Retry       Retry
	Fallback    bool   // the next channel of the chain may be tried
	Billed      bool   // counts for the bill when the message was handed over
	Suppress    bool   // the number itself is the cause
	Description string // shown as a tooltip (R145)
}

// Codes is the table of all sub-statuses, by number. An event with a code that is not in it counts in the bucket of its
// kind.
var Codes = []CodeInfo{
	{CodeBot, BucketFact, RetryNo, false, false, false, "Opened by a program that reads pages, not by a person."},
	{CodePreview, BucketFact, RetryNo, false, false, false, "Opened by an app that shows a preview, not by a person."},
	{CodeUnsure, BucketFact, RetryNo, false, false, false, "Opened, and nothing says whether by a person."},

	{CodeDelivered, BucketDelivered, RetryNo, false, true, false, "Delivered to the handset."},
	{CodeRead, BucketDelivered, RetryNo, false, true, false, "Read by the recipient."},
	{CodeAnswered, BucketDelivered, RetryNo, false, true, false, "The call was answered by a person."},
	{CodeVoicemailLeft, BucketDelivered, RetryNo, false, true, false, "A voicemail was left."},

	{CodeAwaitingDLR, BucketAwaiting, RetryNo, false, true, false, "Taken by the carrier; no receipt yet."},
	{CodeEnroute, BucketAwaiting, RetryNo, false, true, false, "The carrier is still trying."},
	{CodeNoDLR, BucketAwaiting, RetryNo, false, true, false, "No receipt came within the receipt window."},

	{CodePaused, BucketPending, RetryYes, false, false, false, "Given back: the campaign was paused."},
	{CodeSuspended, BucketPending, RetryYes, false, false, false, "Given back: the campaign was suspended."},
	{CodeWindow, BucketPending, RetryYes, false, false, false, "Given back: calling hours are over."},
	{CodeRate, BucketPending, RetryYes, false, false, false, "Given back: a limit below the route's had no room."},
	{CodeBreaker, BucketPending, RetryYes, false, false, false, "Given back: the carrier is not answering."},
	{CodeUnsupported, BucketPending, RetryYes, true, false, false, "Given back: this channel cannot reach the recipient."},
	{CodeThrottled, BucketPending, RetryYes, false, false, false, "Given back: the carrier asked to slow down."},
	{CodeControlBehind, BucketPending, RetryYes, false, false, false, "Given back: the campaign's newest state had not arrived."},
	{CodeResend, BucketPending, RetryYes, false, false, false, "It was uncertain whether the carrier has it; a person ordered it to be sent again."},

	{CodeTimeout, BucketAmbiguous, RetryNo, false, false, false, "The carrier did not answer in time; it may have the message."},
	{CodeCrash, BucketAmbiguous, RetryNo, false, false, false, "A process ended while handing over; the carrier may have the message."},
	{CodeLost, BucketAmbiguous, RetryNo, false, false, false, "No outcome was ever recorded."},

	{CodeRenderError, BucketNotSent, RetryNo, false, false, false, "The text could not be made for this recipient."},
	{CodeValidityExpired, BucketNotSent, RetryNo, false, false, false, "Its time was over before it could be sent."},
	{CodeTriesSpent, BucketNotSent, RetryNo, false, false, false, "Given back too often."},
	{CodeGivenUp, BucketNotSent, RetryNo, false, false, false, "It was uncertain whether the carrier has it; a person gave it up. It is not billed."},

	{CodeExpired, BucketUndelivered, RetryOnce, true, true, false, "The carrier gave up within the validity period."},
	{CodeAbsentSubscriber, BucketUndelivered, RetryYes, true, true, false, "The handset was out of reach."},
	{CodeHandsetOff, BucketUndelivered, RetryYes, true, true, false, "The handset was switched off."},
	{CodeHandsetBusy, BucketUndelivered, RetryYes, true, true, false, "The handset was busy."},
	{CodeMemoryFull, BucketUndelivered, RetryLong, true, true, false, "The handset's memory was full."},
	{CodeNetworkError, BucketUndelivered, RetryYes, true, true, false, "An error in the operator's network."},
	{CodeRoamingOrOperatorFail, BucketUndelivered, RetryYes, true, true, false, "The operator failed to deliver, possibly while roaming."},
	{CodeProviderError, BucketUndelivered, RetryYes, true, false, false, "An error at the provider."},
	{CodeUndeliveredOther, BucketUndelivered, RetryNo, true, true, false, "Not delivered, for a reason the carrier's code names."},
	{CodeHandsetError, BucketUndelivered, RetryNo, true, true, false, "The handset refused the message."},
	{CodePartial, BucketUndelivered, RetryNo, false, true, false, "Some parts of a long message did not arrive."},
	{CodeBarred, BucketUndelivered, RetryNo, true, true, false, "The operator bars this number from receiving."},
	{CodeOperatorSeriesBlock, BucketUndelivered, RetryNo, true, true, false, "The operator blocks this number range."},
	{CodeOperatorBlacklist, BucketUndelivered, RetryNo, false, true, false, "The operator has blacklisted the number or the sender."},
	{CodeUnknownSubscriber, BucketUndelivered, RetryNo, true, true, true, "The number is not in use."},

	{CodeNotSentOther, BucketNotSent, RetryNo, false, false, false, "Refused, for a reason the carrier's code names."},
	{CodeNoCredits, BucketNotSent, RetryNo, false, false, false, "The account had no credit."},
	{CodeQuietHoursExpired, BucketNotSent, RetryNo, false, false, false, "Calling hours left no time before its end."},
	{CodeRCSNotCapable, BucketNotSent, RetryNo, true, false, false, "The recipient has no RCS."},
	{CodeNotWhatsAppUser, BucketNotSent, RetryNo, true, false, false, "The recipient is not on WhatsApp."},
	{CodeTemplateNotFound, BucketNotSent, RetryNo, true, false, false, "The template does not exist."},
	{CodeTemplateMismatch, BucketNotSent, RetryNo, true, false, false, "The text does not match its template."},
	{CodeTemplatePaused, BucketNotSent, RetryNo, true, false, false, "The template is paused."},
	{CodeSenderInvalid, BucketNotSent, RetryNo, false, false, false, "The sender id is not allowed."},
	{CodeTooLong, BucketNotSent, RetryNo, false, false, false, "The text has more segments than allowed."},
	{CodeSpamContent, BucketNotSent, RetryNo, false, false, false, "The text was classed as spam."},
	{CodeSeriesBlocked, BucketNotSent, RetryNo, false, false, false, "This number range is blocked."},
	{CodeCountryNotEnabled, BucketNotSent, RetryNo, false, false, false, "The country is not enabled."},
	{CodeTenantDisabled, BucketNotSent, RetryNo, false, false, false, "The account is disabled."},
	{CodeKYC, BucketNotSent, RetryNo, false, false, false, "The account's identity check is missing."},
	{CodeInvalidNumber, BucketNotSent, RetryNo, false, false, true, "Not a number that can receive messages."},

	{CodeCancelled, BucketSkipped, RetryNo, false, false, false, "The campaign was ended first."},
	{CodeFrequencyCap, BucketSkipped, RetryNo, false, false, false, "The recipient already had enough messages."},
	{CodeQuotaCountry, BucketSkipped, RetryNo, false, false, false, "The country's quota was used up."},
	{CodeDuplicateContent, BucketSkipped, RetryNo, false, false, false, "The recipient already had this text."},
	{CodeDuplicateRecipient, BucketSkipped, RetryNo, false, false, false, "The number is in the audience twice; it is sent to once."},
	{CodeNotOptedIn, BucketSkipped, RetryNo, false, false, false, "The recipient has not opted in."},
	{CodeDNDRegistry, BucketSkipped, RetryNo, false, false, false, "The number is in a do-not-disturb registry."},
	{CodeBlacklisted, BucketSkipped, RetryNo, false, false, false, "The number is on the blacklist."},
	{CodeOptedOut, BucketSkipped, RetryNo, false, false, false, "The recipient has opted out."},
}

var codeTable = func() map[Code]*CodeInfo {
	t := make(map[Code]*CodeInfo, len(Codes))
	for i := range Codes {
		t[Codes[i].Code] = &Codes[i]
	}
	return t
}()

// LookupCode returns the row of code; ok is false for a code that is not in the table.
func LookupCode(code Code) (info CodeInfo, ok bool) {
	if row := codeTable[code]; row != nil {
		return *row, true
	}
	return CodeInfo{Code: code}, false
}

// CodeName returns the name of a sub-status in the API, such as ABSENT_SUBSCRIBER; "" for no sub-status.
func CodeName(code Code) string {
	if code == CodeUnspecified {
		return ""
	}
	return strings.TrimPrefix(code.String(), "CODE_")
}

// ParseCode reads the name of a sub-status.
func ParseCode(name string) (Code, bool) {
	n, ok := fanfarev1.Code_value["CODE_"+name]
	return Code(n), ok && n != 0
}

// UnreachableCode returns the sub-status of a recipient that the last channel of the chain cannot reach.
func UnreachableCode(channel Channel) Code {
	switch channel {
	case ChannelRCS:
		return CodeRCSNotCapable
	case ChannelWhatsApp:
		return CodeNotWhatsAppUser
	default:
		return CodeNotSentOther
	}
}
