// Package ratelimit gives out tokens so that all processes together stay within the limits of a route, a tenant, a
// sender and a campaign.
//
// # What it promises
//
//   - The tokens of a bucket that are used in any span of t are never more than rate × t + burst, whatever the
//     processes do. The burst is at most 100 ms of the rate, or one token. Half of it is the bucket in Redis, the other
//     half is what leases may be old when they are used.
//   - One Lua script takes from all levels at once, route > tenant > sender > campaign; a level whose rate is 0 is
//     absent.
//   - The clock of Redis is the only one. A clock that goes back costs at most one refill, never a wait of hours.
//   - Tokens are leased in slices of 10 to 40 ms of the rate, divided by the processes that take from the route, and
//     waits are jittered: calls to Redis grow with processes and slices, not with messages.
//   - Below 100 tokens a second a waiter gets the time at which its token is due (a reservation), and sleeps once.
//   - The transactional lane goes first; the bulk lane keeps 20 %.
//   - [Limiter.Throttled] halves the rate of a route for every process; it climbs back by 5 % a second.
//   - While Redis is away, whatever the [Condition], [Limiter.Take] blocks and asks again, without end.
//     No process hands out a share of the limit on its own: two processes that lose Redis would not agree on the
//     shares.
//
// # What it does not promise
//
// A bucket that Redis lost is full again, so each loss may cost one burst. All keys of one call lie in one slot of a
// cluster, tagged with the route: the limit of a tenant or a sender holds on each route by itself. A token reserved on
// a slow level is taken from the quicker ones when it is reserved, so these may see it used up to a second after they
// counted it.
//
// # Keys
//
//	<prefix>rate:{<route>}                          hash: k tokens, t their time, f factor and ft its time, b d bw dw
//	                                                the lanes, n senders
//	<prefix>rate:{<route>}:tenant:<tenant>          hash: k, t
//	<prefix>rate:{<route>}:sender:<tenant>/<id>     hash: k, t
//	<prefix>rate:{<route>}:campaign:<tenant>/<id>   hash: k, t
//	<prefix>rate:{<route>}:live                     sorted set: processes that took tokens, by time
package ratelimit
