package api

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

// tagTexts says what the operations of a tag are for, in the order of the document.
var tagTexts = []*huma.Tag{
	{Name: campaignTag, Description: "Campaigns from the draft to the last receipt: content, audience, price, confirmation, progress, members and replays."},
	{Name: contactTag, Description: "Contacts, the lists they are in, and the files they are imported from."},
	{Name: suppressionTag, Description: "Numbers that have opted out of all channels or of one, with the proof of each change."},
	{Name: conversationTag, Description: "What recipients write back, and the answers to it."},
	{Name: "Messages", Description: "Single messages, and what became of each message, also of those of campaigns."},
	{Name: templateTag, Description: "What campaigns refer to: templates, RCS agents, channels (WhatsApp numbers, voice trunks) and SMS senders."},
	{Name: domainTag, Description: "Hosts of links: a tenant's own and those that the operator shares with all tenants, with limits of messages, weight and health."},
	{Name: webhookTag, Description: "Endpoints of a customer to which events of messages are posted, signed and retried."},
	{Name: exportTag, Description: "Files of contacts, members, delivery reports, opt-outs and money, made in the background."},
	{Name: accountTag, Description: "The tenant's own account: balance, what is reserved, limits, and the ledger."},
	{Name: moneyTag, Description: "The price list by channel, country, volume and date."},
	{Name: routeTag, Description: "Ways to carriers: connector, configuration, credentials, limits. They belong to the installation."},
	{Name: operatorTag, Description: "What an operator does: tenants, people, API keys, policy, credit, and the state of the process."},
}

