-- +goose Up
-- Which fact a change comes from, '' of one that a request made: a link or a message may be read again after a crash,
-- when somebody has changed the opt-out since. A fact that changed nothing is in the log too.
ALTER TABLE suppression_log ADD COLUMN fact TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX suppression_log_fact ON suppression_log (tenant, fact) WHERE fact <> '';
