-- A device that went round a booster says how many bytes came over the line instead.
ALTER TABLE reports ADD COLUMN bytes INTEGER;
