-- +goose Up

-- When a contact agreed to be written to, and how that is known; 0 and '': it did not, as far as is known.
ALTER TABLE contacts ADD COLUMN opt_in_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contacts ADD COLUMN opt_in_source TEXT NOT NULL DEFAULT '';

-- What a number has opted out of, a set of bits: 1 for every channel, 1 << n for the channel of number n. lifted says
-- that it is empty. channels_before is what it was before the last change: a campaign that was confirmed before then
-- still keeps to it.
ALTER TABLE suppressions ADD COLUMN channels INTEGER NOT NULL DEFAULT 0;
ALTER TABLE suppressions ADD COLUMN channels_before INTEGER NOT NULL DEFAULT 0;
UPDATE suppressions SET channels = 1 WHERE NOT lifted;
UPDATE suppressions SET channels_before = 1 WHERE lifted;
-- Of the log, channels is the set after the change, and scope the channel that was asked for, 0 for all.
ALTER TABLE suppression_log ADD COLUMN channels INTEGER NOT NULL DEFAULT 0;
ALTER TABLE suppression_log ADD COLUMN scope INTEGER NOT NULL DEFAULT 0;
UPDATE suppression_log SET channels = 1 WHERE NOT lifted;

-- The counts of lists tell those who have opted in from the others, and opt-outs by channel.
CREATE TABLE list_counts_by_consent (
  tenant    TEXT NOT NULL,
  list      INTEGER NOT NULL,
  country   TEXT NOT NULL,
  class     INTEGER NOT NULL,
  valid     BOOLEAN NOT NULL,
  opted_out INTEGER NOT NULL,
  opted_in  BOOLEAN NOT NULL,
  n         INTEGER NOT NULL CHECK (n >= 0),
  PRIMARY KEY (tenant, list, country, class, valid, opted_out, opted_in)
) WITHOUT ROWID;
INSERT INTO list_counts_by_consent (tenant, list, country, class, valid, opted_out, opted_in, n)
SELECT tenant, list, country, class, valid, CASE WHEN opted_out THEN 1 ELSE 0 END, FALSE, n FROM list_counts;
DROP TABLE list_counts;
ALTER TABLE list_counts_by_consent RENAME TO list_counts;
