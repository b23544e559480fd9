-- +goose Up
-- Table names are unqualified: the connection selects the database (native Auth.Database, HTTP ?database=), and a view
-- keeps the one it was created in. The database itself is created on a connection that selects none: CREATE DATABASE IF
-- NOT EXISTS <name> ENGINE = Atomic
--
-- prec UInt32 = class<<28 | try<<20 | rank<<16 | code, computed by the writer; a recipient's state is the greatest prec
-- of its events below class 15 (prec < 0xF0000000). The maximum does not depend on order or duplicates. Within prec,
-- try is 0 outside class 0; link_id is '' outside clicked.
--   0 open        ambiguous 1, returned 2             (try compares before rank)
--   1 never left  not_sent 1, skipped 2
--   2 left        sent 1, buffered 2, bounced 3, unconfirmed 4
--   3 negative    undelivered 1
--   4 positive    delivered 1, read 2
--   15 facts      clicked 1 (code 0 human, 1 bot), replied 2, opted_out 3
-- kind = (class & 7)<<4 | rank: for display and for filters, never compared for precedence.

-- 1. all events, one row per event, append-only
CREATE TABLE IF NOT EXISTS events
(
    tenant_id       LowCardinality(String),
    campaign_id     LowCardinality(String),
    campaign_month  Date                               COMMENT 'first day of the month the campaign was confirmed: all rows of a campaign share a partition, whatever the event time',
    seq             UInt32                             COMMENT 'number of the recipient in the frozen audience',
    try             UInt8 DEFAULT 1,
    leg             UInt8 DEFAULT 1,
    kind            Enum8('ambiguous'=1,'returned'=2,'not_sent'=17,'skipped'=18,'sent'=33,'buffered'=34,'bounced'=35,'unconfirmed'=36,'undelivered'=49,'delivered'=65,'read'=66,'clicked'=113,'replied'=114,'opted_out'=115),
    prec            UInt32,
    event_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    ingested_at     DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    channel         LowCardinality(String),
    route           LowCardinality(String),
    sender          LowCardinality(String),
    country         LowCardinality(String),
    variant         UInt8 DEFAULT 0,
    code            LowCardinality(String) DEFAULT ''  COMMENT 'name of the sub-status; its number is the low 16 bits of prec',
    raw_code        LowCardinality(String) DEFAULT ''  COMMENT 'the carrier''s own code',
    link_id         LowCardinality(String) DEFAULT '',
    customer_ref    String DEFAULT '' CODEC(ZSTD(1)),
    message_id      UUID,
    contact_id      UInt64 DEFAULT 0,
    recipient       String CODEC(ZSTD(1)),
    provider_id     String DEFAULT '' CODEC(ZSTD(1)),
    segments        UInt8 DEFAULT 1,
    price_micros    UInt32 DEFAULT 0                   COMMENT 'per segment',
    currency        LowCardinality(String) DEFAULT '',
    src_partition   UInt16,
    src_offset      UInt64 CODEC(Delta, ZSTD(1)),
    INDEX ix_recipient recipient TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_customer_ref customer_ref TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY campaign_month
PRIMARY KEY (tenant_id, campaign_id, seq)
ORDER BY (tenant_id, campaign_id, seq, prec)
TTL campaign_month + INTERVAL 13 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- 2. the recipients that ever reached each precedence, facts included. try is that of the event (0 for a fact), so that
-- the receipts of each try can be told apart; link_id splits the clickers by link and is '' elsewhere
CREATE TABLE IF NOT EXISTS status_sets
(
    tenant_id LowCardinality(String), campaign_id LowCardinality(String), campaign_month Date,
    prec UInt32, try UInt8, link_id LowCardinality(String),
    members AggregateFunction(groupBitmap, UInt32)
)
ENGINE = AggregatingMergeTree PARTITION BY campaign_month
ORDER BY (tenant_id, campaign_id, campaign_month, prec, try, link_id)
TTL campaign_month + INTERVAL 13 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 128;

CREATE MATERIALIZED VIEW IF NOT EXISTS status_sets_mv TO status_sets AS
SELECT tenant_id, campaign_id, campaign_month, prec, if(prec < 0xF0000000, try, 0) AS try, link_id, groupBitmapState(seq) AS members
FROM events GROUP BY tenant_id, campaign_id, campaign_month, prec, try, link_id;

-- 3. the recipients of each message by what it was and what happened to it: money and dimensions from one grouping.
-- Only events that describe a message are in it: receipts and the scheduler's own outcomes have no channel
CREATE TABLE IF NOT EXISTS message_sets
(
    tenant_id LowCardinality(String), campaign_id LowCardinality(String), campaign_month Date,
    kind Int8                                          COMMENT 'of the event: sent and ambiguous count for the bill, all for the dimensions',
    variant UInt8, channel LowCardinality(String), country LowCardinality(String), route LowCardinality(String),
    try UInt8, leg UInt8, segments UInt8, price_micros UInt32, currency LowCardinality(String),
    members AggregateFunction(groupBitmap, UInt32)
)
ENGINE = AggregatingMergeTree PARTITION BY campaign_month
ORDER BY (tenant_id, campaign_id, campaign_month, kind, variant, channel, country, route, try, leg, segments, price_micros, currency)
TTL campaign_month + INTERVAL 13 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 128;

CREATE MATERIALIZED VIEW IF NOT EXISTS message_sets_mv TO message_sets AS
SELECT tenant_id, campaign_id, campaign_month, toInt8(kind) AS kind, variant, channel, country, route, try, leg, segments, price_micros, currency, groupBitmapState(seq) AS members
FROM events WHERE events.kind IN ('ambiguous', 'not_sent', 'skipped', 'sent') AND channel != ''
GROUP BY tenant_id, campaign_id, campaign_month, kind, variant, channel, country, route, try, leg, segments, price_micros, currency;

-- 4. for charts only: it is additive, so it is exact only while every insert carries its deduplication token. Do not
-- bill from it
CREATE TABLE IF NOT EXISTS timeline
(
    tenant_id LowCardinality(String), campaign_id LowCardinality(String), campaign_month Date,
    kind Int8, second DateTime('UTC') CODEC(Delta, ZSTD(1)),
    n SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree PARTITION BY campaign_month
ORDER BY (tenant_id, campaign_id, campaign_month, second, kind)
TTL campaign_month + INTERVAL 13 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS timeline_mv TO timeline AS
SELECT tenant_id, campaign_id, campaign_month, toInt8(kind) AS kind, toDateTime(event_time, 'UTC') AS second, count() AS n
FROM events GROUP BY tenant_id, campaign_id, campaign_month, kind, second;

-- 5. the deals of the scheduler. A deal is inserted into deals with its recipients as an array, which the view turns
-- into a set
CREATE TABLE IF NOT EXISTS deals
(
    tenant_id LowCardinality(String), campaign_id LowCardinality(String), campaign_month Date,
    deal UInt64, dealt_at DateTime64(3, 'UTC'), try UInt8, leg UInt8,
    cancel UInt8                                       COMMENT '1: no message is made, so no recipient is in flight',
    seqs Array(UInt32)
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS deal_sets
(
    tenant_id LowCardinality(String), campaign_id LowCardinality(String), campaign_month Date,
    cancel UInt8, try UInt8, leg UInt8, deal UInt64, dealt_at DateTime64(3, 'UTC'),
    members AggregateFunction(groupBitmap, UInt32)
)
ENGINE = AggregatingMergeTree PARTITION BY campaign_month
ORDER BY (tenant_id, campaign_id, campaign_month, cancel, try, leg, deal, dealt_at)
TTL campaign_month + INTERVAL 13 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 128;

CREATE MATERIALIZED VIEW IF NOT EXISTS deal_sets_mv TO deal_sets AS
SELECT tenant_id, campaign_id, campaign_month, cancel, try, leg, deal, dealt_at, groupBitmapState(arrayJoin(seqs)) AS members
FROM deals GROUP BY tenant_id, campaign_id, campaign_month, cancel, try, leg, deal, dealt_at;
