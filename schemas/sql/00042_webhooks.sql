-- +goose Up

-- Events for the webhooks of tenants. A row is an event for an endpoint (a resource of kind webhook): it waits here
-- until the endpoint has taken it, and for a week afterwards so that it can be looked up. Ids come from the counter, so
-- they are in the order in which rows were committed. The same event twice for an endpoint is one row.
CREATE TABLE webhook_items (
  id        INTEGER NOT NULL PRIMARY KEY,
  tenant    TEXT NOT NULL,
  endpoint  INTEGER NOT NULL,
  event_id  TEXT NOT NULL,
  type      TEXT NOT NULL,
  ordering  TEXT NOT NULL, -- id of the message or campaign whose events keep their order
  data      TEXT NOT NULL, -- '' once delivered
  time_ms   INTEGER NOT NULL,
  due_ms    INTEGER NOT NULL,
  state     INTEGER NOT NULL, -- 0 pending, 1 delivered, 2 given up
  tries     INTEGER NOT NULL,
  queued_ms INTEGER NOT NULL,
  tried_ms  INTEGER NOT NULL,
  status    INTEGER NOT NULL,
  answer    TEXT NOT NULL,
  failure   TEXT NOT NULL,
  took_ms   INTEGER NOT NULL
);
CREATE UNIQUE INDEX webhook_items_event ON webhook_items (endpoint, event_id);
CREATE INDEX webhook_items_list ON webhook_items (endpoint, id);
CREATE INDEX webhook_items_due ON webhook_items (endpoint, due_ms, id) WHERE state = 0;
CREATE INDEX webhook_items_ordering ON webhook_items (endpoint, ordering, id) WHERE state = 0;

-- One row per endpoint: which process delivers to it, and how it fares.
CREATE TABLE webhook_health (
  endpoint      INTEGER NOT NULL PRIMARY KEY,
  tenant        TEXT NOT NULL,
  owner         TEXT NOT NULL,
  lease_ms      INTEGER NOT NULL, -- the owner's until then
  not_before_ms INTEGER NOT NULL,
  failures      INTEGER NOT NULL,
  failing_ms    INTEGER NOT NULL,
  succeeded_ms  INTEGER NOT NULL,
  recover_ms    INTEGER NOT NULL
);
CREATE INDEX webhook_health_owner ON webhook_health (owner);

-- The clients' own references of single sends, of tenants that have webhooks: receipts don't carry them, and the events
-- of receipts must.
CREATE TABLE webhook_references (
  tenant    TEXT NOT NULL,
  message   TEXT NOT NULL,
  reference TEXT NOT NULL,
  seen_ms   INTEGER NOT NULL,
  PRIMARY KEY (tenant, message)
);
CREATE INDEX webhook_references_seen ON webhook_references (seen_ms);

-- The webhooks counter numbers items; the other grows with each change of an endpoint, so that the stage sees cheaply
-- whether there was one.
INSERT INTO counters (name, next) VALUES ('webhook_item', 1), ('webhook_change', 1);
