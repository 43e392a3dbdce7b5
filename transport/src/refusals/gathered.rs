//! What has been gathered, without clock or lock.

use std::collections::HashMap;

use protocol::report::{Direction, Matter, Reported, Reports, Stage};

/// What makes two reports the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Key {
    Notice {
        kind: String,
        detail: String,
    },
    Refusal {
        cert_sha256: Option<String>,
        direction: Direction,
        network: String,
        possession_proved: bool,
        reason: String,
        stage: Stage,
    },
}

/// Reports by what makes them the same.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    delivered: u64,
    dropped: u64,
    entered: u64,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    report: Reported,
    /// How many of its count have arrived.
    arrived: u64,
    /// The how-manieth it is: what was first goes first.
    number: u64,
}

impl Key {
    pub(super) fn new(matter: &Matter, network: String) -> Self {
        match matter {
            Matter::Notice(notice) => Self::Notice {
                kind: notice.kind.clone(),
                detail: notice.detail.clone(),
            },
            Matter::Refusal(refusal) => Self::Refusal {
                cert_sha256: refusal.cert_sha256.clone(),
                direction: refusal.direction,
                network,
                possession_proved: refusal.possession_proved,
                reason: refusal.reason.clone(),
                stage: refusal.stage,
            },
        }
    }
}

impl Entry {
    fn is_waiting(&self) -> bool {
        self.report.count > self.arrived
    }

    /// Who goes first when there is no more room: the least of all.
    fn worth(&self) -> (bool, bool, i64) {
        let proves = match &self.report.matter {
            Matter::Notice(_) => true,
            Matter::Refusal(refusal) => refusal.possession_proved,
        };
        (self.is_waiting(), proves, self.report.last_at)
    }
}

impl Gathered {
    pub(super) fn note(&mut self, key: Key, matter: Matter, now: i64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            let is_over = now - entry.report.first_at >= WINDOW_SECONDS;
            if entry.is_waiting() || !is_over {
                entry.report.count += 1;
                entry.report.last_at = entry.report.last_at.max(now);
                return;
            }
        }
        self.enter(
            key,
            Reported {
                // To tell reports apart, not to keep a secret.
                id: format!("{:032x}", fastrand::u128(..)),
                first_at: now,
                last_at: now,
                count: 1,
                matter,
            },
        );
    }

    fn enter(&mut self, key: Key, report: Reported) {
        self.entered += 1;
        let entry = Entry {
            report,
            arrived: 0,
            number: self.entered,
        };
        self.entries.insert(key, entry);
        while self.entries.len() > ENTRIES_MAX {
            let least = self.entries.iter().min_by_key(|(_, entry)| entry.worth());
            let Some(key) = least.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(entry) = self.entries.remove(&key) {
                self.dropped += entry.report.count - entry.arrived;
            }
        }
    }

    /// What waits, the oldest first, as much as fits into `bytes_max` of a body.
    pub(super) fn batch(&self, bytes_max: usize) -> Option<Reports> {
        let waiting = self.entries.values().filter(|entry| entry.is_waiting());
        let mut waiting: Vec<&Entry> = waiting.collect();
        waiting.sort_by_key(|entry| entry.number);
        if bytes_max != usize::MAX {
            waiting.truncate(Reports::COUNT_MAX);
        }
        let (mut bytes, mut reports) = (FRAME_BYTES, Vec::new());
        for entry in waiting {
            let mut report = entry.report.clone();
            if entry.arrived > 0
                && let Matter::Refusal(refusal) = &mut report.matter
            {
                // It is there already.
                refusal.cert = None;
            }
            let length = report.encoded_bytes() + 1;
            bytes = bytes.saturating_add(length);
            if bytes > bytes_max {
                break;
            }
            reports.push(report);
        }
        (!reports.is_empty()).then_some(Reports {
            dropped: self.dropped,
            reports,
        })
    }

    pub(super) fn delivered(&mut self, reports: &Reports) {
        for arrived in &reports.reports {
            let mut entries = self.entries.values_mut();
            let entry = entries.find(|entry| entry.report.id == arrived.id);
            if let Some(entry) = entry.filter(|entry| entry.arrived < arrived.count) {
                entry.arrived = arrived.count;
                self.delivered += 1;
            }
        }
    }

    pub(super) fn restore(&mut self, reports: Reports) {
        self.dropped = self.dropped.saturating_add(reports.dropped);
        for report in reports.reports {
            // Its network is not known any more: what comes later is a report of its own.
            let key = Key::new(&report.matter, report.id.clone());
            self.enter(key, report);
        }
    }

    pub(super) fn counts(&self) -> super::Counts {
        let waiting = self.entries.values().filter(|entry| entry.is_waiting());
        super::Counts {
            waiting: waiting.count(),
            dropped: self.dropped,
            delivered: self.delivered,
        }
    }
}

/// How long the same thing is the same report: an hour of somebody who knocks is one line.
const WINDOW_SECONDS: i64 = 3600;
/// With certificates of 8 KiB each, some 3 MiB.
pub(super) const ENTRIES_MAX: usize = 256;
/// What a body holds besides the reports: braces, and the number of those dropped.
const FRAME_BYTES: usize = 64;
