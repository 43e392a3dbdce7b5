//! What becomes of certificates whose key was left.

use certs::crl::RevocationReason;
use certs::{Ca, CaKind, IssuerId, Key, Role, Serial, Verdict, csr, issue, keyfile};

use super::*;
use crate::authority::Authority;
use crate::enrol::Decision;
use crate::ledger::certificates::Certificate;
use crate::testing::{Bed, request, told};

/// A device of that name and role, with its first certificate.
async fn enrolled(bed: &Bed, key: &Key, id: &str, role: Role) -> Certificate {
    let token = bed.token_of(role).await;
    let asked = request(key, id, Some(token));
    let asked = bed.enrolment.enrol(crate::enrol::Request { role, ..asked });
    issued(asked.await.unwrap())
}

fn issued(decision: Decision) -> Certificate {
    match decision {
        Decision::Issued(certificate) => certificate,
        Decision::Pending => panic!("pending"),
    }
}

fn peer(bed: &Bed, held: &Certificate) -> Peer {
    let now = bed.authority.clock().now();
    let trust = bed.authority.trust();
    trust.verify_client(&held.der, &[], now).unwrap()
}

/// Asks for a certificate of `key` under `held`.
async fn renew(bed: &Bed, key: &Key, held: &Certificate) -> Result<Certificate, String> {
    renew_as(bed, key, &peer(bed, held)).await
}

async fn renew_as(bed: &Bed, key: &Key, who: &Peer) -> Result<Certificate, String> {
    let csr = csr::parse(&csr::make(key, who.id().as_str()).unwrap()).unwrap();
    match bed.enrolment.renew(who.role(), &csr, who).await {
        Ok(decision) => Ok(issued(decision)),
        refused @ Err(_) => Err(told(refused)),
    }
}

/// Why `held` counts no more.
fn ended(bed: &Bed, held: &Certificate) -> Option<RevocationReason> {
    let (crls, now) = (bed.authority.trust().crls(), bed.authority.clock().now());
    match crls.lookup(IssuerId::from_bytes(held.issuer), held.serial, now) {
        Verdict::Revoked { reason, .. } => Some(reason),
        Verdict::Good => None,
        other @ (Verdict::NoCrl | Verdict::Stale) => panic!("{other:?}"),
    }
}

fn number(bed: &Bed, held: &Certificate) -> u64 {
    let crls = bed.authority.trust().crls();
    let current = crls.current(IssuerId::from_bytes(held.issuer));
    current.unwrap().number()
}

/// Looks at what was shown, some time later.
async fn after(bed: &Bed, wait: Duration) {
    let later = Instant::now() + wait;
    bed.enrolment.supersede_at(later).await.unwrap();
}

/// Enrolment as it is after a start: it remembers what the ledger does.
fn restarted(bed: &Bed) -> Enrolment {
    let rules = bed.enrolment.rules().clone();
    Enrolment::new(Authority::clone(&bed.authority), rules)
}

async fn a_key_that_was_left_ends(role: Role, kind: CaKind) {
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", role).await;
    let second = renew(&bed, &new, &first).await.unwrap();
    let issuers = bed.authority.trust().issuing_cas();
    let issuer = issuers.iter().find(|ca| ca.kind() == Some(kind)).unwrap();
    assert_eq!(issuer.id().as_bytes(), &second.issuer);
    let before = number(&bed, &first);
    // It goes on under the old one: nothing shows that it ever got the new one.
    bed.enrolment.seen(&peer(&bed, &first)).await;
    after(&bed, 2 * DELAY).await;
    assert_eq!((ended(&bed, &first), number(&bed, &first)), (None, before));
    // The new one works; for a while yet, so does the old one.
    bed.enrolment.seen(&peer(&bed, &second)).await;
    after(&bed, DELAY / 2).await;
    assert_eq!((ended(&bed, &first), number(&bed, &first)), (None, before));
    after(&bed, DELAY).await;
    assert_eq!(ended(&bed, &first), Some(RevocationReason::Superseded));
    assert_eq!(ended(&bed, &second), None);
    assert_eq!(number(&bed, &first), before + 1);
    // That is told once, and signed once.
    bed.enrolment.seen(&peer(&bed, &second)).await;
    after(&bed, 3 * DELAY).await;
    assert_eq!(number(&bed, &first), before + 1);
    let mut db = bed.authority.ledger().read().await.unwrap();
    let mut log = Vec::new();
    let note = |_, entry: &crate::ledger::audit::Entry, _: &[u8; 32]| {
        if entry.event == "revocation" {
            log.push(entry.details.clone());
        }
    };
    crate::audit::verify(&mut db, 1, None, note).await.unwrap();
    assert_eq!(log.len(), 1);
    let has = |name: &str, value: &str| {
        log[0]
            .iter()
            .any(|(n, v)| (&n[..], &v[..]) == (name, value))
    };
    assert!(has("device", "one") && has("reason", "4"), "{log:?}");
}

