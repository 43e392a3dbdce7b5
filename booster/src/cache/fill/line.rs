//! What comes from one source, or from two at once when the first has fallen silent.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service::metrics::IntCounter;
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use crate::upstream::{Later, PackAsk, PackBody, Pieces, Place, Slot, UpstreamError};

/// One source's answer to one question.
pub(super) struct Line {
    /// When something last came, or when it was asked.
    heard: Instant,
    /// Bytes that have come since `heard`.
    murmur: u64,
    pace: Pace,
    part: Vec<u8>,
    place: Arc<Place>,
    received: IntCounter,
    /// What came behind the last part.
    rest: Bytes,
    slot: Slot,
    stage: Stage,
}

enum Stage {
    Asking {
        answer: Later<'static, Result<PackBody, UpstreamError>>,
        from: u64,
    },
    Body {
        pieces: Box<dyn Pieces>,
        /// Bytes that come before those that were asked for.
        skip: u64,
    },
}

/// The answers that a fill gathers from: one, or two for a while.
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Which one the last part came from.
    last: usize,
    stall: Duration,
}

/// What came next.
pub(super) enum Next {
    /// Nothing yet, but little is left to come from one of them. Told once of each.
    Ebbs,
    /// A source failed, and is asked no more.
    Failed(UpstreamError),
    /// So many bytes as were wanted.
    Part(Bytes),
    /// Nothing, from anybody, for too long.
    Quiet,
}

impl Line {
    /// Asks for the `left` bytes of a pack from where `ask` says. Nothing happens until it is read
    /// from. What comes is counted in `received`, wanted or not.
    pub(super) fn ask(
        place: Arc<Place>,
        slot: Slot,
        ask: PackAsk,
        left: u64,
        received: IntCounter,
    ) -> Self {
        let (source, from) = (Arc::clone(place.source()), ask.from);
        Self {
            heard: Instant::now(),
            murmur: 0,
            pace: Pace::new(Instant::now(), left),
            part: Vec::new(),
            place,
            received,
            rest: Bytes::new(),
            slot,
            stage: Stage::Asking {
                answer: Box::pin(async move { source.pack(&ask).await }),
                from,
            },
        }
    }

    /// Gathers the next `wanted` bytes; none yet when it turns out that little is left to come. Loses
    /// nothing if it is dropped before it is done.
    async fn part(&mut self, wanted: usize) -> Result<Option<Bytes>, UpstreamError> {
        self.part
            .reserve_exact(wanted.saturating_sub(self.part.len()));
        loop {
            let more = self.rest.len().min(wanted - self.part.len());
            self.part.extend_from_slice(&self.rest.split_to(more));
            if self.part.len() == wanted {
                return Ok(Some(std::mem::take(&mut self.part).into()));
            }
            self.rest = self.piece().await?;
            if self.pace.ebbs(Instant::now(), self.rest.len() as u64) {
                self.slot.ebbs();
                return Ok(None);
            }
        }
    }

    async fn piece(&mut self) -> Result<Bytes, UpstreamError> {
        let protocol = |place: &Place, what| UpstreamError::Protocol {
            name: place.name(),
            what,
        };
        loop {
            match &mut self.stage {
                Stage::Asking { answer, from } => {
                    let PackBody { start, pieces } = answer.await?;
                    let what = "the answer begins after the byte asked for";
                    let skip = from.checked_sub(start);
                    let skip = skip.ok_or_else(|| protocol(&self.place, what))?;
                    self.stage = Stage::Body { pieces, skip };
                    self.heard = Instant::now();
                }
                Stage::Body { pieces, skip } => {
                    let piece = pieces.next().await?;
                    let what = "the answer ends too early";
                    let mut piece = piece.ok_or_else(|| protocol(&self.place, what))?;
                    let bytes = piece.len() as u64;
                    let _skipped = piece.split_to((*skip).min(bytes) as usize);
                    *skip = skip.saturating_sub(bytes);
                    self.came(bytes);
                    return Ok(piece);
                }
            }
        }
    }

    fn stalled(&self) -> UpstreamError {
        UpstreamError::Stalled {
            name: self.place.name(),
        }
    }

    fn came(&mut self, bytes: u64) {
        self.received.inc_by(bytes);
        self.place.received(bytes);
        self.murmur += bytes;
        if self.murmur >= MURMUR_BYTES {
            self.murmur = 0;
            self.heard = Instant::now();
        }
    }
}

impl Lines {
    /// `stall` is how long nothing may come.
    pub(super) fn new(first: Line, stall: Duration) -> Self {
        Self {
            lines: vec![first],
            last: 0,
            stall,
        }
    }

    pub(super) fn add(&mut self, second: Line) {
        self.lines.push(second);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether that source is one of those that are being asked.
    pub(super) fn is_asked(&self, place: &Arc<Place>) -> bool {
        self.lines
            .iter()
            .any(|line| Arc::ptr_eq(&line.place, place))
    }

    /// The next `wanted` bytes, from whoever has them first. Loses nothing if it is dropped before
    /// it is done.
    pub(super) async fn next(&mut self, wanted: usize) -> Next {
        let (at, gathered) = loop {
            let quiet = self.lines.iter().map(|line| line.heard).max();
            let quiet = quiet.unwrap_or_else(Instant::now) + self.stall;
            if Instant::now() >= quiet {
                return Next::Quiet;
            }
            let (first, second) = self.lines.split_at_mut(1);
            let second = async {
                match second.first_mut() {
                    Some(line) => line.part(wanted).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                gathered = first[0].part(wanted) => break (0, gathered),
                gathered = second => break (1, gathered),
                // Something may have come meanwhile, if not all of it.
                () = sleep_until(quiet) => {}
            }
        };
        match gathered {
            Ok(None) => Next::Ebbs,
            Ok(Some(bytes)) => {
                self.last = at;
                self.lines[at].heard = Instant::now();
                Next::Part(bytes)
            }
            Err(failure) => {
                self.remove(at).failed(&failure);
                Next::Failed(failure)
            }
        }
    }

    /// Nobody sends anything: that is the fault of each.
    pub(super) fn give_up(&mut self) -> Result<(), UpstreamError> {
        let mut first = Ok(());
        for line in self.lines.drain(..) {
            let failure = line.stalled();
            line.place.failed(&failure);
            first = first.and(Err(failure));
        }
        first
    }

    /// What came last was bad: whoever sent it is asked no more.
    pub(super) fn drop_bad(&mut self) {
        self.remove(self.last).mark_bad();
    }

    /// Takes one out; the other, if there is one, has a while of its own from now on.
    fn remove(&mut self, at: usize) -> Arc<Place> {
        let place = self.lines.remove(at).place;
        self.last = 0;
        self.lines
            .iter_mut()
            .for_each(|line| line.heard = Instant::now());
        place
    }

    /// What came last was good: whoever sent it goes on alone. If that decided between two, says
    /// which one it was.
    pub(super) fn keep_best(&mut self) -> Option<&'static str> {
        let best = self.lines.swap_remove(self.last);
        best.place.answered();
        let won = if self.last == 0 { "first" } else { "second" };
        let loser = self.lines.pop();
        if let (Some(loser), "second") = (&loser, won) {
            loser.place.failed(&loser.stalled());
        }
        self.last = 0;
        self.lines.push(best);
        loser.map(|_| won)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&self.place).finish()
    }
}

/// What comes in less than this does not count as getting on: a source that sends a byte now and
/// then would hold a fill up for ever. A segment of TCP brings more.
const MURMUR_BYTES: u64 = 1 << 10;