// operationTexts describes the operations that do not describe themselves where they are registered, by operationId.
var operationTexts = map[string]string{
	"getAccount":   "What is free to spend, what running campaigns have reserved, and the limits that the tenant's campaigns and keys are held to.",
	"exportLedger": "Columns and order are those of the listing; the whole ledger, or the part that one campaign caused.",

	"listAgents":  "Agents of RCS. Deleted ones are left out unless includeDeleted is set.",
	"createAgent": "An agent is the sender of RCS campaigns. providerId is its name at the provider.",
	"deleteAgent": "It disappears from lists and can't be chosen any more. Campaigns that were confirmed with it keep it.",
	"getAgent":    "By its id or its name.",

	"listCampaigns":       "A page, or with cursor the rows after an earlier answer, which neither skips nor repeats a campaign while others are created. The filters narrow each other.",
	"getCampaignsStats":   "The sums of all campaigns that are not tests, of a period or since ever; with by also their sums by tag, channel, day or hour, to compare them.",
	"deleteCampaign":      "Before the first message was handed over it is cancelled, and stays listed as deleted. One that is active is refused and has to be aborted; one that has ended is hidden with remove.",
	"getCampaign":         "All that was said about it and its state, with the actions that are allowed now. The ETag is the version that changes may name in If-Match.",
	"abortCampaign":       "Who has no message yet is skipped as CANCELLED, and the money that is left is released once all receipts are in. A campaign that is aborted can't be resumed.",
	"calculateGoal":       "What the campaign would cost, how many recipients are excluded and why, and how long it would take within its limits and calling hours. With goalContactCount the figures are of so many contacts of the same mix instead of the audience's.",
	"duplicateCampaign":   "The copy has the content, the audience and the settings, and neither the times nor the history.",
	"listCampaignEvents":  "Every change of state, oldest first: from, to, who or what caused it, the reason and the id of the request.",
	"listMembers":         "In the order of the frozen audience, a page at a time, with status, sub-status, channel, tries and price of each. The filters narrow each other; those of one name are alternatives.",
	"getMember":           "Every event of each of its messages, in order, with the deals that led to them.",
	"pauseCampaign":       "The last message leaves within 250 ms. What waits is kept, and goes on with resume.",
	"getPrice":            "The figures that confirm uses: cost by channel and by country, which add up to estimatedCost, the most it can cost, and who is excluded. priceVersion names them for confirm.",
	"getReplayOptions":    "Replays are possible from a day after the first hand-over until a month after it. The answer counts recipients by status and sub-status, to choose from.",
	"listReplays":         "The campaign that this one repeats, if any, and those that repeat this one, oldest first.",
	"resumeCampaign":      "What was given back is sent on, and nothing a second time. The closed days of countries are not checked again. A suspended campaign is examined first: while the cause remains, it answers 409 with the reason.",
	"previewSelection":    "The same count that a replay or a segment with that selection would have now.",
	"startCampaign":       "Of a campaign that was confirmed without a time. One with a time starts by itself. With compliance refuse of the policy, it answers 422 when the campaign would send on a closed day of a country.",
	"getCampaignStats":    "Exact counts of recipients by status and sub-status, with rates, cost, throughput and the expected end. asOf says up to when the events are counted.",
	"getCampaignTimeline": "Counts of events by kind and period, for charts. They count events and not recipients, so they are no base of a bill.",
	"unscheduleCampaign":  "The money is released and the audience is dropped: confirming it again reserves the money and freezes the audience again.",
	"deleteTag":           "The campaigns stay as they are otherwise.",
	"listTags":            "A tag that no campaign has is not listed.",
	"listSegments":        "Contact lists that are being made of members of campaigns, and those that were.",

	"listChannels":  "The tenant's WhatsApp numbers, SMS accounts and voice trunks.",
	"createChannel": "A channel is the sender of WhatsApp and voice campaigns: an address with the route that leads to its provider.",
	"deleteChannel": "It disappears from lists and can't be chosen any more. Campaigns that were confirmed with it keep it.",
	"getChannel":    "By its id or its name.",

	"deleteContactByQuery":   "It is taken out of all lists and shows with includeDeleted only. An opt-out of its number stays.",
	"deleteContact":          "It is taken out of all lists and shows with includeDeleted only. An opt-out of its number stays.",
	"listContacts":           "All contacts of the tenant, or those that search finds, a page at a time.",
	"createContact":          "The number is read as it is dialled in the tenant's region, and stored as E.164. A number that is known already is refused, and the answer names its contact.",
	"updateContactByQuery":   "Fields that are left out stay as they are; attributes are replaced as a whole.",
	"updateList":             "Fields that are left out stay as they are. Confirmed campaigns keep their audience.",
	"updateContact":          "Fields that are left out stay as they are; attributes are replaced as a whole.",
	"getContact":             "With its attributes, its consent, its time zone and what its number is.",
	"deleteListByQuery":      "Contacts are kept, and so is the audience of every confirmed campaign. A list that a campaign uses which has not ended is kept unless force is set.",
	"listLists":              "With how many contacts each has, a page at a time.",
	"createList":             "An empty list. With isTest its campaigns are tests: they are left out of statistics over all campaigns, of caps and of bills.",
	"removeContactsFromList": "The contacts themselves stay, and so does the audience of every confirmed campaign.",
	"addContactsToList":      "Contacts that are in it already are left as they are. The audience of a confirmed campaign does not change.",
	"getList":                "By its id or its name, with the count of its contacts.",
	"listContactsOfList":     "In the order in which they came in, a page at a time.",
	"listImports":            "Their counts and their state, a page at a time.",
	"getImport":              "Counts of new, updated, unchanged, duplicate, invalid and opted out rows, and the first refused rows with the reason.",
	"listAllImports":         "Into any list of the tenant, with counts and state.",
	"getImportJob":           "Counts of new, updated, unchanged, duplicate, invalid and opted out rows, and how much of the file has been read.",

	"listDomains":  "The tenant's own, with what is counted against their limits. Those that the operator shares are in listDomainPool.",
	"createDomain": "Let the name lead to the role edge first, with a certificate. Campaigns that name no domain of the kind use it at once, those that wait for a domain too.",
	"deleteDomain": "Refused while links on it may still be opened, which is until 7 days after the end of the last campaign that used it. After it, the edge refuses its host.",
	"getDomain":    "By its id or its host.",

	"listSharedDomains":  "Those that all tenants may use, with what is counted against their limits.",
	"createSharedDomain": "All tenants may put links on it, and share its limits.",
	"deleteSharedDomain": "Refused while links of any tenant on it may still be opened, which is until 7 days after the end of the last campaign that used it.",
	"getSharedDomain":    "By its id or its host.",

	"listExports":     "Their state, and the link to the file of those that have ended.",
	"listExportKinds": "For each kind the columns it can have, those it has by default, and the formats.",
	"getExport":       "The link in downloadUrl opens the file for a while, without a key.",

	"createKey": "The key is in this answer and never shown again. A test key reaches the simulator only.",

	"getMessageStatuses": "One entry for each message that carries one of the references, newest first.",
	"getMessageStatus":   "The newest state of the messages with that reference; the reference need not be unique.",
	"getMessage":         "What is known of it now, and every event, oldest first.",

	"getPolicy": "Words and domains that a message must not have, caps by recipient and country, second person, and maintenance windows.",

	"listRates":  "Of all channels, countries and dates. Where several fit, the most particular one counts.",
	"createRate": "A price of one segment, message or minute from a date on. It changes no campaign that is confirmed.",
	"deleteRate": "Campaigns that were confirmed at it keep their price.",
	"getRate":    "By its id.",

	"listRoutes":  "Without their credentials, which are never shown.",
	"getRoute":    "Without its credentials, which are never shown; their names are.",
	"pauseRoute":  "Nothing more is handed over to the carrier. Its campaigns wait, and go on when the route is resumed.",
	"resumeRoute": "Senders open it within seconds, and what has waited is sent on.",

	"listSenders":   "Sender ids of SMS: names, numbers and short codes, with their status.",
	"createSender":  "A name of at most 11 letters and digits, a number or a short code. An operator approves it before a campaign can use it.",
	"deleteSender":  "It disappears from lists and can't be chosen any more. Campaigns that were confirmed with it keep it.",
	"getSender":     "By its id or by the sender itself.",
	"approveSender": "From then on campaigns may use it.",
	"disableSender": "The reason is shown to the people who use the sender. It can be approved again.",
	"rejectSender":  "Of a sender that waits for approval. The reason is shown to the person who submitted it.",

	"listSuppressions":   "Those that hold at present; the history has the lifted ones, too.",
	"exportSuppressions": "Columns phone, channels, source, reason and since, of those that hold at present.",

	"listTemplates":   "Of all channels, with their status.",
	"createTemplate":  "A draft, with numbered or named parameters. It has to be approved before a campaign can use it.",
	"deleteTemplate":  "It disappears from lists and can't be chosen any more. Campaigns that were confirmed with it keep it.",
	"getTemplate":     "By its id or its name, with its parameters in order.",
	"approveTemplate": "From then on campaigns may use it. A change of what recipients see takes the approval back.",
	"disableTemplate": "The reason is shown to the people who use the template; campaigns under way with it are suspended.",
	"pauseTemplate":   "The reason is shown to the people who use the template. When it is approved again, suspended campaigns can be resumed.",
	"rejectTemplate":  "The reason is shown to the person who submitted the template, who can change it and submit it again.",
	"submitTemplate":  "Of a draft, or of one that was rejected.",

	"listTenants": "All of the installation.",
	"getCredit":   "Of the tenant by its id or its name: what is free to spend, set aside, spent and owed.",
	"getKey":      "By its id, revoked ones too, without the secret.",
	"getTenant":   "By its id or its name, with limits, money and defaults.",
	"listUsers":   "Those who may log in to the console; with all, of every tenant.",
	"getUser":     "With the role in each tenant, and when the person was last seen.",
	"linkUser":    "The path is in this answer and never shown again. It works once, within 24 hours.",

	"listWebhooks":     "With their events and whether they are active. Secrets are never shown again.",
	"createWebhook":    "The secret that signs its requests is in this answer and never shown again.",
	"deleteWebhook":    "Nothing more is posted to it, also nothing that waits for another try.",
	"getWebhook":       "By its id or its name.",
	"getWebhookHealth": "How many events wait, since when requests fail, and when the endpoint last took one.",
}

