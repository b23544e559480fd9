-- +goose Up
-- What belongs to the installation and to no tenant, such as the secret that signs ids: made once, by whoever comes first.
CREATE TABLE installation (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);
