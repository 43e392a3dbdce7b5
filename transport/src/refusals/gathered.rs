//! What has been gathered, without clock or lock.

use std::collections::HashMap;

use protocol::report::{BypassReason, Direction, Matter, Reported, Reports, Stage};

/// What makes two reports the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Key {
    Bypass {
        booster: String,
        reason: BypassReason,
    },
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
    /// Of those dropped, how many the origin has been told of.
    told: u64,
    /// When it was, in Unix seconds.
    told_at: i64,
}

#[derive(Debug)]
struct Entry {
    report: Reported,
    /// How many of its count have arrived.
    arrived: u64,
    /// When they did, in Unix seconds.
    arrived_at: i64,
    /// Whether the origin will never take it: what comes in its hour is given up with it.
    given_up: bool,
    /// The how-manieth it is: what was first goes first.
    number: u64,
}

impl Key {
    pub(super) fn new(matter: &Matter, network: String) -> Self {
        match matter {
            Matter::Bypass(bypass) => Self::Bypass {
                booster: bypass.booster.clone(),
                reason: bypass.reason,
            },
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

    /// Whether it should go to the origin at `now`: it has not been told of, or was long enough ago.
    fn is_due(&self, now: i64) -> bool {
        let is_told = self.arrived > 0 && is_within(COUNT_SECONDS, self.arrived_at, now);
        self.is_waiting() && !is_told
    }

    /// Waits for nothing any more. How many go unheard by that.
    fn give_up(&mut self) -> u64 {
        let unheard = self.report.count - self.arrived;
        (self.arrived, self.given_up) = (self.report.count, true);
        unheard
    }

    /// Who goes first when there is no more room: the least of all.
    fn worth(&self) -> (bool, bool, i64) {
        let is_telling = self.report.matter.is_telling();
        (self.is_waiting(), is_telling, self.report.last_at)
    }
}

/// Whether `now` is less than `seconds` after `at`. It is not if the clock has been set back: it
/// would stay so for as long as the clock was ahead.
fn is_within(seconds: i64, at: i64, now: i64) -> bool {
    (0..seconds).contains(&now.saturating_sub(at))
}

impl Gathered {
    pub(super) fn note(&mut self, key: Key, matter: Matter, now: i64) {
        if let Some(entry) = self.entries.get_mut(&key)
            && (entry.is_waiting() || is_within(WINDOW_SECONDS, entry.report.first_at, now))
        {
            entry.report.count = entry.report.count.saturating_add(1);
            entry.report.last_at = entry.report.last_at.max(now);
            add_bytes(&mut entry.report.matter, &matter);
            if entry.given_up {
                self.dropped = self.dropped.saturating_add(entry.give_up());
            }
            return;
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
            arrived_at: 0,
            given_up: false,
            number: self.entered,
        };
        self.entries.insert(key, entry);
        while self.entries.len() > ENTRIES_MAX {
            let least = self.entries.iter().min_by_key(|(_, entry)| entry.worth());
            let Some(key) = least.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(entry) = self.entries.remove(&key) {
                let unheard = entry.report.count - entry.arrived;
                self.dropped = self.dropped.saturating_add(unheard);
            }
        }
    }

    /// All that waits, the oldest first.
    pub(super) fn waiting(&self) -> Reports {
        let mut waiting: Vec<&Entry> = self.entries.values().filter(|it| it.is_waiting()).collect();
        waiting.sort_by_key(|entry| entry.number);
        Reports {
            dropped: self.dropped,
            reports: waiting.into_iter().map(to_send).collect(),
        }
    }

    /// What is due at `now`, as much as fits into a body: what tells most first, lest what tells
    /// little stands before it; then the oldest.
    pub(super) fn batch(&self, now: i64) -> Option<Reports> {
        let mut due: Vec<&Entry> = self.entries.values().filter(|it| it.is_due(now)).collect();
        due.sort_by_key(|entry| (!entry.report.matter.is_telling(), entry.number));
        due.truncate(Reports::COUNT_MAX);
        let (mut bytes, mut reports) = (FRAME_BYTES, Vec::new());
        for report in due.into_iter().map(to_send) {
            bytes = bytes.saturating_add(report.encoded_bytes() + 1);
            if bytes > Reports::BYTES_MAX {
                break;
            }
            reports.push(report);
        }
        (!reports.is_empty() || self.is_loss_due(now)).then_some(Reports {
            dropped: self.dropped,
            reports,
        })
    }

    /// Whether it should be told by itself at `now` how many were dropped: at the pace of a counter.
    fn is_loss_due(&self, now: i64) -> bool {
        let is_told = self.told > 0 && is_within(COUNT_SECONDS, self.told_at, now);
        self.dropped > self.told && !is_told
    }

    pub(super) fn delivered(&mut self, reports: &Reports, now: i64) {
        if self.told < reports.dropped {
            (self.told, self.told_at) = (reports.dropped, now);
        }
        for arrived in &reports.reports {
            let mut entries = self.entries.values_mut();
            let entry = entries.find(|entry| entry.report.id == arrived.id);
            if let Some(entry) = entry.filter(|entry| entry.arrived < arrived.count) {
                (entry.arrived, entry.arrived_at) = (arrived.count, now);
                self.delivered += 1;
            }
        }
    }

    pub(super) fn give_up(&mut self, reports: &Reports) {
        if reports.reports.is_empty() {
            // Nothing but how many were dropped: not even that is taken.
            self.told = self.told.max(reports.dropped);
        }
        for refused in &reports.reports {
            let mut entries = self.entries.values_mut();
            let entry = entries.find(|entry| entry.report.id == refused.id);
            let unheard = entry.map_or(0, Entry::give_up);
            self.dropped = self.dropped.saturating_add(unheard);
        }
    }

    pub(super) fn restore(&mut self, reports: Reports, told: u64) {
        self.told = self.told.saturating_add(told.min(reports.dropped));
        self.dropped = self.dropped.saturating_add(reports.dropped);
        for mut report in reports.reports {
            // Its network is not known any more: what comes later is a report of its own.
            let key = Key::new(&report.matter, report.id.clone());
            // Of a notice, that has been given again already, it is the same.
            if let Some(again) = self.entries.remove(&key) {
                let unheard = again.report.count - again.arrived;
                report.count = report.count.saturating_add(unheard);
                report.last_at = report.last_at.max(again.report.last_at);
                add_bytes(&mut report.matter, &again.report.matter);
            }
            self.enter(key, report);
        }
    }

    pub(super) fn counts(&self) -> super::Counts {
        let waiting = self.entries.values().filter(|entry| entry.is_waiting());
        super::Counts {
            waiting: waiting.count(),
            dropped: self.dropped,
            delivered: self.delivered,
            untold: self.dropped.saturating_sub(self.told),
        }
    }
}

/// Adds to a bypass what another one of the same booster for the same reason has cost.
fn add_bytes(matter: &mut Matter, more: &Matter) {
    if let (Matter::Bypass(bypass), Matter::Bypass(more)) = (matter, more) {
        bypass.bytes = bypass.bytes.saturating_add(more.bytes);
    }
}

/// A report as it is sent.
fn to_send(entry: &Entry) -> Reported {
    let mut report = entry.report.clone();
    if entry.arrived > 0
        && let Matter::Refusal(refusal) = &mut report.matter
    {
        // It is there already.
        refusal.cert = None;
    }
    report
}

/// How long the same thing is the same report: an hour of somebody who knocks is one line.
const WINDOW_SECONDS: i64 = 3600;
/// How long a counter that has been told may go on before it is told again: somebody who knocks
/// every second is worth a body a minute on a thin line.
const COUNT_SECONDS: i64 = 60;
/// With certificates of 8 KiB each, some 3 MiB.
pub(super) const ENTRIES_MAX: usize = 256;
/// What a body holds besides the reports: braces, and the number of those dropped.
const FRAME_BYTES: usize = 64;
