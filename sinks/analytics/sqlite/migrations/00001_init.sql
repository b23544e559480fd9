-- +goose Up
-- Forward only. Times are milliseconds since the epoch, UTC; months are their first day as text.

CREATE TABLE campaigns (
    id       INTEGER PRIMARY KEY,
    tenant   TEXT NOT NULL,
    campaign TEXT NOT NULL,
    month    TEXT NOT NULL,
    UNIQUE (tenant, campaign)
);

-- Everything that happened: compressed runs of events of one campaign and one block of 5,000 recipients, as they came.
-- Runs are merged into a longer one of the next level when there are many. who holds seqs and numbers, rest the rest.
CREATE TABLE pieces (
    id       INTEGER PRIMARY KEY,
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    block    INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    events   INTEGER NOT NULL,
    who      BLOB NOT NULL,
    rest     BLOB NOT NULL
);
CREATE INDEX pieces_by_block ON pieces (campaign, block, level);

-- The names of the sets of a campaign. family 0: who ever reached prec, clickers apart by link. family 1: who was handed over
-- (sent 1) or refused (sent 0), how, where and at which price.
CREATE TABLE sets (
    id           INTEGER PRIMARY KEY,
    campaign     INTEGER NOT NULL REFERENCES campaigns (id),
    family       INTEGER NOT NULL,
    prec         INTEGER NOT NULL DEFAULT 0,
    link         TEXT NOT NULL DEFAULT '',
    sent         INTEGER NOT NULL DEFAULT 0,
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

-- Their members, 65,536 seqs in each part: a portable Roaring bitmap. A few receipts of a large campaign rewrite little.
CREATE TABLE parts (
    set_id  INTEGER NOT NULL REFERENCES sets (id),
    part    INTEGER NOT NULL,
    members BLOB NOT NULL,
    PRIMARY KEY (set_id, part)
) WITHOUT ROWID;

-- For charts: events, not recipients.
CREATE TABLE timeline (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    minute   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (campaign, minute, kind)
) WITHOUT ROWID;

CREATE TABLE customer_refs (
    ref      TEXT NOT NULL,
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    seq      INTEGER NOT NULL,
    PRIMARY KEY (ref, campaign, seq)
) WITHOUT ROWID;

-- How far each partition has been taken, in the transaction that took it.
CREATE TABLE positions (
    topic     BLOB NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- Up to which time each partition has been read.
CREATE TABLE marks (
    topic     BLOB NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    as_of     INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
