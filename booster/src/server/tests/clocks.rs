//! Boosters whose clocks are dead, or far ahead.

use protocol::report::Notice;

use super::*;
use crate::offline::Phase;

/// 1 January 2099.
const AHEAD: i64 = 4_070_908_800;

/// A clock that says `at`, in Unix seconds, and goes on from there.
fn clock_at(at: i64) -> Clock {
    Clock::fixed_offset(Arc::new(AtomicI64::new(at - Clock::system().now())))
}

impl Bed {
    /// One that has served once, and stopped.
    async fn rested() -> Self {
        let bed = Self::start().await;
        let booster = bed.boost().await;
        let device = bed.origin.device("first");
        bed.get(&bed.client(&device, &booster)).await;
        assert_eq!(booster.drain(GRACE).await, Drained::InTime);
        bed
    }

    /// Waits until `larder-booster status` says something of the clock, and gives it back.
    async fn clock_trouble(&self) -> String {
        let config = self.config();
        soon(async {
            loop {
                let status = status(&config, &Clock::system()).await.unwrap();
                if let Some(trouble) = status.clock.trouble()
                    && status.clock.skew.is_some()
                {
                    assert!(status.to_string().contains(&trouble), "{status}");
                    return trouble;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// What the origin was told of clocks, once it was told anything of them.
    async fn noticed(&self) -> String {
        let noticed = || {
            let bodies = self.origin.shared.reported.lock().unwrap();
            let mut reports = bodies.iter().flat_map(|body| &body.reports);
            reports.find_map(|report| match &report.matter {
                Matter::Notice(Notice { kind, detail }) if kind == "clock_skew" => {
                    Some(detail.clone())
                }
                Matter::Bypass(_) | Matter::Notice(_) | Matter::Refusal(_) => None,
            })
        };
        soon(async {
            loop {
                if let Some(detail) = noticed() {
                    return detail;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_booster_in_1970_serves_by_the_last_time_it_knows_and_says_so() {
    let bed = Bed::rested().await;
    let booster = Booster::bind(bed.config(), clock_at(5));
    let booster = soon(booster).await.unwrap();
    let device = bed.origin.device("laptop");
    bed.get(&bed.client(&device, &booster)).await;
    soon(booster.catalogue().current()).await.unwrap();
    let trouble = bed.clock_trouble().await;
    assert!(
        trouble.starts_with("says 1970-01-01T") && trouble.ends_with("set it"),
        "{trouble}"
    );
    let told = bed.noticed().await;
    assert!(told.ends_with("behind the origin's"), "{told}");
    assert!(booster.metrics().clock_skew.get() < -50 * 365 * DAY);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_in_2099_does_not_start_and_says_why_until_its_clock_is_set() {
    let bed = Bed::rested().await;
    let refused = soon(Booster::bind(bed.config(), clock_at(AHEAD))).await;
    let refused = refused.map(drop).unwrap_err();
    assert!(
        matches!(refused, BindError::Open(OpenError::NoRoot { .. })),
        "{refused}"
    );
    assert!(refused.to_string().contains("2099-01-01T"), "{refused}");
    let status = status(&bed.config(), &clock_at(AHEAD)).await.unwrap();
    let trouble = status.clock.trouble().unwrap();
    assert!(
        trouble.starts_with("says 2099-01-01T") && trouble.contains("ahead of the origin's"),
        "{trouble}"
    );
    // It has believed nothing of it.
    let booster = bed.boost().await;
    let device = bed.origin.device("laptop");
    bed.get(&bed.client(&device, &booster)).await;
    let status = super::status(&bed.config(), &Clock::system())
        .await
        .unwrap();
    assert_eq!(status.clock.trouble(), None);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_a_year_ahead_lets_nobody_in_and_says_why() {
    let bed = Bed::rested().await;
    let ahead = clock_at(Clock::system().now() + 365 * DAY);
    let booster = soon(Booster::bind(bed.config(), ahead)).await.unwrap();
    let trouble = bed.clock_trouble().await;
    assert!(trouble.contains("365d ahead of the origin's"), "{trouble}");
    let status = status(&bed.config(), &Clock::system()).await.unwrap();
    assert_eq!(status.revocation.phase, Phase::Closed);
    let device = bed.origin.device("laptop");
    let address = booster.local_addr().to_string();
    let refused = bed.origin.patient(&device, address).hello().await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}
