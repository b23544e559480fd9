package api

// Texts of the answers to confirm (R98) and of warnings.
const (
	textConfirmedScheduled = "Campaign confirmed. Sending starts at scheduled time."
	textConfirmedNow       = "Campaign confirmed. Sending starts now."
	textConfirmedReady     = "Campaign confirmed. Sending starts when it is started."
	warningImmediateWins   = "sendImmediately is true: scheduledTime is kept but not used."
	warningNoFallback      = "The fallback to %s has no content and will be left out: set %s."
	warningShortHours      = "The calling hours are too short for this many contacts at this rate: the last messages will be sent on another day, about %s."
	warningNeverOpen       = "%d recipients may be in time zones that share none of the calling hours. Recipients in such zones will get no message (QUIET_HOURS_EXPIRED)."
	warningOnlyFields      = "The text has nothing but merge fields: contacts without a value get no message."
	warningCampaignID      = "campaignId has no effect: single messages are counted separately from campaigns."
	warningFewerRetries    = "The credit covered fewer retries than the campaign asks for: failures are retried less often."
	warningNotification    = "enableNotification has no effect: no webhook endpoint is configured."
)

// suspensions say, for a marketer, why a campaign was suspended and what resumes it.
var suspensions = map[string]string{
	"route_down":      "The connection to the carrier is down, so nothing can be sent. A recipient who has the message does not get it again. The campaign goes on by itself when the connection works again, unless your operator has switched that off; then resume it.",
	"provider_auth":   "The carrier refuses the account, for a wrong password or an expired token, so nothing can be sent. Your operator must renew the credentials of the route; then the campaign goes on by itself, unless that is switched off.",
	"failure_rate":    "Too many messages fail. See the reasons in the statistics: a list with old numbers, a text or a sender that the carrier blocks, or trouble at the carrier. No other recipient is sent to until you resume the campaign.",
	"template_paused": "A template of the campaign may not be used now. The campaign goes on by itself once the template is approved again.",
	"no_credit":       "The credit does not cover the campaign. A top-up resumes it.",
	"missed_schedule": "The start time passed while the system could not start the campaign. Resume it to send now.",
	"broken_record":   "A record of the campaign cannot be read, so it is not known who was sent to. Ask your operator.",
}
