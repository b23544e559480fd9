-- +goose Up
-- What a tenant owes: credit that was taken back although campaigns under way had reserved it. While it owes, nothing
-- more is dealt.
ALTER TABLE balances ADD COLUMN owed INTEGER NOT NULL DEFAULT 0 CHECK (owed >= 0);
