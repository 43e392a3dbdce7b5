-- What was published, and where its bytes lie.
-- Packs are numbered within the database, so that a chunk's row stays small.

CREATE TABLE filesets (
    name        TEXT    PRIMARY KEY,
    keep        INTEGER NOT NULL CHECK (keep >= 1),  -- how many revisions are retained
    last        INTEGER NOT NULL,                    -- the highest number ever used
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- Statements, locators and index roots, by the digest of their bytes.
CREATE TABLE objects (
    digest  BLOB  PRIMARY KEY,
    kind    TEXT  NOT NULL CHECK (kind IN ('revision', 'locator', 'root')),
    bytes   BLOB  NOT NULL
);

CREATE TABLE revisions (
    fileset         TEXT    NOT NULL REFERENCES filesets (name),
    number          INTEGER NOT NULL,
    statement       BLOB    NOT NULL REFERENCES objects (digest),
    locator         BLOB    NOT NULL REFERENCES objects (digest),
    root            BLOB    NOT NULL REFERENCES objects (digest),
    entries         INTEGER NOT NULL,
    files           INTEGER NOT NULL,
    chunks          INTEGER NOT NULL,  -- of the files, each as often as it occurs
    size            INTEGER NOT NULL,  -- bytes of all files
    packs_bytes     INTEGER NOT NULL,  -- bytes of the packs that hold them
    metadata_bytes  INTEGER NOT NULL,  -- index packs, index root, locator and statement
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (fileset, number)
) WITHOUT ROWID;

CREATE TABLE packs (
    pack                INTEGER PRIMARY KEY,
    id                  BLOB    NOT NULL UNIQUE,
    header_bytes        INTEGER NOT NULL,
    total_bytes         INTEGER NOT NULL,
    plain_bytes         INTEGER NOT NULL,
    unreferenced_since  INTEGER            -- since when no revision needs it; null while one does
);
CREATE INDEX packs_unreferenced ON packs (unreferenced_since) WHERE unreferenced_since IS NOT NULL;

CREATE TABLE chunks (
    id       BLOB    NOT NULL,
    pack     INTEGER NOT NULL REFERENCES packs (pack) ON DELETE CASCADE,
    ordinal  INTEGER NOT NULL,
    PRIMARY KEY (id, pack)
) WITHOUT ROWID;
CREATE INDEX chunks_by_pack ON chunks (pack);

-- Which packs a revision needs.
CREATE TABLE revision_packs (
    fileset  TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    pack     INTEGER NOT NULL REFERENCES packs (pack),
    PRIMARY KEY (fileset, number, pack),
    FOREIGN KEY (fileset, number) REFERENCES revisions (fileset, number) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX revision_packs_by_pack ON revision_packs (pack);

-- Publishes under way: one a fileset.
CREATE TABLE publishes (
    publish     INTEGER PRIMARY KEY AUTOINCREMENT,
    fileset     TEXT    NOT NULL UNIQUE,
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL
);

-- The chunks of a publish, and the pack that each will be taken from: null until it has come.
-- A pack that is named here is leased: it is not removed before the publish has ended.
CREATE TABLE publish_chunks (
    publish  INTEGER NOT NULL REFERENCES publishes (publish) ON DELETE CASCADE,
    id       BLOB    NOT NULL,
    length   INTEGER NOT NULL,
    pack     INTEGER REFERENCES packs (pack),
    PRIMARY KEY (publish, id)
) WITHOUT ROWID;
CREATE INDEX publish_chunks_by_pack ON publish_chunks (pack);

