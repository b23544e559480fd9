package smpp

import (
	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// lost remembers hand-overs that got no answer in time, so that the connector can use a late answer. The connector's
// lock guards it.
type lost struct {
	most  int
	list  map[uint32]pending
	order []uint32
}

func (l *lost) add(sequence uint32, p pending) {
	if l.list == nil {
		l.list = map[uint32]pending{}
	}
	if len(l.order) >= l.most {
		delete(l.list, l.order[0])
		l.order = l.order[1:]
	}
	l.list[sequence] = p
	l.order = append(l.order, sequence)
}

func (l *lost) take(sequence uint32) (pending, bool) {
	p, ok := l.list[sequence]
	delete(l.list, sequence)
	return p, ok
}

// lateAnswer makes a receipt from an answer that came after its hand-over had the result Unknown. The receipt ends the
// doubt. The caller holds the lock.
func (c *Connector) lateAnswer(p *pending, r *partResult) {
	c.late++
	parts := 1
	if p.long != nil {
		parts = len(p.long.parts)
	}
	status := schemas.ReceiptStatusBuffered
	if r.outcome != carrier.Accepted {
		status = schemas.ReceiptStatusFailed
	} else {
		c.lateRefs.add(r.id, p.to, p.key)
	}
	c.addOwn(p, p.part, parts, status, r)
}

// keysByRef has the submission ids of the newest hand-overs whose answer was late, by the message centre's id. The
// index of provider ids does not have them.
type keysByRef struct {
	list  map[string]lateKey
	order []string
}

// lateKey is a submission id and the number that its message went to.
type lateKey struct {
	key carrier.Key
	to  string
}

// mostLate is how many entries keysByRef has at most.
const mostLate = 10_000

func (k *keysByRef) add(ref, to string, key carrier.Key) {
	if ref == "" {
		return
	}
	if k.list == nil {
		k.list = map[string]lateKey{}
	}
	if len(k.order) >= mostLate {
		delete(k.list, k.order[0])
		k.order = k.order[1:]
	}
	k.list[ref] = lateKey{key, to}
	k.order = append(k.order, ref)
}

// of returns the submission id for a receipt, or zero if the message's answer was not late. It compares the message
// centre's ids, and the ends of the numbers, because some message centres' ids are unique only per session.
func (k *keysByRef) of(refs []string, to string) carrier.Key {
	for _, ref := range refs {
		if late, ok := k.list[ref]; ok && sameEnd(late.to, to) {
			return late.key
		}
	}
	return carrier.Key{}
}

// sameEnd reports whether two numbers may be the same: message centres write them with a country code or without. An
// empty one may be any.
func sameEnd(a, b string) bool {
	const digits = 7
	n := min(len(a), len(b), digits)
	return a[len(a)-n:] == b[len(b)-n:]
}
