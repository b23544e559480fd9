-- +goose Up
-- A view per question, for people who query by themselves; Fanfare's own answers do not read them. Every view takes its tenant, and all but
-- the first their campaign: SELECT * FROM campaign_statuses(tenant = 'tn_…', campaign = 'camp_…'). Each is exact while rows are doubled or
-- not merged yet. A recipient's state is the greatest prec of its events below class 15; the words for it are those of the API, and rates are
-- rounded as there.

-- How did the campaigns of a tenant go? Recipients without an event are in no column: the audience is known to the API only.
CREATE VIEW IF NOT EXISTS campaign_figures AS
SELECT campaign_id, month, known, waiting, ambiguous, not_sent, skipped, sent, awaiting, undelivered, delivered, was_read, clicked,
       if(sent = 0, 0, floor(delivered / sent * 10000 + 0.5) / 10000) AS delivery_rate,
       if(sent + not_sent = 0, 0, floor((undelivered + not_sent) / (sent + not_sent) * 10000 + 0.5) / 10000) AS failure_rate,
       if(delivered = 0, 0, floor(delivered_and_clicked / delivered * 10000 + 0.5) / 10000) AS click_rate
FROM (SELECT campaign_id, max(of_month) AS month, countIf(state > 0) AS known,
             countIf(state > 0 AND state < 0x10000000 AND is_returned) AS waiting, countIf(state > 0 AND state < 0x10000000 AND NOT is_returned) AS ambiguous,
             countIf(state >= 0x10000000 AND state < 0x10020000) AS not_sent, countIf(state >= 0x10020000 AND state < 0x20000000) AS skipped,
             countIf(state >= 0x20000000) AS sent, countIf(state >= 0x20000000 AND state < 0x30000000) AS awaiting,
             countIf(state >= 0x30000000 AND state < 0x40000000) AS undelivered, countIf(state >= 0x40000000) AS delivered,
             countIf(state >= 0x40020000) AS was_read, countIf(is_clicked) AS clicked, countIf(state >= 0x40000000 AND is_clicked) AS delivered_and_clicked
      FROM (SELECT campaign_id, seq, max(campaign_month) AS of_month, maxIf(prec, prec < 0xF0000000) AS state,
                   bitAnd(bitShiftRight(state, 16), 15) = 2 AS is_returned, max(prec = 0xF0010000) AS is_clicked
            FROM events WHERE tenant_id = {tenant:String} GROUP BY campaign_id, seq)
      GROUP BY campaign_id);

-- What became of the recipients?
CREATE VIEW IF NOT EXISTS campaign_statuses AS
SELECT status, sub_status, count() AS recipients
FROM (SELECT seq, maxIf(prec, prec < 0xF0000000) AS state, bitAnd(bitShiftRight(state, 16), 15) AS rank, argMaxIf(code, prec, prec < 0xF0000000) AS sub_status,
             multiIf(state >= 0x40000000, 'delivered', state >= 0x30000000, 'undelivered', state >= 0x20000000, 'awaiting',
                     state >= 0x10000000, if(rank = 1, 'notSent', 'skipped'), if(rank = 1, 'ambiguous', 'pending')) AS status
      FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY seq HAVING state > 0)
GROUP BY status, sub_status;

-- What became of each recipient? Times are the epoch where nothing happened.
CREATE VIEW IF NOT EXISTS campaign_members AS
SELECT seq, multiIf(state >= 0x40000000, 'delivered', state >= 0x30000000, 'undelivered', state >= 0x20000000, 'awaiting',
                    state >= 0x10000000, if(rank = 1, 'notSent', 'skipped'), if(rank = 1, 'ambiguous', 'pending')) AS status,
       sub_status, carrier_code, number, of_country, of_variant, via_channel, via_route, attempts, sent_at, delivered_at, clicked, opted_out, contact, reference
FROM (SELECT seq, maxIf(prec, prec < 0xF0000000) AS state, bitAnd(bitShiftRight(state, 16), 15) AS rank, argMaxIf(code, prec, prec < 0xF0000000) AS sub_status,
             argMaxIf(raw_code, (prec, event_time), prec < 0xF0000000) AS carrier_code, max(recipient) AS number, max(country) AS of_country, max(variant) AS of_variant,
             argMaxIf(channel, (prec, event_time), prec < 0xF0000000 AND channel != '') AS via_channel,
             argMaxIf(route, (prec, event_time), prec < 0xF0000000 AND route != '') AS via_route,
             uniqExactIf(try, prec >= 0x20000000 AND prec < 0xF0000000) AS attempts, minIf(event_time, kind = 'sent') AS sent_at,
             minIf(event_time, prec >= 0x40000000 AND prec < 0xF0000000) AS delivered_at, max(prec = 0xF0010000) AS clicked, max(kind = 'opted_out') AS opted_out,
             max(contact_id) AS contact, max(customer_ref) AS reference
      FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY seq HAVING state > 0);

