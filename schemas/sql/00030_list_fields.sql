-- +goose Up
-- How many members of a list have a value of each merge field (first_name, city …): a text that uses a field which no
-- member has is refused before it costs anything, and counting a million contacts for that would take seconds. The row
-- of name '' says that the counts of the list are not complete: 1, they are made by the next [Store.Collect]; 2, the
-- list has too many names.
CREATE TABLE list_fields (
  tenant  TEXT NOT NULL,
  list    INTEGER NOT NULL,
  name    TEXT NOT NULL,
  members INTEGER NOT NULL,
  PRIMARY KEY (tenant, list, name)
) WITHOUT ROWID;
INSERT INTO list_fields (tenant, list, name, members) SELECT tenant, number, '', 1 FROM contact_lists WHERE members > 0 AND deleted_ms = 0;

-- As unique as before, and finds the lists of a contact too.
DROP INDEX list_members_contact;
CREATE UNIQUE INDEX list_members_contact ON list_members (tenant, contact, list);
