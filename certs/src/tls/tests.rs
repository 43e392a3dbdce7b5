//! Handshakes in memory.

use std::sync::atomic::Ordering;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, SignatureScheme};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::Serial;
use crate::refusal::RefusalReason;
use crate::testing::{Bed, DAY, NOW, Outcome, Own, handshake, identity, leaf_params, sign};

const ROLES: &[Role] = &[Role::Client, Role::Booster];

/// A booster that clients may connect to, and one that does.
struct Scene {
    bed: Bed,
    booster: Own,
    client: Own,
}

impl Scene {
    fn new() -> Self {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let client = bed.own(Role::Client, "laptop-7");
        Self {
            bed,
            booster,
            client,
        }
    }

    fn connect(&self, own: Option<&Own>) -> Outcome {
        let name = identity(Role::Booster, "oslo");
        let server = Arc::new(self.bed.server(&self.booster, ROLES));
        let client = Arc::new(self.bed.connector(&name, own));
        handshake(&server, &client, Expected::Exactly(name).server_name())
    }

    fn connect_expecting(&self, server: &Own, expected: Expected) -> Outcome {
        let server = Arc::new(self.bed.server(server, ROLES));
        let (trust, time) = (&self.bed.trust, self.bed.time());
        let own = self.client.cell();
        let client =
            client_config(&expected, Revocation::Required, trust, Some(&own), &time).unwrap();
        handshake(&server, &Arc::new(client), expected.server_name())
    }
}

/// The server refused for `reason`, and the client was told so by `alert`.
fn assert_refused(
    outcome: &Outcome,
    reason: RefusalReason,
    alert: AlertDescription,
    possession_proved: bool,
) {
    let evidence = outcome.at_server.evidence.as_ref().unwrap();
    assert_eq!(evidence.reason, Some(reason), "{outcome:?}");
    assert_eq!(evidence.possession_proved, possession_proved, "{outcome:?}");
    assert!(outcome.at_server.peer.is_none(), "{outcome:?}");
    assert_eq!(
        outcome.client,
        Err(Error::AlertReceived(alert)),
        "{outcome:?}"
    );
    assert_eq!(
        RefusalReason::of_error(outcome.server.as_ref().unwrap_err()),
        reason
    );
    assert!(outcome.plaintext.is_empty(), "{outcome:?}");
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let scene = Scene::new();
    let outcome = scene.connect(Some(&scene.client));
    assert_eq!(outcome.server, Ok(HandshakeKind::Full));
    let at_server = outcome.at_server.peer.unwrap();
    assert_eq!(at_server.identity(), &identity(Role::Client, "laptop-7"));
    assert_eq!(at_server.serial(), scene.client.serial());
    let at_client = outcome.at_client.peer.unwrap();
    assert_eq!(at_client.identity(), &identity(Role::Booster, "oslo"));
    assert_eq!(outcome.plaintext, b"early");
}

#[test]
fn a_client_that_should_not_get_in_does_not() {
    let scene = Scene::new();
    let (bed, other) = (&scene.bed, Bed::new());
    let refused = |own: &Own, reason, alert, possession_proved| {
        assert_refused(&scene.connect(Some(own)), reason, alert, possession_proved);
    };
    use AlertDescription as Alert;
    use RefusalReason as Reason;
    let revoked = bed.own(Role::Client, "stolen");
    bed.publish(&bed.client, 2, &[revoked.serial()]);
    refused(&revoked, Reason::Revoked, Alert::CertificateRevoked, true);
    // Both deployments are called acme, so it is the signature that gives it away.
    let foreign = other.own(Role::Client, "laptop-7");
    refused(&foreign, Reason::BadSignature, Alert::DecryptError, false);
    let expired = bed.own_at(Role::Client, "drawer", NOW - 15 * DAY);
    refused(&expired, Reason::Expired, Alert::CertificateExpired, false);
    let early = bed.own_at(Role::Client, "early", NOW + DAY);
    refused(
        &early,
        Reason::NotYetValid,
        Alert::CertificateExpired,
        false,
    );
    let server_only = leaf_params(
        &identity(Role::Booster, "b"),
        &[crate::ca_cert::SERVER_AUTH],
    );
    let server_only = sign(&server_only, &bed.node);
    refused(
        &server_only,
        Reason::WrongEku,
        Alert::UnsupportedCertificate,
        false,
    );
    let signer = bed.own(Role::Signer, "content");
    refused(
        &signer,
        Reason::WrongEku,
        Alert::UnsupportedCertificate,
        false,
    );
    let origin = bed.own(Role::Origin, "origin");
    refused(&origin, Reason::WrongRole, Alert::AccessDenied, true);
}