#[tokio::test]
async fn a_clients_old_certificate_ends_once_the_one_of_its_new_key_has_been_seen() {
    a_key_that_was_left_ends(Role::Client, CaKind::Client).await;
}

#[tokio::test]
async fn a_boosters_old_certificate_ends_once_the_one_of_its_new_key_has_been_seen() {
    a_key_that_was_left_ends(Role::Booster, CaKind::Node).await;
}

#[tokio::test]
async fn renewal_with_the_same_key_revokes_nothing() {
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let key = Key::generate().unwrap();
    let first = enrolled(&bed, &key, "one", Role::Client).await;
    bed.pass(7 * crate::testing::DAY);
    bed.authority.refresh_crls().await.unwrap();
    let second = renew(&bed, &key, &first).await.unwrap();
    assert_ne!(second.serial, first.serial);
    bed.enrolment.seen(&peer(&bed, &second)).await;
    after(&bed, DELAY).await;
    assert_eq!((ended(&bed, &first), ended(&bed, &second)), (None, None));
}

#[tokio::test]
async fn many_changes_of_keys_are_one_list() {
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let mut left = Vec::new();
    for n in 0..5 {
        let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
        let first = enrolled(&bed, &old, &format!("d{n}"), Role::Client).await;
        let second = renew(&bed, &new, &first).await.unwrap();
        bed.enrolment.seen(&peer(&bed, &second)).await;
        left.push(first);
    }
    let before = number(&bed, &left[0]);
    after(&bed, DELAY).await;
    for first in &left {
        assert_eq!(ended(&bed, first), Some(RevocationReason::Superseded));
    }
    assert_eq!(number(&bed, &left[0]), before + 1);
}

#[tokio::test]
async fn a_start_in_between_forgets_no_key_that_was_left() {
    let bed = Bed::new().await;
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", Role::Client).await;
    let second = renew(&bed, &new, &first).await.unwrap();
    let again = restarted(&bed);
    again.seen(&peer(&bed, &second)).await;
    // Nor does a start between the call and the list that comes of it.
    let again = restarted(&bed);
    assert_eq!(ended(&bed, &first), None);
    again.supersede().await.unwrap();
    assert_eq!(ended(&bed, &first), Some(RevocationReason::Superseded));
}

