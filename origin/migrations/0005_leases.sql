-- The packs that a publish leases, apart from its chunks: so a chunk's row is written when it is first
-- heard of and when the publish is committed, each time in order, and not once more at some other
-- place when its pack comes. A publish that was under way has to begin again.

DELETE FROM publishes;
DROP TABLE publish_chunks;

-- The chunks of a publish, and the pack that each will be taken from: null for one that had not come
-- when it was first heard of, until the commit looks for it.
CREATE TABLE publish_chunks (
    publish  INTEGER NOT NULL REFERENCES publishes (publish) ON DELETE CASCADE,
    id       BLOB    NOT NULL,
    length   INTEGER NOT NULL,
    pack     INTEGER,           -- leased by the same publish
    PRIMARY KEY (publish, id)
) WITHOUT ROWID;

-- A pack that is named here is leased: it is not removed before the publish has ended.
CREATE TABLE publish_packs (
    publish  INTEGER NOT NULL REFERENCES publishes (publish) ON DELETE CASCADE,
    pack     INTEGER NOT NULL REFERENCES packs (pack),
    PRIMARY KEY (publish, pack)
) WITHOUT ROWID;
CREATE INDEX publish_packs_by_pack ON publish_packs (pack);
