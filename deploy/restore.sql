-- After Postgres was put back from a copy, or Kafka was lost: before any process of Fanfare is started.
-- deploy/README.md, "Backup and restore", says what else belongs to it.
--
--   psql "$FANFARE_STORE" -v ON_ERROR_STOP=1 -v schema=fanfare -f deploy/restore.sql
--
-- The schema is the prefix without its dot. It may be run twice.
BEGIN;
SET LOCAL search_path TO :"schema";

-- Numbers that were given away since the copy was made are in the topics and in the statistics. Nobody gets them again:
-- a message's id is its campaign's number and its place in it.
UPDATE counters SET next = next + 1000000;

-- The topics may hold newer versions than the copy, and readers ignore what is older: without this a pause or an abort would be
-- ignored until the versions had caught up. Everything is published again, so that empty topics are filled too.
UPDATE tenants      SET version = version + 1000000, published_version = 0;
UPDATE routes       SET version = version + 1000000, published_version = 0;
UPDATE senders      SET version = version + 1000000, published_version = 0;
UPDATE suppressions SET version = version + 1000000, published_version = 0;
UPDATE campaigns    SET version = version + 1000000, published_version = 0,
                        tombstone = CASE WHEN tombstone = 2 THEN 1 ELSE tombstone END;

-- Single sends number themselves within a campaign of their tenant and day. The copy would give numbers again that were
-- sent since, and senders would drop those messages as seen: a new campaign is begun for them.
UPDATE campaigns SET hidden_day = hidden_day || '~' || number WHERE hidden_day <> '' AND hidden_day NOT LIKE '%~%';
COMMIT;
