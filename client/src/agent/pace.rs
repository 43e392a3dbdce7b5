//! When to check in: at the interval that the origin says, sooner if there is something to tell,
//! and so that a fleet that has lost its origin does not come back all at once.

/// Decides, and neither waits nor rolls dice: times are Unix seconds, `random` lies between 0
/// and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    due: i64,
    interval: i64,
    /// What the settings say, whatever the origin does.
    own: Option<i64>,
    failures: u32,
}

impl Pace {
    /// From `now` on; `interval` is what the origin said last, in seconds. Who has heard of it
    /// before comes within half of the interval, since others may have started at the same time;
    /// who has not comes at once.
    pub(crate) fn new(interval: Option<u32>, now: i64, random: f64) -> Self {
        let known = interval.map(bounded);
        let spread = known.unwrap_or_default() as f64 * random / 2.0;
        Self {
            due: now + spread as i64,
            interval: known.unwrap_or(INTERVAL),
            own: None,
            failures: 0,
        }
    }

    /// The settings say how often, in seconds, or leave it to the origin, which said `interval`
    /// last.
    pub(crate) fn set_own(&mut self, own: Option<i64>, interval: Option<u32>, now: i64) {
        if own != self.own {
            self.own = own;
            self.interval = own.or_else(|| interval.map(bounded)).unwrap_or(INTERVAL);
            self.due = self.due.min(now + self.interval);
        }
    }

    /// When to check in.
    pub(crate) fn due(&self) -> i64 {
        self.due
    }

    /// The origin has answered: it said when to come again, or left it at what it said last. That
    /// is spread by a tenth: what it said to many at once shall not keep them together.
    pub(crate) fn answered(&mut self, next: Option<u32>, now: i64, random: f64) {
        if let Some(next) = next.filter(|_| self.own.is_none()) {
            self.interval = bounded(next);
        }
        self.failures = 0;
        self.due = now + (self.interval as f64 * (0.9 + random / 5.0)).ceil() as i64;
    }

    /// It could not be reached, or asked to be left alone for `busy` seconds. Who failed comes
    /// again within the interval, so that whenever the origin comes back, those who wait for it
    /// come spread over that, at no more than twice their usual rate.
    pub(crate) fn failed(&mut self, busy: Option<i64>, now: i64, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let least = if self.failures == 1 { 0.25 } else { 0.5 };
        let pause = self.interval as f64 * (least + random * (1.0 - least));
        self.due = now + (pause.ceil() as i64).max(busy.unwrap_or_default());
    }

    /// There is something to tell: it is told soon, with whatever else comes until then. Not while
    /// nobody answers.
    pub(crate) fn has_news(&mut self, now: i64, random: f64) {
        if self.failures == 0 {
            let soon = now + 1 + (random * NEWS_SPREAD as f64) as i64;
            self.due = self.due.min(soon);
        }
    }

    /// What is on trial is tried again soon, however long the interval is that it asks for.
    pub(crate) fn is_on_trial(&mut self, now: i64, random: f64) {
        let soon = now + (TRIAL_PAUSE as f64 * (0.5 + random / 2.0)) as i64;
        self.due = self.due.min(soon);
    }

    /// Whoever lets us wait has something to say. Many may hear that at one time.
    pub(crate) fn woken(&mut self, now: i64, random: f64) {
        let soon = now + (random * WAKE_SPREAD as f64) as i64;
        self.due = self.due.min(soon);
    }

    /// The clock may have been set back: nobody waits for a time that lies beyond reason.
    pub(crate) fn look(&mut self, now: i64) {
        self.due = self.due.min(now + self.interval * 2 + BUSY_MAX);
    }
}

