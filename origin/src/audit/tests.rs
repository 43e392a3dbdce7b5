//! Tests of the audit log: what is written, and what tampering shows.

use certs::crl::RevocationReason;
use sqlx::query;

use super::*;
use crate::LEDGER_FILE;
use crate::ledger::audit::{Hash, START, chained, ends};
use crate::ledger::{Ledger, commit};
use crate::testing::Bed;

/// A ledger with `count` entries.
async fn log(count: u64) -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join(LEDGER_FILE))
        .await
        .unwrap();
    let mut tx = ledger.write().await.unwrap();
    for at in 0..count {
        let at = i64::try_from(at).unwrap();
        let draft = Event::TokenCreated.by(&Actor::origin(), at);
        draft.with("role", "client").append(&mut tx).await.unwrap();
    }
    commit(tx).await.unwrap();
    (folder, ledger)
}

async fn checked(ledger: &Ledger, from: u64, noted: Option<&Hash>) -> Result<Verified, Broken> {
    let mut db = ledger.read().await.unwrap();
    match verify(&mut db, from, noted, |_, _, _| {}).await {
        Ok(verified) => Ok(verified),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_log_that_nobody_touched_holds_from_any_entry_on() {
    let (_folder, ledger) = log(2500).await;
    let (last, head) = ends(&mut ledger.read().await.unwrap()).await.unwrap();
    assert_eq!((last, head.number), (2500, 2500));
    for first in [1, 2, 1001, 2500] {
        let found = checked(&ledger, first, Some(&head.hash)).await.unwrap();
        let found = (found.first, found.head, found.found);
        assert_eq!(found, (first, head, Some(2500)));
    }
    let (_folder, empty) = log(0).await;
    assert_eq!(checked(&empty, 1, None).await.unwrap().head.number, 0);
}

#[tokio::test]
async fn every_way_of_tampering_shows() {
    let check = async |tamper: &str, expected: Broken| {
        let (_folder, ledger) = log(9).await;
        let mut tx = ledger.write().await.unwrap();
        for statement in tamper.split(';') {
            query(sqlx::AssertSqlSafe(statement))
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        commit(tx).await.unwrap();
        assert_eq!(checked(&ledger, 1, None).await, Err(expected), "{tamper}");
    };
    // Whoever can write the file is not held up by the triggers.
    let free = "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_shortened; ";
    for (tamper, expected) in [
        (
            "UPDATE audit SET entry = x'00' WHERE number = 4",
            Broken::Changed { number: 4 },
        ),
        (
            "UPDATE audit SET entry = (SELECT entry FROM audit WHERE number = 5) WHERE number = 9",
            Broken::Changed { number: 9 },
        ),
        (
            "UPDATE audit SET hash = zeroblob(32) WHERE number = 4",
            Broken::Changed { number: 4 },
        ),
        (
            "DELETE FROM audit WHERE number = 4",
            Broken::Missing { number: 4 },
        ),
        (
            "DELETE FROM audit WHERE number = 1",
            Broken::Missing { number: 1 },
        ),
        (
            "DELETE FROM audit WHERE number = 9",
            Broken::End { last: 8, head: 9 },
        ),
        ("DELETE FROM audit", Broken::End { last: 0, head: 9 }),
        ("DELETE FROM audit_head", Broken::End { last: 9, head: 0 }),
        (
            "UPDATE audit_head SET number = 8",
            Broken::End { last: 9, head: 8 },
        ),
        (
            "UPDATE audit_head SET hash = zeroblob(32)",
            Broken::Head { number: 9 },
        ),
        (
            "INSERT INTO audit SELECT 10, entry, hash FROM audit WHERE number = 9",
            Broken::End { last: 10, head: 9 },
        ),
    ] {
        check(&format!("{free}{tamper}"), expected).await;
    }
}

#[tokio::test]
async fn our_own_slips_are_refused_by_the_database() {
    let (_folder, ledger) = log(3).await;
    for slip in [
        "UPDATE audit SET entry = x'00'",
        "DELETE FROM audit WHERE number = 3",
    ] {
        let mut tx = ledger.write().await.unwrap();
        let refusal = query(slip).execute(&mut *tx).await.unwrap_err();
        assert!(
            refusal.to_string().contains("only ever added to"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_log_rewritten_from_somewhere_on_does_not_hold_a_noted_head() {
    let (_folder, ledger) = log(5).await;
    let (_, noted) = ends(&mut ledger.read().await.unwrap()).await.unwrap();
    let mut tx = ledger.write().await.unwrap();
    let free = "DROP TRIGGER audit_is_not_shortened";
    for statement in [free, "DELETE FROM audit WHERE number >= 3"] {
        query(statement).execute(&mut *tx).await.unwrap();
    }
    // With all the care of somebody who knows how it works.
    let before = audit::page(&mut tx, 2, 1).await.unwrap().remove(0);
    query("UPDATE audit_head SET number = 2, hash = $1")
        .bind(before.hash.as_slice())
        .execute(&mut *tx)
        .await
        .unwrap();
    for at in 0..3 {
        Event::Crl
            .by(&Actor::origin(), at)
            .append(&mut tx)
            .await
            .unwrap();
    }
    commit(tx).await.unwrap();
    assert_eq!(checked(&ledger, 1, None).await.unwrap().head.number, 5);
    assert_eq!(
        checked(&ledger, 1, Some(&noted.hash)).await,
        Err(Broken::Unknown)
    );
    // What both have in common is still known.
    let found = checked(&ledger, 1, Some(&before.hash)).await.unwrap();
    assert_eq!(found.found, Some(2));
}

#[test]
fn an_entrys_bytes_are_pinned() {
    let actor = Actor("user 7".to_owned());
    let Draft(entry) = Event::Approval.by(&actor, 1_700_000_000);
    let entry = Draft(entry).with("device", "a").with("key", "b").0;
    let bytes = entry.encode(3);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "8601031a6553f10066757365722037686170707\
         26f76616ca2636b657961626664657669636561 61"
            .replace(' ', "")
    );
    let (number, mut again) = Entry::decode(&bytes).unwrap();
    again.details.sort();
    assert_eq!((number, again), (3, entry));
    assert_eq!(Entry::decode(&bytes[1..]), None);
    assert_eq!(Entry::decode(&[bytes.as_slice(), b"\0"].concat()), None);
    let first = chained(&START, &bytes);
    assert_ne!(first, chained(&first, &bytes));
}

#[test]
fn a_user_is_named_by_the_system() {
    assert_eq!(user_name(0).as_deref(), Some("root"));
    assert_eq!(user_name(u32::MAX - 7), None);
    let told = |peer| Actor::operator(peer).to_string();
    assert_eq!(told(Some(PeerUser { uid: 0 })), "user 0 (root)");
    assert_eq!(told(None), "an unknown user");
}

#[tokio::test]
async fn everything_that_is_signed_is_in_the_log() {
    let bed = Bed::new().await;
    let key = certs::Key::generate().unwrap();
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let tx = bed.authority.ledger().write().await.unwrap();
    let whom = [(Role::Client, "laptop".parse().unwrap())];
    let reason = RevocationReason::KeyCompromise;
    bed.authority.revoke(tx, &whom, reason).await.unwrap();
    let mut events = Vec::new();
    let mut db = bed.authority.ledger().read().await.unwrap();
    let note = |_, entry: &Entry, _: &Hash| events.push(entry.event.clone());
    verify(&mut db, 1, None, note).await.unwrap();
    let begins = [
        "init",
        "ca-created",
        "ca-created",
        "ca-created",
        "ca-created",
    ];
    assert_eq!(events[..5], begins);
    for event in ["crl", "issue", "request", "revocation"] {
        assert!(events.iter().any(|it| it == event), "{event}: {events:?}");
    }
    assert_eq!(events.last().unwrap(), "crl");
}
