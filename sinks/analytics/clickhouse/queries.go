package clickhouse

// Every query names a tenant. Values are parameters. Table names are unqualified, because the connection selects the
// database.
//
// groupBitmapMerge returns UInt32, the element type, and a difference is Int64; therefore the queries cast. A set may
// be in several rows that are not merged yet; therefore GROUP BY and Merge are everywhere. Precedences below 0xF0000000
// are states. 0xF0010000 is a click by a person; 0xF0010001 to 0xF001FFFF are clicks by programs or of unknown origin.

// queryStats counts several campaigns. n is the number of recipients in a state: the number by which the union of the
// greater sets grows when the set of this precedence is added. clickers is how many of these recipients clicked. For a
// fact, n is the size of its set.
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

// queryOwn defines two tables for one campaign: sets, the set of each precedence; and own, the recipients in each
// state, which is the set of the precedence without the greater sets.
const queryOwn = `
    sets AS (SELECT prec, groupBitmapMergeState(members) AS m FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY prec),
    own AS (SELECT prec, bitmapAndnot(m, groupBitmapMergeState(m) OVER (ORDER BY prec DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS m FROM sets WHERE prec < 0xF0000000)`

// queryStatsBy counts a campaign separately for each value of the dimensions {dims}, whose numbers are those of package
// analytics.
const queryStatsBy = `
WITH` + queryOwn + `,
    (SELECT groupBitmapMergeState(members) FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND prec = 0xF0010000) AS clicked
SELECT dim, value, prec, toUInt64(bitmapAndCardinality(every.m, d.m)) AS n, toUInt64(if(prec < 0xF0000000, bitmapAndCardinality(bitmapAnd(every.m, d.m), clicked), 0)) AS clickers
FROM (SELECT prec, m FROM own UNION ALL SELECT prec, m FROM sets WHERE prec >= 0xF0000000) AS every
CROSS JOIN (SELECT pair.1 AS dim, pair.2 AS value, groupBitmapMergeState(members) AS m
            FROM (SELECT members, arrayJoin([(0, toString(variant)), (1, toString(channel)), (2, toString(country)), (3, toString(route)), (4, toString(leg))]) AS pair
                  FROM message_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String})
            WHERE pair.1 IN {dims:Array(UInt8)} GROUP BY dim, value) AS d
WHERE n > 0 ORDER BY dim, value, prec`

// querySelect returns the recipients that are in one of the states or have one of the facts, as the bytes of a bitmap
// state, which is the fastest way to transfer a set.
const querySelect = `
WITH` + queryOwn + `
SELECT toString(bitmapOr((SELECT groupBitmapMergeState(m) FROM own WHERE prec IN {precs:Array(UInt32)}),
    (SELECT groupBitmapMergeState(m) FROM sets WHERE prec >= 0xF0000000 AND prec IN {precs:Array(UInt32)}))) AS bytes`

// queryStatusSets and queryMessageSets return all sets of a campaign, as the bytes of bitmap states.
const queryStatusSets = `
SELECT prec, try, link_id, toString(groupBitmapMergeState(members)) FROM status_sets
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY prec, try, link_id`

const queryMessageSets = `
SELECT kind, variant, channel, country, route, try, leg, segments, price_micros, currency, toString(groupBitmapMergeState(members)) FROM message_sets
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String}
GROUP BY kind, variant, channel, country, route, try, leg, segments, price_micros, currency`

// queryHappened returns the recipients with an event of a kind in a range of time. If the kind is a click, only clicks
// of people count (prec 0xF0010000).
const queryHappened = `
SELECT toString(groupBitmapState(seq)) FROM events
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND toInt8(kind) = {kind:Int32} AND NOT (prec > 0xF0010000 AND prec < 0xF0020000)
  AND event_time >= fromUnixTimestamp64Milli({from:Int64}) AND event_time < fromUnixTimestamp64Milli({to:Int64})`

