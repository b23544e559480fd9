package store

import (
	"context"
	"database/sql"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// CampaignRecord returns the record of a campaign as it would be published now, for the pipeline: whatever its tenant, and also
// when it settled so long ago that its topic has forgotten it. No campaign is [schemas.ErrNotFound].
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
