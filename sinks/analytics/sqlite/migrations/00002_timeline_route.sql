-- +goose Up
-- The timeline counts by route as well. Rows from before have no route.
CREATE TABLE timeline_by_route (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    second   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    route    TEXT    NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (campaign, second, kind, route)
) WITHOUT ROWID;
INSERT INTO timeline_by_route (campaign, second, kind, route, n) SELECT campaign, second, kind, '', n FROM timeline;
DROP TABLE timeline;
ALTER TABLE timeline_by_route RENAME TO timeline;
