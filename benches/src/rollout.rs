//! A roll-out, played to the cache's own index: revision after revision, client after client.
//!
//! Forty in a hundred packs are replaced by each revision; clients pull one after another what is
//! new to them, one in ten from scratch. Between them, devices that come once read what nobody
//! else wants. What is counted is fetches from the origin for each new pack: 1.00 is perfect.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use booster::cache::index::{Asker, Index, Key, Kind, Standing};
use content::Digest;

/// What is played.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// The cache, in hundredths of what a revision takes.
    pub cache_percent: usize,
    /// Clients of each revision.
    pub clients: usize,
    /// Packs of a revision.
    pub packs: usize,
    /// By which rules files are given up.
    pub rules: Rules,
    /// When there come devices that read something else, once.
    pub scans: Scans,
    /// Revisions after the first.
    pub revisions: usize,
}

/// When devices come that read something else, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scans {
    /// Never.
    None,
    /// At any time, one for ten clients.
    Random,
    /// One for ten clients, and always one after the first client of a revision, when only one
    /// device has asked for what is new.
    Worst,
}

/// By which rules files are given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rules {
    /// The least recently used first: as if nothing were known of packs and askers.
    LeastRecentlyUsed,
    /// Those of the booster.
    Ours,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Fetches of packs of the fileset from the origin, after the first revision.
    pub fetches: usize,
    /// Different packs that these were.
    pub new_packs: usize,
}

impl Outcome {
    /// Fetches for each new pack.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.fetches as f64 / self.new_packs as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.ratio())
    }
}

/// A cache, and what is said of its packs.
struct Site {
    clock: u32,
    fetches: HashMap<u32, usize>,
    index: Index,
    /// The packs of the revisions that are kept, the latest last.
    kept: VecDeque<Vec<u32>>,
    play: Play,
    random: fastrand::Rng,
}

impl Play {
    /// Plays it through. The same play comes to the same end.
    #[must_use]
    pub fn run(self) -> Outcome {
        let bytes_max = (self.packs * self.cache_percent / 100) as u64 * PACK_BYTES;
        let mut site = Site {
            clock: 0,
            fetches: HashMap::new(),
            index: Index::new(bytes_max, 4096),
            kept: VecDeque::new(),
            play: self,
            random: fastrand::Rng::with_seed(7),
        };
        let first: Vec<u32> = (0..self.packs).map(|_| site.new_pack()).collect();
        site.publish(first.clone(), first);
        // What fills an empty cache is no part of the figure.
        site.fetches.clear();
        let mut new_packs = 0;
        for _ in 0..self.revisions {
            let mut packs = site.kept.back().cloned().unwrap_or_default();
            let mut new = Vec::new();
            let mut places: Vec<usize> = (0..packs.len()).collect();
            site.random.shuffle(&mut places);
            for place in places.into_iter().take(self.packs * 2 / 5) {
                packs[place] = site.new_pack();
                new.push(packs[place]);
            }
            new.sort_unstable();
            new_packs += new.len();
            site.publish(packs, new);
        }
        let of_the_set = site.fetches.iter().filter(|(pack, _)| **pack < SCANS_FROM);
        Outcome {
            fetches: of_the_set.map(|(_, times)| times).sum(),
            new_packs,
        }
    }
}

impl Site {
    /// A new revision of `packs`, some of them `new`, which all clients pull.
    fn publish(&mut self, packs: Vec<u32>, new: Vec<u32>) {
        self.kept.push_back(packs.clone());
        if self.kept.len() > RETAINED {
            self.kept.pop_front();
        }
        self.rank();
        for client in 0..self.play.clients {
            let asker = self.asker(&format!("device-{client}"));
            // One in ten has nothing yet.
            let wanted = if client % 10 == 9 { &packs } else { &new };
            for pack in wanted {
                self.ask(*pack, asker);
            }
            let scan = match self.play.scans {
                Scans::None => false,
                Scans::Random => self.random.usize(..SCAN_EVERY) == 0,
                Scans::Worst => client % SCAN_EVERY == 0,
            };
            if scan {
                self.scan();
            }
        }
    }

