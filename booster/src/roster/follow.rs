//! Follows the roster: one wait at the origin, and who has come since.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::durable::{self, Disk as _, RealDisk};
use content::statement::{Payload as _, RosterHead, Statement};
use content::{Digest, Roster, RosterTree};
use protocol::Relayed;
use service::{CancellationToken, Report};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use transport::Backoff;

use super::{Held, RosterError, Rosters, Shared};
use crate::cache::off_runtime;

/// When the origin was asked for the roster, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Since when it is being asked.
    begun: Option<Instant>,
    /// The last time that this came to an end.
    last: Option<Last>,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
struct Last {
    begun: Instant,
    ended: Instant,
    is_answered: bool,
}

/// The file of the last roster in the folder of the state: when it was judged to hold (8 bytes), the
/// length of its head (4 bytes), its head, its list.
const FILE: &str = "roster";
/// A head that we have had for so long is asked for anew; the origin signs one as often.
const HEAD_AGE: Duration = Duration::from_secs(600);
/// How often those who are refused make us ask whether something has changed.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// The same, while the origin is out of reach.
const DOUBT_PAUSE_FAILED: Duration = Duration::from_secs(10);
/// How long they wait for that.
const DOUBT_PATIENCE: Duration = Duration::from_secs(5);
/// Those who come together are told of together.
const JOIN_PAUSE: Duration = Duration::from_millis(100);
/// How long after the origin was asked those who come are told of: each time the list is another.
const JOIN_SPACING: Duration = Duration::from_secs(2);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);

