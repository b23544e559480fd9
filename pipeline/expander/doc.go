// Package expander turns each deal of the scheduler into messages: one per recipient, rendered, measured and priced, in
// the same transaction that marks the deal as read. It is the only maker of campaign messages.
//
//	reads    chunks (group expander), the view of campaigns, the frozen audience (by freeze id and blob)
//	writes   messages.<route>.bulk, key <tenant>/<number>; deliveries, key <tenant>/<message id>; chunks.dlq
//	promise  exactly once under read_committed: a chunk's records are all there, once, or none is
//
// The same chunk always gives the same bytes: ids follow from (campaign, seq, try), the text from the frozen blob and
// the campaign's text, which does not change once confirmed, and every time is the chunk's own. So if a chunk is
// expanded twice, after a broker lost half a transaction or after a repair, readers recognise the messages as the same.
//
// Links on domains (R39, R40): the chunk names the blocks of domains that the store has reserved for its recipients. A
// recipient's rank in its block determines its domain. The expander counts nothing, so a limit holds with any number of
// expanders, and a recipient has the same domain at every try.
//
// What a recipient becomes:
//
//	not sendable in the audience    not_sent/INVALID_NUMBER, skipped/DUPLICATE_RECIPIENT, /OPTED_OUT, /FREQUENCY_CAP
//	text beyond max_segments        not_sent/TOO_LONG
//	no text can be made             not_sent/RENDER_ERROR: a field is missing under the policy fail, or nothing is
//	                                left to send
//	campaign ended or stopped       skipped/CANCELLED for every recipient
//	chunk of purpose cancel         the outcome that the chunk names; at the first try a recipient that is not
//	                                sendable keeps its own reason
//	otherwise                       a message
//
// A paused campaign's chunk is expanded: the senders return its messages. The sender checks limits, calling hours,
// expiry and opt-outs since the freeze, right before the hand-over.
//
// Failures:
//
//	store unreachable, view behind chunk   the batch waits and is tried again until it succeeds
//	chunk does not decode                  chunks.dlq
//	chunk cannot be rendered, or panics    chunks.dlq, and not_sent/RENDER_ERROR for each of its recipients that is
//	                                       known
//	revoked, stopped, killed               the transaction is aborted, and the next owner expands the chunk again
//
// Blobs are read and texts are made before the transaction begins: a slow store inside an open one would hold up every
// reader of the route.
package expander
