package schemas

import (
	"strings"
	"time"
)

// A carrier that does not echo our id names a submission by its own. Sender and tracker find each other in Redis: the sender
// puts provider id -> submission, the tracker looks it up. Either may come first, for a receipt may overtake the answer to the
// hand-over: the one who comes second finds what the first has left, for each side is one script, and scripts do not interleave.
//
// Carriers are known to give one id to several messages, as when each of their connections counts for itself. So an entry also
// has the number, wherever one is known, and a receipt without a number finds its submission only when there is but one.
//
// Nothing true is kept there: it can all be made again from `deliveries` (the provider ids of what was sent) and `receipts`.
// Package pipeline/stream/rendezvous makes the calls.

// RendezvousKeys returns the two keys of a provider id: the submissions of that id (16 bytes each) by number, and the list of
// receipts (number, `|`, encoded fanfare.v1.Receipt) that are parked until theirs is known. They lie in one slot of a cluster.
func (n Names) RendezvousKeys(route, providerID string) [2]string {
	tag := n.prefix + "rendezvous:{" + route + "/" + NormalProviderID(providerID) + "}"
	return [2]string{tag, tag + ":parked"}
}

// NormalProviderID is one spelling for those of a number that differ only in leading zeros and in the case of hexadecimal
// digits, which carriers mix. Anything else is left as it is.
func NormalProviderID(id string) string {
	const most = 20 // digits of a 64-bit number; a longer one is a UUID or the like
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

// RendezvousState returns two keys of one slot: the marker, which is there as long as Redis has not lost what it was given, and
// the lock of the process that fills it again.
func (n Names) RendezvousState() (marker, lock string) {
	tag := n.prefix + "rendezvous:{state}:"
	return tag + "marker", tag + "filling"
}

// PartsKey is the key of what is known of the parts of a long message: part -> the greatest [PartState] seen.
func (n Names) PartsKey(tenant string, submission ID) string {
	return n.prefix + "parts:" + tenant + ":{" + submission.String() + "}"
}

// RendezvousTTL is how long either side waits for the other beyond the validity of the message.
const RendezvousTTL = 72 * time.Hour

// Scripts of the rendezvous; their keys are those of [Names.RendezvousKeys].
const (
	// RendezvousPut is the sender's side. ARGV: submission (16 bytes), life of the entry in milliseconds, number (may be left
	// out). It returns the encoded receipts that are parked for it, oldest first. They stay parked until [RendezvousClear],
	// after they were published again: a sender that ends in between leaves them to be found.
	RendezvousPut = `local to=ARGV[3] or ''
redis.call('HSET',KEYS[1],to,ARGV[1])
if redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end
local one=redis.call('HLEN',KEYS[1])==1
local out={}
for _,p in ipairs(redis.call('LRANGE',KEYS[2],0,-1)) do
  local bar=string.find(p,'|',1,true)
  local whose=string.sub(p,1,bar-1)
  if whose==to or to=='' or (whose=='' and one) then out[#out+1]=string.sub(p,bar+1) end
end
return out`
	// RendezvousFind is the tracker's side. ARGV: the encoded receipt, life of a parked one in milliseconds, the most receipts
	// that are parked for one id, number (may be left out). It returns the submission (16 bytes), or an empty string and the
	// receipt is parked: the oldest goes when there are too many, and one that is parked already is not parked twice. With a
	// most of 0 it only looks.
	RendezvousFind = `local to=ARGV[4] or ''
local s=false
if to~='' then s=redis.call('HGET',KEYS[1],to) or redis.call('HGET',KEYS[1],'')
elseif redis.call('HLEN',KEYS[1])==1 then s=redis.call('HVALS',KEYS[1])[1] end
if s then return s end
local p=to..'|'..ARGV[1]
redis.call('LREM',KEYS[2],0,p)
redis.call('RPUSH',KEYS[2],p)
redis.call('LTRIM',KEYS[2],-tonumber(ARGV[3]),-1)
if redis.call('PTTL',KEYS[2])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[2],ARGV[2]) end
return ''`
	// RendezvousClear forgets what RendezvousPut returned. ARGV: number (may be left out). Once the submission is known nothing
	// new is parked for it.
	RendezvousClear = `local to=ARGV[1] or ''
if to=='' then return redis.call('DEL',KEYS[2]) end
local one=redis.call('HLEN',KEYS[1])==1
local n=0
for _,p in ipairs(redis.call('LRANGE',KEYS[2],0,-1)) do
  local whose=string.sub(p,1,string.find(p,'|',1,true)-1)
  if whose==to or (whose=='' and one) then n=n+redis.call('LREM',KEYS[2],1,p) end
end
return n`
	// RendezvousUnpark takes one receipt away that was parked under a wrong spelling. ARGV: the encoded receipt, number.
	RendezvousUnpark = `return redis.call('LREM',KEYS[2],0,ARGV[2]..'|'..ARGV[1])`
	// RendezvousForget lets the entry of a submission go whose last receipt has come. ARGV: submission, number, life that is left
	// to it in milliseconds, for receipts that come twice or after. Where the id is that of several messages it goes at once:
	// such a key lives on with each new message, and would grow for ever.
	RendezvousForget = `local n=0
for _,f in ipairs({ARGV[2],''}) do
  if redis.call('HGET',KEYS[1],f)==ARGV[1] then
    if redis.call('HLEN',KEYS[1])>1 then redis.call('HDEL',KEYS[1],f)
    elseif redis.call('PTTL',KEYS[1])>tonumber(ARGV[3]) then redis.call('PEXPIRE',KEYS[1],ARGV[3]) end
    n=n+1
  end
end
return n`
)

// Scripts of the one who fills a rendezvous again. KEYS: marker, lock. ARGV: who, life of the lock in milliseconds. A lock that
// is gone means that Redis was lost once more, or that another took over: whoever fills begins anew.
const (
	// RendezvousHold keeps the lock: 1, or 0 when it is not the caller's any more.
	RendezvousHold = `if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end
return redis.call('PEXPIRE',KEYS[2],ARGV[2])`
	// RendezvousFilled sets the marker and lets go of the lock: 1, or 0 when it is not the caller's any more.
	RendezvousFilled = `if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end
redis.call('SET',KEYS[1],ARGV[1])
return redis.call('DEL',KEYS[2])`
)

// PartState is what is known of a part of a long message; a greater one stands. That a part failed is said at once and noted
// nowhere: whatever the order of the receipts, one failure makes the message partial, unless every part arrived after all.
type PartState uint8

// States of a part.
const (
	PartDelivered PartState = iota + 1
	PartRead
)

// PartsJoin notes the state of one part and returns what is known of all: how many are delivered, and how many of these are
// read. KEYS: [Names.PartsKey]. ARGV: part, 1 and up, its state, life in milliseconds.
const PartsJoin = `local was=tonumber(redis.call('HGET',KEYS[1],ARGV[1]) or '0')
if tonumber(ARGV[2])>was then redis.call('HSET',KEYS[1],ARGV[1],ARGV[2]) end
redis.call('PEXPIRE',KEYS[1],ARGV[3])
local delivered,read=0,0
for _,v in ipairs(redis.call('HVALS',KEYS[1])) do
  delivered=delivered+1
  if v=='2' then read=read+1 end
end
return {delivered,read}`
