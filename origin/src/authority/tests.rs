//! Tests of the authority in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use certs::crl::RevocationReason;
use certs::{Key, Role, Verdict, signer};

use super::*;
use crate::ledger::{certificates, commit};
use crate::testing::{Bed, DAY, new_deployment};

#[tokio::test]
async fn a_deployment_is_made_once() {
    let bed = Bed::new().await;
    let again = init(bed.folder.path(), new_deployment(), 0)
        .await
        .unwrap_err();
    assert!(matches!(again, AuthorityError::AlreadyInitialised { .. }));
}

#[tokio::test]
async fn an_empty_folder_is_no_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("larder.db"))
        .await
        .unwrap();
    let lives = crate::config::Config::on_loopback(folder.path().into())
        .certificates()
        .clone();
    let opened = Authority::open(folder.path(), ledger, lives, Clock::system()).await;
    assert!(matches!(opened, Err(AuthorityError::NotInitialised)));
}

#[tokio::test]
async fn keys_that_others_may_read_are_refused() {
    let bed = Bed::new().await;
    let key = bed.folder.path().join("keys/root-g1.pem");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for (path, wide, right) in [
        (key.as_path(), 0o640, 0o600),
        (key.parent().unwrap(), 0o750, 0o700),
    ] {
        set(path, wide);
        let refusal = bed.reopen().await.unwrap_err();
        assert!(matches!(refusal, AuthorityError::KeyFile(_)), "{refusal}");
        set(path, right);
        bed.reopen().await.unwrap();
    }
}

#[tokio::test]
async fn revoking_signs_a_higher_crl_at_once() {
    let bed = Bed::new().await;
    let id = "laptop".parse().unwrap();
    let key = Key::generate().unwrap();
    let authority = &bed.authority;
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let mut db = authority.ledger().read().await.unwrap();
    let held = certificates::newest_by_key(&mut db, &key.spki_sha256())
        .await
        .unwrap()
        .unwrap();
    drop(db);
    let issuer = certs::IssuerId::from_bytes(held.issuer);
    let look = || {
        authority
            .trust()
            .crls()
            .lookup(issuer, held.serial, authority.clock().now())
    };
    let before = authority.trust().crls().current(issuer).unwrap().number();
    assert_eq!(look(), Verdict::Good);

    let tx = authority.ledger().write().await.unwrap();
    let reason = RevocationReason::KeyCompromise;
    let whom = [(Role::Client, id)];
    authority.revoke(tx, &whom, reason).await.unwrap();
    assert_eq!(look(), Verdict::Revoked { reason });
    let after = authority.trust().crls().current(issuer).unwrap().number();
    assert!(after > before);
    assert_eq!(authority.published().marks()[&crl_counter(issuer)], after);
    // The next start goes on from there.
    let trust = bed.reopen().await.unwrap().trust().clone();
    assert_eq!(trust.crls().current(issuer).unwrap().number(), after);
}

/// The numbers of the lists that the origin signs by itself: all but the root's.
fn issuing_numbers(authority: &Authority) -> Vec<u64> {
    let root = certs::IssuerId::from_bytes(authority.root_pin());
    let mut crls = authority.trust().crls().all();
    crls.retain(|crl| crl.issuer() != root);
    crls.iter().map(|crl| crl.number()).collect()
}

#[tokio::test]
async fn lists_and_own_certificates_are_renewed_in_time() {
    let bed = Bed::new().await;
    let authority = &bed.authority;
    let number = |authority: &Authority| issuing_numbers(authority).into_iter().min().unwrap();
    let (first, own) = (
        number(authority),
        authority.own_certificate().validity().unwrap(),
    );
    authority.refresh_crls().await.unwrap();
    authority.renew_own().await.unwrap();
    assert_eq!(number(authority), first);
    assert_eq!(authority.own_certificate().validity().unwrap(), own);

    bed.pass(DAY * 16);
    authority.refresh_crls().await.unwrap();
    authority.renew_own().await.unwrap();
    assert_eq!(number(authority), first + 1);
    assert!(authority.own_certificate().validity().unwrap().1 > own.1);
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_leaves_usable_lists() {
    let bed = Bed::new().await;
    let numbers = |authority: &Authority| {
        let now = authority.clock().now();
        let crls = authority.trust().crls().all();
        assert!(crls.iter().all(|crl| crl.this_update() <= now), "{crls:?}");
        issuing_numbers(authority)
    };
    let next = |numbers: &[u64]| numbers.iter().map(|number| number + 1).collect::<Vec<_>>();
    let go_ahead = async || {
        bed.pass(DAY);
        bed.authority.refresh_crls().await.unwrap();
        bed.authority.renew_own().await.unwrap();
        let ahead = numbers(&bed.authority);
        bed.pass(-DAY);
        ahead
    };
    // A running origin does not wait for the day, and the next start can use them no more.
    let ahead = go_ahead().await;
    bed.authority.refresh_crls().await.unwrap();
    assert_eq!(numbers(&bed.authority), next(&ahead));
    let ahead = go_ahead().await;
    let right = numbers(&bed.reopen().await.unwrap());
    assert_eq!(right, next(&ahead));
    // A few minutes are nobody's concern.
    bed.pass(-300);
    bed.reopen().await.unwrap();
    let kept = bed.reopen().await.unwrap();
    assert_eq!(numbers(&kept), right);
}

#[tokio::test]
async fn signed_content_verifies_to_the_root() {
    let bed = Bed::new().await;
    let authority = &bed.authority;
    let signed = authority.sign_content(b"message").unwrap();
    let now = authority.clock().now();
    let verify = |message: &[u8]| {
        signer::verify_content(
            authority.trust(),
            &signed.chain,
            message,
            &signed.signature,
            now,
        )
    };
    assert_eq!(verify(b"message").unwrap().identity.role, Role::Signer);
    assert!(verify(b"another").is_err());
}

#[tokio::test]
async fn a_ledger_older_than_what_was_published_is_refused() {
    let bed = Bed::new().await;
    bed.authority
        .published()
        .raise("timestamp", 7)
        .await
        .unwrap();
    let refusal = bed.reopen().await.unwrap_err();
    assert!(
        matches!(&refusal, AuthorityError::Outdated { counter, found: 0, published: 7 }
            if counter == "timestamp"),
        "{refusal}"
    );
    let mut tx = bed.authority.ledger().write().await.unwrap();
    counters::raise(&mut tx, "timestamp", 7).await.unwrap();
    commit(tx).await.unwrap();
    bed.reopen().await.unwrap();
}
