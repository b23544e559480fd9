package schemas

import (
	"strings"
	"time"
)

// Some carriers do not echo our submission id: their receipts name a message by the carrier's own id. For these
// carriers the sender writes an index, provider id -> submission, in Redis, and the tracker looks receipts up in it.
// These are its keys and values; package pipeline/dlrindex reads and writes them. Redis is not the only source of this
// data: the index can be rebuilt from `deliveries` (provider ids of sent messages) and `receipts`.

// DLRIndexTTL is how long an entry is kept after the validity of its message has ended, and how long a receipt waits
// for its entry.
const DLRIndexTTL = 72 * time.Hour

// DLRIndexKeys returns the two keys of a provider id: a hash phone number -> submission (16 bytes), and the list of
// receipts (phone number, `|`, encoded fanfare.v1.Receipt) that are parked until their submission is known. Carriers
// may give the same id to several messages, so an entry also has the phone number. Both keys are in the same slot of a
// Redis cluster.
func (n Names) DLRIndexKeys(route, providerID string) [2]string {
	tag := n.prefix + "rendezvous:{" + route + "/" + NormalProviderID(providerID) + "}"
	return [2]string{tag, tag + ":parked"}
}

// DLRIndexState returns two keys of the same slot: the marker, which exists until Redis loses the index, and the lock
// of the process that rebuilds the index.
func (n Names) DLRIndexState() (marker, lock string) {
	tag := n.prefix + "rendezvous:{state}:"
	return tag + "marker", tag + "filling"
}

// NormalProviderID maps all spellings of an id to one string, because carriers are inconsistent in leading zeros and in
// the case of hexadecimal digits. An id that is not such a number is returned unchanged.
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

// PartsKey returns the key of the state of the parts of a long message: a hash part -> the greatest [PartState] seen.
func (n Names) PartsKey(tenant string, submission ID) string {
	return n.prefix + "parts:" + tenant + ":{" + submission.String() + "}"
}

// PartState is the state of one part of a long message; the greater state takes precedence. Failed parts are not
// stored: the first failure makes the message partial, in any order of the receipts, unless all parts arrive after all.
type PartState uint8

// States of a part.
const (
	PartDelivered PartState = iota + 1
	PartRead
)
