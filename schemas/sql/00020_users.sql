-- +goose Up

-- People who log in to the console. email is in lower case. password is an argon2id hash in its usual text form, ''
-- when the person logs in by OIDC alone; subject is the OIDC issuer and subject, '' when the person has never logged in
-- that way. epoch grows when the person logs out everywhere: sessions of an older epoch are over.
CREATE TABLE users (
  id         TEXT NOT NULL PRIMARY KEY,
  email      TEXT NOT NULL UNIQUE,
  name       TEXT NOT NULL,
  password   TEXT NOT NULL,
  subject    TEXT NOT NULL,
  operator   BOOLEAN NOT NULL,
  disabled   BOOLEAN NOT NULL,
  epoch      INTEGER NOT NULL,
  version    INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  seen_ms    INTEGER NOT NULL
);
CREATE UNIQUE INDEX users_subject ON users (subject) WHERE subject <> '';

-- Which person may do what in which tenant. role is viewer, editor or approver; an operator needs no row.
CREATE TABLE memberships (
  user_id    TEXT NOT NULL REFERENCES users (id),
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  role       TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (user_id, tenant)
);
CREATE INDEX memberships_tenant ON memberships (tenant);

-- Browser sessions. token is the hash of the cookie.
CREATE TABLE sessions (
  token      TEXT NOT NULL PRIMARY KEY,
  data       BLOB NOT NULL,
  expires_ms INTEGER NOT NULL
);
CREATE INDEX sessions_expires ON sessions (expires_ms);

-- One-time links that log a person in: the first log-in of a new person, a forgotten password.
CREATE TABLE login_links (
  hash       BLOB NOT NULL PRIMARY KEY,
  user_id    TEXT NOT NULL REFERENCES users (id),
  expires_ms INTEGER NOT NULL
);
