//! Handshakes in memory.

use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind};

use super::*;
use crate::Serial;
use crate::refusal::RefusalReason;
use crate::testing::{Bed, Outcome, Own, handshake, identity};

mod rotation;
mod shown;
mod traps;

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
fn a_party_that_has_no_business_here_does_not_get_in() {
    let scene = Scene::new();
    let refused = |role, reason, alert, possession_proved| {
        let outcome = scene.connect(Some(&scene.bed.own(role, "x")));
        assert_refused(&outcome, reason, alert, possession_proved);
    };
    use AlertDescription as Alert;
    use RefusalReason as Reason;
    refused(
        Role::Signer,
        Reason::WrongEku,
        Alert::UnsupportedCertificate,
        false,
    );
    refused(Role::Origin, Reason::WrongRole, Alert::AccessDenied, true);
}

#[test]
fn first_contact_takes_an_origin_of_the_deployment_and_nobody_else() {
    let scene = Scene::new();
    let origin = scene.bed.own(Role::Origin, "origin-1");
    let outcome = scene.connect_expecting(&origin, Expected::AnyOf(Role::Origin));
    assert_eq!(outcome.client, Ok(HandshakeKind::Full));
    let peer = outcome.at_client.peer.unwrap();
    assert_eq!(peer.identity(), &identity(Role::Origin, "origin-1"));
    let outcome = scene.connect_expecting(&scene.booster, Expected::AnyOf(Role::Origin));
    let evidence = outcome.at_client.evidence.unwrap();
    assert_eq!(evidence.reason, Some(RefusalReason::WrongRole));
    assert!(outcome.client.is_err() && outcome.at_client.peer.is_none());
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
