//! The order of waiting fills: decided here, without waiting.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use content::PackId;

use crate::cache::Asker;
use crate::cache::fill::Want;

/// Who waits for a fill.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Waiter {
    /// The booster itself, ahead of time.
    Ahead,
    /// Somebody who has asked for it.
    Device(Asker),
    /// Somebody who is about to: he reads what comes before it.
    Soon,
}

impl Waiter {
    fn want(self) -> Want {
        match self {
            Self::Ahead => Want::Ahead,
            Self::Device(_) => Want::Now,
            Self::Soon => Want::Soon,
        }
    }
}

impl From<Asker> for Waiter {
    fn from(asker: Asker) -> Self {
        if asker == Asker::NOBODY {
            Self::Ahead
        } else {
            Self::Device(asker)
        }
    }
}

/// Fills that wait, each with a token by which to let it go.
///
/// Those who ask take turns, the one who has waited longest since his last turn first; he gets the
/// fill that most want of those that he wants. A fill that is let go counts as a turn of each who
/// wants it. What nobody has asked for goes when all others have gone: first what somebody is about to
/// ask for, then what the booster itself wants ahead of time. So a thousand packs of one hold up one pack of another for no more than a turn, and what
/// a whole branch waits for comes first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    fills: HashMap<PackId, Entry<T>>,
    /// How many have been lined up.
    lined_up: u64,
    /// How many turns there have been.
    turns: u64,
    waiters: HashMap<Waiter, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Of how many turns the last was his, or how many there had been when he came.
    since: u64,
    wanted: HashSet<PackId>,
}

#[derive(Debug)]
struct Entry<T> {
    serial: u64,
    token: T,
    waiters: HashSet<Waiter>,
}

/// Too many wait already, and nobody has so many more that one of his is given up for this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            fills: HashMap::new(),
            lined_up: 0,
            turns: 0,
            waiters: HashMap::new(),
        }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.fills.len()
    }

    /// How much that is wanted which goes next. None if nothing waits.
    pub(super) fn most_wanted(&self) -> Option<Want> {
        // However many devices wait, this is asked for each that comes.
        let [ahead, soon] = [Waiter::Ahead, Waiter::Soon].map(|it| self.waiters.contains_key(&it));
        if self.waiters.len() > usize::from(ahead) + usize::from(soon) {
            return Some(Want::Now);
        }
        let ahead = ahead.then_some(Want::Ahead);
        soon.then_some(Want::Soon).or(ahead)
    }

    /// Lines a fill up. If there is no room, gives the last up that only the greediest wants, unless
    /// that is who asks; gives the token of what was given up.
    pub(super) fn push(&mut self, id: PackId, waiter: Waiter, token: T) -> Result<Option<T>, Full> {
        let given_up = if self.fills.len() < WAITING_MAX {
            None
        } else {
            let last = self.last_of_the_greediest(waiter).ok_or(Full)?;
            self.remove(last)
        };
        self.lined_up += 1;
        let entry = Entry {
            serial: self.lined_up,
            token,
            waiters: HashSet::new(),
        };
        self.fills.insert(id, entry);
        self.also_wanted(id, waiter);
        Ok(given_up)
    }

    /// Takes note that another wants a fill, if it waits here.
    pub(super) fn also_wanted(&mut self, id: PackId, waiter: Waiter) {
        let Some(entry) = self.fills.get_mut(&id) else {
            return;
        };
        entry.waiters.insert(waiter);
        let turns = self.turns;
        let waiting = self.waiters.entry(waiter).or_insert_with(|| Waiting {
            since: turns,
            wanted: HashSet::new(),
        });
        waiting.wanted.insert(id);
    }

    /// Lets the next go.
    pub(super) fn pop(&mut self) -> Option<T> {
        let oldest = |waiting: &Waiting| {
            let serials = waiting.wanted.iter().map(|id| self.fills[id].serial);
            serials.min()
        };
        let turn = |(waiter, it): &(&Waiter, &Waiting)| (Reverse(waiter.want()), it.since);
        let next = self.waiters.iter().map(|it| turn(&it)).min()?;
        let first = self.waiters.iter().filter(|it| turn(it) == next);
        let (_, waiter) = first.min_by_key(|(_, it)| oldest(it))?;
        let by_demand = |id: &&PackId| {
            let entry = &self.fills[*id];
            (entry.waiters.len(), Reverse(entry.serial))
        };
        let id = *waiter.wanted.iter().max_by_key(by_demand)?;
        self.turns += 1;
        let turns = self.turns;
        for waiter in &self.fills[&id].waiters {
            if let Some(waiting) = self.waiters.get_mut(waiter) {
                waiting.since = turns;
            }
        }
        self.remove(id)
    }

    /// Takes a fill out, if it is there.
    pub(super) fn remove(&mut self, id: PackId) -> Option<T> {
        let entry = self.fills.remove(&id)?;
        for waiter in &entry.waiters {
            if let Some(waiting) = self.waiters.get_mut(waiter) {
                waiting.wanted.remove(&id);
                if waiting.wanted.is_empty() {
                    self.waiters.remove(waiter);
                }
            }
        }
        Some(entry.token)
    }

    fn last_of_the_greediest(&self, newcomer: Waiter) -> Option<PackId> {
        let wants = |waiter: Waiter| self.waiters.get(&waiter).map_or(0, |it| it.wanted.len());
        let greediest = self.waiters.iter().max_by_key(|(_, it)| it.wanted.len());
        let (greediest, waiting) = greediest?;
        if waiting.wanted.len() <= wants(newcomer) + 1 {
            return None;
        }
        let only_his = |id: &&PackId| self.fills[*id].waiters.iter().all(|it| it == greediest);
        let his = waiting.wanted.iter().filter(only_his);
        his.max_by_key(|id| self.fills[*id].serial).copied()
    }
}

