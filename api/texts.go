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
