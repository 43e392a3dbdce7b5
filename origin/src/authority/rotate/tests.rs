//! Tests of generations, their lists and their keys.

use std::fs;

use certs::key::Passphrase;

use super::*;
use crate::authority::{Authority, init_with};
use crate::ledger::audit::Entry as Audited;
use crate::testing::{Bed, DAY, new_deployment};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec()).unwrap()
}

async fn begin(bed: &Bed, which: Which) -> Result<Vec<NewCa>, RotateError> {
    let (ledger, now) = (bed.authority.ledger(), bed.authority.clock().now());
    let made = rotate(bed.folder.path(), ledger, &which, None, 21 * DAY, now).await?;
    bed.authority.reload().await?;
    Ok(made)
}

async fn end(bed: &Bed, kind: &str, generation: u32) -> Result<Retired, RotateError> {
    let (ledger, now) = (bed.authority.ledger(), bed.authority.clock().now());
    let gone = retire(bed.folder.path(), ledger, kind, generation, now).await?;
    bed.authority.reload().await?;
    Ok(gone)
}

async fn states(bed: &Bed) -> Vec<String> {
    let mut db = bed.authority.ledger().read().await.unwrap();
    let now = bed.authority.clock().now();
    let cas = view(bed.folder.path(), &mut db, now).await.unwrap();
    cas.iter()
        .map(|ca| format!("{} {} {}", ca.kind, ca.generation, ca.state))
        .collect()
}

/// What upkeep does every second.
async fn keep_up(authority: &Authority) {
    authority.refresh_crls().await.unwrap();
    authority.renew_own().await.unwrap();
}

#[tokio::test]
async fn serving_needs_no_root_key_for_a_year() {
    let bed = Bed::new().await;
    let key = bed.folder.path().join("keys/root-g1.pem");
    fs::remove_file(&key).unwrap();
    let before = bed.authority.root_lists_end().unwrap();
    bed.pass(365 * DAY);
    let authority = bed.reopen().await.unwrap();
    assert_eq!(authority.root_lists_end(), Some(before));
    let left = before - authority.clock().now();
    assert!(left > ROOT_LIST_ALARM, "{left}");
    keep_up(&authority).await;
    let missing = authority.trust().missing_crls(&[certs::Role::Client]);
    assert_eq!(missing, []);
}

#[tokio::test]
async fn an_encrypted_root_key_signs_with_its_passphrase_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data, right) = (folder.path(), passphrase("correct horse"));
    init_with(data, new_deployment(), Some(&right), 1_000_000)
        .await
        .unwrap();
    let ledger = Ledger::open(&data.join(crate::LEDGER_FILE)).await.unwrap();
    let text = fs::read_to_string(data.join("keys/root-g1.pem")).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let later = 1_000_000 + 300 * DAY;
    for wrong in [None, Some(passphrase("wrong"))] {
        let refusal = sign_root_lists(data, &ledger, wrong.as_ref(), later).await;
        let refusal = service::Report(&refusal.unwrap_err()).to_string();
        assert!(refusal.contains("passphrase"), "{refusal}");
    }
    let signed = sign_root_lists(data, &ledger, Some(&right), later)
        .await
        .unwrap();
    let expected = RootList {
        generation: 1,
        number: 2,
        next_update: later + ROOT_LIST_LIFE,
    };
    assert_eq!(signed, [expected]);
    let client = Which::Issuing(CaKind::Client);
    let refused = rotate(data, &ledger, &client, None, DAY, later).await;
    assert!(refused.is_err());
    let made = rotate(data, &ledger, &client, Some(&right), DAY, later).await;
    assert_eq!(made.unwrap()[0].generation, 2);
}

