-- +goose Up
-- What belongs to the installation and to no tenant, such as the secret that signs ids: the first process makes it,
-- once.
CREATE TABLE installation (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);
