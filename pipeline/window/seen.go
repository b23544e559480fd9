package window

import (
	"fanfare/schemas"
)

// seenBefore is how many records below the committed offset are read on assignment, to recognise their duplicates.
const seenBefore = 50_000

// seen remembers submissions as bitmaps of seq per campaign and try, in two generations. It remembers at least the last
// 250,000 submissions, or the last 65,536 when each of them needs a page of its own, and at most twice as many: 14 MB
// in the worst case. That is enough because a duplicate from upstream comes soon after the first copy.
type seen struct {
	now, before map[seenPage]*seenBits
	records     int // in now
	last        *seenBits
	lastPage    seenPage
}

// seenPage names 512 seqs of one try of a campaign.
type seenPage struct {
	campaignTry uint64 // campaign number << 8 | try
	page        uint32
}

type seenBits [8]uint64

// Limits of one generation.
const (
	seenRecords = 250_000
	seenPages   = 1 << 16
)

func newSeen() *seen { return &seen{now: map[seenPage]*seenBits{}} }

// remember adds a submission and reports whether it was new.
func (s *seen) remember(id schemas.ID) bool {
	seq := id.Seq()
	key := seenPage{id.CampaignNumber()<<8 | uint64(id.Try()), seq >> 9}
	word, bit := seq>>6&7, uint64(1)<<(seq&63)
	page := s.last
	if page == nil || key != s.lastPage {
		page = s.now[key]
	}
	if page != nil && page[word]&bit != 0 {
		return false
	}
	if old := s.before[key]; old != nil && old[word]&bit != 0 {
		return false
	}
	if page == nil {
		if s.records >= seenRecords || len(s.now) >= seenPages {
			s.before, s.now, s.records = s.now, map[seenPage]*seenBits{}, 0
		}
		page = new(seenBits)
		s.now[key] = page
	}
	page[word] |= bit
	s.records++
	s.last, s.lastPage = page, key
	return true
}