#[tokio::test]
async fn a_root_key_in_the_clear_can_be_encrypted_later() {
    let bed = Bed::new().await;
    let (data, ledger) = (bed.folder.path(), bed.authority.ledger());
    let key = passphrase("later");
    let now = bed.authority.clock().now();
    assert_eq!(encrypt_root_keys(data, ledger, &key).await.unwrap(), [1]);
    assert_eq!(
        encrypt_root_keys(data, ledger, &key).await.unwrap(),
        [0_u32; 0]
    );
    assert!(sign_root_lists(data, ledger, None, now).await.is_err());
    sign_root_lists(data, ledger, Some(&key), now)
        .await
        .unwrap();
    bed.reopen().await.unwrap();
}

#[tokio::test]
async fn a_root_list_signed_beside_us_is_taken_up() {
    let bed = Bed::new().await;
    let root = certs::IssuerId::from_bytes(bed.authority.root_pin());
    let number = || bed.authority.trust().crls().current(root).unwrap().number();
    let before = (number(), bed.authority.root_lists_end().unwrap());
    bed.pass(200 * DAY);
    let now = bed.authority.clock().now();
    let ledger = bed.authority.ledger();
    sign_root_lists(bed.folder.path(), ledger, None, now)
        .await
        .unwrap();
    bed.authority.reload().await.unwrap();
    assert_eq!(number(), before.0 + 1);
    let marks = bed.authority.published().marks();
    assert_eq!(marks[&super::super::crl_counter(root)], before.0 + 1);
    assert!(bed.authority.root_lists_end().unwrap() > before.1);
}

#[tokio::test]
async fn a_new_client_ca_is_announced_then_issues_then_is_alone() {
    let bed = Bed::new().await;
    let issuer = async |id: &str| {
        let key = certs::Key::generate().unwrap();
        bed.ask(&key, id, Some(&bed.token(true).await)).await;
        let mut db = bed.authority.ledger().read().await.unwrap();
        let held = certificates::newest_by_key(&mut db, &key.spki_sha256()).await;
        held.unwrap().unwrap().issuer
    };
    let old = issuer("a").await;
    let made = begin(&bed, Which::Issuing(CaKind::Client)).await.unwrap();
    assert_eq!(bed.authority.ca_certificates().len(), 5);
    let new = made[0].issuer.clone();
    let in_force = bed.authority.trust().crls().all();
    assert!(in_force.iter().any(|crl| crl.issuer().to_string() == new));
    assert_eq!(issuer("b").await, old);
    let again = begin(&bed, Which::Root).await.unwrap_err();
    assert!(
        matches!(again, RotateError::Pending { generation: 2, .. }),
        "{again}"
    );
    let early = end(&bed, "client", 1).await.unwrap_err();
    assert!(matches!(early, RotateError::Successor { .. }), "{early}");

    bed.pass(22 * DAY);
    keep_up(&bed.authority).await;
    assert_eq!(content::Digest::from_raw(issuer("c").await).hex(), new);
    bed.reopen().await.unwrap();
    // The certificate of b was made on the first day and is over; another is under way.
    let early = end(&bed, "client", 2).await.unwrap_err();
    assert!(matches!(early, RotateError::Successor { .. }), "{early}");
    end(&bed, "client", 1).await.unwrap();
    assert_eq!(bed.authority.ca_certificates().len(), 4);
    let states = states(&bed).await;
    assert!(
        states.contains(&"client 1 retired".to_owned()),
        "{states:?}"
    );
    assert!(states.contains(&"client 2 in use".to_owned()), "{states:?}");
    // Its last list does not end, and is there after a start, too.
    bed.pass(400 * DAY);
    let now = bed.authority.clock().now();
    let ledger = bed.authority.ledger();
    sign_root_lists(bed.folder.path(), ledger, None, now)
        .await
        .unwrap();
    let authority = bed.reopen().await.unwrap();
    let last = authority
        .trust()
        .crls()
        .current(certs::IssuerId::from_bytes(old));
    assert!(last.unwrap().next_update() > now + 1000 * DAY);
}