#[test]
fn a_client_without_a_certificate_does_not_get_in() {
    let outcome = Scene::new().connect(None);
    assert_eq!(outcome.server, Err(Error::NoCertificatesPresented));
    let alert = AlertDescription::CertificateRequired;
    assert_eq!(outcome.client, Err(Error::AlertReceived(alert)));
    assert!(outcome.at_server.evidence.is_none());
}

#[test]
fn a_stale_list_keeps_everybody_out_and_blames_nobody() {
    let scene = Scene::new();
    // The client's own view is fresh enough: only the server's matters here.
    scene.bed.now.store(NOW + 8 * DAY, Ordering::Relaxed);
    let server = Arc::new(scene.bed.server(&scene.booster, ROLES));
    let name = Expected::Exactly(identity(Role::Booster, "oslo"));
    let (own, time) = (scene.client.cell(), scene.bed.time());
    let trust = &scene.bed.trust;
    let client = client_config(&name, Revocation::BestEffort, trust, Some(&own), &time).unwrap();
    let outcome = handshake(&server, &Arc::new(client), name.server_name());
    assert_refused(
        &outcome,
        RefusalReason::CrlStale,
        AlertDescription::UnknownCA,
        true,
    );
}

#[test]
fn a_client_turns_from_a_server_that_is_not_the_one() {
    let scene = Scene::new();
    let bed = &scene.bed;
    let refused = |own: &Own, expected: Expected, reason| {
        let outcome = scene.connect_expecting(own, expected);
        let evidence = outcome.at_client.evidence.as_ref().unwrap();
        assert_eq!(evidence.reason, Some(reason), "{outcome:?}");
        assert!(outcome.client.is_err() && outcome.at_client.peer.is_none());
    };
    let oslo = || Expected::Exactly(identity(Role::Booster, "oslo"));
    let bergen = bed.own(Role::Booster, "bergen");
    refused(&bergen, oslo(), RefusalReason::NameMismatch);
    let origin = bed.own(Role::Origin, "oslo");
    refused(&origin, oslo(), RefusalReason::WrongRole);
    refused(
        &scene.booster,
        Expected::AnyOf(Role::Origin),
        RefusalReason::WrongRole,
    );
    let client = bed.own(Role::Client, "oslo");
    refused(&client, oslo(), RefusalReason::WrongEku);
    let other = Bed::new().own(Role::Booster, "oslo");
    refused(&other, oslo(), RefusalReason::BadSignature);
    bed.publish(&bed.node, 2, &[scene.booster.serial()]);
    refused(&scene.booster, oslo(), RefusalReason::Revoked);
}

#[test]
fn first_contact_takes_any_origin_of_the_deployment() {
    let scene = Scene::new();
    let origin = scene.bed.own(Role::Origin, "origin-1");
    let outcome = scene.connect_expecting(&origin, Expected::AnyOf(Role::Origin));
    assert_eq!(outcome.client, Ok(HandshakeKind::Full));
    let peer = outcome.at_client.peer.unwrap();
    assert_eq!(peer.identity(), &identity(Role::Origin, "origin-1"));
}

