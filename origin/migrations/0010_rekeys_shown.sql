-- When the new key was first seen at work, by the origin's clock: from then on the key before has no
-- say any more, and what was issued for it is revoked with the next batch.
ALTER TABLE rekeys ADD COLUMN shown_at INTEGER;
