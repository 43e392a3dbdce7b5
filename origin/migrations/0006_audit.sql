-- What was done, by whom, in a chain: each entry's hash is SHA-256(the hash before || entry).
CREATE TABLE audit (
    number  INTEGER PRIMARY KEY,  -- 1, 2, 3, … without a gap
    entry   BLOB    NOT NULL,     -- CBOR, see docs/formats.md
    hash    BLOB    NOT NULL
);

-- The newest entry's number and hash: without it, a missing end would not be noticed.
CREATE TABLE audit_head (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    number  INTEGER NOT NULL,
    hash    BLOB    NOT NULL
);

-- Against slips of our own; whoever can write this file can drop them.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END;

-- A new generation is announced first, issues from a time on, and is retired in the end.
ALTER TABLE authorities ADD COLUMN announced_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE authorities ADD COLUMN issues_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE authorities ADD COLUMN retired_at INTEGER;
