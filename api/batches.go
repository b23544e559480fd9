package api

import (
	"fmt"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
)

// Limits of batches.
const (
	leastBatches = 2
	mostBatches  = 20
)

// BatchInput is a part of a campaign's audience (X9).
type BatchInput struct {
	At    problem.Optional[When] `json:"at,omitzero" doc:"When its sending starts; later than the batch before."`
	Share int                    `json:"share,omitzero" doc:"Percent of the audience. Send share or count." example:"25"`
	Count int                    `json:"count,omitzero" doc:"Number of recipients. Send share or count. The last batch may leave out both: it has the rest of the audience." example:"1000"`
}

// Batch is a part of a campaign's audience.
type Batch struct {
	At    string  `json:"at" format:"date-time" doc:"When its sending starts, in UTC."`
	Share *uint32 `json:"share" doc:"Percent of the audience."`
	Count *uint32 `json:"count" doc:"Recipients."`
}

func viewBatches(c *store.Campaign) []Batch {
	out := []Batch{}
	some := func(n uint32) *uint32 {
		if n == 0 {
			return nil
		}
		return &n
	}
	for _, b := range c.Batches {
		out = append(out, Batch{stamp(b.At), some(b.Share), some(b.Count)})
	}
	return out
}

// applyBatches reads the batches. The time of the first is the start of the campaign.
func (in *CampaignInput) applyBatches(spec *store.Spec, tenant *store.Tenant, now time.Time, ps *problem.List) {
	if !in.Batches.Set {
		if len(spec.Batches) > 0 && (in.ScheduledTime.Set && !in.ScheduledTime.Null || spec.SendImmediately) {
			*ps = append(*ps, problem.Field(problem.CodeInvalid, pick(in.ScheduledTime.Set, "scheduledTime", "sendImmediately"), "The campaign is sent in batches; the time of the first batch is its start.").
				WithFix(`Change batches, or send "batches": null first.`))
		}
		return
	}
	was := spec.Batches
	spec.Batches = nil
	if in.Batches.Null {
		if len(was) > 0 && !in.ScheduledTime.Set {
			spec.Schedule = nil
		}
		return
	}
	if n := len(in.Batches.Value); n < leastBatches || n > mostBatches {
		ps.Add(problem.CodeInvalid, "batches", "%d batches: want %d to %d.", n, leastBatches, mostBatches)
		return
	}
	if spec.SendImmediately {
		*ps = append(*ps, problem.Field(problem.CodeInvalid, "batches", "Batches have start times, so sendImmediately cannot be true.").WithFix(`Send "sendImmediately": false.`))
	}
	if in.ScheduledTime.Set && !in.ScheduledTime.Null {
		*ps = append(*ps, problem.Field(problem.CodeInvalid, "scheduledTime", "The time of the first batch is the start of the campaign.").WithFix("Leave out scheduledTime."))
	}
	shares := 0
	for i, b := range in.Batches.Value {
		field := func(name string) string { return fmt.Sprintf("batches[%d].%s", i, name) }
		last := i == len(in.Batches.Value)-1
		if !b.At.Set || b.At.Null {
			ps.Add(problem.CodeRequired, field("at"), "Every batch needs a time.")
			continue
		}
		at := b.At.Value.in(tenant.Timezone)
		switch {
		case b.Share < 0 || b.Share > 100:
			ps.Add(problem.CodeInvalid, field("share"), "%d is not between 1 and 100 percent.", b.Share)
		case b.Count < 0 || b.Count > int(tenant.MaxContacts):
			ps.Add(problem.CodeInvalid, field("count"), "%d is not between 1 and %d.", b.Count, tenant.MaxContacts)
		case b.Share > 0 && b.Count > 0:
			ps.Add(problem.CodeInvalid, field("count"), "A batch has a share or a count, not both.")
		case b.Share == 0 && b.Count == 0 && !last:
			ps.Add(problem.CodeRequired, field("share"), "Every batch except the last needs a share or a count.")
		case i > 0 && len(spec.Batches) == i && !at.At.After(spec.Batches[i-1].At):
			ps.Add(problem.CodeInvalid, field("at"), "%s is not later than the batch before.", stamp(at.At))
		}
		if shares += max(b.Share, 0); shares > 100 {
			ps.Add(problem.CodeInvalid, field("share"), "The shares add up to %d percent.", shares)
			shares = 0
		}
		if i == 0 {
			spec.Schedule = &at
			checkBatchTime(ps, at.At, now)
		}
		spec.Batches = append(spec.Batches, store.Batch{At: at.At, Share: uint32(max(b.Share, 0)), Count: uint32(max(b.Count, 0))})
	}
}

func checkBatchTime(ps *problem.List, at, now time.Time) {
	if at.Before(now.Add(-inPastBy)) {
		ps.Add(problem.CodeInPast, "batches[0].at", "%s is in the past: it is %s.", stamp(at), stamp(now))
	}
}

// moveBatches moves the first batch to another time, and all others by the same duration.
func moveBatches(spec *store.Spec, first time.Time) {
	if len(spec.Batches) == 0 {
		return
	}
	by := first.Sub(spec.Batches[0].At)
	moved := make([]store.Batch, len(spec.Batches))
	for i, b := range spec.Batches {
		b.At = b.At.Add(by)
		moved[i] = b
	}
	spec.Batches = moved
}
