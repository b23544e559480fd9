package store

import (
	"context"
	"fmt"
	"slices"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// TagCount is a tag in lower case, and how many campaigns have it.
type TagCount struct {
	Tag       string
	Campaigns int
}

// Tags returns the tags of a tenant's campaigns, by name. Removed campaigns have none.
func (s *Store) Tags(ctx context.Context, tenant string) ([]TagCount, error) {
	rows, err := s.q.ListTags(ctx, tenant)
	return all(rows, err, func(r db.ListTagsRow) TagCount { return TagCount{r.Tag, int(r.N)} })
}

// ReplaceTag replaces a tag of all campaigns that have it by another tag, or removes it with by "". It compares tags
// without regard to case. It returns how many campaigns it changed. After an error these campaigns stay changed, and
// ReplaceTag may be called again.
func (s *Store) ReplaceTag(ctx context.Context, tenant, tag, by string, cause Cause) (changed int, err error) {
	tag = fold(tag)
	for after := int64(0); ; {
		const atOnce = 100
		numbers, err := s.q.TaggedCampaigns(ctx, db.TaggedCampaignsParams{Tenant: tenant, Tag: tag, After: after, Max: atOnce})
		if err != nil {
			return changed, fmt.Errorf("campaigns with a tag: %w", err)
		}
		for _, number := range numbers {
			after = number
			_, err := s.UpdateCampaign(ctx, tenant, schemas.CampaignID(uint64(number)), 0, cause, func(c *Campaign) (schemas.Trigger, error) {
				c.Tags = replaceTag(c.Tags, tag, by)
				return "", nil
			})
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return changed, fmt.Errorf("tag of %s: %w", schemas.CampaignID(uint64(number)), err)
			}
			changed++
		}
		if len(numbers) < atOnce {
			return changed, nil
		}
	}
}

// replaceTag replaces a tag, given in lower case, at its position. The result has no tag twice.
func replaceTag(tags []string, tag, by string) []string {
	out := make([]string, 0, len(tags))
	for _, t := range tags {
		if fold(t) == tag {
			t = by
		}
		if t != "" && !slices.ContainsFunc(out, func(o string) bool { return fold(o) == fold(t) }) {
			out = append(out, t)
		}
	}
	return out
}
