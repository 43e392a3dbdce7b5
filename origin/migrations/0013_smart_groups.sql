-- Smart groups: who is in by their rules. Times are Unix seconds by the origin's clock.

CREATE TABLE smart_members (
    device        TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    device_group  TEXT NOT NULL,
    PRIMARY KEY (device, device_group)
) WITHOUT ROWID;
CREATE INDEX smart_members_by_group ON smart_members (device_group);

-- The rules that every device was held against, and when that was last done with all of them.
CREATE TABLE smart_rules (
    device_group  TEXT    PRIMARY KEY,
    rule          TEXT    NOT NULL,
    looked_at     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER smart_groups_of_lost_device AFTER UPDATE OF state ON devices
WHEN NEW.state IN ('denied', 'revoked')
BEGIN DELETE FROM smart_members WHERE device = NEW.id; END;
