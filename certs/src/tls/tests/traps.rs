//! Each test is named after the trap that it closes.

use std::sync::atomic::Ordering;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::testing::{DAY, NOW};

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

/// A listener of the same deployment that resumes, as listeners do unless they are told not
/// to.
fn lax(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.session_storage = ServerSessionMemoryCache::new(32);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.send_tls13_tickets = 2;
    Arc::new(config)
}

/// A client that has tickets of a lax listener comes to ours after it has been revoked.
fn check_old_tickets(
    bed: &Bed,
    ours: impl Fn() -> ServerConfig,
    client: ClientConfig,
    serial: Serial,
) {
    let (lax, strict) = (lax(ours()), Arc::new(ours()));
    let client = Arc::new(client);
    let connect = |server| {
        let name = Expected::Exactly(identity(Role::Booster, "oslo")).server_name();
        handshake(server, &client, name)
    };
    assert_eq!(connect(&lax).server, Ok(HandshakeKind::Full));
    bed.publish(&bed.client, 2, &[serial]);
    // The trap is real: the lax listener lets the revoked client in, and asks no verifier.
    let outcome = connect(&lax);
    assert_eq!(outcome.server, Ok(HandshakeKind::Resumed), "{outcome:?}");
    assert!(outcome.at_server.evidence.is_none() && outcome.plaintext == b"early");
    let alert = AlertDescription::CertificateRevoked;
    assert_refused(&connect(&strict), RefusalReason::Revoked, alert, true);
}

#[test]
fn p15_a_ticket_from_before_the_revocation_is_useless_under_tls_1_3() {
    let scene = Scene::new();
    let name = identity(Role::Booster, "oslo");
    let mut client = scene.bed.connector(&name, Some(&scene.client));
    client.resumption = Resumption::in_memory_sessions(32);
    let ours = || scene.bed.server(&scene.booster, ROLES);
    check_old_tickets(&scene.bed, ours, client, scene.client.serial());
}

#[test]
fn p15_a_ticket_from_before_the_revocation_is_useless_under_tls_1_2() {
    let scene = Scene::new();
    let listener = Listener::Enrol {
        roles: ROLES.to_vec(),
    };
    let (trust, time) = (&scene.bed.trust, scene.bed.time());
    let origin = scene.bed.own(Role::Origin, "oslo");
    let ours = || server_config(&listener, trust, &origin.cell(), &time).unwrap();
    let serial = scene.client.serial();
    check_old_tickets(
        &scene.bed,
        ours,
        tls12(&scene.bed, Some(scene.client)),
        serial,
    );
}

#[test]
fn p15_no_listener_has_anything_to_resume_with() {
    let scene = Scene::new();
    let enrol = Listener::Enrol {
        roles: ROLES.to_vec(),
    };
    let (trust, time) = (&scene.bed.trust, scene.bed.time());
    let enrol = server_config(&enrol, trust, &scene.booster.cell(), &time).unwrap();
    for config in [scene.bed.server(&scene.booster, ROLES), enrol] {
        assert!(!config.session_storage.can_cache());
        assert!(!config.ticketer.enabled());
        assert_eq!(config.send_tls13_tickets, 0);
    }
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
fn p20_the_report_comes_from_our_own_error_and_the_alert_is_only_a_hint() {
    use AlertDescription as Alert;
    use RefusalReason as Reason;
    let stale = Scene::new();
    stale.bed.now.store(NOW + 8 * DAY, Ordering::Relaxed);
    let trusting = {
        let expected = Expected::Exactly(identity(Role::Booster, "oslo"));
        let (own, time) = (stale.client.cell(), stale.bed.time());
        let trust = &stale.bed.trust;
        client_config(&expected, Revocation::BestEffort, trust, Some(&own), &time).unwrap()
    };
    let server = Arc::new(stale.bed.server(&stale.booster, ROLES));
    let name = Expected::Exactly(identity(Role::Booster, "oslo")).server_name();
    let stale = handshake(&server, &Arc::new(trusting), name);
    let early = Scene::new();
    let early = early.connect(Some(&early.bed.own_at(Role::Client, "a", NOW + DAY)));
    let check = |outcome: &Outcome, ours, alert, hint| {
        let reason = outcome.at_server.evidence.as_ref().unwrap().reason;
        assert_eq!(reason, Some(ours));
        assert_eq!(outcome.client, Err(Error::AlertReceived(alert)));
        assert_eq!(Reason::of_alert(alert), hint);
        assert_ne!(ours, hint, "a case in which the alert misleads");
    };
    check(
        &stale,
        Reason::CrlStale,
        Alert::UnknownCA,
        Reason::UnknownIssuer,
    );
    check(
        &early,
        Reason::NotYetValid,
        Alert::CertificateExpired,
        Reason::Expired,
    );
}

#[test]
fn p7_a_revoked_client_is_told_so_by_an_old_list_too() {
    let scene = Scene::new();
    let bed = &scene.bed;
    bed.publish(&bed.client, 2, &[scene.client.serial()]);
    bed.now.store(NOW + 8 * DAY, Ordering::Relaxed);
    let expected = Expected::Exactly(identity(Role::Booster, "oslo"));
    let (own, time) = (scene.client.cell(), bed.time());
    let trusting = client_config(
        &expected,
        Revocation::BestEffort,
        &bed.trust,
        Some(&own),
        &time,
    )
    .unwrap();
    let server = Arc::new(bed.server(&scene.booster, ROLES));
    let outcome = handshake(&server, &Arc::new(trusting), expected.server_name());
    let alert = AlertDescription::CertificateRevoked;
    assert_refused(&outcome, RefusalReason::Revoked, alert, true);
}

#[test]
fn p12_a_revoked_issuing_ca_takes_its_clients_along() {
    let scene = Scene::new();
    let bed = &scene.bed;
    bed.publish(&bed.root, 2, &[bed.client.cert().serial()]);
    let alert = AlertDescription::CertificateRevoked;
    let outcome = scene.connect(Some(&scene.client));
    assert_refused(&outcome, RefusalReason::Revoked, alert, true);
}

#[test]
fn p16_neither_side_reads_a_word_of_a_refused_handshake() {
    let scene = Scene::new();
    let good = scene.connect(Some(&scene.client));
    assert_eq!(
        (&good.plaintext[..], &good.answer[..]),
        (&b"early"[..], &b"hello"[..])
    );
    let refused = scene.connect(Some(&scene.bed.own(Role::Origin, "x")));
    assert!(refused.plaintext.is_empty() && refused.answer.is_empty());
}
