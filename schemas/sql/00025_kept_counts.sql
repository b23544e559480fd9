-- +goose Up

-- How many campaigns of a tenant there are by what lists filter them by, and what they have reserved and spent. Every
-- write of a campaign keeps it: counting 100,000 campaigns for each page of a list took 50 ms. Hidden campaigns are not
-- counted.
CREATE TABLE campaign_counts (
  tenant   TEXT NOT NULL,
  state    INTEGER NOT NULL,
  channel  INTEGER NOT NULL,
  test     BOOLEAN NOT NULL,
  removed  BOOLEAN NOT NULL,
  n        INTEGER NOT NULL CHECK (n >= 0),
  reserved INTEGER NOT NULL CHECK (reserved >= 0),
  captured INTEGER NOT NULL CHECK (captured >= 0),
  PRIMARY KEY (tenant, state, channel, test, removed)
) WITHOUT ROWID;
INSERT INTO campaign_counts (tenant, state, channel, test, removed, n, reserved, captured)
SELECT tenant, state, channel, test, removed, COUNT(*), CAST(SUM(reserved) AS INTEGER), CAST(SUM(captured) AS INTEGER)
FROM campaigns WHERE NOT hidden GROUP BY tenant, state, channel, test, removed;

-- Which campaigns have a tag, in lower case as in campaigns.tags. Hidden and removed campaigns are left out.
CREATE TABLE campaign_tags (
  tenant TEXT NOT NULL,
  tag    TEXT NOT NULL,
  number INTEGER NOT NULL,
  PRIMARY KEY (tenant, tag, number)
) WITHOUT ROWID;
INSERT INTO campaign_tags (tenant, tag, number)
WITH RECURSIVE split (tenant, number, tag, rest) AS (
  SELECT tenant, number, CAST('' AS TEXT), SUBSTR(tags, 2) FROM campaigns WHERE tags <> '' AND NOT hidden AND NOT removed
  UNION ALL
  SELECT tenant, number, SUBSTR(rest, 1, INSTR(rest, '|') - 1), SUBSTR(rest, INSTR(rest, '|') + 1) FROM split WHERE rest <> ''
)
SELECT DISTINCT tenant, tag, number FROM split WHERE tag <> '';

-- What a list of campaigns filters by, in the order of the list: neither counting nor searching reads the rows
-- themselves, whose documents are long.
DROP INDEX campaigns_tenant;
CREATE INDEX campaigns_list ON campaigns (tenant, number, hidden, removed, test, state, channel, created_ms, search);

-- The figures of campaigns that have ended, and their sums by the UTC day of creation, so that the statistics over all
-- campaigns add up days. figures_kept says that a campaign has its row here; the others, which are few, are read from
-- the statistics. A removed campaign has no row.
CREATE TABLE campaign_figures (
  tenant             TEXT NOT NULL,
  created_ms         INTEGER NOT NULL,
  number             INTEGER NOT NULL,
  cost               INTEGER NOT NULL,
  total              INTEGER NOT NULL,
  pending            INTEGER NOT NULL,
  ambiguous          INTEGER NOT NULL,
  not_sent           INTEGER NOT NULL,
  skipped            INTEGER NOT NULL,
  awaiting           INTEGER NOT NULL,
  unconfirmed        INTEGER NOT NULL,
  undelivered        INTEGER NOT NULL,
  delivered          INTEGER NOT NULL,
  seen               INTEGER NOT NULL,
  clickers           INTEGER NOT NULL,
  delivered_clickers INTEGER NOT NULL,
  PRIMARY KEY (tenant, created_ms, number)
) WITHOUT ROWID;
CREATE TABLE figure_days (
  tenant             TEXT NOT NULL,
  day                INTEGER NOT NULL,
  cost               INTEGER NOT NULL,
  total              INTEGER NOT NULL,
  pending            INTEGER NOT NULL,
  ambiguous          INTEGER NOT NULL,
  not_sent           INTEGER NOT NULL,
  skipped            INTEGER NOT NULL,
  awaiting           INTEGER NOT NULL,
  unconfirmed        INTEGER NOT NULL,
  undelivered        INTEGER NOT NULL,
  delivered          INTEGER NOT NULL,
  seen               INTEGER NOT NULL,
  clickers           INTEGER NOT NULL,
  delivered_clickers INTEGER NOT NULL,
  PRIMARY KEY (tenant, day)
) WITHOUT ROWID;
ALTER TABLE campaigns ADD COLUMN figures_kept BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX campaigns_unkept ON campaigns (tenant, number)
  WHERE NOT figures_kept AND confirmed_ms > 0 AND NOT hidden AND NOT test AND NOT removed;