    /// A device reads what nobody else ever wants: once, from beginning to end.
    fn scan(&mut self) {
        let visitor = self.clock;
        let asker = self.asker(&format!("visitor-{visitor}"));
        for pack in 0..(self.play.packs * SCAN_PERCENT / 100) as u32 {
            self.ask(SCANS_FROM + visitor * 10_000 + pack, asker);
        }
        self.clock += 1;
    }

    /// What the cache does with a request for a pack.
    fn ask(&mut self, pack: u32, asker: Asker) {
        let key = named(Kind::Pack, pack);
        if let Some(found) = self.index.hold(key) {
            self.index.release(key, found.born);
            self.index.use_by(key.digest, asker);
            return;
        }
        *self.fetches.entry(pack).or_default() += 1;
        if self.index.make_room(PACK_BYTES).is_ok() {
            let fill = named(Kind::Partial, pack);
            self.index.insert(fill, PACK_BYTES, false, 1);
            self.index.use_by(key.digest, asker);
            self.index.insert(key, PACK_BYTES, true, 0);
            self.index.remove(fill);
            if pack < SCANS_FROM && self.is_awaited() {
                self.index.sort_in(key, Standing::Awaited);
            }
        }
    }

    /// Whether it is known that many fetch from the fileset: from the second revision on.
    fn is_awaited(&self) -> bool {
        self.play.rules == Rules::Ours && self.kept.len() > 1 && self.play.clients > 1
    }

    /// What the catalogue tells the cache.
    fn rank(&mut self) {
        if self.play.rules == Rules::LeastRecentlyUsed {
            return;
        }
        let digests = |packs: &Vec<u32>| -> Vec<Digest> {
            packs
                .iter()
                .map(|pack| named(Kind::Pack, *pack).digest)
                .collect()
        };
        let latest: HashSet<Digest> = self.kept.back().iter().flat_map(|it| digests(it)).collect();
        let kept: HashSet<Digest> = self.kept.iter().flat_map(digests).collect();
        // What one-off devices read is named by the latest revision of another fileset.
        let others: HashSet<Digest> = self
            .fetches
            .keys()
            .filter(|pack| **pack >= SCANS_FROM)
            .map(|pack| named(Kind::Pack, *pack).digest)
            .collect();
        let is_awaited = self.is_awaited();
        self.index.rank(|key| {
            if latest.contains(&key.digest) {
                if is_awaited {
                    Standing::Awaited
                } else {
                    Standing::Current
                }
            } else if others.contains(&key.digest) {
                Standing::Current
            } else if kept.contains(&key.digest) {
                Standing::Older
            } else {
                Standing::Superseded
            }
        });
    }

    fn asker(&self, name: &str) -> Asker {
        match self.play.rules {
            Rules::LeastRecentlyUsed => Asker::NOBODY,
            Rules::Ours => Asker::device(name),
        }
    }

    fn new_pack(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }
}

fn named(kind: Kind, pack: u32) -> Key {
    Key {
        kind,
        digest: Digest::of(&pack.to_le_bytes()),
    }
}

/// A pack's target.
const PACK_BYTES: u64 = 4 << 20;
/// Revisions that the origin keeps, unless it is told otherwise.
const RETAINED: usize = 5;
/// From here on, packs are such as only one device ever wants.
const SCANS_FROM: u32 = 1 << 24;
/// One device that reads something else comes for so many clients.
const SCAN_EVERY: usize = 10;
/// How much that is, in hundredths of a revision.
const SCAN_PERCENT: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(rules: Rules, cache_percent: usize, scans: Scans) -> f64 {
        let play = Play {
            cache_percent,
            clients: 20,
            packs: 100,
            revisions: 6,
            rules,
            scans,
        };
        play.run().ratio()
    }

    /// cas.md 20: a new version under a full cache.
    #[test]
    fn b20_a_new_revision_under_a_full_cache_is_fetched_once() {
        assert!(ratio(Rules::Ours, 133, Scans::None) <= 1.05);
        assert!(ratio(Rules::Ours, 133, Scans::Random) <= 1.5);
        assert!(ratio(Rules::Ours, 133, Scans::Worst) <= 1.5);
        assert!(ratio(Rules::Ours, 300, Scans::Random) <= 1.05);
        // The play tells good rules from others.
        assert!(ratio(Rules::LeastRecentlyUsed, 133, Scans::None) > 1.1);
        assert!(ratio(Rules::LeastRecentlyUsed, 133, Scans::Random) > 2.0);
    }
}
