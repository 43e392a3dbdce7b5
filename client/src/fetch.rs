//! Fetching packs: several at once, each verified as it comes, resumed from what was verified
//! before, and from the next source when one fails.

pub(crate) mod downloads;
pub(crate) mod reader;
pub(crate) mod receive;
pub(crate) mod sources;
pub(crate) mod stale;
pub(crate) mod supply;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use content::FilesetName;
use content::locator::{Locator, PackEntry};
use content::pack::PackHeader;
use content::plan::Fetch;
use service::Report;
use thiserror::Error;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::plan::Demand;
use crate::progress::Progress;
use downloads::{Downloads, Part, PartError};
use reader::{Arrivals, EndGuard};
use receive::{ReceiveError, Receiver};
use sources::{ANSWER_TIME_MAX, CheckFailed, NoSource, Shared, Slot, slow};
use supply::{Body as _, Supply, SupplyError};

/// What fetching needs to know.
pub(crate) struct Fetcher<S> {
    /// Whom to ask.
    pub(crate) sources: Shared<S>,
    /// Where to keep what comes.
    pub(crate) downloads: Downloads,
    /// The fileset.
    pub(crate) fileset: FilesetName,
    /// Who watches.
    pub(crate) progress: Arc<Progress>,
}

impl<S: Supply> Fetcher<S> {
    /// Fetches all of `demand`, in the locator's order. Tells `arrivals` of each pack, and of the
    /// end.
    pub(crate) async fn fetch(
        self: Arc<Self>,
        locator: &Locator,
        demand: &Demand,
        arrivals: Arc<Arrivals>,
    ) -> Result<(), FetchError> {
        self.fetch_by(PACKS_AT_ONCE, locator, demand, arrivals)
            .await
    }

    /// The same, one pack at a time: nobody waits for it, and others may want the line.
    pub(crate) async fn fetch_gently(
        self: Arc<Self>,
        locator: &Locator,
        demand: &Demand,
    ) -> Result<(), FetchError> {
        let arrivals = Arc::new(Arrivals::new(locator.packs.len()));
        self.fetch_by(1, locator, demand, arrivals).await
    }

    async fn fetch_by(
        self: Arc<Self>,
        at_once: usize,
        locator: &Locator,
        demand: &Demand,
        arrivals: Arc<Arrivals>,
    ) -> Result<(), FetchError> {
        let _end = EndGuard(Arc::clone(&arrivals));
        let mut packs = demand.needs().packs();
        let mut running = JoinSet::new();
        loop {
            while running.len() < at_once
                && let Some(pack) = packs.next()
            {
                let wish = Wish::of(locator, demand, pack);
                let (fetcher, arrivals) = (Arc::clone(&self), Arc::clone(&arrivals));
                running.spawn(async move {
                    fetcher.pack(wish).await?;
                    arrivals.arrived(pack);
                    Ok::<_, FetchError>(())
                });
            }
            match running.join_next().await {
                Some(ended) => ended.map_err(|source| FetchError::Task { source })??,
                None => return Ok(()),
            }
        }
    }

    /// Fetches what is wished of one pack.
    async fn pack(&self, wish: Wish) -> Result<(), FetchError> {
        let wish = Arc::new(wish);
        let (downloads, wished) = (self.downloads.clone(), Arc::clone(&wish));
        let mut part = off_the_runtime(move || {
            let mut part = downloads.part(&wished.entry)?;
            let frames = part.header().map(|header| wished.frames(header));
            part.look(&frames.unwrap_or_default());
            Ok::<_, PartError>(part)
        })
        .await??;
        let mut complained: Option<(&str, CheckFailed)> = None;
        while let Some(range) = wish.next(&part) {
            let slot = self
                .sources
                .best()
                .ok_or_else(|| self.sources.exhausted(&format!("pack {}", wish.entry.id)))?;
            let ended;
            let source = slot.supply.name();
            let doubted = complained.as_ref().is_some_and(|(name, _)| *name == source);
            (part, ended) = self.ask(slot, part, range, doubted).await?;
            match ended {
                Ok(()) => slot.praise(),
                // It may be its disk, of which it does not know yet.
                Err(Trouble::Wrong(failed)) if !doubted => {
                    let (check, error) = (failed.check, Report(failed.source.as_ref()));
                    warn!(source, check, %error, "asking a source to look at a pack again");
                    complained = Some((source, failed));
                }
                Err(Trouble::Wrong(failed)) => slot.blame(&failed),
                Err(Trouble::Silent(error)) => match complained.take() {
                    // That it was wrong before says more than that it now refuses.
                    Some((_, failed)) if doubted && !error.is_retryable => slot.blame(&failed),
                    others => {
                        complained = others;
                        self.sources.strike(slot, &error).await;
                    }
                },
            }
        }
        Ok(())
    }

    /// Asks one source for one run of bytes, and to look at them first if they were `doubted`;
    /// gives back the pack with what has come of it.
    async fn ask(
        &self,
        slot: &Slot<S>,
        part: Part,
        range: Range<u64>,
        doubted: bool,
    ) -> Result<(Part, Result<(), Trouble>), FetchError> {
        let entry = *part.entry();
        let whole = range == (0..u64::from(entry.total_bytes));
        let asked = (!whole).then(|| range.clone());
        let answer = slot.supply.pack(&self.fileset, entry.id, asked, doubted);
        let mut body = match timeout(ANSWER_TIME_MAX, answer).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Ok((part, Err(Trouble::Silent(error)))),
            Err(_) => return Ok((part, Err(silent()))),
        };
        let mut receiver = Receiver::new(part, range.start, range.end);
        let mut patience = Patience::default();
        loop {
            let piece = match patience.wait(body.next()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    return Ok((receiver.into_part(), Err(Trouble::Silent(error))));
                }
                Err(_) => return Ok((receiver.into_part(), Err(silent()))),
            };
            patience.got(piece.len());
            slot.count(piece.len(), 0);
            self.progress.fetched(piece.len() as u64);
            let taken;
            (receiver, taken) = off_the_runtime(move || {
                let taken = receiver.push(&piece);
                (receiver, taken)
            })
            .await?;
            if let Err(error) = taken {
                return trouble(error).map(|trouble| (receiver.into_part(), Err(trouble)));
            }
        }
        let ended = match receiver.left() {
            0 => Ok(()),
            missing => Err(Trouble::Wrong(CheckFailed::new(
                "length",
                ReceiveError::Truncated { missing },
            ))),
        };
        Ok((receiver.into_part(), ended))
    }
}