#[test]
fn p13_a_data_listener_does_not_start_without_lists() {
    let bed = Bed::without_lists();
    let own = bed.own(Role::Booster, "oslo").cell();
    let listener = Listener::Data {
        roles: vec![Role::Client],
    };
    let start = || server_config(&listener, &bed.trust, &own, &bed.time()).map(drop);
    let missing = |result: Result<(), TlsError>| match result {
        Err(TlsError::NoCrl { issuer }) => issuer,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(start()), bed.root.id());
    bed.publish(&bed.root, 1, &[]);
    assert_eq!(missing(start()), bed.client.id());
    bed.publish(&bed.client, 1, &[]);
    start().unwrap();
    let enrol = Listener::Enrol {
        roles: vec![Role::Client],
    };
    server_config(&enrol, &Bed::without_lists().trust, &own, &bed.time()).unwrap();
}

#[test]
fn p15_a_second_handshake_is_a_full_one() {
    let scene = Scene::new();
    let server = Arc::new(scene.bed.server(&scene.booster, ROLES));
    let name = identity(Role::Booster, "oslo");
    // A client that would resume if it were given the means.
    let mut eager = scene.bed.connector(&name, Some(&scene.client));
    eager.resumption = Resumption::in_memory_sessions(32);
    let eager = Arc::new(eager);
    let connect = || {
        handshake(
            &server,
            &eager,
            Expected::Exactly(name.clone()).server_name(),
        )
    };
    assert_eq!(connect().server, Ok(HandshakeKind::Full));
    assert_eq!(connect().server, Ok(HandshakeKind::Full));
    scene
        .bed
        .publish(&scene.bed.client, 2, &[scene.client.serial()]);
    let outcome = connect();
    assert_refused(
        &outcome,
        RefusalReason::Revoked,
        AlertDescription::CertificateRevoked,
        true,
    );
}

#[test]
fn p15_the_enrolment_listener_does_not_resume_under_tls_1_2_either() {
    let bed = Bed::new();
    let origin = bed.own(Role::Origin, "origin");
    let listener = Listener::Enrol {
        roles: vec![Role::Client],
    };
    let server = server_config(&listener, &bed.trust, &origin.cell(), &bed.time()).unwrap();
    let server = Arc::new(server);
    for own in [None, Some(bed.own(Role::Client, "a"))] {
        let has_cert = own.is_some();
        let client = Arc::new(tls12(&bed, own));
        for _ in 0..2 {
            let name = ServerName::try_from(ANY_SERVER_NAME).unwrap();
            let outcome = handshake(&server, &client, name);
            assert_eq!(outcome.server, Ok(HandshakeKind::Full), "{outcome:?}");
            assert_eq!(outcome.at_server.peer.is_some(), has_cert);
        }
    }
}

fn tls12(bed: &Bed, own: Option<Own>) -> ClientConfig {
    let expected = Expected::AnyOf(Role::Origin);
    let verifier = client::Verifier::new(&bed.trust, expected, Revocation::Required, &bed.time());
    let own = own.map(|own| own.cell());
    let versions = &[&rustls::version::TLS12];
    let mut config = connector(Arc::new(verifier), versions, own.as_ref(), &bed.time()).unwrap();
    config.resumption = Resumption::in_memory_sessions(32);
    config
}

#[test]
fn p16_a_refused_client_thinks_that_it_is_in_and_nothing_it_says_is_read() {
    let scene = Scene::new();
    scene
        .bed
        .publish(&scene.bed.client, 2, &[scene.client.serial()]);
    let outcome = scene.connect(Some(&scene.client));
    assert!(
        outcome.at_client.peer.is_some(),
        "the client had no objection"
    );
    assert!(outcome.plaintext.is_empty());
}

