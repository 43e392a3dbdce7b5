-- More about tokens, about who came with which, and about why somebody had to go.

-- The one device that may use it; anybody if there is none.
ALTER TABLE tokens ADD COLUMN device TEXT;
-- How many could use it when it was made.
ALTER TABLE tokens ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;

-- The first 8 bytes of the SHA-256 of the token that it came with.
ALTER TABLE devices ADD COLUMN token_id BLOB;
-- Why it was revoked: a reason code of RFC 5280 §5.3.1.
ALTER TABLE devices ADD COLUMN revoked_for INTEGER;

-- The same for each certificate, for its entry on the list.
ALTER TABLE revocations ADD COLUMN reason INTEGER NOT NULL DEFAULT 0;