/// How long a body may still keep us waiting. Only waiting counts, not what our disk takes.
#[derive(Debug)]
struct Patience {
    left: Duration,
    /// Bytes that have come since it was whole.
    bytes: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left: ANSWER_TIME_MAX,
            bytes: 0,
        }
    }
}

impl Patience {
    async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Elapsed> {
        let begun = Instant::now();
        let come = timeout(self.left, next).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        come
    }

    fn got(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= STRIDE_BYTES {
            *self = Self::default();
        }
    }
}

/// What is to be fetched of one pack.
#[derive(Debug)]
struct Wish {
    entry: PackEntry,
    /// Needed chunks, as a bit map over the pack.
    needs: Vec<u64>,
    /// Whether all that the revision names of it is needed.
    whole: bool,
}

impl Wish {
    fn of(locator: &Locator, demand: &Demand, pack: u32) -> Self {
        let mut needs = vec![0; content::pack::PACK_CHUNKS_MAX / 64];
        for ordinal in 0..content::pack::PACK_CHUNKS_MAX as u32 {
            if demand
                .needs()
                .contains(content::locator::Place { pack, ordinal })
            {
                needs[ordinal as usize / 64] |= 1 << (ordinal % 64);
            }
        }
        Self {
            entry: locator.packs[pack as usize],
            needs,
            whole: demand.is_whole(pack),
        }
    }

    /// The frames that hold needed chunks.
    fn frames(&self, header: &PackHeader) -> Vec<usize> {
        let needed = |ordinal: u32| {
            let word = self.needs.get(ordinal as usize / 64);
            word.is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
        };
        let frames = header.frames().iter().enumerate();
        let frames = frames
            .filter(|(_, frame)| (frame.first_chunk..frame.first_chunk + frame.chunks).any(needed));
        frames.map(|(at, _)| at).collect()
    }

    /// Which bytes to ask for next; none if all is there.
    fn next(&self, part: &Part) -> Option<Range<u64>> {
        let total = u64::from(self.entry.total_bytes);
        let Some(header) = part.header() else {
            let end = if self.whole {
                total
            } else {
                u64::from(self.entry.header_bytes)
            };
            return Some(0..end);
        };
        let wished = self.frames(header);
        let missing: Vec<usize> = wished
            .iter()
            .copied()
            .filter(|&frame| !part.has(frame))
            .collect();
        let first = *missing.first()?;
        // Up to the next frame that is there already: nothing that was verified comes twice.
        let until = (first..header.frames().len())
            .find(|&frame| part.has(frame))
            .unwrap_or_else(|| header.frames().len());
        let run = &missing[..missing.partition_point(|&frame| frame < until)];
        let untouched = missing.len() == wished.len() && until == header.frames().len();
        match Fetch::of(header, run) {
            Fetch::Whole if untouched => Some(u64::from(header.header_bytes())..total),
            Fetch::Whole => {
                let last = run.last().copied().unwrap_or(first);
                Some(header.frame_range(first).start..header.frame_range(last).end)
            }
            Fetch::Ranges(ranges) => ranges.into_iter().next(),
        }
    }
}

/// Why a source did not deliver.
enum Trouble {
    /// It did not answer, or broke off, or refused.
    Silent(SupplyError),
    /// What it delivered is wrong.
    Wrong(CheckFailed),
}

/// That next to nothing came.
fn silent() -> Trouble {
    Trouble::Silent(slow("next to nothing came for", ANSWER_TIME_MAX))
}

/// Whose fault an error is: the source's, or our disk's.
fn trouble(error: ReceiveError) -> Result<Trouble, FetchError> {
    let check = match &error {
        ReceiveError::Part(PartError::Frame { .. }) => "frame",
        ReceiveError::Part(PartError::Header { .. }) => "pack header",
        ReceiveError::Truncated { .. } | ReceiveError::TooLong => "length",
        ReceiveError::Part(PartError::Io { .. }) => {
            return Err(FetchError::Receive { source: error });
        }
    };
    Ok(Trouble::Wrong(CheckFailed::new(check, error)))
}

/// Runs disk work where it holds up nobody.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    spawn_blocking(work)
        .await
        .map_err(|source| FetchError::Task { source })
}

/// Why packs could not be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No source is left.
    #[error(transparent)]
    NoSource(#[from] NoSource),
    /// The download folder fails.
    #[error(transparent)]
    Part(#[from] PartError),
    /// What came cannot be kept.
    #[error(transparent)]
    Receive {
        /// Why.
        source: ReceiveError,
    },
    /// A task of ours died.
    #[error("cannot go on: a task ended in a panic or was cut off")]
    Task {
        /// How.
        source: JoinError,
    },
}

/// Enough to keep a line full while frames are verified, and gentle on the others of the branch.
const PACKS_AT_ONCE: usize = 4;
/// What comes in less than this does not count as getting on: a byte now and then could hold us up
/// for ever. In a minute it comes over any line that is fit for use.
const STRIDE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
