//! Devices whose clocks are dead, or far ahead.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use certs::Role;
use client::PullRequest;
use member::{EnrolRequest, Kind, enrol};
use service::Clock;
use tests::testbed::{Testbed, until};
use tests::{fixture, tree};

/// 1 January 2099.
const AHEAD: i64 = 4_070_908_800;
const YEAR: i64 = 365 * 86_400;

/// A clock that says `at`, in Unix seconds, and goes on from there.
fn clock_at(at: i64) -> Clock {
    Clock::fixed_offset(Arc::new(AtomicI64::new(at - Clock::system().now())))
}

/// What `larder-client status` says of the clock, and whether all that it prints says so too.
fn trouble(data: &Path, clock: &Clock) -> Option<String> {
    let status = client::status(data, Duration::ZERO, clock).unwrap();
    assert!(status.device.is_some(), "it knows who it is");
    let trouble = status.clock.trouble();
    let printed = status.to_string();
    assert_eq!(printed.contains("\n  clock "), trouble.is_some());
    assert!(printed.contains(trouble.as_deref().unwrap_or_default()));
    trouble
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_in_1970_installs_and_one_in_2099_refuses_and_both_say_why() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let data = bed.enrol_client("one").await.unwrap();
    let pull = async |target: &str, clock: &Clock| {
        let request = PullRequest::new(data.clone(), "tools".parse().unwrap(), bed.path(target));
        client::pull(request, clock).await
    };
    pull("right", &bed.clock()).await.unwrap();
    assert_eq!(trouble(&data, &bed.clock()), None);

    let dead = clock_at(5);
    pull("dead", &dead).await.unwrap();
    tree::compare(&bed.path("tree"), &bed.path("dead")).unwrap();
    let told = trouble(&data, &dead).unwrap();
    assert!(told.starts_with("says 1970-01-01T"), "{told}");

    // By the one no root is in date, by the other no certificate.
    for (at, date) in [(AHEAD, "2099-01-01T"), (bed.clock().now() + YEAR, "")] {
        let ahead = clock_at(at);
        let refused = pull("ahead", &ahead).await;
        assert!(refused.is_err(), "{refused:?}");
        assert!(!bed.path("ahead").exists());
        let told = trouble(&data, &ahead).unwrap();
        assert!(told.starts_with(&format!("says {date}")), "{told}");
        assert!(told.contains("ahead of the origin's"), "{told}");
    }

    // Once it is set right all is well: nothing was believed of what it said.
    pull("again", &bed.clock()).await.unwrap();
    assert_eq!(trouble(&data, &bed.clock()), None);
    let reports = async || {
        let path = "/reports?within=86400&limit=1000";
        let view: serde_json::Value = bed.admin().get(path).await.unwrap();
        view.to_string()
    };
    until(reports, |view| view.contains("clock_skew")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_enrols_by_a_dead_clock() {
    let bed = Testbed::start().await.unwrap();
    for at in [5, AHEAD] {
        let join = bed.join(Role::Client).await.unwrap();
        let request = EnrolRequest {
            id: Some("one".parse().unwrap()),
            ..EnrolRequest::new(Kind::Client, bed.path("one"), join)
        };
        let refused = enrol(request, &clock_at(at), |_| {}).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    bed.enrol_client("one").await.unwrap();
}
