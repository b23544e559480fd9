-- +goose Up
-- Forward only. Times are milliseconds since the epoch, UTC, or seconds where the name says so; months are their first
-- day as text.

CREATE TABLE campaigns (
    id       INTEGER PRIMARY KEY,
    tenant   TEXT NOT NULL,
    campaign TEXT NOT NULL,
    month    TEXT NOT NULL,
    UNIQUE (tenant, campaign)
);

-- All events, as compressed runs: the events of one campaign and one block of 5,000 recipients, in the order of
-- arrival. When a level has many runs, they are merged into one run of the next level. who holds seqs and phone
-- numbers, rest the other columns.
CREATE TABLE runs (
    id       INTEGER PRIMARY KEY,
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    block    INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    events   INTEGER NOT NULL,
    who      BLOB NOT NULL,
    rest     BLOB NOT NULL
);
CREATE INDEX runs_by_block ON runs (campaign, block, level);

-- The keys of the sets of a campaign. family 0: recipients that ever reached prec at a try; clickers have one set per
-- link. family 1: recipients with an event of a kind that describes a message, by the dimensions and the price of the
-- message. family 2: recipients that were dealt at a try to a leg.
CREATE TABLE sets (
    id           INTEGER PRIMARY KEY,
    campaign     INTEGER NOT NULL REFERENCES campaigns (id),
    family       INTEGER NOT NULL,
    prec         INTEGER NOT NULL DEFAULT 0,
    link         TEXT NOT NULL DEFAULT '',
    kind         INTEGER NOT NULL DEFAULT 0,
    variant      INTEGER NOT NULL DEFAULT 0,
    channel      INTEGER NOT NULL DEFAULT 0,
    country      TEXT NOT NULL DEFAULT '',
    route        TEXT NOT NULL DEFAULT '',
    try          INTEGER NOT NULL DEFAULT 0,
    leg          INTEGER NOT NULL DEFAULT 0,
    segments     INTEGER NOT NULL DEFAULT 0,
    price_micros INTEGER NOT NULL DEFAULT 0,
    currency     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX sets_by_campaign ON sets (campaign);

-- The members of the sets, as portable Roaring bitmaps of 65,536 seqs each, so that a few receipts of a large campaign
-- rewrite little.
CREATE TABLE parts (
    set_id  INTEGER NOT NULL REFERENCES sets (id),
    part    INTEGER NOT NULL,
    members BLOB NOT NULL,
    PRIMARY KEY (set_id, part)
) WITHOUT ROWID;

-- For charts. It counts events, not recipients.
CREATE TABLE timeline (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    second   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (campaign, second, kind)
) WITHOUT ROWID;

-- Deals of the scheduler. Two deals with one number differ in time; members is a portable Roaring bitmap.
CREATE TABLE deals (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    deal     INTEGER NOT NULL,
    dealt_ms INTEGER NOT NULL,
    try      INTEGER NOT NULL,
    leg      INTEGER NOT NULL,
    cancel   INTEGER NOT NULL,
    members  BLOB NOT NULL,
    PRIMARY KEY (campaign, deal, dealt_ms)
) WITHOUT ROWID;

CREATE TABLE customer_refs (
    ref      TEXT NOT NULL,
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    seq      INTEGER NOT NULL,
    PRIMARY KEY (ref, campaign, seq)
) WITHOUT ROWID;

-- The next offset to read of each partition, written in the transaction that stored the offsets before it.
CREATE TABLE positions (
    topic     BLOB NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- The time up to which each partition is completely stored.
CREATE TABLE marks (
    topic     BLOB NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    as_of     INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
