//! Whose fill goes next, and how many run: by what the sources bear and what memory there is, and
//! fair between those who ask.

mod queue;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::PackId;
use tokio::sync::oneshot;

use crate::cache::{Asker, Limits};
use crate::metrics::CacheMetrics;
use crate::upstream::Upstreams;
use queue::Queue;

/// How many fills may run by what the sources bear.
type Bearable = Box<dyn Fn() -> usize + Send + Sync>;

/// The fills that run, and those that wait for it.
pub(crate) struct Turns {
    bearable: Bearable,
    bytes_max: u64,
    fills_max: usize,
    metrics: CacheMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: u64,
    queue: Queue<oneshot::Sender<Turn>>,
    running: usize,
}

/// A place in the queue, given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    granted: oneshot::Receiver<Turn>,
    id: PackId,
    turns: Arc<Turns>,
}

/// The right to run, and to hold so much memory; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    bytes: u64,
    runs: bool,
    turns: Arc<Turns>,
}

impl Turns {
    fn new(
        fills_max: usize,
        bytes_max: u64,
        bearable: Bearable,
        metrics: CacheMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            bearable,
            bytes_max,
            fills_max,
            metrics,
            state: Mutex::default(),
        })
    }

    /// As `limits` and what `upstreams` bear allow.
    pub(crate) fn of(
        limits: &Limits,
        upstreams: &Arc<Upstreams>,
        metrics: &CacheMetrics,
    ) -> Arc<Self> {
        let upstreams = Arc::clone(upstreams);
        let bearable = Box::new(move || upstreams.concurrency());
        let (fills, bytes) = (limits.fills_max, limits.fill_bytes_max);
        Self::new(fills, bytes, bearable, metrics.clone())
    }

    /// Lines the fill of a pack up, which `asker` wants. None if too many wait already.
    pub(crate) fn line_up(self: &Arc<Self>, id: PackId, asker: Asker) -> Option<Ticket> {
        let (sender, granted) = oneshot::channel();
        let mut state = self.state();
        let outcome = state.queue.push(id, asker, sender);
        self.show(&state);
        drop(state);
        // Whoever was given up for the newcomer hears of it outside of the lock.
        let _given_up = outcome.ok()?;
        self.grant();
        Some(Ticket {
            granted,
            id,
            turns: Arc::clone(self),
        })
    }

    /// Another wants the pack, too: if it still waits, it goes the earlier.
    pub(crate) fn also_wanted(&self, id: PackId, asker: Asker) {
        self.state().queue.also_wanted(id, asker);
    }

    /// Whether any fill waits for its turn that somebody has asked for.
    pub(crate) fn are_waited_for(&self) -> bool {
        self.state().queue.has_asker()
    }

    /// Lets those run that may.
    fn grant(self: &Arc<Self>) {
        // Asked outside of our own lock: it takes others.
        let allowed = (self.bearable)().clamp(1, self.fills_max);
        while let Some(sender) = self.next(allowed) {
            let turn = Turn {
                bytes: FILL_BYTES,
                runs: true,
                turns: Arc::clone(self),
            };
            // Whoever is not there any more gives it back by not taking it.
            let _taken = sender.send(turn);
        }
    }

    fn next(&self, allowed: usize) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.state();
        // One may always run, however little memory there is.
        let is_room = state.bytes + FILL_BYTES <= self.bytes_max || state.running == 0;
        if state.running >= allowed || !is_room {
            return None;
        }
        let sender = state.queue.pop()?;
        state.running += 1;
        state.bytes += FILL_BYTES;
        self.show(&state);
        Some(sender)
    }

    fn show(&self, state: &State) {
        self.metrics.fills_waiting.set(state.queue.len() as i64);
        self.metrics.fill_bytes.set(state.bytes as i64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Ticket {
    /// Waits for the turn. None if this was given up in favour of those who ask for less. Safe to
    /// drop while it waits.
    pub(crate) async fn turn(&mut self) -> Option<Turn> {
        (&mut self.granted).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let left = state.queue.remove(self.id);
        self.turns.show(&state);
        drop(state);
        drop(left);
    }
}

impl Turn {
    /// From now on it holds `bytes`, which it cannot do without.
    pub(crate) fn holds(&mut self, bytes: u64) {
        let mut state = self.turns.state();
        state.bytes = state.bytes - self.bytes + bytes;
        self.bytes = bytes;
        self.turns.show(&state);
        drop(state);
        self.turns.grant();
    }

    /// It runs no more, but holds on to its memory for those who still read.
    pub(crate) fn lingers(&mut self) {
        if std::mem::take(&mut self.runs) {
            self.turns.state().running -= 1;
            self.turns.grant();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.running -= usize::from(self.runs);
        state.bytes -= self.bytes;
        self.turns.show(&state);
        drop(state);
        self.turns.grant();
    }
}

/// What a fill that is being stored holds: the frame that is gathered, by up to two sources, and the
/// last ones for those who read right behind it. A frame has at most 1 MiB.
pub(crate) const FILL_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;
    use crate::testing::{metrics, soon};

    fn id(name: u8) -> PackId {
        PackId(Digest::from_raw([name; 32]))
    }

    fn turns(bearable: usize, bytes_max: u64) -> Arc<Turns> {
        Turns::new(8, bytes_max, Box::new(move || bearable), metrics())
    }

    fn line_up(turns: &Arc<Turns>, count: u8) -> Vec<Ticket> {
        let tickets = (0..count).map(|it| turns.line_up(id(it), Asker::NOBODY));
        tickets.map(Option::unwrap).collect()
    }

    fn running(tickets: &mut [Ticket]) -> Vec<Turn> {
        let mut running = Vec::new();
        for ticket in tickets {
            if let Ok(turn) = ticket.granted.try_recv() {
                running.push(turn);
            }
        }
        running
    }

    fn check(bearable: usize, bytes_max: u64, expected: usize) {
        let turns = turns(bearable, bytes_max);
        let mut tickets = line_up(&turns, 20);
        assert_eq!(running(&mut tickets).len(), expected);
    }

    #[test]
    fn so_many_run_as_sources_settings_and_memory_allow() {
        check(3, u64::MAX, 3);
        check(16, u64::MAX, 8);
        check(16, 2 * FILL_BYTES, 2);
        check(16, 0, 1);
    }

    #[tokio::test]
    async fn what_lingers_makes_room_for_a_turn_but_not_for_its_memory() {
        let turns = turns(1, 3 * FILL_BYTES);
        let mut tickets = line_up(&turns, 4);
        let mut first = soon(tickets[0].turn()).await.unwrap();
        first.holds(2 * FILL_BYTES);
        first.lingers();
        let mut second = soon(tickets[1].turn()).await.unwrap();
        second.lingers();
        // All memory is taken, but one may always run.
        let third = soon(tickets[2].turn()).await.unwrap();
        assert!(running(&mut tickets[3..]).is_empty());
        drop((second, third));
        drop(first);
        assert_eq!(running(&mut tickets[3..]).len(), 1);
        assert_eq!(turns.state().bytes, 0);
    }

    #[tokio::test]
    async fn who_leaves_the_queue_or_does_not_take_his_turn_holds_nobody_up() {
        let turns = turns(1, u64::MAX);
        let mut tickets = line_up(&turns, 4);
        let first = soon(tickets[0].turn()).await.unwrap();
        drop(tickets.remove(1));
        drop(first);
        // The third has its turn by now, and leaves without having looked.
        drop(tickets.remove(1));
        assert!(soon(tickets[1].turn()).await.is_some());
    }
}
