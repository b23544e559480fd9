-- +goose Up
-- One person has one key, however many forms a number has had: schemas.NumberKey says which, and computes it for new
-- rows. Here the same rules give keys to the rows of before. Numbers that have a newer form get it, contacts and
-- opt-outs of one person become one.
CREATE TABLE forms (phone TEXT NOT NULL PRIMARY KEY, number_key TEXT NOT NULL);
INSERT INTO forms (phone, number_key)
SELECT phone, CASE
  WHEN phone LIKE '+521%' AND LENGTH(phone) = 14 THEN '+52' || SUBSTR(phone, 5)
  WHEN phone LIKE '+5201%' AND LENGTH(phone) = 15 THEN '+52' || SUBSTR(phone, 6)
  WHEN (phone LIKE '+52044%' OR phone LIKE '+52045%') AND LENGTH(phone) = 16 THEN '+52' || SUBSTR(phone, 7)
  WHEN phone LIKE '+549%' AND LENGTH(phone) = 14 AND SUBSTR(phone, 5, 1) <= '3' THEN '+54' || SUBSTR(phone, 5)
  WHEN phone LIKE '+55%' AND LENGTH(phone) = 13 AND SUBSTR(phone, 6, 1) >= '6' THEN SUBSTR(phone, 1, 5) || '9' || SUBSTR(phone, 6)
  WHEN phone LIKE '+229%' AND LENGTH(phone) = 12 THEN '+22901' || SUBSTR(phone, 5)
  WHEN phone LIKE '+225%' AND LENGTH(phone) = 12 AND SUBSTR(phone, 5, 1) NOT IN ('1', '2', '3') AND SUBSTR(phone, 5, 2) <> '00' THEN '+225' ||
    CASE WHEN SUBSTR(phone, 6, 1) <= '3' THEN '01' WHEN SUBSTR(phone, 6, 1) <= '6' THEN '05' ELSE '07' END || SUBSTR(phone, 5)
  WHEN phone LIKE '+841%' AND LENGTH(phone) = 13 THEN CASE SUBSTR(phone, 4, 3)
    WHEN '120' THEN '+8470' WHEN '121' THEN '+8479' WHEN '122' THEN '+8477' WHEN '126' THEN '+8476' WHEN '128' THEN '+8478'
    WHEN '123' THEN '+8483' WHEN '124' THEN '+8484' WHEN '125' THEN '+8485' WHEN '127' THEN '+8481' WHEN '129' THEN '+8482'
    WHEN '162' THEN '+8432' WHEN '163' THEN '+8433' WHEN '164' THEN '+8434' WHEN '165' THEN '+8435' WHEN '166' THEN '+8436'
    WHEN '167' THEN '+8437' WHEN '168' THEN '+8438' WHEN '169' THEN '+8439'
    WHEN '186' THEN '+8456' WHEN '188' THEN '+8458' WHEN '199' THEN '+8459'
    ELSE SUBSTR(phone, 1, 6) END || SUBSTR(phone, 7)
  ELSE phone END
FROM (SELECT phone FROM contacts UNION SELECT phone FROM suppressions) AS numbers
WHERE phone LIKE '+52%' OR phone LIKE '+54%' OR phone LIKE '+55%' OR phone LIKE '+22%' OR phone LIKE '+84%';
DELETE FROM forms WHERE number_key = phone;

ALTER TABLE contacts ADD COLUMN number_key TEXT NOT NULL DEFAULT '';
UPDATE contacts SET number_key = COALESCE((SELECT f.number_key FROM forms f WHERE f.phone = contacts.phone), phone);
CREATE INDEX contacts_number_key ON contacts (tenant, number_key);

-- Of several contacts with one key, one that is not deleted stays, else the first. It takes the others' places in
-- lists.
CREATE TABLE merged (gone INTEGER NOT NULL PRIMARY KEY, kept INTEGER NOT NULL);
INSERT INTO merged (gone, kept)
SELECT c.number, (SELECT k.number FROM contacts k WHERE k.tenant = c.tenant AND k.number_key = c.number_key
  ORDER BY CASE WHEN k.deleted_ms = 0 THEN 0 ELSE 1 END, k.number LIMIT 1)