#[tokio::test]
async fn nothing_is_retired_while_a_certificate_of_it_counts() {
    let bed = Bed::new().await;
    begin(&bed, Which::Issuing(CaKind::Node)).await.unwrap();
    bed.pass(20 * DAY);
    // The origin's own, of 30 days, is renewed under the old CA a day before the switch.
    keep_up(&bed.authority).await;
    bed.pass(2 * DAY);
    keep_up(&bed.authority).await;
    let early = end(&bed, "node", 1).await.unwrap_err();
    assert!(matches!(early, RotateError::NotOver { .. }), "{early}");
    bed.pass(29 * DAY);
    keep_up(&bed.authority).await;
    end(&bed, "node", 1).await.unwrap();
}

#[tokio::test]
async fn a_stolen_ca_counts_for_nothing_at_once() {
    let bed = Bed::new().await;
    let key = certs::Key::generate().unwrap();
    bed.ask(&key, "laptop", Some(&bed.token(true).await)).await;
    let (data, ledger) = (bed.folder.path(), bed.authority.ledger());
    let mut db = ledger.read().await.unwrap();
    let held = certificates::newest_by_key(&mut db, &key.spki_sha256()).await;
    drop(db);
    let (trust, now) = (bed.authority.trust(), bed.authority.clock().now());
    let leaf = held.unwrap().unwrap().der;
    let peer = trust.verify_client(&leaf, &[], now).unwrap();
    let early = revoke(data, ledger, CaKind::Client, 1, None, now).await;
    assert!(
        matches!(early, Err(RotateError::Successor { .. })),
        "{early:?}"
    );
    let which = Which::Issuing(CaKind::Client);
    rotate(data, ledger, &which, None, 0, now).await.unwrap();
    bed.authority.reload().await.unwrap();
    assert_eq!(trust.check(&peer, now), Ok(()));
    revoke(data, ledger, CaKind::Client, 1, None, now)
        .await
        .unwrap();
    bed.authority.reload().await.unwrap();
    assert_eq!(trust.check(&peer, now), Err(certs::RefusalReason::Revoked));
    let authority = bed.reopen().await.unwrap();
    let trust = authority.trust();
    assert_eq!(trust.check(&peer, now), Err(certs::RefusalReason::Revoked));
    let (other, token) = (certs::Key::generate().unwrap(), bed.token(true).await);
    assert_eq!(bed.ask(&other, "desk", Some(&token)).await, "issued desk");
}

#[tokio::test]
async fn a_new_root_brings_new_cas_and_the_old_one_goes_last() {
    let bed = Bed::new().await;
    let pin = bed.authority.root_pin();
    let made = begin(&bed, Which::Root).await.unwrap();
    assert_eq!(made.len(), 4);
    assert_eq!(
        bed.authority.root_pin(),
        pin,
        "newcomers pin what is in use"
    );
    assert_eq!(bed.authority.trust().roots().len(), 2);
    bed.pass(22 * DAY);
    keep_up(&bed.authority).await;
    assert_ne!(bed.authority.root_pin(), pin);
    bed.pass(31 * DAY);
    keep_up(&bed.authority).await;
    let early = end(&bed, "root", 1).await.unwrap_err();
    assert!(
        matches!(early, RotateError::Subordinate { generation: 1, .. }),
        "{early}"
    );
    for kind in ["node", "client", "content"] {
        end(&bed, kind, 1).await.unwrap();
    }
    end(&bed, "root", 1).await.unwrap();
    assert_eq!(bed.authority.trust().roots().len(), 1);
    assert_eq!(bed.authority.ca_certificates().len(), 4);
    let authority = bed.reopen().await.unwrap();
    assert_eq!(authority.trust().roots().len(), 1);
    assert_eq!(authority.root_pin(), bed.authority.root_pin());

    let mut told = Vec::new();
    let mut db = authority.ledger().read().await.unwrap();
    let note = |_, entry: &Audited, _: &[u8; 32]| told.push(entry.event.clone());
    crate::audit::verify(&mut db, 1, None, note).await.unwrap();
    let count = |event: &str| told.iter().filter(|it| *it == event).count();
    assert_eq!((count("ca-created"), count("ca-retired")), (8, 4));
}
