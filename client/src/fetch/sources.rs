//! The sources of a pull in order of preference, and why some are gone round.

use std::error::Error;
use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::report::BypassReason;
use serde::Serialize;
use service::Report;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::supply::{Ask, Supply, SupplyError};

/// The sources of one pull. Whoever failed a check is asked no more; whoever does not answer is
/// asked a few times.
#[derive(Debug)]
pub(crate) struct Sources<S> {
    slots: Vec<Slot<S>>,
    /// Half of the first pause before a source is asked again.
    pause: Duration,
}

/// One source.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    /// The source itself.
    pub(crate) supply: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pack_bytes: u64,
    other_bytes: u64,
    strikes: u32,
    /// When the first of them was.
    struck: Option<Instant>,
    bypass: Option<Bypass>,
}

/// Why a source was gone round.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Bypass {
    /// The source: role and id.
    pub source: String,
    /// The check that it failed; none if it was out of reach or refused.
    pub check: Option<String>,
    /// Why, in a word.
    pub code: BypassReason,
    /// What happened, for a person.
    pub reason: String,
}

/// What came from one source.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// The source: role and id.
    pub source: String,
    /// Bytes of packs.
    pub pack_bytes: u64,
    /// Bytes of everything else: statements, lists, index roots.
    pub other_bytes: u64,
}

impl Bypass {
    /// The booster's id; none if it was the origin that was gone round.
    pub(crate) fn booster(&self) -> Option<&str> {
        self.source.strip_prefix(BOOSTER)
    }
}

impl Traffic {
    /// The booster's id; none if it was not a booster that this came from.
    pub(crate) fn booster(&self) -> Option<&str> {
        self.source.strip_prefix(BOOSTER)
    }
}

/// How the name of a source begins that is a booster.
const BOOSTER: &str = "booster ";

/// What a source delivered was not what it was asked for.
#[derive(Debug)]
pub(crate) struct CheckFailed {
    /// The check, in a word or two.
    pub(crate) check: &'static str,
    /// What was wrong.
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

impl CheckFailed {
    /// A failure of `check`.
    pub(crate) fn new(check: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            check,
            source: Box::new(source),
        }
    }
}

impl<S: Supply> Sources<S> {
    /// These sources, the best first.
    pub(crate) fn new(supplies: Vec<S>) -> Self {
        let slots = supplies.into_iter().map(|supply| Slot {
            supply,
            state: Mutex::default(),
        });
        Self {
            slots: slots.collect(),
            pause: RETRY_PAUSE,
        }
    }

    /// The same, with pauses that a test does not notice.
    #[cfg(test)]
    pub(crate) fn hasty(supplies: Vec<S>) -> Self {
        Self {
            pause: Duration::from_micros(10),
            ..Self::new(supplies)
        }
    }

    /// The best source that has not been gone round.
    pub(crate) fn best(&self) -> Option<&Slot<S>> {
        self.slots.iter().find(|slot| slot.lock().bypass.is_none())
    }

    /// Asks one source after the other until what comes passes `check`.
    pub(crate) async fn get<T>(
        &self,
        ask: Ask,
        check: impl Fn(&[u8]) -> Result<T, CheckFailed>,
    ) -> Result<T, NoSource> {
        while let Some(slot) = self.best() {
            if let Some(value) = self.try_slot(slot, ask, &check).await {
                return Ok(value);
            }
        }
        Err(self.exhausted(ask.name()))
    }

    /// Asks one source after the other until what comes is as `good` as it can be. If nobody has
    /// that, the first that passes `check` will do.
    pub(crate) async fn get_best<T>(
        &self,
        ask: Ask,
        check: impl Fn(&[u8]) -> Result<T, CheckFailed>,
        good: impl Fn(&T) -> bool,
    ) -> Result<T, NoSource> {
        let mut makeshift = None;
        for slot in &self.slots {
            while slot.lock().bypass.is_none() {
                match self.try_slot(slot, ask, &check).await {
                    Some(value) if good(&value) => return Ok(value),
                    Some(value) => {
                        makeshift.get_or_insert(value);
                        break;
                    }
                    None => {}
                }
            }
        }
        makeshift.ok_or_else(|| self.exhausted(ask.name()))
    }

