//! The task of a fill.

mod soon;
mod wait;

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use content::frame::Frame;
use content::locator::PackEntry;
use content::pack::PackHeader;
use service::{CancellationToken, Report};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::line::{Line, Lines, Next};
use super::turns::{FILL_BYTES, Turn};
use super::{Fill, FillError, Held, Ticket, Want};
use crate::cache::store::{BeginError, PartialFile};
use crate::cache::{Flights, Shared, off_runtime, pack_key};
use crate::upstream::{PackAsk, Place, Slot, UpstreamError};

/// A fill's task: what only it knows.
///
/// Dropped before its end, it tells its readers that it was cut off.
#[derive(Debug)]
pub(crate) struct Job {
    shared: Arc<Shared>,
    fill: Arc<Fill>,
    header: Option<Arc<PackHeader>>,
    /// The frame that comes next, once there is a header.
    frame: usize,
    /// Whether two sources have been asked at once: at most once a fill.
    hedged: bool,
    no_cache: bool,
    sink: Sink,
    /// Its place among those who wait, until it has its turn.
    ticket: Option<Ticket>,
    /// The places that were asked since all of them had been.
    tried: Vec<usize>,
    turn: Option<Turn>,
    left: bool,
}

/// Where checked bytes are kept.
#[derive(Debug, Default)]
enum Sink {
    /// In a file.
    File(PartialFile),
    /// Nowhere: there is no room. Readers are served all the same.
    Nowhere,
    /// Not decided yet.
    #[default]
    Undecided,
}

/// Why an attempt at a source ended.
enum Break {
    /// What came fails its check.
    Bad(String),
    /// The fill is over.
    Over(FillError),
    /// The source failed.
    Source(UpstreamError),
}

impl Job {
    pub(crate) fn new(shared: Arc<Shared>, fill: Arc<Fill>, ticket: Option<Ticket>) -> Self {
        shared.metrics.fills_running.inc();
        Self {
            shared,
            fill,
            header: None,
            frame: 0,
            hedged: false,
            no_cache: false,
            sink: Sink::Undecided,
            ticket,
            tried: Vec::new(),
            turn: None,
            left: false,
        }
    }

