package sim

import (
	"slices"
	"strconv"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// submit accepts a batch. It decides the fate of each message and writes it to the truth file before it answers through
// to, at once or later. giveUp is after how long the connector wants Unknown for a message without an answer; 0: the
// connector has its own timer.
func (c *Carrier) submit(name string, batch []carrier.Outbound, giveUp time.Duration, to answerer) {
	if len(batch) == 0 {
		return
	}
	w, _ := c.work.Get().(*work)
	defer c.work.Put(w)
	w.fates, w.plan = slices.Grow(w.fates[:0], len(batch))[:len(batch)], w.plan[:0]

	started := time.Now()
	now := started.UnixMilli()
	c.admit(w, name, batch, started)
	c.breakConnection(w, batch)
	for i := range batch {
		f := &w.fates[i]
		f.first = len(w.plan)
		if f.outcome == carrier.Accepted && f.word == Accepted {
			c.receive(w, &batch[i], f, now)
		}
		f.end = len(w.plan)
	}
	stamp := appendTime(make([]byte, 0, len(timeFormat)), now)
	w.lines, w.ends = w.lines[:0], w.ends[:0]
	if c.journal != nil {
		for i := range batch {
			f := &w.fates[i]
			w.lines = appendLine(w.lines, c.cfg.Keys, stamp, name, &batch[i], f, c.cfg.Profile.Ref, w.plan[f.first:f.end])
			w.ends = append(w.ends, len(w.lines))
		}
	}

	if reason := c.commit(w, name, batch, giveUp, to); reason != "" {
		for i := range batch {
			to.answer(i, carrier.Result{Outcome: carrier.Retryable, Sub: schemas.CodeProviderError, Code: reason, RetryAfter: time.Second})
		}
		return
	}
	c.answerNow(w, to)
}

// admit decides which messages the carrier accepts. Only this part of a fate depends on earlier submissions (rate,
// keys).
func (c *Carrier) admit(w *work, name string, batch []carrier.Outbound, started time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.cfg.Profile
	acct := c.account(name) // nil: commit refuses the batch
	for i := range batch {
		f, out := &w.fates[i], &batch[i]
		*f = fate{}
		wait, ok := c.bucket.take(started) // the carrier checks the limit before the key, as gateways do
		if !ok || c.owed >= c.cfg.MaxOwed {
			*f = refusal(carrier.Throttled, schemas.CodeThrottled)
			if f.retryAfter = wait; ok {
				f.code, f.retryAfter = "0x00000014", time.Second // ESME_RMSGQFUL
			}
			continue
		}
		m := magic(out.To)
		w.dice.throwFor(c.cfg.Seed+c.passed.draws(acct, out.Key), out.Key)
		if p.ignores() && acct != nil {
			if ref, ok := c.keys.get(acct.index, out.Key); ok {
				*f = fate{outcome: carrier.Accepted, word: Duplicate, ref: ref, latency: p.Answer.draw(w.dice.rand)}
				f.silent = m != nil && m.silent && !m.broken // this number never gets an answer
				continue
			}
		}
		refused, isRefused := p.refusalOf(w.dice, m, out)
		latency := p.Answer.draw(w.dice.rand)
		silent, early := w.dice.hit(p.Silent), w.dice.hit(p.Early)
		if isRefused {
			refused.latency = latency
			*f = refused
			if p.remembers() && f.outcome != carrier.Rejected {
				c.passed.add(acct, out.Key)
			}
			continue
		}
		ref := c.refOf(out)
		*f = fate{outcome: carrier.Accepted, word: Accepted, ref: ref, latency: latency, silent: silent, early: early}
		if m != nil {
			f.silent, f.broken, f.early = m.silent, m.broken, false
			f.latency = max(latency, m.answer)
		}
		if f.early {
			f.latency += earlyBy
		}
		if p.remembers() && acct != nil {
			c.keys.put(acct.index, out.Key, ref)
		}
	}
}

// MetaRef is the key in Meta for the provider's id of a message, in decimal. Servers in front of the simulator that
// choose ids themselves use it.
const MetaRef = "ref"

// refOf returns the provider's id of an accepted message. The caller holds the lock.
func (c *Carrier) refOf(out *carrier.Outbound) uint64 {
	if given := out.Meta[MetaRef]; given != "" {
		if n, err := strconv.ParseUint(given, 10, 64); err == nil && n != 0 {
			return n
		}
	}
	c.refs++
	return c.refs
}

// earlyBy is the extra delay of an answer whose receipt comes first.
const earlyBy = 150 * time.Millisecond

// breakConnection decides whether the connection breaks within the batch. The messages before the break get their
// answer; those after it that were taken get none.
func (c *Carrier) breakConnection(w *work, batch []carrier.Outbound) {
	w.dice.throwFor(^c.cfg.Seed, batch[0].Key)
	if !w.dice.hit(c.cfg.Profile.Disconnect) {
		return
	}
	at := w.dice.rand.IntN(len(batch))
	for at < len(batch) && w.fates[at].word != Accepted {
		at++
	}
	if at == len(batch) {
		return
	}
	when := w.fates[at].latency
	for i := range w.fates {
		f := &w.fates[i]
		f.latency = min(f.latency, when)
		if i >= at && f.word == Accepted {
			f.latency, f.silent, f.broken = when, true, true
		}
	}
}

// receive plans the receipts of a submission that is taken.
func (c *Carrier) receive(w *work, out *carrier.Outbound, f *fate, now int64) {
	w.dice.throwFor(c.cfg.Seed+1, out.Key)
	w.plan = c.cfg.Profile.plan(w.dice, magic(out.To), out, now, f, w.plan)
}

// commit writes the batch to the truth file and queues its receipts. It returns a reason when it takes nothing.
func (c *Carrier) commit(w *work, name string, batch []carrier.Outbound, giveUp time.Duration, to answerer) (reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	acct := c.account(name)
	if acct == nil {
		return "too many accounts"
	}
	if c.closed || c.quieted {
		for i := range batch {
			c.forget(acct, &batch[i], &w.fates[i])
		}
		return "closed"
	}
	offset := c.virtual
	written := time.Now()
	c.refuseLate(w, acct, batch, written)
	if c.journal != nil {
		var err error
		if offset, err = c.journal.append(w.lines); err != nil {
			c.log.Error("submissions refused", "err", err)
			for i := range batch {
				c.forget(acct, &batch[i], &w.fates[i])
			}
			return "truth not written"
		}
	} else {
		c.virtual += int64(len(batch))
	}

	now := written.UnixMilli()
	silent, broken := 0, false
	for i := range w.fates {
		if w.fates[i].silent {
			silent++
			broken = broken || w.fates[i].broken
		}
	}
	to.expect(len(batch)-silent, broken)
	line, earliest := 0, int64(1)<<62
	for i := range batch {
		f := &w.fates[i]
		if f.word == "" {
			continue // past its deadline: the carrier never saw it
		}
		start := offset + int64(line)
		if c.journal != nil && line > 0 {
			start = offset + int64(w.ends[line-1])
		}
		line++
		c.stats.Submissions[f.word]++
		number, _ := parseNumber(batch[i].To)
		for n, p := range w.plan[f.first:f.end] {
			c.owe(owed{
				id: receiptID(start, n), key: batch[i].Key, ref: f.ref, to: number, at: p.at, account: acct.index,
				code: uint16(p.sub), status: uint8(p.status), part: p.part, parts: p.parts,
			}, p.due, now)
			earliest = min(earliest, p.due)
		}
		if at, ok := c.answerLater(f, i, now, giveUp, to); ok {
			earliest = min(earliest, at)
		}
	}
	acct.announce()
	c.rouse(earliest)
	return ""
}

// refuseLate removes the messages whose deadline has passed or that were withdrawn. It tests the deadline right before
// the write.
func (c *Carrier) refuseLate(w *work, acct *account, batch []carrier.Outbound, now time.Time) {
	late := false
	for i := range batch {
		if batch[i].Expired(now) {
			c.forget(acct, &batch[i], &w.fates[i])
			w.fates[i] = fate{outcome: carrier.Retryable, code: carrier.CodeDeadline}
			late = true
		}
	}
	if !late || c.journal == nil {
		return
	}
	var lines []byte
	var ends []int
	for i, end := range w.ends {
		if w.fates[i].word == "" {
			continue
		}
		start := 0
		if i > 0 {
			start = w.ends[i-1]
		}
		lines = append(lines, w.lines[start:end]...)
		ends = append(ends, len(lines))
	}
	w.lines, w.ends = lines, ends
}

// forget removes the key of a submission that was not taken after all. The caller holds the lock.
func (c *Carrier) forget(acct *account, out *carrier.Outbound, f *fate) {
	if c.cfg.Profile.remembers() && f.word == Accepted {
		c.keys.forget(acct.index, out.Key)
	}
}

// answerLater queues an answer that takes time. The caller holds the lock.
func (c *Carrier) answerLater(f *fate, i int, now int64, giveUp time.Duration, to answerer) (at int64, ok bool) {
	a := answer{to: to, i: i}
	wait := f.latency
	switch {
	case f.silent && giveUp == 0:
		return 0, false
	case f.broken && wait <= giveUp:
		a.result = carrier.Result{Outcome: carrier.Unknown, Code: "connection broken"}
	case f.silent, giveUp > 0 && wait > giveUp:
		wait = giveUp
		a.result = carrier.Result{Outcome: carrier.Unknown, Code: "no answer"}
	case wait <= 0:
		return 0, false
	default:
		a.result = c.result(f)
	}
	at = now + max(wait.Milliseconds(), 1)
	c.answers.add(at, a)
	return at, true
}

// answerNow gives the answers that do not wait.
func (c *Carrier) answerNow(w *work, to answerer) {
	for i := range w.fates {
		if f := &w.fates[i]; f.latency <= 0 && !f.silent {
			to.answer(i, c.result(f))
		}
	}
}

// result is the answer to a submission.
func (c *Carrier) result(f *fate) carrier.Result {
	r := carrier.Result{Outcome: f.outcome, Sub: f.sub, Code: f.code, RetryAfter: f.retryAfter}
	if f.outcome == carrier.Accepted {
		r.Ref = string(appendRef(make([]byte, 0, 36), f.ref, c.cfg.Profile.Ref))
	}
	return r
}

// draft makes the receipts owed to one account. Their texts share one allocation.
func (c *Carrier) draft(account string, list []owed) []carrier.Receipt {
	dst := make([]carrier.Receipt, 0, len(list))
	format := c.cfg.Profile.Ref
	raw := make([]byte, 0, len(list)*96)
	type span struct{ ref, alt, to, end int }
	spans := make([]span, len(list))
	for i := range list {
		o, s := &list[i], &spans[i]
		s.ref = len(raw)
		raw = appendReceiptRef(raw, o.ref, format)
		s.alt = len(raw)
		if format == RefMixed {
			raw = appendRef(raw, o.ref, format)
		}
		s.to = len(raw)
		raw = append(raw, '+')
		raw = appendUint(raw, o.to)
		s.end = len(raw)
	}
	texts := string(raw)
	raw = make([]byte, 0, len(list)*64)
	for i := range list {
		o, s := &list[i], spans[i]
		r := carrier.Receipt{
			Account: account, Ref: texts[s.ref:s.alt], To: texts[s.to:s.end],
			Status: carrier.Status(o.status), Sub: carrier.Sub(o.code), Code: receiptCode(carrier.Sub(o.code)),
			At: time.UnixMilli(o.at), Part: o.part, Parts: o.parts,
		}
		if s.to > s.alt {
			r.AltRefs = []string{texts[s.alt:s.to]}
		}
		if !c.cfg.Profile.HidesKey {
			r.Key = o.key
		}
		start := len(raw)
		raw = append(raw, "id:"...)
		raw = append(raw, r.Ref...)
		raw = append(raw, " stat:"...)
		raw = append(raw, receiptStat(r.Status, r.Sub)...)
		raw = append(raw, " err:"...)
		raw = append(raw, r.Code...)
		r.Raw = raw[start:len(raw):len(raw)]
		dst = append(dst, r)
	}
	return dst
}

func appendUint(b []byte, n uint64) []byte {
	var buf [20]byte
	i := len(buf)
	for {
		i--
		buf[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, buf[i:]...)
		}
	}
}
