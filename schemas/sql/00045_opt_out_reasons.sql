-- +goose Up
-- Why somebody has opted out, in words, and who said so: a key, or a part of the product.
ALTER TABLE suppressions ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE suppression_log ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE suppression_log ADD COLUMN by_whom TEXT NOT NULL DEFAULT '';
CREATE INDEX ledger_newest ON ledger (tenant, id);