impl Rosters {
    /// Follows the roster until it is asked to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            let followed = tokio::select! {
                followed = self.follow() => followed,
                () = stop.cancelled() => return,
            };
            let Err(failure) = followed else {
                backoff.succeeded();
                continue;
            };
            debug!(error = %Report(&*failure), "cannot follow the roster");
            let asked = match &*failure {
                RosterError::Call(call) => call.when_less_busy(),
                RosterError::Bad(_)
                | RosterError::Disk(_)
                | RosterError::Statement(_)
                | RosterError::Stopping => None,
            };
            let wait = asked.unwrap_or_else(|| backoff.failed(fastrand::f64()));
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Asks for the roster if it is due, else waits for another one or for somebody who comes.
    async fn follow(&self) -> Result<(), Arc<RosterError>> {
        let is_fresh = |held: &Arc<Held>| held.taken.is_some_and(|at| at.elapsed() < HEAD_AGE);
        let Some(held) = self.held().filter(is_fresh) else {
            return self.ask().await;
        };
        let origin = &self.shared.parts.origin;
        tokio::select! {
            news = origin.wait_for_roster(&held.head.list) => {
                // What it brings may be older than what somebody who doubted has been told
                // meanwhile. One question at a time, and answers have an order.
                if news.map_err(RosterError::from)? {
                    self.ask().await
                } else {
                    Ok(())
                }
            }
            () = self.shared.joined.notified() => {
                sleep(self.shared.join_pause()).await;
                self.ask().await
            }
        }
    }

    /// Finds out what holds now, not what held a moment before somebody came to ask; however many
    /// doubt, the origin is asked once in [`DOUBT_PAUSE`] at most. Whether we know.
    pub(super) async fn doubt(&self) -> bool {
        let came = Instant::now();
        let since = self.shared.asked().begun.map(|begun| begun.elapsed());
        let patience = DOUBT_PATIENCE.saturating_sub(since.unwrap_or_default());
        let knows = timeout(patience, self.know_since(came)).await;
        knows.unwrap_or(false)
    }

    /// Asks until an answer says what held at `came` or later.
    async fn know_since(&self, came: Instant) -> bool {
        let never = self.held().is_none();
        loop {
            let last = self.shared.asked().last;
            match last {
                // Whoever does not know when it will know holds up nobody.
                Some(last) if !last.is_answered && never => return false,
                Some(last) if !last.is_answered && last.ended.elapsed() < DOUBT_PAUSE_FAILED => {
                    return false;
                }
                Some(last) if last.is_answered && last.begun >= came => return true,
                Some(last) if last.is_answered => sleep_until(last.ended + DOUBT_PAUSE).await,
                Some(_) | None => {}
            }
            if self.ask().await.is_err() {
                return false;
            }
        }
    }

    /// Asks for the roster, once for all who want that.
    async fn ask(&self) -> Result<(), Arc<RosterError>> {
        let asked = self.shared.asks.run((), || {
            let this = self.clone();
            async move {
                let begun = Instant::now();
                this.shared.asked().begun = Some(begun);
                let refreshed = this.refresh().await;
                *this.shared.asked() = Asked {
                    begun: None,
                    last: Some(Last {
                        begun,
                        ended: Instant::now(),
                        is_answered: refreshed.is_ok(),
                    }),
                };
                refreshed.map_err(Arc::new)
            }
        });
        let asked = asked.await;
        asked.unwrap_or_else(|| Err(Arc::new(RosterError::Stopping)))
    }

    /// Tells of those who have come, and takes the roster that then holds.
    async fn refresh(&self) -> Result<(), RosterError> {
        let (origin, devices) = (&self.shared.parts.origin, &self.shared.devices);
        let before = self.held();
        self.tell_of(&devices.to_tell(Instant::now())).await?;
        self.take(origin.roster().await?).await?;
        // After a start of the origin, it has forgotten who comes here.
        let Some(held) = self.held() else {
            return Ok(());
        };
        let before = before.as_deref().map(Held::roster);
        let missing = devices.missing(held.roster(), before, Instant::now());
        if missing.is_empty() {
            return Ok(());
        }
        self.tell_of(&missing).await?;
        self.take(origin.roster().await?).await
    }

    async fn tell_of(&self, ids: &[String]) -> Result<(), RosterError> {
        for part in ids.chunks(Relayed::JOINED_MAX) {
            let relayed = Relayed {
                messages: Vec::new(),
                joined: part.to_vec(),
            };
            self.shared.parts.origin.pass_on(&relayed).await?;
            self.shared.devices.told(part, Instant::now());
        }
        Ok(())
    }

    /// Takes a head from the origin, with the list that it names.
    async fn take(&self, envelope: Bytes) -> Result<(), RosterError> {
        let parts = &self.shared.parts;
        let head = self.judge(&envelope, parts.clock.now())?;
        let before = self.held();
        let known = before.clone().filter(|held| held.head.list == head.list);
        let tree = match known {
            Some(held) => Arc::clone(&held.tree),
            None => {
                let list = head.list;
                let bytes = parts.origin.statement(&list, Roster::BYTES_MAX).await?;
                let read = off_runtime(move || read_list(&bytes, list)).await;
                let read = read.ok_or(RosterError::Stopping)?;
                read.ok_or(RosterError::Bad("another list came"))?
            }
        };
        let is_news = before.is_none_or(|before| {
            before.head.list != head.list || (before.head.model == 0) != (head.model == 0)
        });
        let held = Arc::new(Held {
            head,
            envelope,
            tree,
            taken: Some(Instant::now()),
        });
        self.show(&held)?;
        if is_news {
            let (devices, model) = (held.head.count, held.head.model);
            info!(devices, model, "another roster");
        }
        if is_news || !self.shared.is_kept.load(Ordering::Relaxed) {
            self.keep(held).await;
        }
        Ok(())
    }

    fn judge(&self, envelope: &[u8], at: i64) -> Result<Statement<RosterHead>, RosterError> {
        let parts = &self.shared.parts;
        let head = Statement::<RosterHead>::open(envelope, &parts.judge, at)?;
        if head.booster != parts.id {
            return Err(RosterError::Bad("it is for another booster"));
        }
        Ok(head)
    }

    fn show(&self, held: &Arc<Held>) -> Result<(), RosterError> {
        let count = held.roster().entries().len() as u64;
        if (held.tree.root(), count) != (held.head.root, held.head.count) {
            return Err(RosterError::Bad("its root is another one"));
        }
        let metrics = &self.shared.parts.metrics;
        metrics
            .devices
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        metrics.issued.set(held.head.issued);
        self.shared.held.send_replace(Some(Arc::clone(held)));
        Ok(())
    }

    /// Keeps a roster for the next start, which may find the origin out of reach. It is one file: a
    /// crash leaves the one before, which still says what was allowed.
    async fn keep(&self, held: Arc<Held>) {
        let path = self.shared.parts.folder.join(FILE);
        let write = move || {
            let length = u32::try_from(held.envelope.len()).unwrap_or(u32::MAX);
            // When it was judged to hold stands before it: so it still says what was allowed,
            // whatever has run out by the next start.
            let mut bytes = held.head.issued.to_be_bytes().to_vec();
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&held.envelope);
            bytes.extend_from_slice(&held.roster().encode());
            durable::write(&RealDisk, &path, &bytes, 0o600)
        };
        let written = off_runtime(write).await;
        if let Some(Err(error)) = &written {
            warn!(%error, "the next start will not know this roster");
        }
        let is_kept = matches!(written, Some(Ok(_)));
        self.shared.is_kept.store(is_kept, Ordering::Relaxed);
    }

    /// Takes up what the last run knew. Where that cannot be used, nobody has forgotten that there
    /// was something.
    pub(super) async fn recall(&self) {
        let (this, path) = (self.clone(), self.shared.parts.folder.join(FILE));
        let recalled = off_runtime(move || {
            let most = RosterHead::ENVELOPE_BYTES_MAX + Roster::BYTES_MAX + 12;
            match RealDisk.read(&path, most as u64) {
                Ok(Some(bytes)) => this.recalled(&bytes),
                Ok(None) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        if let Some(Err(failure)) = recalled.await {
            warn!(error = %Report(&failure), "cannot use the last roster");
            self.shared.is_lost.store(true, Ordering::Relaxed);
        }
    }

    fn recalled(&self, bytes: &[u8]) -> Result<(), RosterError> {
        let cut = || RosterError::Bad("its file is cut off");
        let (issued, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (envelope, list) = rest.split_at_checked(length).ok_or_else(cut)?;
        let head = self.judge(envelope, i64::from_be_bytes(*issued))?;
        let tree = read_list(list, head.list);
        let tree = tree.ok_or(RosterError::Bad("its list is another one"))?;
        self.show(&Arc::new(Held {
            head,
            envelope: Bytes::copy_from_slice(envelope),
            tree,
            taken: None,
        }))
    }
}

impl Shared {
    pub(super) fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before those who have come are told of.
    fn join_pause(&self) -> Duration {
        let last = self.asked().last;
        let since = last.map_or(JOIN_SPACING, |last| last.ended.elapsed());
        JOIN_SPACING.saturating_sub(since).max(JOIN_PAUSE)
    }
}

/// Reads the list that is called `list`, and computes its tree. Takes milliseconds.
fn read_list(bytes: &[u8], list: Digest) -> Option<Arc<RosterTree>> {
    let roster = (Digest::of(bytes) == list).then(|| Roster::decode(bytes).ok());
    Some(Arc::new(RosterTree::new(roster.flatten()?)))
}
