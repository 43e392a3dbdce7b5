-- How much a reporter has reported lately is asked at every body of reports, while nobody else may
-- write: that must not read all that it ever reported.
CREATE INDEX reports_by_reporter ON reports (reporter, received_at);
