-- The ends of devices' logs that operators have asked for: the last of each.

CREATE TABLE logs (
    device       TEXT    PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    text         BLOB    NOT NULL,     -- UTF-8 in one zstd frame; untrusted
    received_at  INTEGER NOT NULL      -- Unix seconds by the origin's clock
);

CREATE TRIGGER log_of_lost_device AFTER UPDATE OF state ON devices
WHEN NEW.state IN ('denied', 'revoked')
BEGIN
    DELETE FROM logs WHERE device = NEW.id;
END;
