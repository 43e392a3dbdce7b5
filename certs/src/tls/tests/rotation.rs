//! A deployment moves from one generation of its root and CAs to the next, in some months
//! that pass in seconds.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::testing::{DAY, NOW, deployment, list_at, new_key, serial};
use crate::{Ca, CaKind, CrlStore, issue};

/// The length of the story's parts, in days, from the announcement of G2.
///
/// Everybody has polled within `LEARNT` days. Nothing is issued under G2 before that, or
/// those who have not heard of it would refuse what they see. The last certificate under G1
/// ends 30 days after the last was issued: the origin's.
const LEARNT: i64 = 7;
const ISSUE_G2: i64 = 14 + LEARNT;
const FORGET_G1: i64 = ISSUE_G2 + 30 + 1;
const END: i64 = FORGET_G1 + 10;

/// One root with the CAs that take part.
struct Generation {
    root: Ca,
    node: Ca,
    client: Ca,
}

impl Generation {
    fn make(number: u32, now: i64) -> Self {
        let root = issue::root(&deployment(), number, new_key(), serial(), now).unwrap();
        let ca = |kind| issue::issuing_ca(kind, number, &root, new_key(), serial(), now).unwrap();
        Self {
            node: ca(CaKind::Node),
            client: ca(CaKind::Client),
            root,
        }
    }

    fn cas(&self) -> [&Ca; 3] {
        [&self.root, &self.node, &self.client]
    }

    fn issue(&self, role: Role, id: &str, now: i64) -> Own {
        let ca = match role {
            Role::Client => &self.client,
            Role::Booster | Role::Origin | Role::Signer => &self.node,
        };
        Own::issued(ca, &identity(role, id), now)
    }
}

/// Somebody with a certificate and a view of the world that is its own.
struct Party {
    name: Identity,
    trust: Arc<Trust>,
    cell: Arc<CertCell>,
    /// Polls on every day that leaves this remainder by `LEARNT`.
    poll_day: i64,
}

impl Party {
    fn new(role: Role, id: &str, poll_day: i64, g1: &Generation, issued_at: i64) -> Self {
        let now = NOW;
        let crls = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[g1.root.cert_der()], crls, now).unwrap();
        let party = Self {
            name: identity(role, id),
            trust: Arc::new(trust),
            cell: g1.issue(role, id, issued_at).cell(),
            poll_day,
        };
        party.poll(g1, 1, now);
        party
    }

    /// Learns a generation's CAs, and fetches its lists.
    fn poll(&self, generation: &Generation, number: u64, now: i64) {
        self.trust
            .add_root(generation.root.cert_der(), now)
            .unwrap();
        for ca in [&generation.node, &generation.client] {
            self.trust.add_issuing_ca(ca.cert_der(), now).unwrap();
        }
        for ca in generation.cas() {
            let der = list_at(ca, number, &[], now);
            let list = self.trust.verify_crl(ca.id(), &der, now).unwrap();
            self.trust.crls().install(list).unwrap();
        }
    }

    /// Renews at half life.
    fn renew(&self, by: &Generation, now: i64) {
        let (from, until) = self.cell.validity().unwrap();
        if now >= from + (until - from) / 2 {
            let own = by.issue(self.name.role, self.name.id.as_str(), now);
            self.cell.replace(&own.chain, &own.key).unwrap();
        }
    }

    fn listener(&self, time: &Arc<dyn TimeProvider>) -> Arc<ServerConfig> {
        let roles = vec![Role::Client, Role::Booster];
        let listener = Listener::Data { roles };
        Arc::new(server_config(&listener, &self.trust, &self.cell, time).unwrap())
    }

    fn visit(
        &self,
        to: &Identity,
        at: &Arc<ServerConfig>,
        time: &Arc<dyn TimeProvider>,
    ) -> Outcome {
        let expected = Expected::Exactly(to.clone());
        let own = Some(&self.cell);
        let required = Revocation::Required;
        let config = client_config(&expected, required, &self.trust, own, time).unwrap();
        handshake(at, &Arc::new(config), expected.server_name())
    }
}