    /// Fills, tells the readers how it ended, and lets go of what it held for them.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let ended = loop {
            match self.fill_all(&stop).await {
                Err(FillError::Cancelled) if !self.leave_if_unwanted() => {}
                Err(over @ (FillError::PutOff | FillError::Unkept))
                    if !self.leave_if_unasked(&over) => {}
                ended => break ended,
            }
        };
        let stored = match ended {
            Ok(()) => self.keep().await,
            Err(failure) => {
                debug!(pack = ?self.fill.entry.id, error = %Report(&failure), "a fill failed");
                return self.leave(Err(failure));
            }
        };
        self.leave(Ok(stored));
        if !stored {
            if let Some(turn) = &mut self.turn {
                turn.lingers();
            }
            // What is nowhere else stays in memory for those who still read it, but not for ever.
            let mut readers = self.fill.readers.subscribe();
            let gone = readers.wait_for(|readers| readers.count == 0);
            let _in_time = timeout(self.shared.limits.linger, gone).await;
            self.fill.hold(Held::Gone);
        }
    }

    async fn fill_all(&mut self, stop: &CancellationToken) -> Result<(), FillError> {
        if self.turn.is_none() {
            self.turn = Some(self.wait_for_turn(stop).await?);
        }
        if matches!(self.sink, Sink::Undecided) {
            self.begin().await?;
        }
        self.fetch(stop).await
    }

    /// Opens a file for the pack, and takes up what an earlier fill left in it.
    async fn begin(&mut self) -> Result<(), FillError> {
        let (shared, entry) = (Arc::clone(&self.shared), self.fill.entry);
        let want = self.fill.want();
        let begun = off_runtime(move || {
            let file = shared.store.begin(entry, shared.errand(entry.id, want))?;
            let resumed = file.resume()?;
            Ok::<_, BeginError>((file, resumed))
        });
        match begun.await.ok_or(FillError::Aborted)? {
            Ok((file, resumed)) => {
                let bytes = resumed.bytes.length();
                self.fill.publish_all(file.written(), resumed.bytes);
                self.sink = Sink::File(file);
                self.frame = resumed.frames;
                self.header = resumed.header.map(Arc::new);
                if bytes > 0 {
                    info!(pack = ?entry.id, bytes, "took up a fill that was broken off");
                    self.shared.metrics.resumed_bytes.inc_by(bytes);
                }
            }
            Err(_) if want != Want::Now => return Err(FillError::Unkept),
            Err(failure) => {
                warn!(error = %Report(&failure), "cannot keep a pack: streaming it through");
                self.stream_through();
            }
        }
        Ok(())
    }

    /// Asks source after source until the pack is whole.
    async fn fetch(&mut self, stop: &CancellationToken) -> Result<(), FillError> {
        let (mut failures, mut progressed) = (0, Instant::now());
        while !self.is_whole() {
            let place = self.shared.upstreams.choose(&mut self.tried);
            let place = place.ok_or(FillError::Busy)?;
            let ebbs = self.turn.as_ref().is_some_and(Turn::has_ebbed);
            let slot = self.unless_over(stop, place.slot(ebbs)).await?;
            let before = self.verified();
            let failure = match self.attempt(place, slot, stop).await {
                // It is whole, or wanted on a better connection.
                Ok(()) => continue,
                Err(Break::Over(over)) => return Err(over),
                Err(Break::Source(failure)) => FillError::from(failure),
                Err(Break::Bad(what)) => FillError::Unverified { what },
            };
            let verified = self.verified();
            if verified > before {
                failures = 0;
                progressed = Instant::now();
            }
            failures += 1;
            debug!(pack = ?self.fill.entry.id, verified, error = %Report(&failure), "fill broken");
            let begun = verified >= u64::from(self.fill.entry.header_bytes);
            let patience = if begun {
                self.shared.limits.patience
            } else {
                Duration::ZERO
            };
            let tries = TRIES_PER_SOURCE * self.shared.upstreams.count();
            if failures >= tries && progressed.elapsed() >= patience {
                return Err(failure);
            }
            self.unless_over(stop, sleep(backoff(failures))).await?;
        }
        Ok(())
    }

    /// Takes as much as one answer of a source gives. Should nothing come for a while, the next
    /// source is asked, too; of the two, the one whose header or frame is good first goes on.
    async fn attempt(
        &mut self,
        place: Arc<Place>,
        slot: Slot,
        stop: &CancellationToken,
    ) -> Result<(), Break> {
        let purpose = self.fill.purpose();
        self.make_way()?;
        let mut lines = Lines::new(self.ask(place, slot), self.shared.limits.stall);
        while !self.is_whole() {
            let next = self.unless_over(stop, lines.next(self.part_bytes()));
            let next = tokio::select! {
                next = next => next,
                // What somebody has come to wait for is asked for again as such.
                () = self.fill.outgrows(purpose) => {
                    // Of the same source: it serves well.
                    self.tried.pop();
                    return Ok(());
                }
            };
            match next.map_err(Break::Over)? {
                Next::Ebbs => self.ebbs(),
                Next::Part(bytes) => {
                    self.take(bytes, &mut lines).await?;
                    self.make_way()?;
                }
                Next::Quiet => match self.hedge(&lines) {
                    Some(line) => lines.add(line),
                    None => lines.give_up().map_err(Break::Source)?,
                },
                Next::Failed(failure) => {
                    if lines.is_empty() {
                        return Err(Break::Source(failure));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks what a source gave, and takes it if it is good.
    async fn take(&mut self, bytes: Bytes, lines: &mut Lines) -> Result<(), Break> {
        let checked = self.accept(bytes).await;
        if let Err(Break::Bad(what)) = checked {
            let failed = &self.shared.metrics.verification_failures;
            failed.with_label_values(&["upstream"]).inc();
            self.no_cache = true;
            lines.drop_bad();
            return if lines.is_empty() {
                Err(Break::Bad(what))
            } else {
                Ok(())
            };
        }
        if let Some(won) = lines.keep_best() {
            self.shared.metrics.hedges.with_label_values(&[won]).inc();
        }
        checked
    }

    /// The next source, asked for what the others do not send; none if that was done before, or if
    /// there is none that bears it.
    fn hedge(&mut self, lines: &Lines) -> Option<Line> {
        if self.hedged || self.shared.upstreams.count() < 2 {
            return None;
        }
        let mut tried = self.tried.clone();
        let place = self.shared.upstreams.choose(&mut tried)?;
        if lines.is_asked(&place) {
            return None;
        }
        let slot = place.try_slot(false)?;
        debug!(pack = ?self.fill.entry.id, source = place.name(), "nothing comes: asking another");
        (self.hedged, self.tried) = (true, tried);
        Some(self.ask(place, slot))
    }

    fn ask(&self, place: Arc<Place>, slot: Slot) -> Line {
        let ask = PackAsk {
            fileset: self.fill.fileset.clone(),
            from: self.verified(),
            id: self.fill.entry.id,
            no_cache: self.no_cache,
            purpose: self.fill.purpose(),
        };
        let left = u64::from(self.fill.entry.total_bytes).saturating_sub(ask.from);
        let received = self.shared.metrics.upstream_bytes.clone();
        Line::ask(place, slot, ask, left, received)
    }

    fn verified(&self) -> u64 {
        self.fill.progress.borrow().verified
    }

    /// Checks a whole header or frame, writes it, and shows it to the readers.
    async fn accept(&mut self, bytes: Bytes) -> Result<(), Break> {
        let sink = std::mem::take(&mut self.sink);
        let at = self.verified();
        let (entry, header, frame) = (self.fill.entry, self.header.clone(), self.frame);
        let part = bytes.clone();
        let done = off_runtime(move || {
            let checked = check(entry, header, frame, &part);
            let sink = if checked.is_ok() {
                write(sink, at, &part)
            } else {
                sink
            };
            (sink, checked)
        });
        let (sink, checked) = done.await.ok_or(Break::Over(FillError::Aborted))?;
        self.sink = sink;
        if matches!(self.sink, Sink::Nowhere) && self.fill.progress.borrow().storing {
            self.stream_through();
        }
        let header = checked.map_err(Break::Bad)?;
        if self.header.is_some() {
            self.frame += 1;
        }
        self.header = Some(header);
        self.count_ahead(bytes.len());
        self.fill.publish(bytes, matches!(self.sink, Sink::File(_)));
        Ok(())
    }

    /// Puts the whole pack in its place. False if it could not be kept.
    async fn keep(&mut self) -> bool {
        let rope = match &*self.fill.held() {
            // What the disk does not keep is worth memory, if it is all there.
            Held::Filling { file: None, rope } => Some(Arc::new(rope.clone())),
            Held::Filling { file: Some(_), .. } | Held::Stored(_) | Held::Gone => None,
        };
        if let Some(rope) = rope {
            self.shared.memory.put(pack_key(self.fill.entry.id), rope);
        }
        let Sink::File(file) = std::mem::replace(&mut self.sink, Sink::Nowhere) else {
            return false;
        };
        match off_runtime(move || file.place()).await {
            Some(Ok(pack)) => {
                self.shared.sort_in(self.fill.entry.id);
                self.fill.hold(Held::Stored(Arc::new(pack)));
                true
            }
            Some(Err(error)) => {
                warn!(%error, "cannot put a filled pack in its place");
                false
            }
            None => false,
        }
    }

    fn leave(&mut self, ended: Result<bool, FillError>) {
        let shared = Arc::clone(&self.shared);
        if !self.left {
            self.leave_from(shared.flights(), ended);
        }
    }

    fn leave_from(&mut self, mut flights: Flights<'_>, ended: Result<bool, FillError>) {
        // The file first, and the place in the queue: a fill that comes after this one must find the
        // one at rest, and have the other for itself.
        self.sink = Sink::Nowhere;
        self.ticket = None;
        let id = self.fill.entry.id;
        if flights
            .get(&id)
            .is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        {
            flights.remove(&id);
        }
        drop(flights);
        let how = match &ended {
            Ok(true) => "stored",
            Ok(false) => "streamed",
            Err(FillError::Cancelled | FillError::PutOff | FillError::Unkept) => "cancelled",
            Err(_) => "failed",
        };
        self.shared.metrics.fills.with_label_values(&[how]).inc();
        if ended.is_err() {
            self.fill.hold(Held::Gone);
        }
        self.fill.end(ended.map(drop));
        self.left = true;
    }

    /// Serves the readers from memory alone from now on, but for what is in the file already.
    fn stream_through(&mut self) {
        self.sink = Sink::Nowhere;
        let rest = u64::from(self.fill.entry.total_bytes) - self.verified();
        if let Some(turn) = &mut self.turn {
            turn.holds(FILL_BYTES + rest);
        }
        self.fill
            .progress
            .send_modify(|progress| progress.storing = false);
    }

    fn is_whole(&self) -> bool {
        let frames = self.header.as_ref().map(|header| header.frames().len());
        frames == Some(self.frame)
    }

    /// Bytes of the header or frame that comes next.
    fn part_bytes(&self) -> usize {
        let bytes = match &self.header {
            None => self.fill.entry.header_bytes,
            Some(header) => header.frames()[self.frame].stored_bytes,
        };
        bytes as usize
    }

    /// Waits for `future`, unless the fill is over before it comes. Drops it then.
    async fn unless_over<T>(
        &self,
        stop: &CancellationToken,
        future: impl Future<Output = T>,
    ) -> Result<T, FillError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(FillError::Stopping),
            value = future => Ok(value),
            () = self.unwanted() => Err(FillError::Cancelled),
        }
    }

    /// Waits until nobody reads along; for ever once over half is there, which is then worth
    /// finishing for those who will come, unless nobody has come yet.
    async fn unwanted(&self) {
        let verified = self.verified();
        let is_most_there = verified * 2 > u64::from(self.fill.entry.total_bytes);
        if is_most_there && self.fill.want() != Want::Soon {
            return pending().await;
        }
        self.fill.left_alone().await;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.leave(Err(FillError::Aborted));
        self.shared.metrics.fills_running.dec();
    }
}

/// Checks a header, or the frame of a header that has been checked. Gives the header.
fn check(
    entry: PackEntry,
    header: Option<Arc<PackHeader>>,
    frame: usize,
    bytes: &[u8],
) -> Result<Arc<PackHeader>, String> {
    if let Some(header) = header {
        return match Frame::verify(&header.frames()[frame], bytes) {
            Ok(_) => Ok(header),
            Err(failure) => Err(Report(&failure).to_string()),
        };
    }
    let header =
        PackHeader::verify(bytes, entry.id).map_err(|failure| Report(&failure).to_string())?;
    if header.total_bytes() == entry.total_bytes {
        Ok(Arc::new(header))
    } else {
        Err("pack header check failed: not as long as its locator says".to_owned())
    }
}

/// Writes checked bytes to the file, or gives the file up if the disk refuses.
fn write(sink: Sink, at: u64, bytes: &[u8]) -> Sink {
    let Sink::File(file) = sink else {
        return sink;
    };
    match file.write(at, bytes) {
        Ok(()) => Sink::File(file),
        Err(error) => {
            warn!(%error, "cannot write to the cache: streaming a pack through");
            file.discard();
            Sink::Nowhere
        }
    }
}

/// How long to wait after so many failures in a row: twice as long each time, and never quite the
/// same, so that many boosters do not come back together.
fn backoff(failures: usize) -> Duration {
    let doubled = BACKOFF_MIN * 2u32.pow(failures.saturating_sub(1).min(10) as u32);
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Enough to get past one lost connection or restart without making a reader wait for long.
const TRIES_PER_SOURCE: usize = 3;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
