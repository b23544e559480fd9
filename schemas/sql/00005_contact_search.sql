-- +goose Up
-- What a search looks in, in small letters: no function that both databases have makes those of every alphabet. Rows
-- that are there already get the letters of ASCII until they change.
ALTER TABLE contacts ADD COLUMN search TEXT NOT NULL DEFAULT '';
UPDATE contacts SET search = LOWER(first_name || ' ' || last_name || ' ' || email);
-- Whether a campaign is a test follows its client's word, which was kept in the column alone, and its lists.
UPDATE campaigns SET spec = '{"TestRun":true,' || SUBSTR(spec, 2) WHERE test AND NOT hidden;
