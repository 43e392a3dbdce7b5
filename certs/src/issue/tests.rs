//! What leaves the presses.

use rcgen::KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::ca_cert::find_pinned_root;
use crate::refusal::RefusalReason;
use crate::testing::{
    Bed, DAY as DAY_SECONDS, NOW, Own, identity, leaf_params, leaf_params_at, new_key, serial,
    sign as sign_spoilt,
};
use crate::trust::{Trust, TrustError};
use crate::{CrlStore as Store, csr};

fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

fn verify_client(bed: &Bed, own: &Own) -> Result<Role, RefusalReason> {
    bed.trust
        .verify_client(&own.chain[0], &[], NOW)
        .map(|peer| peer.role())
}

#[test]
fn every_role_gets_its_profile() {
    let bed = Bed::new();
    let check = |role: Role, days: i64, client: Result<(), RefusalReason>, server: _| {
        let own = bed.own(role, "x-1");
        let leaf = &own.chain[0];
        let without_peer = |result: Result<crate::Peer, _>| result.map(|_| ());
        assert_eq!(
            without_peer(bed.trust.verify_client(leaf, &[], NOW)),
            client,
            "{role}"
        );
        assert_eq!(
            without_peer(bed.trust.verify_server(leaf, &[], NOW)),
            server,
            "{role}"
        );
        let cert = parse(leaf);
        let life = cert.validity().not_after.timestamp() - NOW;
        assert_eq!(life, days * DAY_SECONDS, "{role}");
        assert!(leaf.len() < 1024, "{role}: {}", leaf.len());
    };
    let wrong = || Err(RefusalReason::WrongEku);
    check(Role::Origin, 30, Ok(()), Ok(()));
    check(Role::Booster, 14, Ok(()), Ok(()));
    check(Role::Client, 14, Ok(()), wrong());
    check(Role::Signer, 30, wrong(), wrong());
}

