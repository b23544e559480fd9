package wire

import (
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// AppendDelivery appends d as the generated code would encode it. Its strings must be valid UTF-8: AppendDelivery does
// not check them.
func AppendDelivery(b []byte, d *fanfarev1.Delivery) []byte {
	b = AppendText(b, DeliveryTenant, d.GetTenant())
	b = AppendText(b, DeliveryCampaignID, d.GetCampaignId())
	b = AppendNumber(b, DeliveryCampaignNumber, d.GetCampaignNumber())
	b = AppendNumber(b, DeliverySeq, uint64(d.GetSeq()))
	b = AppendNumber(b, DeliveryTry, uint64(d.GetTry()))
	b = AppendNumber(b, DeliveryLeg, uint64(d.GetLeg()))
	b = AppendNumber(b, DeliveryKind, uint64(d.GetKind()))
	b = AppendNumber(b, DeliveryCode, uint64(d.GetCode()))
	b = AppendText(b, DeliveryRawCode, d.GetRawCode())
	b = AppendNumber(b, DeliveryTimeMs, uint64(d.GetTimeMs()))
	b = AppendNumber(b, DeliveryChannel, uint64(d.GetChannel()))
	b = AppendText(b, DeliveryRoute, d.GetRoute())
	b = AppendText(b, DeliverySender, d.GetSender())
	b = AppendText(b, DeliveryTo, d.GetTo())
	b = AppendText(b, DeliveryCountry, d.GetCountry())
	b = AppendNumber(b, DeliveryVariant, uint64(d.GetVariant()))
	b = AppendNumber(b, DeliverySegments, uint64(d.GetSegments()))
	b = AppendNumber(b, DeliveryPriceMicros, d.GetPriceMicros())
	b = AppendText(b, DeliveryCurrency, d.GetCurrency())
	b = AppendText(b, DeliveryProviderID, d.GetProviderId())
	b = AppendText(b, DeliveryLinkID, d.GetLinkId())
	b = AppendText(b, DeliveryCustomerRef, d.GetCustomerRef())
	b = AppendNumber(b, DeliveryContactID, d.GetContactId())
	b = AppendNumber(b, DeliveryAgainAtMs, uint64(d.GetAgainAtMs()))
	b = AppendBytes(b, DeliveryMessageID, d.GetMessageId())
	b = AppendBytes(b, DeliverySubmissionID, d.GetSubmissionId())
	b = AppendBool(b, DeliveryTest, d.GetTest())
	for _, id := range d.GetPartProviderIds() {
		b = AppendTextAlways(b, DeliveryPartProviderIDs, id)
	}
	return b
}

// DeliverySize is an upper bound of the bytes that [AppendDelivery] appends: it assumes that all numbers have their
// greatest length.
func DeliverySize(d *fanfarev1.Delivery) int {
	const numbers, lengths = 15 * 12, 14 * 7
	parts := 0
	for _, id := range d.GetPartProviderIds() {
		parts += 7 + len(id)
	}
	return numbers + lengths + parts + len(d.GetTenant()) + len(d.GetCampaignId()) + len(d.GetRawCode()) + len(d.GetRoute()) + len(d.GetSender()) +
		len(d.GetTo()) + len(d.GetCountry()) + len(d.GetCurrency()) + len(d.GetProviderId()) + len(d.GetLinkId()) + len(d.GetCustomerRef()) +
		len(d.GetMessageId()) + len(d.GetSubmissionId())
}
