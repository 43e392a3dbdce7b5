-- What devices say of themselves: the last of each.
-- Times are Unix seconds by the origin's clock.

CREATE TABLE inventories (
    device       TEXT    PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    digest       BLOB    NOT NULL,     -- SHA-256 of the bytes that came
    facts        TEXT    NOT NULL,     -- JSON: all but its software; untrusted
    software     BLOB    NOT NULL,     -- its software as JSON, in one zstd frame; untrusted
    received_at  INTEGER NOT NULL
);

-- When devices were last heard, as far as it has been written down: some minutes late.
CREATE TABLE seen (
    device  TEXT    PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    at      INTEGER NOT NULL
) WITHOUT ROWID;

-- Whoever belongs to us no more leaves nothing behind, whoever has decided so.
CREATE TRIGGER inventory_of_lost_device AFTER UPDATE OF state ON devices
WHEN NEW.state IN ('denied', 'revoked')
BEGIN
    DELETE FROM inventories WHERE device = NEW.id;
    DELETE FROM seen WHERE device = NEW.id;
END;
