//! Lists in and out of order.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::*;
use crate::refusal::RefusalReason;
use crate::testing::{Bed, DAY, NOW, identity, list, new_key, serial};
use crate::{CaKind, Role, issue};

mod received;

fn verify(bed: &Bed, der: &[u8]) -> Result<Crl, CrlError> {
    Crl::verify(der, bed.client.cert_der(), NOW)
}

#[test]
fn a_list_is_read_back() {
    let bed = Bed::new();
    let mut revoked: Vec<Serial> = (0..1000).map(|_| serial()).collect();
    let crl = verify(&bed, &list(&bed.client, 7, &revoked)).unwrap();
    assert_eq!((crl.number(), crl.len()), (7, 1000));
    assert_eq!(
        (crl.this_update(), crl.next_update()),
        (NOW - 600, NOW + 7 * DAY)
    );
    assert_eq!(crl.issuer(), bed.client.id());
    for serial in revoked.drain(..) {
        assert_eq!(crl.revoked(serial), Some(RevocationReason::KeyCompromise));
    }
    assert_eq!(crl.revoked(serial()), None);
}

#[test]
fn reasons_are_kept() {
    let bed = Bed::new();
    for code in 0..=10 {
        let reason = RevocationReason::from_code(code);
        let entry = RevokedCert {
            serial: serial(),
            revoked_at: NOW,
            reason,
        };
        let der = sign(&bed.client, 1, &[entry], NOW, NOW + DAY).unwrap();
        assert_eq!(
            verify(&bed, &der).unwrap().revoked(entry.serial),
            Some(reason),
            "{code}"
        );
    }
}

#[test]
fn a_list_is_given_back_byte_for_byte() {
    let bed = Bed::new();
    let check = |what: &str, der: &[u8], in_parts: bool| {
        let crl = verify(&bed, der).unwrap();
        assert_eq!(crl.der(), der, "{what}");
        assert_eq!(
            matches!(crl.text, Text::AroundEntries { .. }),
            in_parts,
            "{what}"
        );
        assert_eq!(crl.digest(), &sha256(der), "{what}");
    };
    let many: Vec<Serial> = (0..300).map(|_| serial()).collect();
    check("ours", &list(&bed.client, 7, &many), true);
    check("empty", &list(&bed.client, u64::MAX, &[]), true);
    let foreign = |serials: &[Serial], at: i64| {
        let date = |at: i64| {
            let at = Duration::from_secs(at.try_into().unwrap());
            rcgen::date_time_ymd(1970, 1, 1) + at
        };
        let revoked = |serial: &Serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: date(at),
            reason_code: None,
            invalidity_date: None,
        };
        spoilt(&bed.client, |params| {
            params.revoked_certs = serials.iter().map(revoked).collect();
        })
    };
    let mut two = [serial(), serial()];
    two.sort_unstable();
    check("another's, as we write", &foreign(&two, NOW), true);
    check("twice the same", &foreign(&[two[0]; 2], NOW), false);
    check("from 2150", &foreign(&two, NOW + 45_000 * DAY), false);
    two.reverse();
    check("in another order", &foreign(&two, NOW), false);
}

#[test]
fn we_write_lists_as_the_library_does() {
    let bed = Bed::new();
    let theirs = spoilt(&bed.client, |_| ());
    let ours = sign(&bed.client, 7, &[], NOW, NOW + DAY).unwrap();
    let signed = |der: &[u8]| reader::List::split(der).unwrap().signed.to_vec();
    assert_eq!(signed(&ours), signed(&theirs));
    let error = sign(&bed.client, 7, &[], NOW, NOW).unwrap_err();
    assert!(matches!(error, SignCrlError::Times));
}