FROM contacts c
WHERE c.phone LIKE '+52%' OR c.phone LIKE '+54%' OR c.phone LIKE '+55%' OR c.phone LIKE '+22%' OR c.phone LIKE '+84%';
DELETE FROM merged WHERE gone = kept;
CREATE TABLE moved (tenant TEXT NOT NULL, list INTEGER NOT NULL, position INTEGER NOT NULL, contact INTEGER NOT NULL);
INSERT INTO moved (tenant, list, position, contact)
SELECT l.tenant, l.list, l.position, m.kept FROM list_members l JOIN merged m ON m.gone = l.contact;
DELETE FROM list_members WHERE contact IN (SELECT gone FROM merged);
INSERT INTO list_members (tenant, list, position, contact) SELECT tenant, list, position, contact FROM moved WHERE TRUE ON CONFLICT DO NOTHING;
UPDATE contact_lists SET version = version + 1, members = (
  SELECT COUNT(*) FROM list_members l WHERE l.tenant = contact_lists.tenant AND l.list = contact_lists.number)
WHERE number IN (SELECT list FROM moved);
DELETE FROM contacts WHERE number IN (SELECT gone FROM merged);
DROP TABLE moved;
DROP TABLE merged;

-- Numbers of no plan (class 0) whose key is a number of today become that number: a mobile one, or a fixed line of
-- Benin.
UPDATE contacts SET phone = number_key, valid = TRUE, class = CASE WHEN number_key LIKE '+229012%' THEN 2 ELSE 1 END
WHERE class = 0 AND number_key <> phone;
DROP INDEX contacts_number_key;
DROP INDEX contacts_phone;
CREATE UNIQUE INDEX contacts_number ON contacts (tenant, number_key);

-- The same for opt-outs. One that holds wins over one that was lifted. A hash that is empty is made, and published, by
-- the first process that has the keys; the versions go on above those of all that were merged.
CREATE TABLE suppressions_by_key (
  tenant            TEXT NOT NULL REFERENCES tenants (id),
  number_key        TEXT NOT NULL,
  phone             TEXT NOT NULL,
  hash              TEXT NOT NULL,
  source            TEXT NOT NULL,
  lifted            BOOLEAN NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL,
  PRIMARY KEY (tenant, number_key)
);
ALTER TABLE suppressions ADD COLUMN number_key TEXT NOT NULL DEFAULT '';
UPDATE suppressions SET number_key = COALESCE((SELECT f.number_key FROM forms f WHERE f.phone = suppressions.phone), phone);
ALTER TABLE suppression_log ADD COLUMN number_key TEXT NOT NULL DEFAULT '';
UPDATE suppression_log SET number_key = COALESCE((SELECT f.number_key FROM forms f WHERE f.phone = suppression_log.phone), phone);
DROP TABLE forms;
DROP INDEX suppression_log_phone;
CREATE INDEX suppression_log_number ON suppression_log (tenant, number_key, id);
INSERT INTO suppressions_by_key (tenant, number_key, phone, hash, source, lifted, version, published_version, updated_ms)
SELECT s.tenant, s.number_key, CASE WHEN s.phone LIKE '+549%' THEN s.phone ELSE s.number_key END, CASE WHEN s.number_key = s.phone THEN s.hash ELSE '' END, s.source, s.lifted,
  CASE WHEN o.forms = 1 AND s.number_key = s.phone THEN s.version ELSE o.newest + 1 END,
  CASE WHEN o.forms = 1 AND s.number_key = s.phone THEN s.published_version ELSE 0 END, s.updated_ms
FROM suppressions s JOIN (SELECT tenant, number_key, COUNT(*) AS forms, MAX(version) AS newest FROM suppressions GROUP BY tenant, number_key) o
  ON o.tenant = s.tenant AND o.number_key = s.number_key
ORDER BY s.lifted, s.phone DESC
ON CONFLICT DO NOTHING;
DROP TABLE suppressions;
ALTER TABLE suppressions_by_key RENAME TO suppressions;
CREATE INDEX suppressions_hash ON suppressions (tenant, hash);
CREATE INDEX suppressions_outbox ON suppressions (updated_ms) WHERE version > published_version;
