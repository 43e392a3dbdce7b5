//! What the booster does when it can no longer tell who has been revoked.
//!
//! ```text
//!          the next list is due            grace is over
//!  fresh ─────────────────────► grace ─────────────────► closed
//!    ▲  everybody who may         │  who was seen before    │  nobody
//!    │                            │  gets what is cached    │
//!    └──────── a new list ────────┴─────────────────────────┘
//! ```
//!
//! Nothing here opens a door: whoever is on the last list stays out, however old it is.

mod seen;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use certs::crl::Freshness;
use certs::trust::Basis;
use certs::{CaCert, CaKind, Peer, RefusalReason, Trust, Verdict};
use jiff::Timestamp;
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::Clock;
use service::ops::Check;
use tracing::{error, info, warn};
use transport::{Handshake, Refusals, Refused, Session};

use crate::metrics::Metrics;
use crate::revocation::ca_label;
pub(crate) use seen::{Seen, Visitor};

/// How far the booster can tell who has been revoked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its lists are up to date.
    Fresh,
    /// A list is overdue, for no longer than the operator puts up with: those who were seen before
    /// get what is cached.
    Grace,
    /// A list is missing, or overdue for longer: nobody is let in.
    Closed,
}

impl Phase {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Grace, Self::Closed];

    /// Its name in metrics and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Grace => "grace",
            Self::Closed => "closed",
        }
    }
}

/// The phase, and what will happen when if no new list comes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outlook {
    /// The phase.
    pub phase: Phase,
    /// When the first list is overdue, in Unix seconds; none if one is missing or known to be
    /// outdated.
    pub due_at: Option<i64>,
    /// From when on nobody is let in, in Unix seconds; none as above.
    pub closed_at: Option<i64>,
}

impl Outlook {
    /// The outlook at `now` (Unix seconds), with lists that count for `grace` after their next was
    /// due: that of the worst list by which clients are judged.
    pub(crate) fn of(trust: &Trust, grace: Duration, now: i64) -> Self {
        let mut outlook = Self {
            phase: Phase::Fresh,
            due_at: Some(i64::MAX),
            closed_at: None,
        };
        let mut judged = false;
        let judging: Vec<_> = judging(trust, now).collect();
        let listed = |ca: &CaCert| trust.crls().current(ca.id()).is_some();
        for ca in &judging {
            // A CA that was announced a moment ago: until its list is here, those whom it certifies
            // are refused one by one, and nobody else.
            let mut like_it = judging.iter().filter(|other| other.kind() == ca.kind());
            if !listed(ca) && like_it.any(|other| listed(other)) {
                continue;
            }
            judged |= ca.kind() == Some(CaKind::Client);
            let crl = trust.crls().current(ca.id());
            let due_at = crl.map(|crl| crl.next_update());
            let phase = match trust.crls().freshness(ca.id(), now) {
                Freshness::Fresh => Phase::Fresh,
                Freshness::Grace => Phase::Grace,
                Freshness::Stale | Freshness::Missing => Phase::Closed,
            };
            outlook.due_at = outlook
                .due_at
                .zip(due_at)
                .map(|(one, other)| one.min(other));
            outlook.phase = worse(outlook.phase, phase);
        }
        if !judged {
            (outlook.phase, outlook.due_at) = (Phase::Closed, None);
        }
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        outlook.closed_at = outlook.due_at.map(|due| due.saturating_add(grace));
        // Dates that still lie ahead say nothing of a list that the origin has gone beyond.
        if outlook.phase == Phase::Closed && outlook.closed_at.is_some_and(|at| now <= at) {
            (outlook.due_at, outlook.closed_at) = (None, None);
        }
        outlook
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (due, closed) = (self.due_at.map(day), self.closed_at.map(day));
        match (self.phase, due, closed) {
            (Phase::Fresh, Some(due), Some(closed)) if due == closed => {
                write!(f, "fresh; without a new list nobody is let in after {due}")
            }
            (Phase::Fresh, Some(due), Some(closed)) => write!(
                f,
                "fresh; without a new list only clients that were seen before get what is cached \
                 after {due}, and nobody is let in after {closed}"
            ),
            (Phase::Grace, Some(due), Some(closed)) => write!(
                f,
                "grace since {due}: only clients that were seen before are let in, to what is \
                 cached; without a new list nobody is let in after {closed}"
            ),
            (Phase::Closed, _, Some(closed)) => write!(
                f,
                "closed since {closed}: nobody is let in until a new list comes"
            ),
            (Phase::Fresh | Phase::Grace | Phase::Closed, ..) => f.write_str(
                "closed: a list is missing, or the origin has a newer one; nobody is let in until \
                 it comes",
            ),
        }
    }
}

/// Decides by the outlook. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Offline {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    grace: Duration,
    /// The last outlook, which every request wants to know.
    last: ArcSwapOption<Last>,
    metrics: Metrics,
    refusals: Refusals,
    seen: Seen,
    /// The phase that was told last.
    told: Mutex<Option<Phase>>,
    trust: Arc<Trust>,
}

/// An outlook, and what it was derived from.
#[derive(Debug)]
struct Last {
    basis: Basis,
    now: i64,
    outlook: Outlook,
}