// columnsOfMember aggregate the events of one recipient; duplicates have no effect. The aliases are short because an
// alias that equals a column's name would replace the column in conditions. Events from receipts lack some fields, so
// each field is taken from the greatest event that has it, or from any. An aggregate over no rows returns the epoch or
// "".
const columnsOfMember = `
    maxIf(prec, prec < 0xF0000000) AS s, argMaxIf((raw_code, event_time, try, leg), (prec, event_time), prec < 0xF0000000) AS l,
    argMaxIf(channel, (prec, event_time), prec < 0xF0000000 AND channel != '') AS ch, argMaxIf(route, (prec, event_time), prec < 0xF0000000 AND route != '') AS ro,
    argMaxIf(sender, (prec, event_time), prec < 0xF0000000 AND sender != '') AS se, argMaxIf(provider_id, (prec, event_time), prec < 0xF0000000 AND provider_id != '') AS pr,
    any(message_id) AS me, max(recipient) AS re, max(country) AS co, max(variant) AS va, max(contact_id) AS cn, max(customer_ref) AS cr,
    uniqExactIf(try, prec >= 0x20000000 AND prec < 0xF0000000) AS attempts, minIf(event_time, kind = 'sent') AS sent_at,
    minIf(event_time, prec >= 0x40000000 AND prec < 0xF0000000) AS delivered_at,
    max(prec = 0xF0010000) AS clicked, max(kind = 'replied') AS replied, max(kind = 'opted_out') AS opted_out`

// namesOfMember lists those columns in the order in which scanMember reads them.
const namesOfMember = `seq, s, l.1, l.2, l.3, l.4, ch, ro, se, pr, me, re, co, va, cn, cr, attempts, sent_at, delivered_at, clicked, replied, opted_out`

const queryMembers = `
SELECT campaign_id, ` + namesOfMember + `
FROM (SELECT campaign_id, seq,` + columnsOfMember + `
      FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND seq IN {seqs:Array(UInt32)} GROUP BY campaign_id, seq)
ORDER BY seq`

// queryByRef finds messages by the client's reference, and queryByNumber by their number. Receipts do not have the
// reference, so the subquery finds the recipients and the outer query reads all their events. The month prunes
// partitions. The order follows [analytics.Member.OrderTimes]: a message is not older than its first hand-over.
var queryByRef, queryByNumber = messagesWhere("customer_ref = {ref:String}"), messagesWhere("recipient IN {numbers:Array(String)}")

func messagesWhere(condition string) string {
	return `
SELECT campaign_id, ` + namesOfMember + `
FROM (SELECT campaign_id, seq,` + columnsOfMember + `
      FROM events WHERE tenant_id = {tenant:String} AND campaign_month >= {month:Date} AND (campaign_id, seq) IN
          (SELECT campaign_id, seq FROM events WHERE tenant_id = {tenant:String} AND campaign_month >= {month:Date} AND ` + condition + `)
      GROUP BY campaign_id, seq)
ORDER BY if(s = 0, toDateTime64(0, 3, 'UTC'), if(s >= 0x20000000, greatest(l.2, sent_at), l.2)) DESC, campaign_id, seq LIMIT 100`
}

// queryHistory returns the events of one recipient. LIMIT BY removes duplicates.
const queryHistory = `
SELECT campaign_month, src_offset, event_time, toInt8(kind), prec, channel, try, leg, variant, segments, price_micros, contact_id, message_id,
       route, sender, country, currency, raw_code, link_id, recipient, provider_id, customer_ref
FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND seq = {seq:UInt32}
ORDER BY event_time, prec, try, leg, link_id LIMIT 1 BY event_time, prec, try, leg, link_id`

const queryFindRecipient = `
SELECT DISTINCT seq FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND recipient = {recipient:String} ORDER BY seq LIMIT 100`