#[test]
fn p1_only_the_key_is_taken_from_a_request() {
    let bed = Bed::new();
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["booster1.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let request = csr::parse(params.serialize_request(&pair).unwrap().der()).unwrap();
    let lifetime = default_lifetime(Role::Client);
    let (name, ca) = (identity(Role::Client, "laptop-7"), &bed.client);
    let der = leaf(&name, request.spki_der(), ca, serial(), NOW, lifetime).unwrap();
    let cert = parse(&der);
    assert!(!cert.is_ca());
    assert!(!cert.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(!der.windows(7).any(|window| window == b"booster"));

    // What the leaf signs is worth nothing.
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(der.as_slice()), &pair).unwrap();
    let victim = KeyPair::generate().unwrap();
    let forged = leaf_params(
        &identity(Role::Booster, "oslo"),
        &[SERVER_AUTH, CLIENT_AUTH],
    )
    .signed_by(&victim, &issuer);
    let chain = [CertificateDer::from(der.as_slice())];
    let refusal = bed
        .trust
        .verify_server(forged.unwrap().der(), &chain, NOW)
        .unwrap_err();
    assert_eq!(refusal, RefusalReason::UnknownIssuer);
}

#[test]
fn p2_two_certificates_for_one_key_are_two_certificates() {
    let bed = Bed::new();
    let key = new_key();
    let name = identity(Role::Client, "laptop-7");
    let issue = || {
        let lifetime = default_lifetime(Role::Client);
        let der = leaf(&name, key.spki_der(), &bed.client, serial(), NOW, lifetime).unwrap();
        bed.trust.verify_client(&der, &[], NOW).unwrap()
    };
    let (old, new) = (issue(), issue());
    assert_ne!(old.serial(), new.serial());
    bed.publish(&bed.client, 2, &[old.serial()]);
    assert_eq!(bed.trust.check(&old, NOW), Err(RefusalReason::Revoked));
    assert_eq!(bed.trust.check(&new, NOW), Ok(()));
}

#[test]
fn p3_a_leaf_has_the_extensions_that_verifiers_look_for() {
    let bed = Bed::new();
    for role in Role::ALL {
        let own = bed.own(role, "x");
        let cert = parse(&own.chain[0]);
        let has = |oid: &[u8]| cert.extensions().iter().any(|it| it.oid.as_bytes() == oid);
        for (id, what) in [
            (35, "AKI"),
            (14, "SKI"),
            (37, "EKU"),
            (15, "KU"),
            (19, "BC"),
        ] {
            assert!(has(&[0x55, 0x1d, id]), "{role}: {what}");
        }
    }
}

#[test]
fn p5_a_certificate_without_purposes_is_good_for_nothing() {
    let bed = Bed::new();
    let own = sign_spoilt(
        &leaf_params(&identity(Role::Booster, "oslo"), &[]),
        &bed.node,
    );
    let leaf = &own.chain[0];
    let wrong = Err(RefusalReason::WrongEku);
    assert_eq!(bed.trust.verify_client(leaf, &[], NOW).map(drop), wrong);
    assert_eq!(bed.trust.verify_server(leaf, &[], NOW).map(drop), wrong);
}

#[test]
fn p6_only_a_root_in_order_and_in_date_is_an_anchor() {
    let bed = Bed::new();
    let own = bed.own(Role::Client, "laptop-7");
    let anchor = |der: &[u8], now| {
        Trust::new(&[der], Store::new(Duration::ZERO).into(), now)
            .map(drop)
            .unwrap_err()
    };
    let not_root = TrustError::Ca {
        source: CaCertError::NotSelfSigned,
    };
    assert_eq!(anchor(bed.client.cert_der(), NOW), not_root);
    let not_ca = TrustError::Ca {
        source: CaCertError::NotACa,
    };
    assert_eq!(anchor(&own.chain[0], NOW), not_ca);
    let after = bed.root.cert().not_after() + 400 * DAY_SECONDS;
    assert_eq!(anchor(bed.root.cert_der(), after), TrustError::NoRoot);
}

#[test]
fn p6_the_client_cas_key_cannot_mint_a_booster() {
    let bed = Bed::new();
    let booster = identity(Role::Booster, "oslo");
    // With its DNS name: name constraints. Without: the CA is of the wrong kind.
    let own = sign_spoilt(
        &leaf_params(&booster, &[SERVER_AUTH, CLIENT_AUTH]),
        &bed.client,
    );
    assert_eq!(verify_client(&bed, &own), Err(RefusalReason::WrongRole));
    assert!(bed.trust.verify_server(&own.chain[0], &[], NOW).is_err());
    let mut params = leaf_params(&booster, &[CLIENT_AUTH]);
    params.subject_alt_names.truncate(1);
    assert_eq!(
        verify_client(&bed, &sign_spoilt(&params, &bed.client)),
        Err(RefusalReason::WrongRole)
    );
}

#[test]
fn a_certificate_names_one_party_and_nobody_else() {
    let bed = Bed::new();
    let mut params = leaf_params(&identity(Role::Client, "a"), &[CLIENT_AUTH]);
    assert_eq!(
        verify_client(&bed, &sign_spoilt(&params, &bed.client)),
        Ok(Role::Client)
    );
    params
        .subject_alt_names
        .push(uri(&identity(Role::Client, "b").uri()));
    assert_eq!(
        verify_client(&bed, &sign_spoilt(&params, &bed.client)),
        Err(RefusalReason::WrongRole)
    );
    params.subject_alt_names.clear();
    assert_eq!(
        verify_client(&bed, &sign_spoilt(&params, &bed.client)),
        Err(RefusalReason::WrongRole)
    );
    let other = "spiffe://other.larder.internal/client/a";
    params.subject_alt_names.push(uri(other));
    assert_eq!(
        verify_client(&bed, &sign_spoilt(&params, &bed.client)),
        Err(RefusalReason::WrongRole)
    );
}

#[test]
fn p14_certificates_begin_ten_minutes_ago() {
    let bed = Bed::new();
    let own = bed.own(Role::Client, "laptop-7");
    let verify = |now| bed.trust.verify_client(&own.chain[0], &[], now).map(drop);
    assert_eq!(verify(NOW - 600), Ok(()));
    assert_eq!(verify(NOW - 601), Err(RefusalReason::NotYetValid));
    assert_eq!(
        verify(NOW + 14 * DAY_SECONDS + 1),
        Err(RefusalReason::Expired)
    );
}

#[test]
fn p22_a_ca_must_be_allowed_to_sign_certificates_and_lists() {
    let check = |usages: Vec<KeyUsagePurpose>, seconds, want| {
        let mut params = ca_params(&crate::testing::deployment(), "Root", 1, serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = usages;
        set_life(&mut params, NOW, NOW + seconds);
        let der = params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec();
        assert_eq!(CaCert::parse(&der).map(drop), want);
    };
    use KeyUsagePurpose::{CrlSign, KeyCertSign};
    let both = || vec![KeyCertSign, CrlSign];
    check(both(), DAY_SECONDS, Ok(()));
    check(both(), -DAY_SECONDS, Err(CaCertError::OutOfDate));
    let not_a_ca = Err(CaCertError::NotACa);
    check(vec![KeyCertSign], DAY_SECONDS, not_a_ca);
    check(vec![CrlSign], DAY_SECONDS, not_a_ca);
    check(vec![], DAY_SECONDS, not_a_ca);
}

/// A CA of the Client CA's kind that `spoil` has put out of order, and a client under it.
fn under_spoilt_ca(
    bed: &Bed,
    spoil: impl FnOnce(&mut CertificateParams),
) -> (Result<Role, RefusalReason>, Result<(), TrustError>) {
    let mut params = ca_params(&crate::testing::deployment(), "Client", 2, serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .custom_extensions
        .push(extended_key_usage(&[CLIENT_AUTH]));
    set_life(&mut params, NOW, NOW + DAY_SECONDS);
    spoil(&mut params);
    let pair = KeyPair::generate().unwrap();
    let ca = params
        .signed_by(&pair, &bed.root.issuer().unwrap())
        .unwrap();
    let issuer = Issuer::from_ca_cert_der(ca.der(), &pair).unwrap();
    let leaf = leaf_params(&identity(Role::Client, "a"), &[CLIENT_AUTH])
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let chain = [ca.der().clone()];
    let peer = bed.trust.verify_client(leaf.der(), &chain, NOW);
    let known = bed.trust.add_issuing_ca(ca.der(), NOW).map(drop);
    (peer.map(|peer| peer.role()), known)
}

#[test]
fn p22_an_issuing_ca_out_of_order_certifies_nobody() {
    let unknown = Err(RefusalReason::UnknownIssuer);
    let check = |what: &str, spoil: fn(&mut CertificateParams), peer, known: Result<_, _>| {
        let (found_peer, found_known) = under_spoilt_ca(&Bed::new(), spoil);
        assert_eq!(found_peer, peer, "{what}");
        let known = known.map_err(|source| TrustError::Ca { source });
        assert_eq!(found_known, known, "{what}");
    };
    let not_a_ca = Err(CaCertError::NotACa);
    use KeyUsagePurpose::{CrlSign, KeyCertSign};
    check("in order", |_| (), Ok(Role::Client), Ok(()));
    check(
        "lists only",
        |it| it.key_usages = vec![CrlSign],
        unknown,
        not_a_ca,
    );
    check(
        "no lists",
        |it| it.key_usages = vec![KeyCertSign],
        unknown,
        not_a_ca,
    );
    check("no usage", |it| it.key_usages.clear(), unknown, not_a_ca);
    let deep = |it: &mut CertificateParams| {
        it.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    };
    check("room below", deep, unknown, Err(CaCertError::PathLength));
    let any = |it: &mut CertificateParams| it.custom_extensions.clear();
    check(
        "no purpose",
        any,
        Err(RefusalReason::WrongEku),
        Err(CaCertError::Kind),
    );
}

#[test]
fn p6_an_issuing_ca_is_held_to_its_own_life() {
    let bed = Bed::new();
    let over = bed.client.cert().not_after() + 1;
    let own = bed.own_at(Role::Client, "a", over - 10);
    let later = bed.trust.verify_client(&own.chain[0], &[], over).map(drop);
    assert_eq!(later, Err(RefusalReason::Expired));
    let params = leaf_params_at(&identity(Role::Client, "b"), &[CLIENT_AUTH], over);
    let outlives = sign_spoilt(&params, &bed.client);
    let later = bed.trust.verify_client(&outlives.chain[0], &[], over);
    assert_eq!(later.map(drop), Err(RefusalReason::Expired));
}

#[test]
fn a_ca_does_not_issue_for_other_roles_deployments_or_times() {
    let bed = Bed::new();
    let key = new_key();
    let issue = |name: &Identity, ca: &Ca, now| {
        leaf(name, key.spki_der(), ca, serial(), now, DAY)
            .map(drop)
            .map_err(|it| it.to_string())
    };
    let client = identity(Role::Client, "a");
    assert_eq!(issue(&client, &bed.client, NOW), Ok(()));
    assert!(issue(&client, &bed.node, NOW).is_err());
    assert!(issue(&client, &bed.root, NOW).is_err());
    assert!(issue(&client, &bed.client, bed.client.cert().not_after() + 1).is_err());
    let mut other = client;
    other.deployment = "other".parse().unwrap();
    assert!(issue(&other, &bed.client, NOW).is_err());
}

#[test]
fn nothing_outlives_its_issuer() {
    let bed = Bed::new();
    let near_end = bed.client.cert().not_after() - DAY_SECONDS;
    let own = bed.own_at(Role::Client, "a", near_end);
    let end = parse(&own.chain[0]).validity().not_after.timestamp();
    assert_eq!(end, bed.client.cert().not_after());
}

#[test]
fn a_ca_is_put_together_only_with_its_own_key() {
    let bed = Bed::new();
    let key = new_key();
    let copy = key.duplicate();
    let ca = issuing_ca(CaKind::Client, 2, &bed.root, key, serial(), NOW).unwrap();
    assert!(Ca::load(ca.cert_der(), copy).is_ok());
    let error = Ca::load(ca.cert_der(), new_key()).unwrap_err();
    assert!(matches!(error, IssueError::KeyMismatch));
}

/// A key that somebody else keeps, and that can be taken away.
#[derive(Debug)]
struct Lent {
    key: crate::Key,
    gone: std::sync::atomic::AtomicBool,
}

impl SigningKey for Lent {
    fn spki_der(&self) -> &[u8] {
        self.key.spki_der()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if self.gone.load(std::sync::atomic::Ordering::Relaxed) {
            let source = "no token in the slot".into();
            return Err(KeyError::Elsewhere { source });
        }
        self.key.sign(message)
    }
}

#[test]
fn every_key_that_issues_may_be_kept_elsewhere() {
    let lent = || {
        Arc::new(Lent {
            key: new_key(),
            gone: false.into(),
        })
    };
    let shared = |key: &Arc<Lent>| -> Arc<dyn SigningKey> { Arc::<Lent>::clone(key) };
    let (root_key, ca_key, content_key) = (lent(), lent(), lent());
    let name = crate::testing::deployment();
    let root = root(&name, 1, shared(&root_key), serial(), NOW).unwrap();
    let under = |kind, key| issuing_ca(kind, 1, &root, shared(key), serial(), NOW).unwrap();
    let (client, content) = (
        under(CaKind::Client, &ca_key),
        under(CaKind::Content, &content_key),
    );
    let trust = Trust::new(&[root.cert_der()], Store::new(Duration::ZERO).into(), NOW).unwrap();
    for ca in [&client, &content] {
        trust.add_issuing_ca(ca.cert_der(), NOW).unwrap();
    }
    let own = Own::issued(&client, &identity(Role::Client, "a"), NOW);
    let revoked = crate::testing::list(&client, 1, &[own.serial()]);
    assert!(trust.verify_crl(client.id(), &revoked, NOW).is_ok());
    let signer_key = lent();
    let (signer, life) = (identity(Role::Signer, "s"), default_lifetime(Role::Signer));
    let leaf = leaf(
        &signer,
        signer_key.spki_der(),
        &content,
        serial(),
        NOW,
        life,
    )
    .unwrap();
    let signer = crate::ContentSigner::new(vec![leaf], shared(&signer_key)).unwrap();
    assert!(signer.sign(b"message").is_ok());

    ca_key
        .gone
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let issued = super::leaf(
        &identity(Role::Client, "b"),
        new_key().spki_der(),
        &client,
        serial(),
        NOW,
        DAY,
    );
    let Err(IssueError::Sign { source }) = issued else {
        panic!("{issued:?}");
    };
    let why = std::error::Error::source(&source).unwrap().to_string();
    assert_eq!(why, "no token in the slot");
    let list = crate::crl::sign(&client, 2, &[], NOW, NOW + DAY_SECONDS);
    assert!(matches!(list, Err(crate::crl::SignCrlError::Key { .. })));
}

#[test]
fn a_pin_finds_the_root_and_nothing_else() {
    let bed = Bed::new();
    let certs: Vec<Vec<u8>> = bed
        .cas()
        .iter()
        .rev()
        .map(|ca| ca.cert_der().to_vec())
        .collect();
    let find =
        |pin: [u8; 32], now| find_pinned_root(&certs, &[[0; 32], pin], now).map(|it| it.id());
    let pin = bed.root.cert().spki_sha256();
    assert_eq!(find(pin, NOW), Ok(bed.root.id()));
    assert_eq!(find([1; 32], NOW), Err(CaCertError::NotPinned));
    assert_eq!(
        find(bed.node.cert().spki_sha256(), NOW),
        Err(CaCertError::NotSelfSigned)
    );
    let after = bed.root.cert().not_after() + 1;
    assert_eq!(find(pin, after), Err(CaCertError::OutOfDate));
}

#[test]
fn a_foreign_deployments_party_is_a_stranger() {
    let (bed, other) = (Bed::new(), Bed::new());
    let own = other.own(Role::Client, "a");
    let chain: Vec<CertificateDer<'_>> = own.chain[1..]
        .iter()
        .map(|it| CertificateDer::from(it.as_slice()))
        .collect();
    let refusal = bed
        .trust
        .verify_client(&own.chain[0], &chain, NOW)
        .unwrap_err();
    // The names agree, as both are called acme: it is the signature that does not.
    assert_eq!(refusal, RefusalReason::BadSignature);
    assert!(
        bed.trust
            .add_issuing_ca(other.client.cert_der(), NOW)
            .is_err()
    );
}

#[test]
fn a_second_root_generation_is_trusted_beside_the_first() {
    let bed = Bed::new();
    let root = root(&crate::testing::deployment(), 2, new_key(), serial(), NOW).unwrap();
    let ca = issuing_ca(CaKind::Client, 2, &root, new_key(), serial(), NOW).unwrap();
    assert_eq!(
        bed.trust.add_issuing_ca(ca.cert_der(), NOW).map(drop),
        Err(TrustError::UnknownIssuer)
    );
    bed.trust.add_root(root.cert_der(), NOW).unwrap();
    bed.trust.add_issuing_ca(ca.cert_der(), NOW).unwrap();
    let name = identity(Role::Client, "new");
    let der = leaf(&name, new_key().spki_der(), &ca, serial(), NOW, DAY).unwrap();
    assert!(bed.trust.verify_client(&der, &[], NOW).is_ok());
    assert_eq!(
        verify_client(&bed, &bed.own(Role::Client, "old")),
        Ok(Role::Client)
    );
}
