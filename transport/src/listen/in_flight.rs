//! Requests under way, and whose turn it is: ours, or the reader's.
//!
//! What moves over TCP tells nothing of that. An HTTP/2 peer that answers pings, or sends some
//! of its own, keeps bytes moving for ever while it takes none of its answers. So each answer is
//! watched by itself: how long we owe it something, and how long the reader leaves what is there
//! untaken. A body alone could not do that, since it is not polled while it is not taken: the
//! pieces that it gives are watched until HTTP has written them out, and a housekeeper looks.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::Limits;
use super::session::Session;
use crate::body::{Body, BoxError, STRIDE_BYTES};
use crate::io::Call;

/// A request under way, from its head to the last byte of its answer: kept by its handler, then
/// by the body and by each piece of it.
#[derive(Debug)]
pub(super) struct InFlight {
    id: u64,
    progress: Arc<Progress>,
    session: Arc<Session>,
}

impl InFlight {
    /// Of `session`, which has given it `id`.
    pub(super) fn new(session: &Arc<Session>, id: u64, progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self {
            id,
            progress,
            session: Arc::clone(session),
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let state = self.progress.state();
        let whole = state.all && state.given == 0;
        drop(state);
        self.session.over(self.id, whole);
    }
}

/// How one request gets on.
#[derive(Debug)]
pub(super) struct Progress {
    /// Ends the request and nothing else. HTTP/1.1 has no such thing.
    end: Option<Arc<Call>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether the body has given all that it has.
    all: bool,
    /// Since when the request has been asked to end.
    ended: Option<Instant>,
    /// Bytes given to the reader and not taken yet.
    given: usize,
    /// Since when it is the turn of whose turn it is, as far as the housekeeper has seen: it
    /// comes by often enough to be the one who looks at the clock.
    since: Option<Instant>,
    /// Bytes taken since then.
    taken: usize,
    /// Whether handler or body have nothing to give yet.
    waits: bool,
}

impl State {
    /// Whether we owe the reader something, rather than the other way round.
    fn is_ours(&self) -> bool {
        self.waits && self.given == 0
    }
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Good,
    /// End its connection: nothing else would help.
    Stuck,
}

impl Progress {
    /// Of a request that has just come in, and may be ended by `end`.
    pub(super) fn new(end: Option<Arc<Call>>) -> Self {
        Self {
            end,
            state: Mutex::new(State {
                all: false,
                ended: None,
                given: 0,
                since: None,
                taken: 0,
                waits: true,
            }),
        }
    }

    /// Ends the request if it has stood still for too long at `now`; if that was tried before and
    /// did not help, or cannot be tried, the connection has to end.
    pub(super) fn judge(&self, limits: &Limits, now: Instant) -> Verdict {
        let mut state = self.state();
        if let Some(ended) = state.ended {
            return if now.saturating_duration_since(ended) > UNWIND_MAX {
                Verdict::Stuck
            } else {
                Verdict::Good
            };
        }
        let most = if state.is_ours() {
            limits.work_timeout
        } else {
            limits.stall_timeout
        };
        let since = *state.since.get_or_insert(now);
        if now.saturating_duration_since(since) <= most {
            return Verdict::Good;
        }
        let Some(end) = &self.end else {
            return Verdict::Stuck;
        };
        state.ended = Some(now);
        end.make();
        Verdict::Good
    }

    fn waits(&self) {
        self.change(|state| state.waits = true);
    }

    fn gives(&self, bytes: usize, all: bool) {
        self.change(|state| {
            state.all = all;
            state.waits = false;
            state.given += bytes;
        });
    }

    fn takes(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.change(|state| {
            state.given = state.given.saturating_sub(bytes);
            state.taken += bytes;
        });
    }

    /// Time begins anew when the turn passes on, when all that was given has been taken, and
    /// when enough of it has: a byte now and then is no progress.
    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let ours = state.is_ours();
        how(&mut state);
        let nothing_left = state.given == 0 && state.taken > 0;
        if state.is_ours() != ours || nothing_left || state.taken >= STRIDE_BYTES {
            state.since = None;
            state.taken = 0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer, which tells how it gets on.
pub(super) struct Answer {
    body: Body,
    in_flight: Arc<InFlight>,
}

impl Answer {
    pub(super) fn new(body: Body, in_flight: Arc<InFlight>) -> Self {
        if body.is_end_stream() {
            in_flight.progress.gives(0, true);
        }
        Self { body, in_flight }
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.in_flight.progress.waits();
            return Poll::Pending;
        };
        let given = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        let all = frame.is_none() || self.body.is_end_stream();
        self.in_flight.progress.gives(given, all);
        let piece = |bytes| Piece {
            bytes,
            in_flight: Arc::clone(&self.in_flight),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of a body on its way out. HTTP keeps it until the last byte has been written.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    in_flight: Arc<InFlight>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.in_flight.progress.takes(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.in_flight.progress.takes(length);
        self.bytes.copy_to_bytes(length)
    }
}

/// How long the task of a stream may take to be gone after it has been told to end. If it is
/// still there, what is left of it lies in the connection, out of everybody's reach.
const UNWIND_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_begins_anew_when_the_turn_passes_on() {
        let (progress, limits) = (Progress::new(None), Limits::default());
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        assert_eq!(progress.judge(&limits, now), Verdict::Good);
        now += limits.work_timeout;
        progress.gives(10, false);
        for after in [Duration::ZERO, limits.stall_timeout] {
            assert_eq!(progress.judge(&limits, now + after), Verdict::Good);
        }
        let late = now + limits.stall_timeout + second;
        assert_eq!(progress.judge(&limits, late), Verdict::Stuck);
    }
}
