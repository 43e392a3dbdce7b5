//! Some hundred agents whose origin is gone for a day, under a clock of our own.
//!
//! All that decides when an agent does something is the real thing: its mind with pace, state and
//! steps, and its wait. Played are the line (what comes of a call, and after how long), the hands
//! (what comes of an act), and the loop around them, in the order of `run::Life`, which cannot do
//! without sockets and folders.

mod fleet;

use std::ops::Range;

use fleet::{Death, Seen, live};

/// When the fleet's second manifest is committed: everybody is woken and comes within seconds, so
/// that the origin dies while all are in step, which is the worst that can be.
const COMMIT: u64 = DOWN - 30;
const DOWN: u64 = 2 * HOUR;
const UP: u64 = DOWN + DAY;
const END: u64 = UP + 2 * HOUR;
/// Of what is downloaded when the origin dies, something is to be activated, and something that is
/// there is to go.
const ACTIVATE: u64 = DOWN + 6 * HOUR;
const DEACTIVATE: u64 = DOWN + 9 * HOUR;
/// From then on something should be downloaded, which cannot be had.
const DOWNLOAD: u64 = DOWN + 12 * HOUR;

const DEVICES: usize = 600;
/// Seconds between two check-ins of one device, as the origin's default has it.
const INTERVAL: u64 = 120;
/// Too short to hide a burst in, and long enough that chance does not double what comes: see
/// `comes_back_spread`.
const WINDOW: u64 = 10;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn check(death: Death) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    fastrand::seed(5);
    let seen = runtime.block_on(live(death));
    comes_back_spread(&seen, death);
    backs_off(&seen, death);
    acts_on_time(&seen, death);
}

/// An operator has a machine that answers what comes day by day, and some more. So in any ten
/// seconds no more may come than twice what comes in ten seconds of a quiet day. Nothing is added
/// for chance: of 600 devices 50 come in ten seconds, give or take 7; of a fleet that asks
/// after three quarters of its interval, 67 at the moment of the return; 100 is four times what
/// chance gives or takes beyond that.
fn comes_back_spread(seen: &Seen, death: Death) {
    let steady = seen.answered.mean(HOUR..COMMIT);
    let expected = (DEVICES as u64 * WINDOW) as f64 / INTERVAL as f64;
    assert!((steady / expected - 1.0).abs() < 0.05, "{steady} a window");
    let (peak, at) = seen.answered.peak(UP..END);
    let after = at - UP;
    assert!(
        peak <= 2.0 * steady,
        "{peak} against {steady} after {after} s"
    );
    // Waits and downloads are work, too.
    let steady = seen.requests.mean(HOUR..COMMIT);
    let (peak, at) = seen.requests.peak(UP..END);
    let after = at - UP;
    assert!(
        peak <= 2.0 * steady,
        "{peak} of all against {steady} after {after} s"
    );
    // Nobody is spread over more than one interval.
    let last = seen.back.iter().max().copied();
    assert_eq!(seen.back.len(), DEVICES);
    assert!(
        last <= Some(UP + INTERVAL + death.call_seconds() + 1),
        "{last:?}"
    );
}

/// Who gets no answer asks again after a quarter of the interval at the least, then after half of
/// it, and by chance later: no origin is asked twice as often as if it lived. It is asked for
/// nothing else: no waits, and downloads that fail are tried ever more seldom, at last once an hour.
fn backs_off(seen: &Seen, death: Death) {
    let (fewest, most) = (
        DAY / (INTERVAL + death.call_seconds() + 1),
        DAY / (INTERVAL / 2) + 2,
    );
    for tries in &seen.tries {
        let count = tries.len() as u64;
        assert!((fewest..=most).contains(&count), "{count} tries a day");
        let pauses: Vec<u64> = tries.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses[0] >= INTERVAL / 4, "{pauses:?}");
        assert!(
            pauses[1..].iter().all(|pause| *pause >= INTERVAL / 2),
            "{pauses:?}"
        );
    }
    // All had come together for the commit. Hours later nothing is left of that; and what became
    // active meanwhile on all at one moment has made nobody ask.
    let hours = DOWN + 4 * HOUR..UP;
    let (peak, at) = seen.asked.peak(hours.clone());
    let mean = seen.asked.mean(hours);
    assert!(peak <= 2.0 * mean, "{peak} tries at {at} against {mean}");
    assert_eq!(seen.waits_in_vain, 0);
    for tries in &seen.downloads {
        assert!(
            (12..=36).contains(tries),
            "{tries} tries to download in half a day"
        );
    }
}

/// At the second, or once the call has failed that was under way.
fn acts_on_time(seen: &Seen, death: Death) {
    let late = death.call_seconds() + 1;
    let all_within = |what: &str, times: &[u64], within: Range<u64>| {
        assert_eq!(times.len(), DEVICES, "{what}");
        let is_within = times.iter().all(|at| within.contains(at));
        assert!(is_within, "{what}: {within:?}, {times:?}");
    };
    all_within("installed", &seen.installed, ACTIVATE..ACTIVATE + late + 1);
    all_within("removed", &seen.removed, DEACTIVATE..DEACTIVATE + late + 1);
    // The origin hears of it with the first that it hears, and when it was.
    all_within("told", &seen.told, ACTIVATE..ACTIVATE + late + 1);
    all_within("fetched", &seen.fetched, UP..UP + HOUR + late + 1);
}

#[test]
fn a_fleet_outlives_a_day_without_its_origin_and_comes_back_without_a_stampede() {
    check(Death::Stopped);
}

#[test]
fn so_it_does_if_the_line_is_dead_and_nothing_is_refused() {
    check(Death::Silent);
}
