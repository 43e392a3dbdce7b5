//! Whose fill goes next, and how many run: by what the sources bear and what memory there is, and
//! fair between those who ask.

mod queue;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::PackId;
use tokio::sync::oneshot;

use super::Want;
use crate::cache::Limits;
use crate::metrics::CacheMetrics;
use crate::upstream::Upstreams;
use queue::Queue;
pub(crate) use queue::Waiter;

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
    /// How many of those that run have much left to come, and are for somebody.
    busy: usize,
    bytes: u64,
    /// How many have little left to come.
    ebbing: usize,
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
    busy: bool,
    bytes: u64,
    ebbs: bool,
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

    /// Lines the fill of a pack up for whoever wants it. None if too many wait already.
    pub(crate) fn line_up(self: &Arc<Self>, id: PackId, waiter: Waiter) -> Option<Ticket> {
        let (sender, granted) = oneshot::channel();
        let mut state = self.state();
        let outcome = state.queue.push(id, waiter, sender);
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

    /// Another wants the pack, too: if it still waits, it goes the earlier, and at once if it may now.
    pub(crate) fn also_wanted(self: &Arc<Self>, id: PackId, waiter: Waiter) {
        self.state().queue.also_wanted(id, waiter);
        self.grant();
    }

    /// Whether any fill waits for its turn that somebody has asked for.
    pub(crate) fn are_waited_for(&self) -> bool {
        self.state().queue.most_wanted() == Some(Want::Now)
    }

    /// Lets those run that may.
    fn grant(self: &Arc<Self>) {
        // Asked outside of our own lock: it takes others.
        let bearable = (self.bearable)();
        while let Some((sender, want)) = self.next(bearable) {
            let turn = Turn {
                busy: want > Want::Ahead,
                bytes: FILL_BYTES,
                ebbs: false,
                runs: true,
                turns: Arc::clone(self),
            };
            // Whoever is not there any more gives it back by not taking it.
            let _taken = sender.send(turn);
        }
    }

    fn next(&self, bearable: usize) -> Option<(oneshot::Sender<Turn>, Want)> {
        let mut state = self.state();
        let want = state.queue.most_wanted()?;
        if !state.may_run(want, bearable, self.fills_max) {
            return None;
        }
        // One may always run, however little memory there is.
        if state.bytes + FILL_BYTES > self.bytes_max && state.running > 0 {
            return None;
        }
        let sender = state.queue.pop()?;
        state.running += 1;
        state.busy += usize::from(want > Want::Ahead);
        state.bytes += FILL_BYTES;
        self.show(&state);
        Some((sender, want))
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

impl State {
    /// Whether one more may run that is wanted so much, by how many the sources bear.
    fn may_run(&self, want: Want, bearable: usize, fills_max: usize) -> bool {
        let (spare, allowed) = (self.ebbing.min(1), bearable.min(fills_max).max(1));
        if self.running >= fills_max.min(allowed + spare).max(1) {
            return false;
        }
        // What nobody has asked for leaves a turn to whoever does, and comes behind what has little
        // left: both at once would only come later.
        let ahead = (allowed - 1).max(1);
        match want {
            Want::Ahead => self.running - self.ebbing < ahead,
            Want::Soon => self.busy < ahead,
            Want::Now => true,
        }
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

    /// Takes note that little is left to come. One more may run from now on, so that its answer is
    /// there when this one ends; however many are near their end, it is one.
    pub(crate) fn ebbs(&mut self) {
        if !std::mem::replace(&mut self.ebbs, true) {
            let mut state = self.turns.state();
            state.ebbing += 1;
            state.busy -= usize::from(std::mem::take(&mut self.busy));
            drop(state);
            self.turns.grant();
        }
    }

    /// Whether little is left to come.
    pub(crate) fn has_ebbed(&self) -> bool {
        self.ebbs
    }

    /// It runs no more, but holds on to its memory for those who still read.
    pub(crate) fn lingers(&mut self) {
        if std::mem::take(&mut self.runs) {
            let mut state = self.turns.state();
            state.running -= 1;
            state.busy -= usize::from(std::mem::take(&mut self.busy));
            state.ebbing -= usize::from(std::mem::take(&mut self.ebbs));
            drop(state);
            self.turns.grant();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.running -= usize::from(self.runs);
        state.busy -= usize::from(self.busy);
        state.ebbing -= usize::from(self.ebbs);
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
    use crate::cache::Asker;
    use crate::testing::{metrics, soon};

    fn id(name: u8) -> PackId {
        PackId(Digest::from_raw([name; 32]))
    }

    fn turns(bearable: usize, bytes_max: u64) -> Arc<Turns> {
        Turns::new(8, bytes_max, Box::new(move || bearable), metrics())
    }

    fn line_up(turns: &Arc<Turns>, count: u8) -> Vec<Ticket> {
        line_up_for(device(), turns, count)
    }

    fn line_up_for(waiter: Waiter, turns: &Arc<Turns>, count: u8) -> Vec<Ticket> {
        let from = match waiter {
            Waiter::Ahead => 100,
            Waiter::Device(_) => 0,
            Waiter::Soon => 50,
        };
        let tickets = (from..from + count).map(|it| turns.line_up(id(it), waiter));
        tickets.map(Option::unwrap).collect()
    }

    fn device() -> Waiter {
        Asker::device("laptop-7").into()
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

    #[test]
    fn what_nobody_has_asked_for_leaves_a_turn_to_whoever_asks() {
        for waiter in [Waiter::Ahead, Waiter::Soon] {
            for (bearable, ahead, then) in [(1, 1, 0), (2, 1, 1), (3, 2, 1), (16, 7, 1)] {
                let turns = turns(bearable, u64::MAX);
                let mut tickets = line_up_for(waiter, &turns, 20);
                let before = running(&mut tickets);
                assert_eq!(before.len(), ahead, "{waiter:?} {bearable}");
                let mut asked = line_up(&turns, 20);
                assert_eq!(running(&mut asked).len(), then, "{waiter:?} {bearable}");
            }
        }
    }

    #[test]
    fn who_comes_to_ask_for_what_waits_has_that_turn() {
        for waiter in [Waiter::Ahead, Waiter::Soon] {
            let turns = turns(2, u64::MAX);
            let mut tickets = line_up_for(waiter, &turns, 3);
            let first = running(&mut tickets);
            turns.also_wanted(tickets[2].id, device());
            assert!(tickets[2].granted.try_recv().is_ok());
            assert!(running(&mut tickets[..2]).is_empty());
            drop(first);
        }
    }

    #[test]
    fn another_runs_beside_one_that_has_little_left() {
        for waiter in [Waiter::Ahead, Waiter::Soon, device()] {
            let turns = turns(2, u64::MAX);
            let mut tickets = line_up_for(waiter, &turns, 20);
            let mut first = running(&mut tickets);
            let before = first.len();
            // However often that is said, it is one more.
            first[0].ebbs();
            first[0].ebbs();
            let second = running(&mut tickets);
            assert_eq!(second.len(), 1);
            // It leaves as many as there were.
            first.remove(0);
            assert_eq!(turns.state().running, before);
            assert_eq!(turns.state().ebbing, 0);
        }
    }

    #[test]
    fn what_is_fetched_ahead_of_time_holds_up_nothing_that_somebody_is_about_to_ask_for() {
        let turns = turns(2, u64::MAX);
        let mut pins = line_up_for(Waiter::Ahead, &turns, 2);
        let pin = running(&mut pins);
        let mut asked = running(&mut line_up(&turns, 1));
        assert_eq!((pin.len(), asked.len()), (1, 1));
        let mut next = line_up_for(Waiter::Soon, &turns, 2);
        assert!(running(&mut next).is_empty());
        asked[0].ebbs();
        let soon = running(&mut next);
        assert_eq!(soon.len(), 1);
        drop((pins, next));
        drop((pin, asked, soon));
        assert_eq!(turns.state().busy, 0);
    }

    #[test]
    fn when_all_have_little_left_there_is_one_more() {
        let turns = turns(2, u64::MAX);
        let mut tickets = line_up(&turns, 2);
        let mut asked = running(&mut tickets);
        asked.iter_mut().for_each(Turn::ebbs);
        let mut ahead = line_up_for(Waiter::Soon, &turns, 20);
        let behind = running(&mut ahead);
        assert_eq!(behind.len(), 1);
        asked[0].lingers();
        // The other still has little left, but what runs beside it has much.
        assert!(running(&mut ahead).is_empty());
        let mut more = line_up(&turns, 20);
        assert_eq!(running(&mut more).len(), 1);
    }

    #[test]
    fn no_more_run_than_the_settings_allow_however_little_is_left() {
        let turns = Turns::new(1, u64::MAX, Box::new(|| 16), metrics());
        let mut tickets = line_up(&turns, 2);
        let mut first = running(&mut tickets);
        first[0].ebbs();
        assert!(running(&mut tickets).is_empty());
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