// sameAs are the operations that are described as another one: the same under a second path or method.
var sameAs = map[string]string{
	"abortCampaignPut": "abortCampaign", "pauseCampaignPut": "pauseCampaign", "resumeCampaignPut": "resumeCampaign", "startCampaignPut": "startCampaign",
	"unscheduleCampaignPut": "unscheduleCampaign", "listDeliveryStatusWebhooks": "listWebhooks", "createDeliveryStatusWebhook": "createWebhook",
	"deleteDeliveryStatusWebhook": "deleteWebhook", "getDeliveryStatusWebhook": "getWebhook", "getDeliveryStatusWebhookHealth": "getWebhookHealth",
}

// propertyTexts describes the properties that mean the same in every schema, where their struct tags do not.
var propertyTexts = map[string]string{
	"createdAt": "When it was created, in UTC.",
	"createdBy": "Id of the person or of the key that created it.",
	"currency":  "ISO 4217 code of the currency of all amounts: the tenant's.",
	"deletedAt": "When it was deleted, in UTC; null: it is not.",
	"updatedAt": "When it was last changed, in UTC; until then, when it was created.",
	"version":   "Counts its changes, from 1. The ETag is the same number.",
}

// parameterTexts describes the parameters, by place and name, that mean the same in every operation, where their struct
// tags do not; answer is the place of the headers of answers.
var parameterTexts = map[string]string{
	"header If-Match":      "ETag of the version that is meant; 412 when another version is stored. Left out: any version.",
	"query includeDeleted": "true: deleted ones, too.",
	"query limit":          "The most rows of the answer.",
	"query page":           "0-based.",
	"query vocab":          "Vocabulary of status: e (default), a, b, c or d.",
	"answer ETag":          "Version of the object, for If-Match.",
	"answer Location":      "Path of what the request has created.",
}