impl Offline {
    pub(crate) fn new(
        trust: &Arc<Trust>,
        grace: Duration,
        clock: &Clock,
        seen: Seen,
        refusals: &Refusals,
        metrics: &Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: clock.clone(),
                grace,
                last: ArcSwapOption::empty(),
                metrics: metrics.clone(),
                refusals: refusals.clone(),
                seen,
                told: Mutex::new(None),
                trust: Arc::clone(trust),
            }),
        }
    }

    /// How things stand now.
    pub(crate) fn outlook(&self) -> Outlook {
        let Shared {
            clock,
            grace,
            last,
            trust,
            ..
        } = &*self.shared;
        let now = clock.now();
        if let Some(last) = &*last.load()
            && last.now == now
            && trust.stands_on(&last.basis)
        {
            return last.outlook;
        }
        // Taken first: if something changes meanwhile, the outlook is made anew next time.
        let basis = trust.basis();
        let outlook = Outlook::of(trust, *grace, now);
        last.store(Some(Arc::new(Last {
            basis,
            now,
            outlook,
        })));
        outlook
    }

    /// Those who have been let in.
    pub(crate) fn seen(&self) -> &Seen {
        &self.shared.seen
    }

    /// Takes note of a client whose certificate has been accepted.
    pub(crate) fn accepted(&self, session: &Session) {
        // In grace nobody becomes known: that its certificate verified is not enough then.
        if let Some(peer) = session.peer()
            && self.outlook().phase == Phase::Fresh
        {
            let now = self.shared.clock.now();
            self.shared.seen.note(&Visitor::of(peer), now);
        }
    }

    /// Whether a request of `session` is answered, and in which phase.
    ///
    /// # Errors
    ///
    /// Says why not; the session is asked to leave, and the refusal is noted.
    pub(crate) fn admit(&self, session: &Session) -> Result<Phase, Fault> {
        let outlook = self.outlook();
        match outlook.phase {
            Phase::Fresh => return Ok(Phase::Fresh),
            Phase::Grace if session.peer().is_some_and(|peer| self.knows(peer)) => {
                return Ok(Phase::Grace);
            }
            // The listener's own gate comes before this one, and may have looked a moment earlier.
            Phase::Grace | Phase::Closed => {}
        }
        self.refuse(session);
        session.retire();
        let detail = "the booster's revocation lists are overdue: it lets in only clients that \
                      it has seen before";
        Err(Fault::new(Code::Forbidden, detail))
    }

    /// Whether that client has been let in before, by this certificate or an older one for its
    /// key, which has not been revoked since: nobody comes back by a key that was given away.
    fn knows(&self, peer: &Peer) -> bool {
        let Shared {
            clock, seen, trust, ..
        } = &*self.shared;
        seen.last_visit(&Visitor::of(peer)).is_some_and(|visit| {
            let verdict = trust.crls().lookup(visit.issuer, visit.serial, clock.now());
            !matches!(verdict, Verdict::Revoked { .. })
        })
    }

    /// Tells of a refusal, once for each session, however often it asks.
    fn refuse(&self, session: &Session) {
        if !session.ends_unheard() {
            return;
        }
        let reason = RefusalReason::CrlStale;
        let refused = &self.shared.metrics.handshakes_refused;
        refused.with_label_values(&[reason.as_str()]).inc();
        self.shared.refusals.note(&Refused {
            remote: session.remote(),
            by_peer: false,
            reason,
            stage: Handshake::InSession,
            possession_proved: true,
            evidence: None,
            peer: session.peer().cloned(),
        });
    }

    /// Shows how things stand: in the metrics, on the health page, and in the log if that is news.
    pub(crate) fn show(&self, check: &Check) {
        let outlook = self.outlook();
        self.show_numbers(outlook.phase);
        match outlook.phase {
            Phase::Fresh => check.pass(),
            Phase::Grace => drop(check.degrade(outlook.to_string())),
            Phase::Closed => drop(check.fail(outlook.to_string())),
        }
        if self.told().replace(outlook.phase) == Some(outlook.phase) {
            return;
        }
        let state = outlook.phase.as_str();
        match outlook.phase {
            Phase::Fresh => info!(state, "the revocation lists are {outlook}"),
            Phase::Grace => warn!(state, "the revocation lists are overdue: {outlook}"),
            Phase::Closed => error!(state, "the revocation lists are of no use: {outlook}"),
        }
    }

    fn show_numbers(&self, phase: Phase) {
        let Shared {
            clock,
            metrics,
            trust,
            ..
        } = &*self.shared;
        for each in Phase::ALL {
            let gauge = metrics.revocation_state.with_label_values(&[each.as_str()]);
            gauge.set(i64::from(each == phase));
        }
        let now = clock.now();
        for ca in trust.roots().into_iter().chain(trust.issuing_cas()) {
            if let Some(crl) = trust.crls().current(ca.id()) {
                let age = metrics.crl_age.with_label_values(&[ca_label(ca.kind())]);
                age.set(now.saturating_sub(crl.this_update()).max(0));
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<Phase>> {
        let told = self.shared.told.lock();
        told.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CAs by whose lists clients are judged, as far as they still certify anybody at `now`.
fn judging(trust: &Trust, now: i64) -> impl Iterator<Item = Arc<CaCert>> {
    let cas = trust.roots().into_iter().chain(trust.issuing_cas());
    cas.filter(move |ca| matches!(ca.kind(), None | Some(CaKind::Client)) && ca.is_in_date(now))
}

fn worse(one: Phase, other: Phase) -> Phase {
    let rank = |phase: Phase| Phase::ALL.iter().position(|each| *each == phase);
    if rank(one) < rank(other) { other } else { one }
}

fn day(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
