-- Who belongs to the deployment, and what was signed for whom.
-- Times are Unix seconds, digests and keys are blobs, counters rise only.

-- The deployment itself: one row.
CREATE TABLE deployment (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    id          TEXT    NOT NULL,
    origin_id   TEXT    NOT NULL,
    host        TEXT    NOT NULL,  -- where others reach the origin, without a port
    created_at  INTEGER NOT NULL
);

-- Numbers that were promised never to fall: `epoch`, `timestamp`, `crl:<issuer>`.
CREATE TABLE counters (
    name   TEXT    PRIMARY KEY,
    value  INTEGER NOT NULL CHECK (value >= 0)
) WITHOUT ROWID;

-- Issuing authorities, and the root that signed them.
CREATE TABLE authorities (
    issuer      BLOB    PRIMARY KEY,       -- SHA-256 of its public key
    kind        TEXT    NOT NULL CHECK (kind IN ('root', 'node', 'client', 'content')),
    generation  INTEGER NOT NULL,
    der         BLOB    NOT NULL,
    UNIQUE (kind, generation)
) WITHOUT ROWID;

CREATE TABLE devices (
    id            TEXT    PRIMARY KEY,
    role          TEXT    NOT NULL CHECK (role IN ('booster', 'client')),
    state         TEXT    NOT NULL
                  CHECK (state IN ('pending', 'approved', 'enrolled', 'denied', 'revoked')),
    spki          BLOB    NOT NULL,
    spki_sha256   BLOB    NOT NULL UNIQUE, -- a key belongs to one device
    device_group  TEXT,
    address       TEXT,                    -- where the request came from: a hint
    claims        TEXT,                    -- what the device says of itself: unverified
    with_token    INTEGER NOT NULL CHECK (with_token IN (0, 1)),
    requested_at  INTEGER NOT NULL,
    decided_at    INTEGER,
    seen_at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX devices_by_state ON devices (state, address);

CREATE TABLE tokens (
    token_sha256  BLOB    PRIMARY KEY,     -- the token itself is never stored
    role          TEXT    NOT NULL CHECK (role IN ('booster', 'client')),
    auto_approve  INTEGER NOT NULL CHECK (auto_approve IN (0, 1)),
    device_group  TEXT,
    uses_left     INTEGER NOT NULL CHECK (uses_left >= 0),
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE certificates (
    issuer       BLOB    NOT NULL REFERENCES authorities (issuer),
    serial       BLOB    NOT NULL,
    role         TEXT    NOT NULL CHECK (role IN ('origin', 'booster', 'client', 'signer')),
    holder       TEXT    NOT NULL,
    spki_sha256  BLOB    NOT NULL,
    not_before   INTEGER NOT NULL,
    not_after    INTEGER NOT NULL,
    der          BLOB    NOT NULL,
    PRIMARY KEY (issuer, serial)
) WITHOUT ROWID;
CREATE INDEX certificates_by_key ON certificates (spki_sha256, not_after);
CREATE INDEX certificates_by_holder ON certificates (role, holder, not_after);

CREATE TABLE revocations (
    issuer      BLOB    NOT NULL REFERENCES authorities (issuer),
    serial      BLOB    NOT NULL,
    revoked_at  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,          -- once it is past, the CRL need not carry it
    PRIMARY KEY (issuer, serial)
) WITHOUT ROWID;

-- The newest CRL of each authority.
CREATE TABLE crls (
    issuer       BLOB    PRIMARY KEY REFERENCES authorities (issuer),
    number       INTEGER NOT NULL,
    this_update  INTEGER NOT NULL,
    next_update  INTEGER NOT NULL,
    der          BLOB    NOT NULL
) WITHOUT ROWID;

-- Where boosters say that they are reached: hints, published in the deployment document.
CREATE TABLE booster_addresses (
    booster          TEXT    PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    addresses        TEXT    NOT NULL,     -- host:port, separated by spaces
    enrol_addresses  TEXT    NOT NULL,
    updated_at       INTEGER NOT NULL
) WITHOUT ROWID;
