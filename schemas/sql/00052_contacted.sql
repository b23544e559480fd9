-- +goose Up

-- Whom a frozen audience sends to: a Roaring bitmap (64 bits) of contacts, and how many of each country, as a JSON
-- object. Caps per recipient and per country add these up. number grows with each audience of the installation.
CREATE TABLE contacted (
  number    INTEGER PRIMARY KEY AUTOINCREMENT,
  freeze_id TEXT NOT NULL,
  tenant    TEXT NOT NULL REFERENCES tenants (id),
  campaign  INTEGER NOT NULL,
  contacts  BLOB NOT NULL,
  countries TEXT NOT NULL
);
CREATE UNIQUE INDEX contacted_freeze ON contacted (freeze_id);
CREATE INDEX contacted_tenant ON contacted (tenant, number);
