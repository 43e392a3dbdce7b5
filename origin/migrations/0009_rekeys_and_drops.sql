-- Devices that changed their key, until a certificate of the new one has been seen at work: then
-- what was issued for keys before is revoked.
CREATE TABLE rekeys (
    device         TEXT  PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    before_sha256  BLOB  NOT NULL   -- the key that was seen at work last; it may still ask
) WITHOUT ROWID;

-- Those that changed theirs before this was kept. Their old keys have no say in the next.
INSERT INTO rekeys (device, before_sha256)
SELECT DISTINCT d.id, d.spki_sha256
FROM devices AS d JOIN certificates AS c ON c.role = d.role AND c.holder = d.id
WHERE d.state = 'enrolled' AND c.spki_sha256 <> d.spki_sha256
AND NOT EXISTS (SELECT 1 FROM revocations AS r
                WHERE r.issuer = c.issuer AND r.serial = c.serial);

-- How many refusals each reporter had to give up for want of room.
CREATE TABLE report_drops (
    reporter  TEXT     PRIMARY KEY,   -- role/id, from the reporter's certificate
    told      INTEGER  NOT NULL,      -- what it said last: it counts from its own start
    total     INTEGER  NOT NULL,
    last_at   INTEGER  NOT NULL       -- when that rose last, by the origin's clock
) WITHOUT ROWID;
