//! Check-ins through a booster: what we say is sealed with our key, and what we hear is believed as
//! far as the origin's roster proves it.

mod doubt;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::trust::Revocation;
use certs::{Identity as Name, Role};
use content::statement::{Judge, Signature, Spoken, seal};
use member::Identity;
use protocol::{Code, ROSTER_FRESH_SECONDS};
use service::Clock;
use tokio::time::{Instant, sleep};
use transport::{CallError, Source};

use crate::choose::View;
use crate::session::Session;
use doubt::Asks;
pub(crate) use doubt::{Doubt, Proved};

/// The boosters that we speak through, and how. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Through {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    counter: AtomicU64,
    identity: Arc<Identity>,
    is_on: bool,
    run: [u8; 16],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The best first, and whether the origin is asked before each.
    boosters: Vec<(Arc<Booster>, bool)>,
    /// Where the last check-in was answered, if that was a booster.
    last: Option<Arc<Source>>,
    /// Since when boosters have put us off, and nobody has answered.
    put_off: Option<Instant>,
}

/// A booster that we may speak through.
#[derive(Debug)]
pub(crate) struct Booster {
    pub(crate) id: String,
    pub(crate) source: Arc<Source>,
    /// Until when it is left alone, after it failed us.
    shunned: Mutex<Option<Instant>>,
}

/// More are not worth the time that it takes to find them all out of reach.
const BOOSTERS_MAX: usize = 2;
/// For how long a booster that failed us is left alone.
const SHUN: Duration = Duration::from_secs(600);
/// How long boosters may put us off before the origin is asked: as long as a head is believed.
const PUT_OFF_MAX: Duration = Duration::from_secs(ROSTER_FRESH_SECONDS as u64);
/// How long it takes until somebody who has just come is on the roster, or a new manifest.
const JOIN_PAUSE: Duration = Duration::from_secs(2);
/// So often it is asked whether that has come about.
const JOIN_TRIES: u32 = 3;

impl Through {
    /// Speaks as the device of `session`; to nobody unless `is_on`.
    pub(crate) fn new(session: &Session, is_on: bool) -> Self {
        let mut run = [0; 16];
        run.fill_with(|| fastrand::u8(..));
        let shared = Shared {
            clock: session.clock.clone(),
            counter: AtomicU64::new(0),
            identity: Arc::clone(&session.identity),
            is_on,
            run,
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Goes by the boosters that `view` would have asked before the origin, as `session`.
    pub(crate) fn follow(&self, session: &Session, view: &View<'_>) {
        if !self.shared.is_on {
            return;
        }
        let mut state = self.state();
        let known = std::mem::take(&mut state.boosters);
        let (mut is_late, mut left) = (false, BOOSTERS_MAX);
        for entry in view.candidates() {
            is_late |= entry.role == Role::Origin;
            if entry.role == Role::Origin || entry.left_out.is_some() || left == 0 {
                continue;
            }
            left -= 1;
            if let Some((booster, _)) = known.iter().find(|(booster, _)| booster.id == entry.id) {
                booster.source.set_addresses(entry.addresses);
                state.boosters.push((Arc::clone(booster), is_late));
                continue;
            }
            let Ok(id) = entry.id.parse() else { continue };
            let name = Name {
                deployment: session.identity.name.deployment.clone(),
                role: Role::Booster,
                id,
            };
            let own = Some(&session.identity.cell);
            if let Ok(source) = session.source(name, entry.addresses, own, Revocation::Required) {
                let booster = Booster {
                    id: entry.id,
                    source: Arc::new(source),
                    shunned: Mutex::default(),
                };
                state.boosters.push((Arc::new(booster), is_late));
            }
        }
    }

    /// The boosters to try now, the best first, and those to try if the origin is out of reach.
    pub(crate) fn boosters(&self) -> (Vec<Arc<Booster>>, Vec<Arc<Booster>>) {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for (booster, is_late) in self.state().boosters.clone() {
            if is_late || booster.is_shunned() {
                later.push(booster);
            } else {
                now.push(booster);
            }
        }
        (now, later)
    }

    /// For how long at most a booster's `answer` puts us off, if we let ourselves be: it is the
    /// origin that has too much to do, or the site that is too hasty. Somebody who says so for ever
    /// only keeps us from what is new.
    pub(crate) fn puts_off(&self, answer: &CallError) -> Option<Duration> {
        answer.when_less_busy()?;
        let mut state = self.state();
        let since = *state.put_off.get_or_insert_with(Instant::now);
        let left = PUT_OFF_MAX.checked_sub(since.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    /// Takes note that a check-in was answered, by whomever.
    pub(crate) fn heard(&self) {
        self.state().put_off = None;
    }

    /// Takes note where a check-in was answered: there the wait is held.
    pub(crate) fn answered_by(&self, source: Option<&Arc<Source>>) {
        self.state().last = source.cloned();
    }

    /// Where the last check-in was answered, if that was a booster.
    pub(crate) fn last(&self) -> Option<Arc<Source>> {
        self.state().last.clone()
    }

    /// A check-in with the body `body`, sealed.
    pub(crate) fn seal(&self, body: Vec<u8>) -> Result<Vec<u8>, Doubt> {
        let shared = &self.shared;
        let identity = &shared.identity;
        let spoken = Spoken {
            deployment: identity.name.deployment.to_string(),
            device: identity.name.id.to_string(),
            run: shared.run,
            counter: shared.counter.fetch_add(1, Ordering::Relaxed),
            at: shared.clock.now(),
            body,
        };
        seal(&spoken, |message| {
            let signature = identity.key.sign(message);
            Ok(Signature {
                signature: signature.map_err(|error| Doubt::Key(Box::new(error)))?,
                chain: identity.cell.chain_der(),
                key_id: String::new(),
            })
        })
    }

    /// What `booster` proves that holds for us, who go by no manifest below `least`.
    pub(crate) async fn proved(
        &self,
        booster: &Booster,
        judge: &impl Judge,
        least: u64,
    ) -> Result<Proved, Doubt> {
        let asks = Asks {
            booster: &booster.id,
            device: self.shared.identity.name.id.as_str(),
            least,
            now: self.shared.clock.now(),
        };
        for _ in 1..JOIN_TRIES {
            match self.ask(booster, &asks, judge).await {
                Err(Doubt::Old { .. }) => {}
                Err(Doubt::Call(CallError::Fault { fault, .. }))
                    if fault.code == Code::NotFound => {}
                asked => return asked,
            }
            sleep(JOIN_PAUSE).await;
        }
        self.ask(booster, &asks, judge).await
    }

    async fn ask(
        &self,
        booster: &Booster,
        asks: &Asks<'_>,
        judge: &impl Judge,
    ) -> Result<Proved, Doubt> {
        asks.judge(booster.source.roster_proof().await?, judge)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Booster {
    /// Leaves it alone for a while.
    pub(crate) fn shun(&self) {
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        *shunned = Some(Instant::now() + SHUN);
    }

    /// It has done what was asked of it.
    pub(crate) fn forgive(&self) {
        *self.shunned.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_shunned(&self) -> bool {
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.is_some_and(|until| Instant::now() < until)
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Through").finish_non_exhaustive()
    }
}