#[test]
fn a_list_cut_short_anywhere_is_refused() {
    let bed = Bed::new();
    let der = list(&bed.client, 1, &[serial(), serial()]);
    for length in 0..der.len() {
        assert!(verify(&bed, &der[..length]).is_err(), "{length}");
    }
    assert!(verify(&bed, &[der.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_list_with_any_byte_changed_is_refused() {
    let bed = Bed::new();
    let der = list(&bed.client, 1, &[serial()]);
    for at in 0..der.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut spoilt = der.clone();
            spoilt[at] ^= flip;
            assert!(verify(&bed, &spoilt).is_err(), "byte {at}");
        }
    }
}

#[test]
fn only_the_issuer_itself_signs_its_lists() {
    let bed = Bed::new();
    let other = Bed::new();
    assert_eq!(
        verify(&bed, &list(&bed.node, 1, &[])).unwrap_err(),
        CrlError::OtherIssuer
    );
    // The same name, another key.
    assert_eq!(
        verify(&bed, &list(&other.client, 1, &[])).unwrap_err(),
        CrlError::Signature
    );
}

#[test]
fn p7_revoked_goes_before_stale() {
    let bed = Bed::new();
    let (bad, good) = (serial(), serial());
    bed.publish(&bed.client, 2, &[bad]);
    let store = bed.trust.crls();
    let late = NOW + 30 * DAY;
    let reason = RevocationReason::KeyCompromise;
    assert_eq!(
        store.lookup(bed.client.id(), bad, late),
        Verdict::Revoked { reason }
    );
    assert_eq!(store.lookup(bed.client.id(), good, late), Verdict::Stale);
    assert_eq!(store.lookup(bed.client.id(), good, NOW), Verdict::Good);
}

#[test]
fn p8_a_list_from_the_future_is_refused() {
    let bed = Bed::new();
    let at = |this_update: i64| {
        let der = sign(&bed.client, 2, &[], this_update, this_update + DAY).unwrap();
        verify(&bed, &der).map(drop)
    };
    assert_eq!(at(NOW + 600), Ok(()));
    assert_eq!(at(NOW + 601), Err(CrlError::FromTheFuture));
}

#[test]
fn p8_an_older_list_never_replaces_a_newer_one() {
    let bed = Bed::new();
    let bad = serial();
    bed.publish(&bed.client, 5, &[bad]);
    let store = bed.trust.crls();
    let offer = |number, revoked: &[Serial]| {
        store.install(verify(&bed, &list(&bed.client, number, revoked)).unwrap())
    };
    assert_eq!(
        offer(4, &[]),
        Err(Rollback::Older {
            current: 5,
            offered: 4
        })
    );
    assert_eq!(offer(5, &[]), Err(Rollback::Fork { number: 5 }));
    let again = Crl::clone(&store.current(bed.client.id()).unwrap());
    assert_eq!(store.install(again), Ok(false));
    let reason = RevocationReason::KeyCompromise;
    assert_eq!(
        store.lookup(bed.client.id(), bad, NOW),
        Verdict::Revoked { reason }
    );
    assert_eq!(offer(6, &[bad]), Ok(true));
}

#[test]
fn p9_one_issuer_has_one_list() {
    let bed = Bed::new();
    let bad = serial();
    bed.publish(&bed.client, 2, &[bad]);
    bed.publish(&bed.client, 3, &[bad]);
    let of_client = |crl: &&std::sync::Arc<Crl>| crl.issuer() == bed.client.id();
    assert_eq!(bed.trust.crls().all().iter().filter(of_client).count(), 1);
}

/// A list in order but for what `spoil` does to it.
fn spoilt(ca: &Ca, spoil: impl FnOnce(&mut CertificateRevocationListParams)) -> Vec<u8> {
    let date =
        |at: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.try_into().unwrap());
    let mut params = CertificateRevocationListParams {
        this_update: date(NOW),
        next_update: date(NOW + DAY),
        crl_number: SerialNumber::from(7u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    spoil(&mut params);
    let list = params.signed_by(&ca.issuer().unwrap()).unwrap();
    list.der().to_vec()
}

#[test]
fn p10_a_part_of_a_list_is_not_taken_for_the_whole() {
    let bed = Bed::new();
    assert!(verify(&bed, &spoilt(&bed.client, |_| ())).is_ok());
    // A partition says for which certificates it speaks. All others would pass unchecked.
    let part = spoilt(&bed.client, |params| {
        params.issuing_distribution_point = Some(rcgen::CrlIssuingDistributionPoint {
            distribution_point: rcgen::CrlDistributionPoint {
                uris: vec!["http://crl.example/01".to_owned()],
            },
            scope: None,
        });
    });
    assert_eq!(verify(&bed, &part).unwrap_err(), CrlError::Unsupported);
}

#[test]
fn p11_generations_differ_in_name() {
    let bed = Bed::new();
    let next = issue::issuing_ca(CaKind::Client, 2, &bed.root, new_key(), serial(), NOW).unwrap();
    let name = |ca: &Ca| ca.cert().subject_der().to_vec();
    assert_ne!(name(&bed.client), name(&next));
    // So the one's list does not even look like the other's.
    assert_eq!(
        verify(&bed, &list(&next, 1, &[])).unwrap_err(),
        CrlError::OtherIssuer
    );
}

#[test]
fn p11_two_cas_of_one_name_are_told_apart_by_their_keys() {
    let bed = Bed::new();
    let twin = issue::issuing_ca(CaKind::Client, 1, &bed.root, new_key(), serial(), NOW).unwrap();
    bed.trust.add_issuing_ca(twin.cert_der(), NOW).unwrap();
    bed.publish(&twin, 1, &[]);
    let leaf = |ca: &Ca| {
        let name = identity(Role::Client, "a");
        let lifetime = issue::default_lifetime(Role::Client);
        let key = new_key();
        issue::leaf(&name, key.spki_der(), ca, serial(), NOW, lifetime).unwrap()
    };
    let verified = |der: &[u8]| {
        let peer = bed.trust.verify_client(der, &[], NOW).unwrap();
        assert_eq!(crate::chain::peer_again(&bed.trust, der).unwrap(), peer);
        peer
    };
    let (first, second) = (verified(&leaf(&bed.client)), verified(&leaf(&twin)));
    assert_eq!(
        (first.issuer(), second.issuer()),
        (bed.client.id(), twin.id())
    );
    bed.publish(&twin, 2, &[first.serial(), second.serial()]);
    assert_eq!(bed.trust.check(&first, NOW), Ok(()));
    assert_eq!(bed.trust.check(&second, NOW), Err(RefusalReason::Revoked));
}

#[test]
fn p12_the_root_revokes_an_issuing_ca() {
    let bed = Bed::new();
    let leaf = bed.own(Role::Client, "a");
    let peer = bed.trust.verify_client(&leaf.chain[0], &[], NOW).unwrap();
    bed.publish(&bed.root, 2, &[bed.client.cert().serial()]);
    assert_eq!(bed.trust.check(&peer, NOW), Err(RefusalReason::Revoked));
}

/// cas.md 13: strict is strict, lenient is lenient, and who says nothing gets the strict.
#[test]
fn b13_only_who_asks_for_it_goes_without_lists_and_nobody_past_one_that_names_him() {
    use crate::trust::Revocation::{BestEffort, Required};
    let bed = Bed::without_lists();
    let leaf = bed.own(Role::Client, "a");
    let peer = bed.trust.verify_client(&leaf.chain[0], &[], NOW).unwrap();
    let check = |revocation| bed.trust.check_with(&peer, revocation, NOW);
    let stale = Err(RefusalReason::CrlStale);
    assert_eq!((check(Required), check(BestEffort)), (stale, Ok(())));
    assert_eq!(bed.trust.check(&peer, NOW), stale);
    for ca in [&bed.root, &bed.client] {
        bed.publish(ca, 1, &[]);
    }
    assert_eq!((check(Required), check(BestEffort)), (Ok(()), Ok(())));
    bed.publish(&bed.client, 2, &[peer.serial()]);
    let revoked = Err(RefusalReason::Revoked);
    assert_eq!((check(Required), check(BestEffort)), (revoked, revoked));
}

#[test]
fn p13_no_list_is_not_a_good_list() {
    let bed = Bed::without_lists();
    let leaf = bed.own(Role::Client, "a");
    let peer = bed.trust.verify_client(&leaf.chain[0], &[], NOW).unwrap();
    let lookup = |issuer| bed.trust.crls().lookup(issuer, peer.serial(), NOW);
    assert_eq!(lookup(bed.client.id()), Verdict::NoCrl);
    assert_eq!(bed.trust.check(&peer, NOW), Err(RefusalReason::CrlStale));
    bed.publish(&bed.client, 1, &[]);
    assert_eq!(
        bed.trust.check(&peer, NOW),
        Err(RefusalReason::CrlStale),
        "the root's is missing"
    );
    bed.publish(&bed.root, 1, &[]);
    assert_eq!(bed.trust.check(&peer, NOW), Ok(()));
}

#[test]
fn grace_runs_out() {
    let bed = Bed::new();
    let store = CrlStore::new(Duration::from_secs(3 * DAY as u64));
    store
        .install(verify(&bed, &list(&bed.client, 1, &[])).unwrap())
        .unwrap();
    let check = |days: i64, freshness, verdict| {
        let now = NOW + days * DAY + 1;
        assert_eq!(store.freshness(bed.client.id(), now), freshness, "{days}");
        assert_eq!(
            store.lookup(bed.client.id(), serial(), now),
            verdict,
            "{days}"
        );
    };
    check(6, Freshness::Fresh, Verdict::Good);
    check(7, Freshness::Grace, Verdict::Good);
    check(9, Freshness::Grace, Verdict::Good);
    check(10, Freshness::Stale, Verdict::Stale);
    assert_eq!(store.freshness(bed.node.id(), NOW), Freshness::Missing);
}

#[test]
fn a_withheld_list_makes_the_old_one_stale() {
    let bed = Bed::new();
    let store = bed.trust.crls();
    store.require_number(bed.client.id(), 2);
    store.require_number(bed.client.id(), 1);
    assert_eq!(store.lookup(bed.client.id(), serial(), NOW), Verdict::Stale);
    bed.publish(&bed.client, 2, &[]);
    assert_eq!(store.lookup(bed.client.id(), serial(), NOW), Verdict::Good);

    let wiped = CrlStore::new(Duration::ZERO);
    wiped.require_number(bed.client.id(), 2);
    let old = verify(&bed, &list(&bed.client, 1, &[])).unwrap();
    assert_eq!(
        wiped.install(old),
        Err(Rollback::Older {
            current: 2,
            offered: 1
        })
    );
}

#[test]
fn watchers_hear_of_new_lists_for_as_long_as_they_live() {
    struct Count(AtomicU64);
    impl CrlWatcher for Count {
        fn crl_changed(&self, _: IssuerId) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let bed = Bed::new();
    let store = bed.trust.crls();
    let before = store.generation();
    let count = std::sync::Arc::new(Count(AtomicU64::new(0)));
    let watcher: std::sync::Weak<Count> = std::sync::Arc::downgrade(&count);
    store.watch(watcher);
    bed.publish(&bed.client, 2, &[]);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    drop(count);
    bed.publish(&bed.client, 3, &[]);
    assert_eq!(store.generation(), before + 2);
}

#[test]
fn names_of_issuers_come_back() {
    let id = IssuerId::from_bytes([0xab; 32]);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!("ab".parse::<IssuerId>().is_err());
}