fn bounded(seconds: u32) -> i64 {
    i64::from(seconds).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Before the origin has said anything, in seconds: its own default.
const INTERVAL: i64 = 120;
/// However often the origin would like it.
const INTERVAL_MIN: i64 = 2;
/// A device that is asked to do something should hear of it within a day.
const INTERVAL_MAX: i64 = 86_400;
/// Over how many seconds the news of many are spread: they had the same reason.
const NEWS_SPREAD: i64 = 10;
/// How many seconds a trial of settings waits for its next check-in at the most: as long as a
/// device waits by the origin's own default.
const TRIAL_PAUSE: i64 = 120;
/// Over how many seconds those come whom one word has woken. Manifests are made in batches, whose
/// devices are woken one batch after the other; commands are not.
const WAKE_SPREAD: i64 = 5;
/// The longest that a busy origin can ask for (see `transport::call`).
const BUSY_MAX: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: usize = 5000;
    const DAY: i64 = 86_400;

    /// How many come in the busiest ten seconds of a fleet's life in which the origin is down from
    /// an hour on, for `outage` seconds; as a ratio to the busiest of a fleet that has no outage.
    fn peak(outage: i64) -> (usize, usize) {
        let mut random = fastrand::Rng::with_seed(9);
        let (down, up) = (3600, 3600 + outage);
        let mut answered = vec![0_usize; usize::try_from((up + 7200) / 10).unwrap()];
        for _ in 0..DEVICES {
            // They have been at it for a while.
            let mut pace = Pace::new(Some(120), 0, random.f64() * 2.0);
            while pace.due() < up + 7200 - 10 {
                let now = pace.due();
                if (down..up).contains(&now) {
                    pace.failed(None, now, random.f64());
                } else {
                    answered[usize::try_from(now / 10).unwrap()] += 1;
                    pace.answered(None, now, random.f64());
                }
            }
        }
        let (before, after) = (
            usize::try_from(down / 10).unwrap(),
            usize::try_from(up / 10).unwrap(),
        );
        let steady = answered[before - 100..before].iter().sum::<usize>() / 100;
        (steady, answered[after..].iter().copied().max().unwrap())
    }

    #[test]
    fn a_fleet_comes_back_from_an_outage_without_a_stampede() {
        for outage in [30, 300, 3600, DAY] {
            let (steady, peak) = peak(outage);
            assert!(
                peak <= steady * 2,
                "{peak} against {steady} after {outage} s"
            );
        }
    }

    #[test]
    fn it_comes_when_the_origin_wants_it() {
        let mut pace = Pace::new(None, 1000, 0.5);
        assert_eq!(pace.due(), 1000);
        pace.answered(Some(300), 1000, 0.5);
        assert_eq!(pace.due(), 1300);
        pace.answered(None, 1300, 0.0);
        assert_eq!(pace.due(), 1570);
        pace.failed(None, 1570, 0.0);
        assert_eq!(pace.due(), 1645);
        pace.has_news(1571, 0.0);
        assert_eq!(pace.due(), 1645, "nobody would hear of it");
        pace.failed(Some(600), 1645, 1.0);
        assert_eq!(pace.due(), 2245);
        pace.failed(None, 3000, 1.0);
        assert_eq!(pace.due(), 3300);
        pace.answered(Some(0), 3300, 1.0);
        assert_eq!(pace.due(), 3303);
        pace.answered(Some(300), 3303, 0.5);
        pace.has_news(3304, 0.5);
        assert_eq!(pace.due(), 3310);
        pace.woken(3304, 0.9);
        assert_eq!(pace.due(), 3308);
        pace.woken(3305, 0.9);
        assert_eq!(pace.due(), 3308, "it was sooner already");
        // The settings say otherwise.
        pace.set_own(Some(3600), Some(300), 3305);
        assert_eq!(pace.due(), 3308);
        pace.answered(Some(300), 3308, 0.5);
        assert_eq!(pace.due(), 3308 + 3600);
        pace.failed(None, 6908, 1.0);
        pace.is_on_trial(6908, 1.0);
        assert_eq!(pace.due(), 6908 + 120);
        pace.set_own(None, Some(300), 6909);
        pace.answered(None, 7028, 0.5);
        assert_eq!(pace.due(), 7328);
        // The clock was a year ahead.
        pace.look(3308 - 365 * DAY);
        assert!(pace.due() < 3308 - 360 * DAY);
    }
}
