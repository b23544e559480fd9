package schemas

import (
	"strings"
	"time"
)

// Some carriers do not echo our submission id: their receipts name a message by the carrier's own id. The sender and the tracker
// then meet in Redis, in an index provider id -> submission. These are its keys and values; package pipeline/dlrindex reads and
// writes them. Redis holds no truth here: the index can be rebuilt from `deliveries` (provider ids of what was sent) and
// `receipts`.

// DLRIndexTTL is how long an entry outlives the validity of its message, and how long a receipt waits for its entry.
const DLRIndexTTL = 72 * time.Hour

// DLRIndexKeys returns the two keys of a provider id: a hash phone number -> submission (16 bytes), and the list of receipts
// (phone number, `|`, encoded fanfare.v1.Receipt) that are parked until their submission is known. Carriers may give one id to
// several messages, so an entry has the number too. Both keys lie in one slot of a Redis cluster.
func (n Names) DLRIndexKeys(route, providerID string) [2]string {
	tag := n.prefix + "rendezvous:{" + route + "/" + NormalProviderID(providerID) + "}"
	return [2]string{tag, tag + ":parked"}
}

// DLRIndexState returns two keys of one slot: the marker, which exists as long as Redis has not lost the index, and the lock of
// the process that rebuilds it.
func (n Names) DLRIndexState() (marker, lock string) {
	tag := n.prefix + "rendezvous:{state}:"
	return tag + "marker", tag + "filling"
}

// NormalProviderID maps the spellings of one id to one string: carriers mix leading zeros and the case of hexadecimal digits.
// An id that is not such a number is returned as it is.
func NormalProviderID(id string) string {
	const most = 20 // digits of a 64-bit number; a longer id is a UUID or the like
	if len(id) > most {
		return id
	}
	for i := range len(id) {
		c := id[i] | 0x20
		if (id[i] < '0' || id[i] > '9') && (c < 'a' || c > 'f') {
			return id
		}
	}
	if bare := strings.TrimLeft(id, "0"); bare != "" {
		return strings.ToLower(bare)
	}
	return id[:min(len(id), 1)]
}

// PartsKey is the key of what is known of the parts of a long message: a hash part -> the greatest [PartState] seen.
func (n Names) PartsKey(tenant string, submission ID) string {
	return n.prefix + "parts:" + tenant + ":{" + submission.String() + "}"
}

// PartState is the state of one part of a long message; the greater one wins. A failed part is not stored: the first failure
// makes the message partial, whatever the order of the receipts, unless every part arrives after all.
type PartState uint8

// States of a part.
const (
	PartDelivered PartState = iota + 1
	PartRead
)
