-- Who should hold what: models, drafts of them, and what follows for each device.
-- Times are Unix seconds by the origin's clock, unless said otherwise.

CREATE TABLE models (
    number    INTEGER PRIMARY KEY,
    author    TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    made_at   INTEGER NOT NULL,
    changes   INTEGER NOT NULL,        -- how many keys say something else than in the one before
    of_model  INTEGER                  -- which one it repeats, if it is a rollback
);

-- What models say. An entry holds from one model on, until another.
CREATE TABLE entries (
    key           TEXT    NOT NULL,
    from_model    INTEGER NOT NULL REFERENCES models (number),
    until_model   INTEGER REFERENCES models (number),  -- null: it holds
    kind          TEXT    NOT NULL,
    fileset       TEXT,                -- what the key names
    device_group  TEXT,
    device        TEXT,
    revision      INTEGER,             -- which the entry names
    body          TEXT    NOT NULL,    -- JSON
    PRIMARY KEY (key, from_model)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_kind ON entries (kind, key) WHERE until_model IS NULL;
CREATE INDEX entries_by_group ON entries (device_group, kind) WHERE until_model IS NULL;
CREATE INDEX entries_by_device ON entries (device, kind) WHERE until_model IS NULL;
CREATE INDEX entries_by_fileset ON entries (fileset, kind) WHERE until_model IS NULL;
CREATE INDEX entries_by_end ON entries (until_model) WHERE until_model IS NOT NULL;
-- What must be kept, whatever a fileset retains.
CREATE INDEX entries_by_revision ON entries (fileset, revision)
    WHERE until_model IS NULL AND revision IS NOT NULL;

CREATE TABLE drafts (
    name      TEXT    PRIMARY KEY,
    base      INTEGER NOT NULL,        -- the model that it began from; 0 for none
    author    TEXT    NOT NULL,
    made_at   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE draft_edits (
    draft  TEXT  NOT NULL REFERENCES drafts (name) ON DELETE CASCADE,
    key    TEXT  NOT NULL,
    body   TEXT,                       -- null: the key is removed
    PRIMARY KEY (draft, key)
) WITHOUT ROWID;

-- Scripts that filesets name, by the digest of their bytes.
CREATE TABLE scripts (
    digest    BLOB    PRIMARY KEY,
    bytes     BLOB    NOT NULL,
    added_at  INTEGER NOT NULL
);

-- The current manifest of each device that has had one. A name that passes to another device goes
-- on with its numbers, so this outlives the device.
CREATE TABLE manifests (
    device    TEXT    PRIMARY KEY,
    number    INTEGER NOT NULL,        -- for one device it only rises
    model     INTEGER NOT NULL,
    digest    BLOB    NOT NULL,        -- of the envelope
    said      BLOB    NOT NULL,        -- SHA-256 of its items: what says the same is not made anew
    envelope  BLOB    NOT NULL,
    made_at   INTEGER NOT NULL
);

-- Devices whose manifest may no longer say what the model does.
CREATE TABLE manifests_due (
    device  TEXT  PRIMARY KEY
) WITHOUT ROWID;

CREATE INDEX devices_by_group ON devices (device_group) WHERE role = 'client';

-- A device that comes in, or into another group, whoever lets it.
CREATE TRIGGER manifest_of_new_device AFTER INSERT ON devices
WHEN NEW.role = 'client' AND NEW.state = 'enrolled'
BEGIN INSERT OR IGNORE INTO manifests_due (device) VALUES (NEW.id); END;
CREATE TRIGGER manifest_of_changed_device AFTER UPDATE OF state, device_group ON devices
WHEN NEW.role = 'client' AND NEW.state = 'enrolled'
     AND (OLD.state <> NEW.state OR OLD.device_group IS NOT NEW.device_group)
BEGIN INSERT OR IGNORE INTO manifests_due (device) VALUES (NEW.id); END;

-- What devices said became of filesets, the last of each.
CREATE TABLE results (
    device       TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    fileset      TEXT    NOT NULL REFERENCES filesets (name),
    revision     INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    at           INTEGER NOT NULL,     -- by the device's clock, but not after it was received
    note         TEXT    NOT NULL,     -- untrusted
    sources      TEXT    NOT NULL,     -- JSON: where bytes came from
    received_at  INTEGER NOT NULL,
    PRIMARY KEY (device, fileset)
) WITHOUT ROWID;

-- What operators asked of devices.
CREATE TABLE commands (
    id        INTEGER PRIMARY KEY,     -- from the counter `command`
    device    TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    what      TEXT    NOT NULL,
    author    TEXT    NOT NULL,
    made_at   INTEGER NOT NULL,
    done_at   INTEGER
);
CREATE INDEX commands_by_device ON commands (device, done_at);
