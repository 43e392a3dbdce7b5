//! The order of waiting fills: decided here, without waiting.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use content::PackId;

use crate::cache::Asker;

/// Fills that wait, each with a token by which to let it go.
///
/// Those who ask take turns, the one who has waited longest since his last turn first; he gets the
/// fill that most want of those that he wants. A fill that is let go counts as a turn of each who
/// wants it. What nobody in particular wants, but the booster itself ahead of time, goes when all
/// others have gone. So a thousand packs of one hold up one pack of another for no more than a turn, and what
/// a whole branch waits for comes first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    askers: HashMap<Asker, Waiting>,
    fills: HashMap<PackId, Entry<T>>,
    /// How many have been lined up.
    lined_up: u64,
    /// How many turns there have been.
    turns: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Of how many turns the last was his, or how many there had been when he came.
    since: u64,
    wanted: HashSet<PackId>,
}

#[derive(Debug)]
struct Entry<T> {
    askers: HashSet<Asker>,
    serial: u64,
    token: T,
}

/// Too many wait already, and nobody has so many more that one of his is given up for this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            askers: HashMap::new(),
            fills: HashMap::new(),
            lined_up: 0,
            turns: 0,
        }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.fills.len()
    }

    /// Whether anybody waits but the booster itself.
    pub(super) fn has_asker(&self) -> bool {
        let itself = usize::from(self.askers.contains_key(&Asker::NOBODY));
        self.askers.len() > itself
    }

    /// Lines a fill up. If there is no room, gives the last up that only the greediest wants, unless
    /// that is who asks; gives the token of what was given up.
    pub(super) fn push(&mut self, id: PackId, asker: Asker, token: T) -> Result<Option<T>, Full> {
        let given_up = if self.fills.len() < WAITING_MAX {
            None
        } else {
            let last = self.last_of_the_greediest(asker).ok_or(Full)?;
            self.remove(last)
        };
        self.lined_up += 1;
        let entry = Entry {
            askers: HashSet::new(),
            serial: self.lined_up,
            token,
        };
        self.fills.insert(id, entry);
        self.also_wanted(id, asker);
        Ok(given_up)
    }

    /// Takes note that another wants a fill, if it waits here.
    pub(super) fn also_wanted(&mut self, id: PackId, asker: Asker) {
        let Some(entry) = self.fills.get_mut(&id) else {
            return;
        };
        entry.askers.insert(asker);
        let turns = self.turns;
        let waiting = self.askers.entry(asker).or_insert_with(|| Waiting {
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
        let turn = |(asker, it): &(&Asker, &Waiting)| (**asker == Asker::NOBODY, it.since);
        let next = self.askers.iter().map(|it| turn(&it)).min()?;
        let first = self.askers.iter().filter(|it| turn(it) == next);
        let (_, asker) = first.min_by_key(|(_, it)| oldest(it))?;
        let by_demand = |id: &&PackId| {
            let entry = &self.fills[*id];
            (entry.askers.len(), Reverse(entry.serial))
        };
        let id = *asker.wanted.iter().max_by_key(by_demand)?;
        self.turns += 1;
        let turns = self.turns;
        for asker in &self.fills[&id].askers {
            if let Some(waiting) = self.askers.get_mut(asker) {
                waiting.since = turns;
            }
        }
        self.remove(id)
    }

    /// Takes a fill out, if it is there.
    pub(super) fn remove(&mut self, id: PackId) -> Option<T> {
        let entry = self.fills.remove(&id)?;
        for asker in &entry.askers {
            if let Some(waiting) = self.askers.get_mut(asker) {
                waiting.wanted.remove(&id);
                if waiting.wanted.is_empty() {
                    self.askers.remove(asker);
                }
            }
        }
        Some(entry.token)
    }

    fn last_of_the_greediest(&self, newcomer: Asker) -> Option<PackId> {
        let wants = |asker: Asker| self.askers.get(&asker).map_or(0, |it| it.wanted.len());
        let greediest = self.askers.iter().max_by_key(|(_, it)| it.wanted.len());
        let (greediest, waiting) = greediest?;
        if waiting.wanted.len() <= wants(newcomer) + 1 {
            return None;
        }
        let only_his = |id: &&PackId| self.fills[*id].askers.iter().all(|it| it == greediest);
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

    fn asker(name: u8) -> Asker {
        Asker::device(&name.to_string())
    }

    /// Lines up `wants`, (asker, pack) each, and lets all go.
    fn order(wants: &[(u8, u16)]) -> Vec<u16> {
        let asker = |who| if who == 0 { Asker::NOBODY } else { asker(who) };
        let mut queue = Queue::default();
        for &(who, pack) in wants {
            if queue.fills.contains_key(&id(pack)) {
                queue.also_wanted(id(pack), asker(who));
            } else {
                assert_eq!(queue.push(id(pack), asker(who), pack), Ok(None));
            }
        }
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.askers.is_empty() && queue.fills.is_empty());
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
    }

    #[test]
    fn one_who_asks_for_a_thousand_does_not_hold_up_those_who_ask_for_one() {
        let mut queue = Queue::default();
        for pack in 0..1000 {
            queue.push(id(pack), asker(1), pack).unwrap();
        }
        for newcomer in 0..200u16 {
            queue
                .push(id(2000 + newcomer), asker(2), 2000 + newcomer)
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
            queue.push(id(pack), asker(1), pack).unwrap();
        }
        assert_eq!(queue.push(id(9000), asker(1), 9000), Err(Full));
        let last = WAITING_MAX as u16 - 1;
        assert_eq!(queue.push(id(9001), asker(2), 9001), Ok(Some(last)));
        assert_eq!(queue.len(), WAITING_MAX);
    }

    proptest! {
        /// Nobody waits for longer than one turn of each of the others.
        #[test]
        fn nobody_is_passed_over(
            wants in proptest::collection::vec((0u8..6, 0u16..60), 1..120)
        ) {
            let mut queue = Queue::default();
            for (who, pack) in wants {
                if queue.fills.contains_key(&id(pack)) {
                    queue.also_wanted(id(pack), asker(who));
                } else {
                    queue.push(id(pack), asker(who), pack).unwrap();
                }
            }
            let mut passed: HashMap<Asker, usize> = HashMap::new();
            while queue.len() > 0 {
                let waited: HashSet<Asker> = queue.askers.keys().copied().collect();
                let before: HashMap<PackId, HashSet<Asker>> = queue
                    .fills
                    .iter()
                    .map(|(id, it)| (*id, it.askers.clone()))
                    .collect();
                let pack = queue.pop().unwrap();
                for asker in waited {
                    let passed = passed.entry(asker).or_default();
                    *passed += 1;
                    if before[&id(pack)].contains(&asker) {
                        *passed = 0;
                    }
                    prop_assert!(*passed < 6, "passed over {passed} times");
                }
            }
        }
    }
}