/// Shows somebody else's certificate.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn p19_showing_a_revoked_certificate_without_its_key_does_not_frame_its_owner() {
    let scene = Scene::new();
    scene
        .bed
        .publish(&scene.bed.client, 2, &[scene.client.serial()]);
    let mine = scene.bed.own(Role::Client, "mallory");
    let key = provider()
        .key_provider
        .load_private_key(mine.key.to_private_der())
        .unwrap();
    let stolen = scene
        .client
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let name = identity(Role::Booster, "oslo");
    let mut client = scene.bed.connector(&name, None);
    client.client_auth_cert_resolver = Arc::new(Impostor(Arc::new(CertifiedKey::new(stolen, key))));
    let server = Arc::new(scene.bed.server(&scene.booster, ROLES));
    let outcome = handshake(
        &server,
        &Arc::new(client),
        Expected::Exactly(name).server_name(),
    );
    let alert = AlertDescription::DecryptError;
    assert_refused(&outcome, RefusalReason::BadSignature, alert, false);
}

#[test]
fn p18_nothing_is_said_before_the_client_is_known() {
    let scene = Scene::new();
    let config = scene.bed.server(&scene.booster, ROLES);
    assert!(!config.send_half_rtt_data);
    assert_eq!(config.max_early_data_size, 0);
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.ticketer.enabled());
    let client = scene.bed.connector(&identity(Role::Booster, "oslo"), None);
    assert!(!client.enable_early_data);
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let scene = Scene::new();
    let cell = scene.booster.cell();
    let listener = Listener::Data {
        roles: ROLES.to_vec(),
    };
    let (trust, time) = (&scene.bed.trust, scene.bed.time());
    let server = Arc::new(server_config(&listener, trust, &cell, &time).unwrap());
    let name = identity(Role::Booster, "oslo");
    let client = Arc::new(scene.bed.connector(&name, Some(&scene.client)));
    let seen = || -> Serial {
        let outcome = handshake(
            &server,
            &client,
            Expected::Exactly(name.clone()).server_name(),
        );
        outcome.at_client.peer.unwrap().serial()
    };
    assert_eq!(seen(), scene.booster.serial());
    let renewed = scene.bed.own(Role::Booster, "oslo");
    cell.replace(&renewed.chain, &renewed.key).unwrap();
    assert_eq!(seen(), renewed.serial());
    assert!(
        cell.replace(&renewed.chain, &scene.client.key).is_err(),
        "not its key"
    );
    assert_eq!(seen(), renewed.serial());
}

#[test]
fn data_listeners_speak_tls_1_3_alone_and_prefer_a_hybrid_key_exchange() {
    let scene = Scene::new();
    let server = Arc::new(scene.bed.server(&scene.booster, ROLES));
    let client = Arc::new(tls12(&scene.bed, None));
    let name = ServerName::try_from(ANY_SERVER_NAME).unwrap();
    assert!(handshake(&server, &client, name).server.is_err());
    let first = provider().kx_groups[0].name();
    assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn captures_do_not_mix() {
    let (outer, inner) = (Capture::default(), Capture::default());
    outer.enter(|| {
        inner.enter(|| drop(capture::judged(b"inner", true, Err(RefusalReason::Revoked))));
        drop(capture::judged(
            b"outer",
            false,
            Err(RefusalReason::Expired),
        ));
    });
    drop(capture::judged(
        b"nobody",
        false,
        Err(RefusalReason::Expired),
    ));
    let reason = |capture: &Capture| capture.take().evidence.unwrap().reason;
    assert_eq!(reason(&outer), Some(RefusalReason::Expired));
    assert_eq!(reason(&inner), Some(RefusalReason::Revoked));
    let long = vec![0; crate::ca_cert::CERT_BYTES_MAX + 1];
    outer.enter(|| drop(capture::judged(&long, false, Err(RefusalReason::Protocol))));
    assert!(outer.take().evidence.unwrap().leaf_der.is_empty());
}

#[test]
fn nobody_connects_to_a_client() {
    let bed = Bed::new();
    let connect = |role| {
        let expected = Expected::AnyOf(role);
        client_config(
            &expected,
            Revocation::Required,
            &bed.trust,
            None,
            &bed.time(),
        )
        .is_ok()
    };
    assert!(connect(Role::Origin) && connect(Role::Booster));
    assert!(!connect(Role::Client) && !connect(Role::Signer));
}
