package schemas

import "time"

// A carrier that does not echo our id names a submission by its own. Sender and tracker find each other in Redis: the sender
// puts provider id -> submission, the tracker looks it up. Either may come first, for a receipt may overtake the answer to the
// hand-over: the one who comes second finds what the first has left, for each side is one script, and scripts do not interleave.
//
// Nothing true is kept there: it can all be made again from `deliveries` (the provider ids of what was sent) and `receipts`.

// RendezvousKeys returns the two keys of a provider id: the submission's 16 bytes, and the list of receipts (encoded
// fanfare.v1.Receipt) that are parked until it is known. They lie in one slot of a cluster.
func (n Names) RendezvousKeys(route, providerID string) [2]string {
	tag := n.prefix + "rendezvous:{" + route + "/" + providerID + "}"
	return [2]string{tag, tag + ":parked"}
}

// RendezvousTTL is how long either side waits for the other beyond the validity of the message.
const RendezvousTTL = 72 * time.Hour

// Scripts of the rendezvous; their keys are those of [Names.RendezvousKeys].
const (
	// RendezvousPut is the sender's side. ARGV: submission (16 bytes), life of the entry in milliseconds. It returns the parked
	// receipts, oldest first. They stay parked until [RendezvousClear], after they were published again: a sender that ends in
	// between leaves them to be found.
	RendezvousPut = `redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2])
return redis.call('LRANGE',KEYS[2],0,-1)`
	// RendezvousFind is the tracker's side. ARGV: the encoded receipt, life of a parked one in milliseconds, the most receipts
	// that are parked for one id. It returns the submission (16 bytes), or an empty string and the receipt is parked: the oldest
	// goes when there are too many, and one that is parked already is not parked twice.
	RendezvousFind = `local s=redis.call('GET',KEYS[1])
if s then return s end
redis.call('LREM',KEYS[2],0,ARGV[1])
redis.call('RPUSH',KEYS[2],ARGV[1])
redis.call('LTRIM',KEYS[2],-tonumber(ARGV[3]),-1)
redis.call('PEXPIRE',KEYS[2],ARGV[2])
return ''`
	// RendezvousClear forgets what was parked. Once the submission is known nothing new is parked.
	RendezvousClear = `return redis.call('DEL',KEYS[2])`
)
