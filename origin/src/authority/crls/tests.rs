//! Tests of what is on the lists, and what a million entries cost.

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

#[tokio::test]
async fn a_list_that_was_signed_and_not_published_is_in_force_as_soon_as_it_can_be() {
    let bed = Bed::new().await;
    let authority = &bed.authority;
    let key = Key::generate().unwrap();
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let mut db = authority.ledger().read().await.unwrap();
    let held = certificates::newest_by_key(&mut db, &key.spki_sha256()).await;
    let held = held.unwrap().unwrap();
    drop(db);
    let issuer = IssuerId::from_bytes(held.issuer);
    let number = || authority.trust().crls().current(issuer).unwrap().number();
    let before = number();

    bed.refuse_marks(true);
    let tx = authority.ledger().write().await.unwrap();
    let whom = [(certs::Role::Client, "laptop".parse().unwrap())];
    let reason = crl::RevocationReason::KeyCompromise;
    authority.revoke(tx, &whom, reason).await.unwrap_err();
    let begun = Instant::now();
    // Tried again and again, further and further apart, and for the same reason all the time.
    let (mut tries, mut reasons) = (0, std::collections::BTreeSet::new());
    for second in 0..120 {
        let at = begun + Duration::from_secs(second);
        let failure = authority.refresh_crls_at(at).await.unwrap_err();
        tries += i32::from(!matches!(failure, AuthorityError::Postponed { .. }));
        reasons.insert(Report(&failure).to_string());
    }
    assert_eq!((tries, reasons.len(), number()), (7, 1, before));
    let mut db = authority.ledger().read().await.unwrap();
    let heads = authorities::crl_heads(&mut db).await.unwrap();
    drop(db);
    let stored = heads.iter().find(|it| it.issuer == held.issuer).unwrap();
    assert_eq!(stored.number, before + 1, "signed once");

    bed.refuse_marks(false);
    let later = begun + Duration::from_secs(240);
    authority.refresh_crls_at(later).await.unwrap();
    assert_eq!(number(), before + 1);
    let now = authority.clock().now();
    let verdict = authority.trust().crls().lookup(issuer, held.serial, now);
    assert!(matches!(verdict, Verdict::Revoked { .. }));
}

#[tokio::test]
async fn a_clock_ahead_forgets_no_certificate_that_still_counts() {
    let bed = Bed::new().await;
    let key = Key::generate().unwrap();
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let id = "laptop".parse().unwrap();
    let again = async || {
        let mut tx = bed.authority.ledger().write().await.unwrap();
        let issued = bed
            .authority
            .issue(&mut tx, certs::Role::Client, &id, key.spki_der());
        assert!(issued.await.unwrap().is_new);
        commit(tx).await.unwrap();
    };
    let forget = async || {
        let mut tx = bed.authority.ledger().write().await.unwrap();
        let now = bed.authority.clock().now();
        let gone = certificates::prune(&mut tx, now - DAY).await.unwrap();
        commit(tx).await.unwrap();
        gone
    };
    bed.pass(7 * DAY);
    again().await;
    assert_eq!(forget().await, 0);
    // For all that the ledger shows, this is a clock gone wild: the first one still counts.
    bed.pass(100 * DAY);
    assert_eq!(forget().await, 0);
    again().await;
    assert_eq!(forget().await, 2);
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