// queryCost follows the rule of package billing. verdicts has, for each try, the recipients with a receipt and those
// whose greatest receipt is not billed: bounced or undelivered (prec between 0x20030000 and 0x20040000, and from
// 0x30000000 to 0x40000000) with one of {free}. buffered is 0x2002, unconfirmed 0x2004, which is no receipt.
const queryCost = `
WITH receipts AS (SELECT campaign_id, try, prec, groupBitmapMergeState(members) AS m FROM status_sets
                  WHERE tenant_id = {tenant:String} AND campaign_id IN {campaigns:Array(String)} AND (prec >= 0x20020000 AND prec < 0x20040000 OR prec >= 0x30000000 AND prec < 0xF0000000)
                  GROUP BY campaign_id, try, prec),
    own AS (SELECT campaign_id, try, prec, bitmapAndnot(m, groupBitmapMergeState(m) OVER (PARTITION BY campaign_id, try ORDER BY prec DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS m FROM receipts),
    verdicts AS (SELECT campaign_id, try, groupBitmapMergeState(m) AS confirmed,
                        groupBitmapMergeStateIf(m, (prec >= 0x20030000 AND prec < 0x20040000 OR prec >= 0x30000000 AND prec < 0x40000000) AND bitAnd(prec, 0xFFFF) IN {free:Array(UInt32)}) AS free
                 FROM own GROUP BY campaign_id, try),
    messages AS (SELECT campaign_id, variant, channel, country, route, leg, currency, try, segments, price_micros,
                        groupBitmapMergeStateIf(members, kind = 33) AS sent, groupBitmapMergeStateIf(members, kind = 1) AS doubt
                 FROM message_sets WHERE tenant_id = {tenant:String} AND campaign_id IN {campaigns:Array(String)} AND kind IN (1, 33) GROUP BY ALL)
SELECT campaign_id, variant, channel, country, route, leg, currency, sum(n), sum(greatest(segments, 1) * n), sum(toUInt64(greatest(segments, 1)) * price_micros * n)
FROM (SELECT campaign_id, variant, channel, country, route, leg, currency, segments, price_micros,
             toUInt64(bitmapAndnotCardinality(bitmapOr(sent, bitmapAnd(doubt, confirmed)), free)) AS n
      FROM messages LEFT JOIN verdicts USING (campaign_id, try))
WHERE n > 0
GROUP BY campaign_id, variant, channel, country, route, leg, currency`

const queryTimeline = `
SELECT toDateTime(intDiv(toUnixTimestamp(second), {step:UInt32}) * {step:UInt32}, 'UTC') AS period, kind, if({by_route:Bool}, route, '') AS of, sum(n) FROM timeline
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND toUnixTimestamp(second) >= {from:Int64} AND toUnixTimestamp(second) < {to:Int64}
GROUP BY period, kind, of ORDER BY period, kind, of`

// queryInFlight counts the recipients that were dealt at a try and have no event of that try.
const queryInFlight = `
WITH dealt AS (SELECT campaign_id, try, groupBitmapMergeState(members) AS m FROM deal_sets
               WHERE tenant_id = {tenant:String} AND campaign_id IN {campaigns:Array(String)} AND cancel = 0 GROUP BY campaign_id, try),
    answered AS (SELECT campaign_id, try, groupBitmapMergeState(members) AS m FROM status_sets
               WHERE tenant_id = {tenant:String} AND campaign_id IN {campaigns:Array(String)} AND prec < 0xF0000000 GROUP BY campaign_id, try)
SELECT campaign_id, toUInt64(groupBitmapMerge(flying)) AS n
FROM (SELECT campaign_id, bitmapAndnot(dealt.m, answered.m) AS flying FROM dealt LEFT JOIN answered USING (campaign_id, try))
GROUP BY campaign_id HAVING n > 0`

const queryDeals = `
SELECT campaign_month, deal, dealt_at, try, leg, cancel FROM
    (SELECT campaign_month, deal, dealt_at, try, leg, cancel, groupBitmapMergeState(members) AS m FROM deal_sets
     WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY ALL)
WHERE bitmapContains(m, {seq:UInt32}) ORDER BY dealt_at, deal`

const queryLinks = `
SELECT link_id, toUInt64(groupBitmapMergeIf(members, prec = 0xF0010000)), toUInt64(groupBitmapMergeIf(members, prec > 0xF0010000))
FROM status_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND prec >= 0xF0010000 AND prec < 0xF0020000 GROUP BY link_id ORDER BY link_id`
