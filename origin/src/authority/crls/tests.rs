//! Tests of what is on the lists, and what a million entries cost.

use std::time::Instant;

use certs::{Key, Verdict};
use sqlx::query;

use super::*;
use crate::testing::{Bed, DAY};

#[tokio::test]
async fn an_expired_certificate_is_on_one_more_list_and_then_on_none() {
    let bed = Bed::new().await;
    let authority = &bed.authority;
    let key = Key::generate().unwrap();
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let mut db = authority.ledger().read().await.unwrap();
    let spki = key.spki_sha256();
    let held = certificates::newest_by_key(&mut db, &spki).await;
    let held = held.unwrap().unwrap();
    drop(db);
    bed.revoke("laptop").await;
    let issuer = IssuerId::from_bytes(held.issuer);
    // Whether it is on the list, and whether that list began after its end.
    let look = async |passing: i64| {
        bed.pass(passing);
        authority.refresh_crls().await.unwrap();
        let crl = authority.trust().crls().current(issuer).unwrap();
        let now = authority.clock().now();
        let verdict = authority.trust().crls().lookup(issuer, held.serial, now);
        let is_on = matches!(verdict, Verdict::Revoked { .. });
        (is_on, crl.this_update() > held.not_after)
    };
    assert_eq!(look(DAY).await, (true, false));
    // For weeks the origin was off, and no list was signed in the meantime.
    assert_eq!(look(60 * DAY).await, (true, true));
    assert_eq!(look(3601).await, (false, true));
    // A clock that goes wild drops nothing that still counts once it is set right.
    let (other, id) = (Key::generate().unwrap(), "desk");
    assert_eq!(bed.ask(&other, id, None).await, "pending");
    bed.decide(id, crate::ledger::devices::State::Approved)
        .await;
    assert_eq!(bed.ask(&other, id, None).await, "issued desk");
    bed.revoke(id).await;
    let on_it = || authority.trust().crls().current(issuer).unwrap().len();
    assert_eq!(on_it(), 1);
    for (passing, expected) in [(300 * DAY, 1), (DAY, 0), (-301 * DAY, 1)] {
        bed.pass(passing);
        authority.refresh_crls().await.unwrap();
        assert_eq!(on_it(), expected, "after {passing} s");
    }
}

/// The highest that this process's memory has been since [`forget_peak`], in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() >> 10
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[tokio::test]
#[ignore = "a measurement of some seconds, to be run alone"]
async fn measure_a_list_of_a_million() {
    let bed = Bed::new().await;
    let authority = &bed.authority;
    let now = authority.clock().now();
    let issuer = authority.keys().ca(CaKind::Client, now).id();
    let not_after = authority.clock().now() + 14 * DAY;
    let mut tx = authority.ledger().write().await.unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
                INSERT INTO revocations (issuer, serial, revoked_at, not_after, reason) \
                SELECT $1, x'40' || randomblob(15), $2, $3, i % 2 FROM n";
    query(fill)
        .bind(issuer.as_bytes().as_slice())
        .bind(authority.clock().now())
        .bind(not_after)
        .execute(&mut *tx)
        .await
        .unwrap();
    commit(tx).await.unwrap();
    for _ in 0..2 {
        bed.pass(AGE_MAX + 1);
        forget_peak();
        let (before, start) = (peak_mib(), Instant::now());
        authority.refresh_crls().await.unwrap();
        let (took, after) = (start.elapsed(), peak_mib());
        let crl = authority.trust().crls().current(issuer).unwrap();
        assert_eq!(crl.len(), 1_000_000);
        let bytes = crl.der().len();
        eprintln!("{bytes} bytes in {took:?}; {before} MiB before, {after} at most");
    }
}
