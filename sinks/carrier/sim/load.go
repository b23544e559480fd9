package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// load reads the truth file of earlier runs from the watermark on and takes over the receipts that are still owed. It
// reads one line at a time and waits while the queue of receipts is full, so that neither a long file nor an absent
// consumer fills the memory.
func (c *Carrier) load(ctx context.Context) error {
	from, end := c.readFrom, c.readTo
	if from >= end {
		return nil
	}
	file, err := os.Open(c.cfg.Truth)
	if err != nil {
		return fmt.Errorf("read the carrier's truth again: %w", err)
	}
	defer func() { _ = file.Close() }()
	// The watermark is anywhere within a line: go on behind the end of that line.
	skip := from > 0
	if skip {
		from--
	}
	r := io.NewSectionReader(file, from, end-from)
	var found []recovered
	err = scanLines(r, from, func(offset int64, line []byte) error {
		if skip {
			skip = false
			return nil
		}
		if c.backlog.settled(offset, line) {
			return nil
		}
		o, name, plan, err := recoverLine(line)
		if err != nil {
			// A person has changed the file. The receipts of this line are lost; the other lines are read.
			c.log.WarnContext(ctx, "line of the carrier's truth not understood", "offset", offset, "err", err)
			return nil
		}
		for n, p := range plan {
			id := receiptID(offset, n)
			if c.backlog.has(id) {
				continue
			}
			o.id, o.at, o.code, o.status, o.part, o.parts = id, p.at, uint16(p.sub), uint8(p.status), p.part, p.parts
			found = append(found, recovered{o, name, p.due})
		}
		if len(found) < 1000 {
			return nil
		}
		if err := c.recover(ctx, found, offset); err != nil {
			return err
		}
		found = found[:0]
		return nil
	})
	if err == nil {
		err = c.recover(ctx, found, end)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the carrier's truth again: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded, c.backlog = true, nil
	return nil
}

// recovered is a receipt of an earlier run that is still owed.
type recovered struct {
	owed    owed
	account string
	due     int64
}

// recover takes over receipts once there is room for them. Every line before offset has been read.
func (c *Carrier) recover(ctx context.Context, found []recovered, offset int64) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return context.Canceled
		}
		if len(found) == 0 || c.owed+len(found) <= c.cfg.MaxOwed || c.owed == 0 {
			break
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	defer c.mu.Unlock()
	now := time.Now().UnixMilli()
	earliest := int64(1) << 62
	for i := range found {
		a := c.account(found[i].account)
		if a == nil {
			continue
		}
		found[i].owed.account = a.index
		c.owe(found[i].owed, found[i].due, now)
		earliest = min(earliest, found[i].due)
	}
	for _, a := range c.list {
		a.announce()
	}
	c.rouse(earliest)
	c.loadedTo = offset
	return nil
}

// settled reports whether all receipts of a line are acknowledged, as those of most lines are. It does not decode the
// line: a text cannot imitate the field, because a quote within a text is escaped.
func (s ackedSet) settled(offset int64, line []byte) bool {
	_, receipts, found := bytes.Cut(line, []byte(`,"receipts":[`))
	if !found {
		return true
	}
	for n := range bytes.Count(receipts, []byte(`{"status":`)) {
		if !s.has(receiptID(offset, n)) {
			return false
		}
	}
	return true
}

// recoverLine reads what a restart needs from a line: the account, the submission and the receipts it owes.
func recoverLine(line []byte) (o owed, account string, plan []planned, err error) {
	e, err := parseEntry(line)
	if err != nil {
		return owed{}, "", nil, err
	}
	ref, ok := parseRef(e.Ref)
	number, ok2 := parseNumber(e.To)
	if !ok || !ok2 || len(e.Receipts) > maxReceipts {
		return owed{}, "", nil, fmt.Errorf("ref %q, %d receipts", e.Ref, len(e.Receipts))
	}
	o.key, o.ref, o.to = e.Submission, ref, number
	for _, r := range e.Receipts {
		plan = append(plan, planned{at: r.At.UnixMilli(), due: r.Due.UnixMilli(), status: r.Status, sub: r.Code, part: r.Part, parts: r.Parts})
	}
	return o, e.Account, plan, nil
}