    /// [`Sources::get`] with a `check` that takes long: it is made off the runtime.
    pub(crate) async fn get_aside<T: Send + 'static>(
        &self,
        ask: Ask,
        check: impl Fn(&[u8]) -> Result<T, CheckFailed> + Send + Sync + 'static,
    ) -> Result<T, NoSource> {
        let check = Arc::new(check);
        while let Some(slot) = self.best() {
            let Some(bytes) = self.answer(slot, ask).await else {
                continue;
            };
            let check = Arc::clone(&check);
            match spawn_blocking(move || check(&bytes)).await {
                Ok(checked) => {
                    if let Some(value) = slot.settle(checked) {
                        return Ok(value);
                    }
                }
                Err(failed) if failed.is_panic() => panic::resume_unwind(failed.into_panic()),
                // The program is ending.
                Err(_) => break,
            }
        }
        Err(self.exhausted(ask.name()))
    }

    /// Asks `slot` once. None if nothing came that passes `check`; the source has paid for it then.
    async fn try_slot<T>(
        &self,
        slot: &Slot<S>,
        ask: Ask,
        check: &impl Fn(&[u8]) -> Result<T, CheckFailed>,
    ) -> Option<T> {
        let bytes = self.answer(slot, ask).await?;
        slot.settle(check(&bytes))
    }

    /// What `slot` answers, asked once. None if it does not; it has paid for it then.
    async fn answer(&self, slot: &Slot<S>, ask: Ask) -> Option<Vec<u8>> {
        let time_max = time_max(ask);
        match timeout(time_max, slot.supply.get(ask)).await {
            Ok(Ok(bytes)) => {
                slot.count(0, bytes.len());
                return Some(bytes);
            }
            Ok(Err(error)) => self.strike(slot, &error).await,
            Err(_) => {
                self.strike(slot, &slow("the answer took over", time_max))
                    .await;
            }
        }
        None
    }

    /// `slot` did not answer or refused. If that may change, waits a little; if it happens too
    /// often, or will not change, it is asked no more. The last source gets more patience: it may
    /// be an origin that is starting again.
    pub(crate) async fn strike(&self, slot: &Slot<S>, error: &SupplyError) {
        let (strikes, since) = {
            let mut state = slot.lock();
            state.strikes += 1;
            let struck = *state.struck.get_or_insert_with(Instant::now);
            (state.strikes, struck.elapsed())
        };
        let others = self
            .slots
            .iter()
            .filter(|slot| slot.lock().bypass.is_none());
        // Counted in time and not in strikes: several packs may meet with one broken line at once.
        let patience = if others.count() > 1 {
            PATIENCE
        } else {
            LAST_PATIENCE
        };
        if !error.is_retryable || since >= self.pause * patience {
            let reason = Report(error.source.as_ref()).to_string();
            slot.bypass(error.check, error.reason, reason);
        } else {
            let pause = self.pause.saturating_mul(1 << strikes.min(8));
            sleep(
                pause
                    .min(RETRY_PAUSE_MAX)
                    .mul_f64(0.5 + fastrand::f64() / 2.0),
            )
            .await;
        }
    }

    /// That no source is left from which to get `what`.
    pub(crate) fn exhausted(&self, what: &str) -> NoSource {
        NoSource {
            what: what.to_owned(),
            bypasses: self.bypasses(),
        }
    }

    /// Which sources were gone round, and why.
    pub(crate) fn bypasses(&self) -> Vec<Bypass> {
        let bypasses = self
            .slots
            .iter()
            .filter_map(|slot| slot.lock().bypass.clone());
        bypasses.collect()
    }

    /// What came from which source.
    pub(crate) fn traffic(&self) -> Vec<Traffic> {
        let traffic = self.slots.iter().map(|slot| {
            let state = slot.lock();
            Traffic {
                source: slot.supply.name().to_owned(),
                pack_bytes: state.pack_bytes,
                other_bytes: state.other_bytes,
            }
        });
        traffic.collect()
    }
}

impl<S: Supply> Slot<S> {
    /// Counts bytes that came.
    pub(crate) fn count(&self, pack_bytes: usize, other_bytes: usize) {
        let mut state = self.lock();
        state.pack_bytes += pack_bytes as u64;
        state.other_bytes += other_bytes as u64;
    }

    /// Praises or blames it for how a check has ended.
    fn settle<T>(&self, checked: Result<T, CheckFailed>) -> Option<T> {
        match checked {
            Ok(value) => {
                self.praise();
                Some(value)
            }
            Err(failed) => {
                self.blame(&failed);
                None
            }
        }
    }

    /// It did what it was asked for: earlier trouble is forgotten.
    pub(crate) fn praise(&self) {
        let mut state = self.lock();
        state.strikes = 0;
        state.struck = None;
    }

    /// It delivered something wrong: it is asked no more.
    pub(crate) fn blame(&self, failed: &CheckFailed) {
        let reason = format!(
            "{} check failed: {}",
            failed.check,
            Report(failed.source.as_ref())
        );
        self.bypass(Some(failed.check), BypassReason::BadContent, reason);
    }

    fn bypass(&self, check: Option<&'static str>, code: BypassReason, reason: String) {
        let source = self.supply.name().to_owned();
        let mut state = self.lock();
        if state.bypass.is_none() {
            warn!(%source, %reason, "going round a source");
            state.bypass = Some(Bypass {
                source,
                check: check.map(str::to_owned),
                code,
                reason,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters are never half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an answer may take, if all of it is as long as it may be. Whether the source gets on
/// with it is for whoever reads it to see: a supply gives up a source that falls silent.
fn time_max(ask: Ask) -> Duration {
    ANSWER_TIME_MAX + Duration::from_secs(ask.bytes_max() as u64 / RATE_MIN)
}

/// That a source took too long: what happened, and for how long.
pub(crate) fn slow(what: &str, time: Duration) -> SupplyError {
    SupplyError {
        is_retryable: true,
        code: None,
        check: None,
        reason: BypassReason::Timeout,
        source: format!("{what} {} seconds", time.as_secs()).into(),
    }
}

/// No source is left.
#[derive(Debug, Error)]
#[error("cannot get the {what} from any source{}", reasons(bypasses))]
pub struct NoSource {
    what: String,
    bypasses: Vec<Bypass>,
}

impl NoSource {
    /// Why each source was gone round.
    #[must_use]
    pub fn bypasses(&self) -> &[Bypass] {
        &self.bypasses
    }
}

fn reasons(bypasses: &[Bypass]) -> String {
    let reasons = bypasses
        .iter()
        .map(|bypass| format!("; {}: {}", bypass.source, bypass.reason));
    reasons.collect()
}

/// How long a source may be silent. A booster that is filling answers within this even over a
/// branch line of 1 Mbit/s: a header and a frame.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// How many bytes a second are enough: a line of 64 kbit/s, the thinnest that is thought of.
const RATE_MIN: u64 = 8 << 10;
/// How long a source may fail to answer, in pauses: three seconds.
const PATIENCE: u32 = 30;
/// The same for the last source: forty seconds, in which an origin starts again.
const LAST_PATIENCE: u32 = 400;
/// Half of the first pause; each doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Sources that several tasks share.
pub(crate) type Shared<S> = Arc<Sources<S>>;