// describeOperation is the description of an operation; written is what it says where it is registered.
func describeOperation(id, written string) string {
	if written != "" {
		return written
	}
	if other := sameAs[id]; other != "" {
		id = other
	}
	return operationTexts[id]
}

// example is a body that an operation takes.
type example struct{ name, summary, body string }

// operationExamples are bodies by operationId, one for each kind that an operation takes. A test sends each to the
// server.
var operationExamples = map[string][]example{
	"createCampaign": {
		{"sms", "SMS with a merge field, at a time, within calling hours on each recipient's clock", `{
			"name": "Spring Promotion 2025", "channel": "sms", "message": "Hi {{first_name}}, 20% off until Sunday.", "contactList": "Customers",
			"scheduledTime": "2025-04-15T09:00:00Z", "callingHoursStart": "09:00", "callingHoursEnd": "20:00", "recipientTimezone": true, "tags": ["spring"]}`},
		{"rcs", "RCS by an approved template of an agent, and SMS to whom RCS does not reach", `{
			"name": "Spring Promotion 2025, rich", "sendingMode": "RCS_SMS", "agent": "Acme Agent", "message": "spring_card",
			"parameters": {"1": "{{first_name}}"}, "fallbackMessage": "20% off until Sunday.", "contactList": ["Customers"], "sendImmediately": true}`},
		{"whatsapp", "WhatsApp by an approved template", `{
			"name": "Your order", "channel": "whatsapp", "messagingChannel": "Acme WhatsApp", "message": "order_shipped", "language": "it",
			"parameters": {"1": "{{first_name}}"}, "contactList": "Customers"}`},
		{"voice", "A call that speaks a text and passes the person who answers to a queue", `{
			"name": "Appointment", "channel": "voice", "callerId": "Acme phone", "message": "Your appointment is tomorrow at nine.", "language": "en",
			"queue": "support", "maxConcurrent": 5, "maxRetries": 1, "retryDelay": 120, "amdEnabled": true, "amdAction": "hangup", "contactList": "Customers"}`},
	},
}

// addExamples puts the examples of an operation into the document.
func addExamples(op *huma.Operation) {
	list := operationExamples[op.OperationID]
	if len(list) == 0 || op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return
	}
	examples := map[string]*huma.Example{}
	for _, e := range list {
		examples[e.name] = &huma.Example{Summary: e.summary, Value: json.RawMessage(e.body)}
	}
	op.RequestBody.Content["application/json"].Examples = examples
}
