//! Who has come to this booster, and what it and the origin have told each other of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::{Digest, Roster};
use tokio::time::Instant;

/// All who have come lately, in memory: after a start they come again.
#[derive(Debug, Default)]
pub(super) struct Devices {
    all: Mutex<HashMap<String, Device>>,
}

#[derive(Clone, Copy, Debug)]
struct Device {
    seen: Instant,
    /// When the origin was last told of it.
    told: Option<Instant>,
    /// The interval that it was told, in seconds.
    every: u64,
    inventory: Option<Inventory>,
}

/// What the origin made of the name of a device's inventory.
#[derive(Clone, Copy, Debug)]
struct Inventory {
    digest: Digest,
    at: Instant,
    /// It has got it.
    is_there: bool,
}

/// The origin is told again of those who come after so long: it forgets them after 36 hours, and
/// says when each was heard.
pub(super) const TELL_AGAIN: Duration = Duration::from_secs(3600);
/// A device that the origin does not put on the roster is told of again so often at most.
const TELL_PAUSE: Duration = Duration::from_secs(60);
/// Whose inventory it has got is asked again after so long: it may have been restored since.
const INVENTORY_AGAIN: Duration = Duration::from_secs(86_400);
/// Whose inventory it still lacks, after so long.
const INVENTORY_PAUSE: Duration = Duration::from_secs(600);

impl Devices {
    /// Takes note that `device` has come; whether it had not for long.
    pub(super) fn seen(&self, device: &str, now: Instant) -> bool {
        let mut all = self.all();
        if let Some(known) = all.get_mut(device) {
            let is_back = now.saturating_duration_since(known.seen) >= TELL_AGAIN;
            known.seen = now;
            return is_back;
        }
        if all.len() >= Roster::DEVICES_MAX {
            all.retain(|_, it| now.saturating_duration_since(it.seen) < TELL_AGAIN);
        }
        if all.len() >= Roster::DEVICES_MAX {
            return false;
        }
        let new = Device {
            seen: now,
            told: None,
            every: 0,
            inventory: None,
        };
        all.insert(device.to_owned(), new);
        true
    }

    /// Of whose coming the origin has not heard.
    pub(super) fn to_tell(&self, now: Instant) -> Vec<String> {
        self.select(|_, it| {
            it.told.is_none_or(|told| {
                it.seen > told && now.saturating_duration_since(told) >= TELL_AGAIN
            })
        })
    }

    /// Who has come lately and is not on the roster: an origin that was started again has forgotten
    /// who comes where. Who was on the one `before` is told of at once, however lately it was.
    pub(super) fn missing(
        &self,
        roster: &Roster,
        before: Option<&Roster>,
        now: Instant,
    ) -> Vec<String> {
        let since = |at: Instant| now.saturating_duration_since(at);
        let was_on = |id: &str| before.is_some_and(|before| before.entry(id).is_some());
        self.select(|id, it| {
            since(it.seen) < TELL_AGAIN
                && roster.entry(id).is_none()
                && (it.told.is_none_or(|told| since(told) >= TELL_PAUSE) || was_on(id))
        })
    }

    /// Takes note that the origin was told of `ids`.
    pub(super) fn told(&self, ids: &[String], now: Instant) {
        let mut all = self.all();
        for id in ids {
            if let Some(known) = all.get_mut(id) {
                known.told = Some(now);
            }
        }
    }

    /// Takes note that `device` is told to come `every` so many seconds; whether it knew.
    pub(super) fn hears(&self, device: &str, every: u64) -> bool {
        let mut all = self.all();
        let known = all.get_mut(device);
        known.is_some_and(|known| std::mem::replace(&mut known.every, every) == every)
    }

    /// Whether the origin should hear that the inventory of `device` is called `digest`.
    pub(super) fn has_news(&self, device: &str, digest: Digest, now: Instant) -> bool {
        let all = self.all();
        let known = all.get(device).and_then(|it| it.inventory);
        known.filter(|it| it.digest == digest).is_none_or(|it| {
            let pause = if it.is_there {
                INVENTORY_AGAIN
            } else {
                INVENTORY_PAUSE
            };
            now.saturating_duration_since(it.at) >= pause
        })
    }

    /// Takes note that the origin has heard that; whether it has got it.
    pub(super) fn heard(&self, device: &str, digest: Digest, is_there: bool, now: Instant) {
        if let Some(known) = self.all().get_mut(device) {
            known.inventory = Some(Inventory {
                digest,
                at: now,
                is_there,
            });
        }
    }

    fn select(&self, is_meant: impl Fn(&str, &Device) -> bool) -> Vec<String> {
        let all = self.all();
        let meant = all.iter().filter(|(id, it)| is_meant(id, it));
        meant.map(|(id, _)| id.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Device>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use content::RosterEntry;

    use super::*;

    #[test]
    fn the_origin_is_told_of_who_came_and_of_nobody_who_did_not() {
        let (devices, start) = (Devices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(devices.seen("c1", at(0)));
        assert!(!devices.seen("c1", at(1)));
        let c1 = ["c1".to_owned()];
        assert_eq!(devices.to_tell(at(1)), c1);
        devices.told(&c1, at(2));
        assert_eq!(devices.to_tell(at(3)), [""; 0]);
        // It has not come since.
        assert_eq!(devices.to_tell(at(9000)), [""; 0]);
        assert!(devices.seen("c1", at(9000)), "it comes back");
        assert_eq!(devices.to_tell(at(9000)), c1);
        devices.told(&c1, at(9001));
        // The origin has forgotten it.
        let none = Roster::default();
        assert_eq!(
            devices.missing(&none, None, at(9002)),
            [""; 0],
            "it was just told"
        );
        assert_eq!(devices.missing(&none, None, at(9100)), c1);
        let entry = RosterEntry {
            device: "c1".to_owned(),
            model: 0,
            number: 0,
            manifest: None,
            asked: 0,
        };
        let before = Roster::new(vec![entry]);
        assert_eq!(devices.missing(&none, Some(&before), at(9002)), c1);
        assert_eq!(devices.missing(&before, Some(&before), at(9100)), [""; 0]);
        assert_eq!(devices.missing(&none, None, at(13_000)), [""; 0], "gone");
    }

    #[test]
    fn an_inventory_is_news_until_the_origin_has_it_and_once_a_day() {
        let (devices, start) = (Devices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let [old, new] = [Digest::of(b"old"), Digest::of(b"new")];
        let _came = devices.seen("c1", start);
        assert!(devices.has_news("c1", old, at(0)));
        devices.heard("c1", old, false, at(0));
        assert!(!devices.has_news("c1", old, at(1)), "it is on its way");
        assert!(devices.has_news("c1", old, at(600)));
        devices.heard("c1", old, true, at(600));
        assert!(!devices.has_news("c1", old, at(5000)));
        assert!(devices.has_news("c1", new, at(5000)));
        assert!(devices.has_news("c1", old, at(90_000)));
    }
}
