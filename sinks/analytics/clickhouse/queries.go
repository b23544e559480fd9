package clickhouse

// Every question names a tenant. Values are parameters; names are unqualified, the connection chooses the database.
//
// groupBitmapMerge returns the element type, UInt32; a difference is Int64: hence the casts. A set is never one row: parts not
// merged yet hold pieces of it, hence GROUP BY and Merge everywhere. Everything below 0xF0000000 is a status; 0xF0010000 is a
// click by a person, 0xF0010001 one by a bot.

// queryStats counts many campaigns. n is how many recipients are in a state: the step of a running union from the greatest
// precedence down, which is the size of the set less all greater sets. clickers are those of them who clicked. A fact has the
// size of its own set.
const queryStats = `
SELECT campaign_id, prec, toUInt64(if(prec < 0xF0000000, u - lagInFrame(u) OVER w, toInt64(own))) AS n, toUInt64(c - lagInFrame(c) OVER w) AS clickers
FROM
(
    SELECT campaign_id, prec, bitmapCardinality(m) AS own, groupBitmapMergeIf(m, prec < 0xF0000000) OVER w AS u,
           bitmapAndCardinality(groupBitmapMergeStateIf(m, prec < 0xF0000000) OVER w, groupBitmapMergeStateIf(m, prec = 0xF0010000) OVER w) AS c
    FROM (SELECT campaign_id, prec, groupBitmapMergeState(members) AS m FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id IN {campaigns:Array(String)} GROUP BY campaign_id, prec)
    WINDOW w AS (PARTITION BY campaign_id ORDER BY prec DESC)
)
WINDOW w AS (PARTITION BY campaign_id ORDER BY prec DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY campaign_id, prec`

// queryOwn is the sets of one campaign, statuses without whoever is in a greater one, facts whole.
const queryOwn = `
    sets AS (SELECT prec, groupBitmapMergeState(members) AS m FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY prec),
    own AS (SELECT prec, bitmapAndnot(m, groupBitmapMergeState(m) OVER (ORDER BY prec DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS m FROM sets WHERE prec < 0xF0000000)`

// queryStatsBy counts a campaign apart by a dimension, whose expression over send_sets stands where %s does: one of dimensions.
const queryStatsBy = `
WITH` + queryOwn + `,
    (SELECT groupBitmapMergeState(members) FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND prec = 0xF0010000) AS clicked
SELECT value, prec, toUInt64(bitmapAndCardinality(every.m, d.m)) AS n, toUInt64(if(prec < 0xF0000000, bitmapAndCardinality(bitmapAnd(every.m, d.m), clicked), 0)) AS clickers
FROM (SELECT prec, m FROM own UNION ALL SELECT prec, m FROM sets WHERE prec >= 0xF0000000) AS every
CROSS JOIN (SELECT %s AS value, groupBitmapMergeState(members) AS m FROM send_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY value) AS d
WHERE n > 0 ORDER BY value, prec`

// querySelect returns a set as its bytes, the fastest way out: who is in one of the states, or has one of the facts.
const querySelect = `
WITH` + queryOwn + `
SELECT toString(bitmapOr((SELECT groupBitmapMergeState(m) FROM own WHERE prec IN {precs:Array(UInt32)}),
    (SELECT groupBitmapMergeState(m) FROM sets WHERE prec >= 0xF0000000 AND prec IN {precs:Array(UInt32)}))) AS bytes`