#[tokio::test]
async fn a_new_key_that_was_lost_locks_nobody_out_until_it_has_been_seen() {
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let [old, lost, new, third] = [(); 4].map(|()| Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", Role::Client).await;
    let by_first = peer(&bed, &first);
    let second = renew(&bed, &lost, &first).await.unwrap();
    // It never got the answer. It asks again, with its old key or with yet another.
    assert_eq!(renew(&bed, &old, &first).await.unwrap(), first);
    let found = renew(&bed, &new, &first).await.unwrap();
    bed.enrolment.seen(&peer(&bed, &found)).await;
    after(&bed, DELAY).await;
    for left in [&first, &second] {
        assert_eq!(ended(&bed, left), Some(RevocationReason::Superseded));
    }
    assert_eq!(ended(&bed, &found), None);
    // From now on the old key has no say, not even from a session that began before the list.
    let refused = renew_as(&bed, &third, &by_first).await;
    assert_eq!(refused, Err("conflict".to_owned()));
}

#[tokio::test]
async fn with_the_first_call_under_the_new_key_the_old_one_loses_its_say_for_good() {
    let bed = Bed::new().await;
    let [old, new, third] = [(); 3].map(|()| Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", Role::Client).await;
    let second = renew(&bed, &new, &first).await.unwrap();
    // The first call after a start, which has not asked the ledger for anything yet.
    restarted(&bed).seen(&peer(&bed, &second)).await;
    for _ in 0..2 {
        for wanted in [&old, &third] {
            let refused = renew(&bed, wanted, &first).await;
            assert_eq!(refused, Err("conflict".to_owned()));
        }
        assert_eq!(ended(&bed, &first), None, "the list comes later");
        bed.enrolment.seen(&peer(&bed, &first)).await;
    }
    // The new key chooses the next, and the old one has no say in that either.
    let next = renew(&bed, &third, &second).await.unwrap();
    assert_eq!(renew(&bed, &old, &first).await, Err("conflict".to_owned()));
    bed.enrolment.seen(&peer(&bed, &next)).await;
    after(&bed, DELAY).await;
    let kept = [&first, &second, &next].map(|held| ended(&bed, held));
    let over = Some(RevocationReason::Superseded);
    assert_eq!(kept, [over, over, None]);
}

#[tokio::test]
async fn a_call_that_is_given_up_once_it_was_noted_still_ends_what_was_left() {
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", Role::Client).await;
    let second = renew(&bed, &new, &first).await.unwrap();
    // As far as the ledger, and no further.
    bed.authority.show(&peer(&bed, &second)).await.unwrap();
    bed.enrolment.seen(&peer(&bed, &second)).await;
    after(&bed, DELAY).await;
    assert_eq!(ended(&bed, &first), Some(RevocationReason::Superseded));
}

/// A certificate that whoever has stolen the Client CA's key makes: for `key`, in the name of the
/// holder of `held`, with that `serial`.
fn minted(bed: &Bed, held: &Certificate, serial: Serial, key: &Key) -> Peer {
    let stolen = bed.folder.path().join("keys/client-g1.pem");
    let issuers = bed.authority.trust().issuing_cas();
    let ca = issuers.iter().find(|ca| ca.kind() == Some(CaKind::Client));
    let ca = Ca::load(ca.unwrap().der(), keyfile::load(&stolen).unwrap()).unwrap();
    let now = bed.authority.clock().now();
    let (identity, spki) = (peer(bed, held).identity().clone(), key.spki_der());
    let der = issue::leaf(&identity, spki, &ca, serial, now, DELAY).unwrap();
    bed.authority.trust().verify_client(&der, &[], now).unwrap()
}

#[tokio::test]
async fn a_twin_of_a_certificates_number_under_a_stolen_ca_has_no_say() {
    let bed = Bed::new().await;
    let [old, new, thiefs] = [(); 3].map(|()| Key::generate().unwrap());
    let first = enrolled(&bed, &old, "one", Role::Client).await;
    let conflict = || Err("conflict".to_owned());
    let twin = minted(&bed, &first, first.serial, &thiefs);
    assert_eq!(renew_as(&bed, &thiefs, &twin).await, conflict());
    // Nor while the key before may still choose.
    let second = renew(&bed, &new, &first).await.unwrap();
    for held in [&first, &second] {
        let twin = minted(&bed, held, held.serial, &thiefs);
        assert_eq!(renew_as(&bed, &thiefs, &twin).await, conflict());
        bed.enrolment.seen(&twin).await;
    }
    // A call under a certificate that the ledger does not know shows nothing either.
    let unknown = Serial::from_random([7; 16]);
    bed.enrolment
        .seen(&minted(&bed, &first, unknown, &new))
        .await;
    assert_eq!(renew(&bed, &new, &first).await, Ok(second.clone()));
    assert_eq!(renew(&bed, &old, &first).await, Ok(first.clone()));
    after(&bed, DELAY).await;
    assert_eq!([ended(&bed, &first), ended(&bed, &second)], [None, None]);
}

/// What was ended by a clock that was weeks ahead is ended for good once `mended` has set it right
/// and something has been signed.
async fn a_clock_ahead_spares_nobody(mended: impl AsyncFnOnce(&Bed)) {
    const WEEKS: i64 = 40 * crate::testing::DAY;
    let bed = Bed::new().await;
    after(&bed, DELAY).await;
    let [old, new, thiefs, other] = [(); 4].map(|()| Key::generate().unwrap());
    let left = enrolled(&bed, &old, "one", Role::Client).await;
    let kept = renew(&bed, &new, &left).await.unwrap();
    let stolen = enrolled(&bed, &thiefs, "two", Role::Client).await;
    let good = enrolled(&bed, &other, "three", Role::Client).await;
    let seen = peer(&bed, &kept);
    bed.pass(WEEKS);
    bed.enrolment.seen(&seen).await;
    after(&bed, DELAY).await;
    bed.revoke("two").await;
    bed.pass(-WEEKS);
    mended(&bed).await;
    let all = [&left, &stolen, &kept, &good].map(|held| ended(&bed, held));
    let superseded = Some(RevocationReason::Superseded);
    let unspecified = Some(RevocationReason::Unspecified);
    assert_eq!(all, [superseded, unspecified, None, None]);
}

#[tokio::test]
async fn what_a_clock_ahead_took_for_over_is_revoked_once_it_is_set_right() {
    a_clock_ahead_spares_nobody(async |bed| bed.authority.refresh_crls().await.unwrap()).await;
    // Nor if the first list after it is that of another revocation.
    a_clock_ahead_spares_nobody(async |bed| {
        let key = Key::generate().unwrap();
        enrolled(bed, &key, "four", Role::Client).await;
        bed.revoke("four").await;
    })
    .await;
}