/// How many fills may wait: each takes about a kilobyte.
const WAITING_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use content::Digest;
    use proptest::prelude::*;

    use super::*;

    fn id(name: u16) -> PackId {
        let mut raw = [0; 32];
        raw[..2].copy_from_slice(&name.to_be_bytes());
        PackId(Digest::from_raw(raw))
    }

    /// Nought is the booster itself, and 99 whoever reads what comes before.
    fn waiter(name: u8) -> Waiter {
        match name {
            0 => Waiter::Ahead,
            99 => Waiter::Soon,
            name => Asker::device(&name.to_string()).into(),
        }
    }

    /// Lines up `wants`, (asker, pack) each, and lets all go.
    fn order(wants: &[(u8, u16)]) -> Vec<u16> {
        let mut queue = Queue::default();
        for &(who, pack) in wants {
            if queue.fills.contains_key(&id(pack)) {
                queue.also_wanted(id(pack), waiter(who));
            } else {
                assert_eq!(queue.push(id(pack), waiter(who), pack), Ok(None));
            }
        }
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.waiters.is_empty() && queue.fills.is_empty());
        order
    }

    #[test]
    fn those_who_ask_take_turns_and_what_many_want_comes_first() {
        assert_eq!(order(&[(1, 10), (1, 11), (1, 12)]), [10, 11, 12]);
        assert_eq!(
            order(&[(1, 10), (1, 11), (1, 12), (2, 20)]),
            [10, 20, 11, 12]
        );
        assert_eq!(
            order(&[(1, 10), (1, 11), (2, 20), (2, 21), (3, 30)]),
            [10, 20, 30, 11, 21]
        );
        // What two want comes first, and is a turn of both.
        assert_eq!(
            order(&[(1, 10), (1, 11), (2, 11), (2, 20), (3, 30)]),
            [11, 30, 10, 20]
        );
        // What nobody waits for yields to all, unless somebody comes to want it.
        assert_eq!(
            order(&[(0, 1), (0, 2), (1, 10), (1, 11), (1, 2)]),
            [2, 10, 11, 1]
        );
        // What somebody is about to ask for comes between the two.
        assert_eq!(
            order(&[(0, 1), (0, 2), (99, 3), (1, 10), (99, 2)]),
            [10, 2, 3, 1]
        );
    }

    #[test]
    fn one_who_asks_for_a_thousand_does_not_hold_up_those_who_ask_for_one() {
        let mut queue = Queue::default();
        for pack in 0..1000 {
            queue.push(id(pack), waiter(1), pack).unwrap();
        }
        for newcomer in 0..200u16 {
            queue
                .push(id(2000 + newcomer), waiter(2), 2000 + newcomer)
                .unwrap();
            let two: Vec<u16> = (0..2).filter_map(|_| queue.pop()).collect();
            assert!(two.contains(&(2000 + newcomer)), "{newcomer}: {two:?}");
            assert!(
                two.iter().any(|it| *it < 1000),
                "nor is he held up: {two:?}"
            );
        }
    }

    #[test]
    fn without_room_the_greediest_gives_way() {
        let mut queue = Queue::default();
        for pack in 0..WAITING_MAX as u16 {
            queue.push(id(pack), waiter(1), pack).unwrap();
        }
        assert_eq!(queue.push(id(9000), waiter(1), 9000), Err(Full));
        let last = WAITING_MAX as u16 - 1;
        assert_eq!(queue.push(id(9001), waiter(2), 9001), Ok(Some(last)));
        assert_eq!(queue.len(), WAITING_MAX);
    }

    proptest! {
        /// Nobody waits for longer than one turn of each of the others.
        #[test]
        fn nobody_is_passed_over(
            wants in proptest::collection::vec((1u8..7, 0u16..60), 1..120)
        ) {
            let mut queue = Queue::default();
            for (who, pack) in wants {
                if queue.fills.contains_key(&id(pack)) {
                    queue.also_wanted(id(pack), waiter(who));
                } else {
                    queue.push(id(pack), waiter(who), pack).unwrap();
                }
            }
            let mut passed: HashMap<Waiter, usize> = HashMap::new();
            while queue.len() > 0 {
                let waited: HashSet<Waiter> = queue.waiters.keys().copied().collect();
                let before: HashMap<PackId, HashSet<Waiter>> = queue
                    .fills
                    .iter()
                    .map(|(id, it)| (*id, it.waiters.clone()))
                    .collect();
                let pack = queue.pop().unwrap();
                for waiter in waited {
                    let passed = passed.entry(waiter).or_default();
                    *passed += 1;
                    if before[&id(pack)].contains(&waiter) {
                        *passed = 0;
                    }
                    prop_assert!(*passed < 6, "passed over {passed} times");
                }
            }
        }
    }
}
