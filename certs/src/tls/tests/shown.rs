//! Who shows what, what the other side makes of it, and what it says.

use std::sync::atomic::Ordering;

use super::*;
use crate::testing::{BoosterCert, ClientCert, DAY, Judgement, NOW};

/// One door: both sides look at the same lists by the same clock, and the one that is not
/// judging asks for no fresh list, so that the other's judgement is heard.
struct Door {
    bed: Bed,
    server: Own,
    client: Option<Own>,
    server_judges: bool,
}

impl Door {
    fn open(&self) -> Outcome {
        let expected = Expected::Exactly(identity(Role::Booster, "oslo"));
        let bed = &self.bed;
        let revocation = if self.server_judges {
            Revocation::BestEffort
        } else {
            Revocation::Required
        };
        let (own, time) = (self.client.as_ref().map(Own::cell), bed.time());
        let client = client_config(&expected, revocation, &bed.trust, own.as_ref(), &time).unwrap();
        let server = Arc::new(bed.server(&self.server, ROLES));
        handshake(&server, &Arc::new(client), expected.server_name())
    }

    fn revoke(&self, ca: &crate::Ca, own: &Own) {
        self.bed.publish(ca, 2, &[own.serial()]);
    }

    fn let_lists_grow_old(&self) {
        self.bed.now.store(NOW + 8 * DAY, Ordering::Relaxed);
    }
}

/// Holds what the judging side saw and what the other heard against the table.
fn check_judgement(
    what: &str,
    outcome: &Outcome,
    judgement: Judgement,
    judge: (&Captured, &Result<HandshakeKind, Error>),
    other: &Result<HandshakeKind, Error>,
) {
    let (seen, verdict) = judge;
    let Some(reason) = judgement.reason else {
        assert_eq!(verdict, &Ok(HandshakeKind::Full), "{what}: {outcome:?}");
        assert!(seen.peer.is_some(), "{what}: {outcome:?}");
        assert_eq!(outcome.plaintext, b"early", "{what}: {outcome:?}");
        return;
    };
    let error = verdict.as_ref().unwrap_err();
    assert_eq!(
        RefusalReason::of_error(error),
        reason,
        "{what}: {outcome:?}"
    );
    let heard = Err(Error::AlertReceived(judgement.alert.unwrap()));
    assert_eq!(other, &heard, "{what}: {outcome:?}");
    assert!(seen.peer.is_none(), "{what}: {outcome:?}");
    assert!(outcome.plaintext.is_empty(), "{what}: {outcome:?}");
    assert!(outcome.answer.is_empty(), "{what}: {outcome:?}");
    let evidence = seen.evidence.as_ref();
    let shown = reason != RefusalReason::NoCertificate;
    assert_eq!(
        evidence.and_then(|it| it.reason),
        shown.then_some(reason),
        "{what}"
    );
    let proved = evidence.is_some_and(|it| it.possession_proved);
    assert_eq!(proved, judgement.possession_proved, "{what}: {outcome:?}");
}

#[test]
fn nine_client_certificates_are_judged_each_by_its_own_fault() {
    for shown in ClientCert::ALL {
        let bed = Bed::new();
        let door = Door {
            server: bed.own(Role::Booster, "oslo"),
            client: shown.make(bed.issuers(), "laptop-7", NOW),
            server_judges: true,
            bed,
        };
        if shown == ClientCert::Revoked {
            door.revoke(&door.bed.client, door.client.as_ref().unwrap());
        }
        if shown == ClientCert::StaleList {
            door.let_lists_grow_old();
        }
        let outcome = door.open();
        let judge = (&outcome.at_server, &outcome.server);
        let judgement = shown.judgement();
        check_judgement(
            &format!("{shown:?}"),
            &outcome,
            judgement,
            judge,
            &outcome.client,
        );
    }
}

#[test]
fn whoever_plays_the_booster_is_judged_by_its_own_fault() {
    for shown in BoosterCert::ALL {
        let bed = Bed::new();
        let door = Door {
            server: shown.make(bed.issuers(), "oslo", NOW),
            client: Some(bed.own(Role::Client, "laptop-7")),
            server_judges: false,
            bed,
        };
        if shown == BoosterCert::Revoked {
            door.revoke(&door.bed.node, &door.server);
        }
        if shown == BoosterCert::StaleList {
            door.let_lists_grow_old();
        }
        let outcome = door.open();
        let judge = (&outcome.at_client, &outcome.client);
        let judgement = shown.judgement();
        check_judgement(
            &format!("{shown:?}"),
            &outcome,
            judgement,
            judge,
            &outcome.server,
        );
    }
}