// columnsOfMember fold the events of one recipient, so that events that came twice do not show. An alias that is a column's name
// would stand for it in every condition: hence the short ones. What only the message knows is empty in events that come from
// receipts: it is taken from the greatest event that has it, or from any. The functions of an empty set give the epoch and "".
const columnsOfMember = `
    maxIf(prec, prec < 0xF0000000) AS s, argMaxIf((raw_code, event_time, try, leg), (prec, event_time), prec < 0xF0000000) AS l,
    argMaxIf(channel, (prec, event_time), prec < 0xF0000000 AND channel != '') AS ch, argMaxIf(route, (prec, event_time), prec < 0xF0000000 AND route != '') AS ro,
    argMaxIf(sender, (prec, event_time), prec < 0xF0000000 AND sender != '') AS se, argMaxIf(provider_id, (prec, event_time), prec < 0xF0000000 AND provider_id != '') AS pr,
    any(message_id) AS me, max(recipient) AS re, max(country) AS co, max(variant) AS va, max(contact_id) AS cn, max(customer_ref) AS cr,
    uniqExactIf(try, prec >= 0x20000000 AND prec < 0xF0000000) AS attempts, minIf(event_time, kind = 'sent') AS sent_at,
    minIf(event_time, prec >= 0x40000000 AND prec < 0xF0000000) AS delivered_at,
    max(prec = 0xF0010000) AS clicked, max(kind = 'replied') AS replied, max(kind = 'opted_out') AS opted_out`

// namesOfMember are those columns in the order in which they are read.
const namesOfMember = `seq, s, l.1, l.2, l.3, l.4, ch, ro, se, pr, me, re, co, va, cn, cr, attempts, sent_at, delivered_at, clicked, replied, opted_out`

const queryMembers = `
SELECT campaign_id, ` + namesOfMember + `
FROM (SELECT campaign_id, seq,` + columnsOfMember + `
      FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND seq IN {seqs:Array(UInt32)} GROUP BY campaign_id, seq)
ORDER BY seq`

// queryByRef finds messages by the client's reference. Receipts do not carry it: whom it names is found first, then all about
// them. The month prunes partitions.
const queryByRef = `
SELECT campaign_id, ` + namesOfMember + `
FROM (SELECT campaign_id, seq,` + columnsOfMember + `
      FROM events WHERE tenant_id = {tenant:String} AND campaign_month >= {month:Date} AND (campaign_id, seq) IN
          (SELECT campaign_id, seq FROM events WHERE tenant_id = {tenant:String} AND campaign_month >= {month:Date} AND customer_ref = {ref:String})
      GROUP BY campaign_id, seq)
ORDER BY if(s = 0, toDateTime64(0, 3, 'UTC'), l.2) DESC, campaign_id, seq LIMIT 100`

// queryHistory is everything about one recipient. LIMIT BY hides events that came twice.
const queryHistory = `
SELECT campaign_month, src_offset, event_time, toInt8(kind), prec, channel, try, leg, variant, segments, price_micros, contact_id, message_id,
       route, sender, country, currency, raw_code, link_id, recipient, provider_id, customer_ref
FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND seq = {seq:UInt32}
ORDER BY event_time, prec, try, leg, link_id LIMIT 1 BY event_time, prec, try, leg, link_id`

const queryFindRecipient = `
SELECT DISTINCT seq FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND recipient = {recipient:String} ORDER BY seq LIMIT 100`

// queryCost is exact under duplicates: a recipient counts once for each hand-over.
const queryCost = `
SELECT channel, country, currency, toUInt64(sum(n)), toUInt64(sum(segments * n)), toUInt64(sum(toUInt64(segments) * price_micros * n))
FROM (SELECT try, leg, channel, country, segments, price_micros, currency, toUInt64(groupBitmapMerge(members)) AS n FROM send_sets
      WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND sent GROUP BY ALL)
GROUP BY channel, country, currency ORDER BY channel, country, currency`

const queryTimeline = `
SELECT minute, kind, sum(n) FROM timeline WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY minute, kind ORDER BY minute, kind`

const queryLinks = `
SELECT link_id, toUInt64(groupBitmapMergeIf(members, prec = 0xF0010000)), toUInt64(groupBitmapMergeIf(members, prec = 0xF0010001))
FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND prec IN (0xF0010000, 0xF0010001) GROUP BY link_id ORDER BY link_id`
