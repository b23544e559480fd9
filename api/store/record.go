package store

import (
	"context"
	"database/sql"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// CampaignRecord returns the record of a campaign of any tenant as it would be published now, also when the campaign
// settled so long ago that its topic has only a tombstone. The error is [schemas.ErrNotFound] when there is no such
// campaign.
func (s *Store) CampaignRecord(ctx context.Context, id string) (*fanfarev1.Campaign, error) {
	number, err := schemas.CampaignNumber(id)
	if err != nil {
		return nil, found(sql.ErrNoRows, "campaign", id)
	}
	row, err := s.q.GetCampaignByNumber(ctx, int64(number))
	if err != nil {
		return nil, found(err, "campaign", id)
	}
	return campaignRecord(campaignOf(row)), nil
}
