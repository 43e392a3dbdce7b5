//! The line under limits, in a time that the test makes pass.

use service::metrics::Registry;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::schedule::Limits;
use super::*;

const PIECE: usize = 16 << 10;

fn wan(rate: Rate, prefetch: Rate) -> Wan {
    let metrics = WanMetrics::register(&Registry::new("test")).unwrap();
    let schedule = Schedule::constant(Limits { prefetch, rate });
    Wan::new(schedule, Clock::system(), metrics)
}

/// How long it takes until `readers` have each taken `pieces`.
async fn take(wan: &Wan, purpose: Purpose, readers: usize, pieces: usize) -> Duration {
    let begun = Instant::now();
    let mut set = JoinSet::new();
    for _ in 0..readers {
        let wan = wan.clone();
        set.spawn(async move {
            for _ in 0..pieces {
                sleep(wan.pace(purpose).came(PIECE)).await;
            }
        });
    }
    set.join_all().await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn all_readers_together_keep_to_the_rate() {
    let rate = Rate::bits(8 * 1_000_000);
    for readers in [1, 7] {
        let took = take(&wan(rate, rate), Purpose::Wanted, readers, 70 / readers).await;
        let due = rate.time_for(70 * PIECE as u64).unwrap();
        assert!(took.abs_diff(due) < Duration::from_millis(20), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_keeps_the_booster_up_to_date_waits_for_nothing() {
    let slow = Rate::bits(64_000);
    let wan = wan(slow, slow);
    let took = take(&wan, Purpose::Control, 1, 10).await;
    assert_eq!(took, Duration::ZERO);
    // The others pay for it.
    assert_eq!(take(&wan, Purpose::Wanted, 1, 1).await, REST_MAX);
}

#[tokio::test(start_paused = true)]
async fn without_limits_nothing_waits() {
    let wan = wan(Rate::UNLIMITED, Rate::UNLIMITED);
    for purpose in [Purpose::Control, Purpose::Wanted] {
        assert_eq!(take(&wan, purpose, 3, 100).await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_ahead_has_a_rate_of_its_own() {
    let wan = wan(Rate::UNLIMITED, Rate::bits(8 * 1_000_000));
    let took = take(&wan, Purpose::Prefetch, 2, 35).await;
    let due = Rate::bits(8 * 1_000_000)
        .time_for(70 * PIECE as u64)
        .unwrap();
    assert!(took.abs_diff(due) < Duration::from_millis(20), "{took:?}");
    assert_eq!(take(&wan, Purpose::Wanted, 1, 100).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_ahead_yields_to_what_is_wanted() {
    let wan = wan(Rate::UNLIMITED, Rate::UNLIMITED);
    assert!(wan.may_prefetch());
    let _rest = wan.pace(Purpose::Wanted).came(PIECE);
    assert!(!wan.may_prefetch());
    let yielded = take(&wan, Purpose::Prefetch, 1, 1).await;
    assert_eq!(yielded, YIELD);
    assert!(wan.may_prefetch());
    // However much is wanted, a connection is not left to die: it trickles, and when its sender
    // might lose patience, what has been begun comes to its end.
    let busy = wan.clone();
    let wanted = async move {
        loop {
            let _rest = busy.pace(Purpose::Wanted).came(PIECE);
            sleep(QUIET / 2).await;
        }
    };
    let ahead = async {
        sleep(QUIET / 4).await;
        assert!(!wan.must_yield());
        let trickle = take(&wan, Purpose::Prefetch, 1, 3).await;
        (trickle, take(&wan, Purpose::Prefetch, 1, 100).await)
    };
    let took = tokio::select! {
        () = wanted => unreachable!("it goes on for ever"),
        took = ahead => took,
    };
    assert_eq!(took, (YIELD_MAX, Duration::ZERO));
    assert!(wan.must_yield());
    sleep(QUIET).await;
    assert!(!wan.must_yield() && wan.may_prefetch());
    // What comes next has its time from then on.
    let _rest = wan.pace(Purpose::Wanted).came(PIECE);
    assert!(!wan.must_yield());
    assert_eq!(take(&wan, Purpose::Prefetch, 1, 1).await, YIELD);
}

#[tokio::test(start_paused = true)]
async fn at_hours_without_prefetch_nothing_is_begun_and_what_was_begun_goes_on() {
    let wan = wan(Rate::bits(8 * 1_000_000), Rate::bits(0));
    assert!(!wan.may_prefetch());
    let took = take(&wan, Purpose::Prefetch, 1, 70).await;
    let due = Rate::bits(8 * 1_000_000)
        .time_for(70 * PIECE as u64)
        .unwrap();
    assert!(took.abs_diff(due) < Duration::from_millis(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_debt_is_bounded() {
    let mut debt = Debt::default();
    let now = Instant::now();
    let owed = (0..100).map(|_| debt.pay(now, Duration::MAX)).max();
    assert_eq!(owed, Some(DEBT_MAX));
    let (later, second) = (now + Duration::from_secs(3600), Duration::from_secs(1));
    assert_eq!(debt.pay(later, second), second - CREDIT_MAX);
}
