-- What parties reported: whom they refused, and what an operator should know of.
-- Times are Unix seconds: received_at by the origin's clock, the others by the reporter's.
CREATE TABLE reports (
    reporter           TEXT    NOT NULL,   -- role/id, from the reporter's certificate
    id                 BLOB    NOT NULL,   -- chosen by the reporter: the same twice is one report
    first_at           INTEGER NOT NULL,
    last_at            INTEGER NOT NULL,
    received_at        INTEGER NOT NULL,   -- when it came first
    count              INTEGER NOT NULL,
    kind               TEXT    NOT NULL,   -- 'refusal', or the kind of a notice
    detail             TEXT,               -- of a notice
    direction          TEXT,
    stage              TEXT,
    reason             TEXT,
    possession_proved  INTEGER CHECK (possession_proved IN (0, 1)),
    remote             TEXT,
    party              TEXT,
    cert_sha256        BLOB,
    PRIMARY KEY (reporter, id)
) WITHOUT ROWID;
CREATE INDEX reports_by_arrival ON reports (received_at);

-- Certificates that were shown, each once.
CREATE TABLE report_certificates (
    sha256  BLOB    PRIMARY KEY,
    der     BLOB    NOT NULL
) WITHOUT ROWID;
