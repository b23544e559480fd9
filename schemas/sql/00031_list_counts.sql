-- +goose Up

-- How many members of a list there are by what decides whether they are sent to: a price counts a million contacts by
-- adding up a few rows. opted_out is what suppressions say now. Every write of members, of contacts and of opt-outs
-- keeps it.
CREATE TABLE list_counts (
  tenant    TEXT NOT NULL,
  list      INTEGER NOT NULL,
  country   TEXT NOT NULL,
  class     INTEGER NOT NULL,
  valid     BOOLEAN NOT NULL,
  opted_out BOOLEAN NOT NULL,
  n         INTEGER NOT NULL CHECK (n >= 0),
  PRIMARY KEY (tenant, list, country, class, valid, opted_out)
) WITHOUT ROWID;
INSERT INTO list_counts (tenant, list, country, class, valid, opted_out, n)
SELECT m.tenant, m.list, c.country, c.class, c.valid, s.number_key IS NOT NULL, COUNT(*)
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key AND NOT s.lifted
GROUP BY m.tenant, m.list, c.country, c.class, c.valid, s.number_key IS NOT NULL;

-- How many contacts a tenant has, and how many of them are deleted.
CREATE TABLE contact_counts (
  tenant  TEXT NOT NULL PRIMARY KEY,
  n       INTEGER NOT NULL CHECK (n >= 0),
  deleted INTEGER NOT NULL CHECK (deleted >= 0)
);
INSERT INTO contact_counts (tenant, n, deleted)
SELECT tenant, COUNT(*), CAST(SUM(CASE WHEN deleted_ms > 0 THEN 1 ELSE 0 END) AS INTEGER) FROM contacts GROUP BY tenant;

-- Pages of contacts are found here, without reading the contacts before them.
CREATE INDEX contacts_page ON contacts (tenant, number, deleted_ms);
