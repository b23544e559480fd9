package api

import (
	"context"
	"sync"
	"time"

	"fanfare/api/store"
)

// RowStats are the figures of a campaign in a list.
type RowStats struct {
	Figures
	Cost                    Money   `json:"cost" doc:"Cost of the messages handed over so far (R114)."`
	Currency                string  `json:"currency"`
	EstimatedCompletionTime *string `json:"estimatedCompletionTime" format:"date-time" doc:"When everything will be handed over; null when no forecast is possible."`
	AsOf                    *string `json:"as_of" format:"date-time" doc:"Everything that happened before this time is counted."`
}

// addRowStats adds figures and the names of contact lists to the campaigns of a page, with one query of the statistics.
func (s *server) addRowStats(ctx context.Context, who *principal, rows []store.Campaign, out []*Campaign) error {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID()
	}
	counts, at, err := s.figures.many(ctx, who.tenant.ID, ids)
	if err != nil {
		return err
	}
	asOf := stampOrNull(at.Truncate(time.Second))
	for i := range rows {
		c := &rows[i]
		of := counts[c.ID()]
		f := of.Figures(c.Total)
		stats := &RowStats{Figures: figuresOf(&f), Currency: who.tenant.Currency, AsOf: asOf}
		if stats.Cost, err = s.figures.costOfRow(ctx, who.tenant.ID, c.ID(), f.Sent, s.Now()); err != nil {
			return err
		}
		stats.EstimatedCompletionTime = s.eta(ctx, who, c, &of, f.Pending)
		out[i].Stats = stats
		for _, n := range c.Lists {
			out[i].ContactListNames = append(out[i].ContactListNames, s.listNames.of(ctx, s.Store, c.Tenant, n))
		}
	}
	return nil
}

// listNames caches the names of contact lists. A name may be a little old, because it is only shown to people and
// changes rarely.
type listNames struct {
	now   func() time.Time
	mu    sync.Mutex
	known map[uint64]listName
}

type listName struct {
	name  string
	until time.Time
}

const listNameFresh = 10 * time.Second

func newListNames(now func() time.Time) *listNames {
	return &listNames{now: now, known: map[uint64]listName{}}
}

// of returns the name of a list of the tenant, or its id when the list cannot be read. Numbers of lists are unique in
// the installation, so the number alone is the key of the cache.
func (l *listNames) of(ctx context.Context, st *store.Store, tenant string, number uint64) string {
	now := l.now()
	l.mu.Lock()
	known, ok := l.known[number]
	l.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.name
	}
	name := store.ListID(number)
	if list, err := st.List(ctx, tenant, number); err == nil {
		name = list.Name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= maxCached {
		clear(l.known)
	}
	l.known[number] = listName{name, now.Add(listNameFresh)}
	return name
}
