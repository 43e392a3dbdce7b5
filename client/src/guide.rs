//! What is known of sources beside the deployment document: whom the origin has named, and who has
//! failed lately.

use std::collections::BTreeMap;

use protocol::report::BypassReason;
use serde::{Deserialize, Serialize};

/// What is known of sources. The agent keeps it on disk.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Guide {
    /// The boosters that the origin named last, by their ids, the best first.
    pub(crate) named: Vec<String>,
    /// The boosters that have failed since they last did what they were asked for, by their ids.
    pub(crate) rests: BTreeMap<String, Rest>,
}

/// A booster that is left alone for a while. Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rest {
    /// How often it was gone round.
    pub(crate) failures: u32,
    /// When that was last.
    pub(crate) since: i64,
    /// Until when others are asked before it, the origin too.
    pub(crate) until: i64,
    /// Why, in a word.
    pub(crate) reason: BypassReason,
    /// What happened, for a person.
    pub(crate) note: String,
}

impl Guide {
    /// Why the booster `id` is left alone at `now`; none if it is not.
    pub(crate) fn rest(&self, id: &str, now: i64) -> Option<&Rest> {
        // A clock that was set back leaves nobody alone for longer than was meant.
        let is_on = |rest: &&Rest| (rest.since..rest.until).contains(&now);
        self.rests.get(id).filter(is_on)
    }

    /// Takes note that the booster `id` was gone round at `now`. By `random` (0 to 1), not all
    /// devices of a branch come back to it at once.
    pub(crate) fn went_round(
        &mut self,
        id: &str,
        reason: BypassReason,
        note: &str,
        now: i64,
        random: f64,
    ) {
        let first = match reason {
            // It says so of what it was asked for, and may have everything else.
            BypassReason::Fault | BypassReason::Resting => return,
            // It has to find out, and to fetch again.
            BypassReason::BadContent => REST_BAD,
            BypassReason::Broken
            | BypassReason::Busy
            | BypassReason::Distrusted
            | BypassReason::Other
            | BypassReason::Refused
            | BypassReason::Timeout
            | BypassReason::Unreachable => REST,
        };
        let failures = self.rests.get(id).map_or(0, |rest| rest.failures);
        let rest = (first << failures.min(8)).min(REST_MAX);
        let rest = rest as f64 * (0.75 + random.clamp(0.0, 1.0) / 4.0);
        let rest = Rest {
            failures: failures.saturating_add(1),
            since: now,
            until: now.saturating_add(rest as i64),
            reason,
            note: note.chars().take(NOTE_CHARS_MAX).collect(),
        };
        self.rests.insert(id.to_owned(), rest);
        while self.rests.len() > RESTS_MAX {
            let oldest = self.rests.iter().min_by_key(|(_, rest)| rest.until);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.rests.remove(&id);
        }
    }

    /// Takes note that the booster `id` has done what it was asked for.
    pub(crate) fn worked(&mut self, id: &str) {
        self.rests.remove(id);
    }
}

/// For how many seconds a booster is left alone at first: one that starts again is back by then.
const REST: i64 = 60;
/// The same after it delivered something wrong.
const REST_BAD: i64 = 600;
/// Each doubles; the longest.
const REST_MAX: i64 = 3600;
/// More boosters than a device ever asks.
const RESTS_MAX: usize = 16;
const NOTE_CHARS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booster_that_fails_is_left_alone_for_longer_each_time_until_it_works() {
        let mut guide = Guide::default();
        let fail = |guide: &mut Guide, reason, now| {
            guide.went_round("b1", reason, "it is down", now, 1.0);
            guide.rest("b1", now).map(|rest| rest.until - now)
        };
        assert_eq!(fail(&mut guide, BypassReason::Fault, 1000), None);
        assert_eq!(fail(&mut guide, BypassReason::Unreachable, 1000), Some(60));
        assert_eq!(guide.rest("b1", 1060), None);
        assert_eq!(guide.rest("b2", 1000), None);
        assert_eq!(fail(&mut guide, BypassReason::Timeout, 1060), Some(120));
        // The clock was a year ahead.
        assert_eq!(guide.rest("b1", 1060 - 365 * 86_400), None);
        for _ in 0..40 {
            fail(&mut guide, BypassReason::Timeout, 2000);
        }
        assert_eq!(fail(&mut guide, BypassReason::Timeout, 2000), Some(3600));
        guide.worked("b1");
        assert_eq!(guide.rest("b1", 2000), None);
        assert_eq!(fail(&mut guide, BypassReason::BadContent, 3000), Some(600));
        for number in 0..40 {
            guide.went_round(&format!("c{number}"), BypassReason::Broken, "", 9000, 1.0);
        }
        assert_eq!(guide.rests.len(), RESTS_MAX);
    }
}