-- Where did it work? dimension is country, variant, channel, route or leg. A recipient counts for each value that a message to it had, so for
-- two channels after a fallback.
CREATE VIEW IF NOT EXISTS campaign_breakdown AS
WITH sets AS (SELECT prec, groupBitmapMergeState(members) AS m FROM status_sets
              WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY prec),
     own AS (SELECT prec, bitmapAndnot(m, groupBitmapMergeState(m) OVER (ORDER BY prec DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS m
             FROM sets WHERE prec < 0xF0000000)
SELECT dimension, value, sum(n) AS recipients, sumIf(n, prec >= 0x20000000) AS sent, sumIf(n, prec >= 0x40000000) AS delivered,
       sumIf(n, prec >= 0x30000000 AND prec < 0x40000000) AS undelivered, sumIf(n, prec >= 0x10000000 AND prec < 0x10020000) AS not_sent,
       sum(c) AS clicked, if(sent = 0, 0, floor(delivered / sent * 10000 + 0.5) / 10000) AS delivery_rate
FROM (SELECT dimension, value, prec, toUInt64(if(prec < 0xF0000000, bitmapAndCardinality(every.m, d.m), 0)) AS n,
             toUInt64(if(prec = 0xF0010000, bitmapAndCardinality(every.m, d.m), 0)) AS c
      FROM (SELECT prec, m FROM own UNION ALL SELECT prec, m FROM sets WHERE prec = 0xF0010000) AS every
      CROSS JOIN (SELECT pair.1 AS dimension, pair.2 AS value, groupBitmapMergeState(members) AS m
                  FROM (SELECT members, arrayJoin([('country', toString(country)), ('variant', toString(variant)), ('channel', toString(channel)),
                            ('route', toString(route)), ('leg', toString(leg))]) AS pair
                        FROM message_sets WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String})
                  GROUP BY dimension, value) AS d)
GROUP BY dimension, value HAVING recipients + clicked > 0;

-- Why did messages fail? By route and the carrier's own code; a recipient counts for each failure of its tries.
CREATE VIEW IF NOT EXISTS campaign_failures AS
SELECT route, code AS sub_status, raw_code AS carrier_code, uniqExact(seq) AS recipients
FROM events
WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND kind IN ('not_sent', 'bounced', 'undelivered')
GROUP BY route, code, raw_code;

-- How many seconds from the hand-over to the delivery?
CREATE VIEW IF NOT EXISTS campaign_delivery_seconds AS
SELECT via AS route, count() AS delivered, quantileExact(0.5)(seconds) AS p50, quantileExact(0.9)(seconds) AS p90, quantileExact(0.99)(seconds) AS p99
FROM (SELECT seq, try, anyIf(events.route, kind = 'sent') AS via,
             dateDiff('millisecond', minIf(event_time, kind = 'sent'), minIf(event_time, kind != 'sent')) / 1000 AS seconds
      FROM events
      WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND kind IN ('sent', 'delivered', 'read')
      GROUP BY seq, try HAVING countIf(kind = 'sent') > 0 AND countIf(kind != 'sent') > 0)
GROUP BY via;

-- What did it cost? The rule of the bill: what was handed over, and of the ambiguous what a receipt confirms, without what failed for a reason
-- that is free. The numbers are those of the sub-statuses that are undelivered and not billed.
CREATE VIEW IF NOT EXISTS campaign_cost AS
SELECT of_country AS country, of_channel AS channel, of_route AS route, of_variant AS variant, of_leg AS leg, of_currency AS currency, count() AS messages,
       sum(parts) AS segments, sum(toUInt64(parts) * price) / 1000000 AS amount
FROM (SELECT seq, try, receipt, country AS of_country, channel AS of_channel, route AS of_route, variant AS of_variant, leg AS of_leg, currency AS of_currency,
             greatest(any(events.segments), 1) AS parts, any(price_micros) AS price, max(kind = 'sent') AS was_sent
      FROM events
      LEFT JOIN (SELECT seq, try, max(prec) AS receipt FROM events
                 WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String}
                   AND (prec >= 0x20020000 AND prec < 0x20040000 OR prec >= 0x30000000 AND prec < 0xF0000000) GROUP BY seq, try) AS verdicts USING (seq, try)
      WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND kind IN ('ambiguous', 'sent') AND channel != ''
      GROUP BY seq, try, receipt, country, channel, route, variant, leg, currency, events.segments, price_micros)
WHERE (was_sent OR receipt > 0)
  AND NOT ((receipt >= 0x20030000 AND receipt < 0x20040000 OR receipt >= 0x30000000 AND receipt < 0x40000000) AND bitAnd(receipt, 0xFFFF) IN (1, 2, 3, 100, 101, 102, 103, 104, 105, 106, 107, 108, 150, 151, 152, 200, 201, 202, 203, 307,
          400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 500, 501, 502, 503, 504, 505, 506, 507, 508))
GROUP BY of_country, of_channel, of_route, of_variant, of_leg, of_currency;

-- Who clicked which link? people are recipients with a click by a person, others those whose link a program opened, or something unknown.
CREATE VIEW IF NOT EXISTS campaign_links AS
SELECT link_id, uniqExactIf(seq, prec = 0xF0010000) AS people, uniqExactIf(seq, prec > 0xF0010000) AS others
FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} AND prec >= 0xF0010000 AND prec < 0xF0020000
GROUP BY link_id;

-- When did it happen? Recipients by minute and kind.
CREATE VIEW IF NOT EXISTS campaign_minutes AS
SELECT toStartOfMinute(event_time) AS minute, toString(kind) AS event, uniqExact(seq) AS recipients
FROM events WHERE tenant_id = {tenant:String} AND campaign_id = {campaign:String} GROUP BY minute, event;