#[test]
fn p11_a_deployment_moves_from_g1_to_g2_and_refuses_nobody_good() {
    let clock = Arc::new(AtomicI64::new(NOW));
    let time = {
        let clock = Arc::clone(&clock);
        time_from(move || clock.load(Ordering::Relaxed))
    };
    let (g1, g2) = (
        Generation::make(1, NOW - 60 * DAY),
        Generation::make(2, NOW),
    );
    // Origin and booster are about to renew, the clients at other times.
    let origin = Party::new(Role::Origin, "origin", 0, &g1, NOW - 14 * DAY);
    let booster = Party::new(Role::Booster, "oslo", 0, &g1, NOW - 6 * DAY);
    let laptop = |day| {
        let id = format!("laptop-{day}");
        Party::new(Role::Client, &id, day, &g1, NOW - day * DAY)
    };
    let clients: Vec<Party> = (0..LEARNT).map(laptop).collect();
    // The listeners' settings are made once: they live through all of it.
    let (at_origin, at_booster) = (origin.listener(&time), booster.listener(&time));
    let copied = g1.issue(Role::Client, "copied", NOW + FORGET_G1 * DAY - DAY);

    for day in 0..END {
        let now = NOW + day * DAY;
        clock.store(now, Ordering::Relaxed);
        let number = 2 + day as u64;
        let issuing = if day < ISSUE_G2 { &g1 } else { &g2 };
        let everybody = || clients.iter().chain([&origin, &booster]);
        // Those who serve poll every day, devices once a week.
        for party in everybody() {
            let serves = party.name.role != Role::Client;
            if serves || day % LEARNT == party.poll_day {
                if day < FORGET_G1 {
                    party.poll(&g1, number, now);
                }
                party.poll(&g2, number, now);
                party.renew(issuing, now);
                if day >= FORGET_G1 {
                    party.trust.forget_root(g1.root.id()).unwrap();
                }
            }
        }
        let visits = clients.iter().map(|client| (client, &booster, &at_booster));
        for (from, to, door) in visits.chain([(&booster, &origin, &at_origin)]) {
            let outcome = from.visit(&to.name, door, &time);
            assert_eq!(
                outcome.server,
                Ok(HandshakeKind::Full),
                "day {day}: {outcome:?}"
            );
            assert_eq!(outcome.plaintext, b"early", "day {day}: {outcome:?}");
        }
    }

    // Nothing is left of G1, not even for whoever has its keys.
    for party in clients.iter().chain([&origin, &booster]) {
        let left: Vec<_> = party.trust.roots().iter().map(|root| root.id()).collect();
        assert_eq!(left, [g2.root.id()]);
        assert_eq!(party.trust.issuing_cas().len(), 2);
        assert_eq!(party.trust.crls().all().len(), 3);
    }
    let thief = Party {
        cell: copied.cell(),
        ..Party::new(Role::Client, "copied", 0, &g2, NOW)
    };
    thief.poll(&g2, 1_000, clock.load(Ordering::Relaxed));
    let outcome = thief.visit(&booster.name, &at_booster, &time);
    let alert = AlertDescription::UnknownCA;
    assert_refused(&outcome, RefusalReason::UnknownIssuer, alert, false);
}

#[test]
fn a_forgotten_root_takes_its_sessions_along_and_the_last_is_not_forgotten() {
    let bed = Bed::new();
    let own = bed.own(Role::Client, "a");
    let peer = bed.trust.verify_client(&own.chain[0], &[], NOW).unwrap();
    let forget = |root: &Ca| bed.trust.forget_root(root.id());
    assert_eq!(forget(&bed.root), Err(crate::trust::TrustError::NoRoot));
    assert_eq!(bed.trust.check(&peer, NOW), Ok(()));
    let g2 = Generation::make(2, NOW);
    assert_eq!(forget(&g2.root), Ok(false));
    bed.trust.add_root(g2.root.cert_der(), NOW).unwrap();
    let before = bed.trust.crls().generation();
    assert_eq!(forget(&bed.root), Ok(true));
    // Those who watch the lists hear of it, and look through their sessions.
    assert_eq!(bed.trust.crls().generation(), before + 4);
    let unknown = Err(RefusalReason::UnknownIssuer);
    assert_eq!(bed.trust.check(&peer, NOW), unknown);
    let lenient = bed.trust.check_with(&peer, Revocation::BestEffort, NOW);
    assert_eq!(lenient, unknown);
    // It comes back, but not with an older list.
    bed.trust.add_root(bed.root.cert_der(), NOW).unwrap();
    let old = list_at(&bed.root, 0, &[], NOW);
    assert!(bed.trust.verify_crl(bed.root.id(), &old, NOW).is_err());
}
