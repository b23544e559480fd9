-- +goose Up

-- A campaign that replays another: whom it sends to are those people of the frozen audience of its origin whose seqs
-- are in members, a Roaring bitmap, as they were when it was made. selection is the expression that selected them, as
-- JSON.
CREATE TABLE replays (
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  campaign   INTEGER NOT NULL REFERENCES campaigns (number),
  origin     INTEGER NOT NULL REFERENCES campaigns (number),
  freeze_id  TEXT NOT NULL,
  selection  TEXT NOT NULL,
  selected   INTEGER NOT NULL,
  members    BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, campaign)
);
CREATE INDEX replays_origin ON replays (tenant, origin, campaign);
CREATE INDEX replays_freeze ON replays (freeze_id);

-- The contacts that are not sent to, which are few: a replay tests its people again by them.
CREATE INDEX contacts_unfit ON contacts (tenant, number) WHERE NOT valid OR deleted_ms > 0;
