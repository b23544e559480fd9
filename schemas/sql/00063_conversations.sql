-- +goose Up
-- What recipients write, and what is answered: all messages between one number and one sender of a tenant on one channel are a
-- conversation. id is made of these four, so a message finds it without a search. unread counts what came since somebody has read it,
-- reviews the messages that wait for a decision about an opt-out.
CREATE TABLE conversations (
  id         TEXT NOT NULL PRIMARY KEY,
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  phone      TEXT NOT NULL,
  number_key TEXT NOT NULL,
  channel    INTEGER NOT NULL,
  sender     TEXT NOT NULL,
  route      TEXT NOT NULL,
  state      TEXT NOT NULL,
  assigned   TEXT NOT NULL,
  unread     INTEGER NOT NULL,
  reviews    INTEGER NOT NULL,
  campaign   TEXT NOT NULL,
  test       BOOLEAN NOT NULL,
  last_text  TEXT NOT NULL,
  last_out   BOOLEAN NOT NULL,
  last_ms    INTEGER NOT NULL,
  came_ms    INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  version    INTEGER NOT NULL
);
CREATE INDEX conversations_recent ON conversations (tenant, last_ms, id);
CREATE INDEX conversations_number ON conversations (tenant, number_key);

-- The messages of conversations. fact is the id of what came in, '' of what went out: a message that is read again from its topic is not
-- written again. message is the id of the message that it answers, or of itself when it went out. review is '', open, opted_out or
-- dismissed.
CREATE TABLE conversation_messages (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant       TEXT NOT NULL REFERENCES tenants (id),
  conversation TEXT NOT NULL,
  fact         TEXT NOT NULL,
  outgoing     BOOLEAN NOT NULL,
  body         TEXT NOT NULL,
  meaning      INTEGER NOT NULL,
  review       TEXT NOT NULL,
  message      TEXT NOT NULL,
  campaign     TEXT NOT NULL,
  by_whom      TEXT NOT NULL,
  segments     INTEGER NOT NULL,
  price_micros INTEGER NOT NULL,
  time_ms      INTEGER NOT NULL
);
CREATE INDEX conversation_messages_of ON conversation_messages (tenant, conversation, id);
CREATE UNIQUE INDEX conversation_messages_fact ON conversation_messages (tenant, fact) WHERE fact <> '';
CREATE INDEX conversation_messages_review ON conversation_messages (tenant, id) WHERE review = 'open';

-- Confirmations of opt-outs, and of their ends (opted_out false), that are still to be sent. A process deletes the row before it sends, so that none is sent twice.
CREATE TABLE confirmations (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant       TEXT NOT NULL REFERENCES tenants (id),
  conversation TEXT NOT NULL,
  body         TEXT NOT NULL,
  opted_out    BOOLEAN NOT NULL,
  created_ms   INTEGER NOT NULL
);
