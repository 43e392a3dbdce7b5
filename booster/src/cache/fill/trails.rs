//! Who reads a revision in order, and which packs come next for him: decided here, without waiting.
//!
//! Somebody who asks for one pack at a time leaves the line idle for a round trip a pack, and a
//! whole branch does so together. So what comes next is fetched while he reads, if he reads in
//! order: either all packs of a revision, or those only that no older revision has, which is how
//! an update goes. One who jumps about is left alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use content::locator::PackEntry;
use content::{FilesetName, PackId, RevisionNumber};

use crate::cache::Asker;

/// Knows in which order the packs of a revision are read.
pub(crate) trait Order: Send + Sync {
    /// Where a pack stands in the newest revision of a fileset that has it.
    fn place(&self, fileset: &FilesetName, id: PackId) -> Option<Place>;

    /// At most `count` packs that come behind a place on a course; none beyond the revision.
    fn after(
        &self,
        fileset: &FilesetName,
        place: Place,
        course: Course,
        count: usize,
    ) -> Vec<PackEntry>;
}

/// Where a pack stands in a revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// The revision.
    pub(crate) number: RevisionNumber,
    /// How many packs of it come before this one.
    pub(crate) at: u32,
    /// How many of those are in no older revision; none if this one is.
    pub(crate) new_at: Option<u32>,
}

/// Which packs of a revision somebody reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Course {
    /// All.
    All,
    /// Those that no older revision has.
    New,
}

/// Where everybody is who has lately asked for a whole pack that was not here.
pub(crate) struct Trails {
    /// How many there are: a hit that is nobody's next step asks no more than this.
    count: AtomicUsize,
    order: OnceLock<Box<dyn Order>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Steps so far, of all.
    steps: u64,
    trails: HashMap<Asker, Trail>,
}

/// How one device has gone through a revision.
#[derive(Debug)]
struct Trail {
    all: Steps,
    fileset: FilesetName,
    /// Which of all steps was the last on it.
    last: u64,
    new: Steps,
    number: RevisionNumber,
    /// Requests since the last that was missed, or that came further in order.
    quiet: u32,
}

/// The last steps on one course.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    /// The furthest.
    high: u32,
    /// Bit by bit, whether those up to the furthest have been asked for, itself the lowest.
    seen: u16,
}

impl Trails {
    pub(crate) fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            order: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// From now on packs come in that order. Only the first counts.
    pub(crate) fn ask(&self, order: Box<dyn Order>) {
        let _only_the_first = self.order.set(order);
    }

    /// Takes note that `asker` wants all of a pack, which was here or `missed`. Gives what to fetch
    /// ahead of him: at most `depth` packs behind the furthest that he has asked for.
    pub(crate) fn follow(
        &self,
        fileset: &FilesetName,
        id: PackId,
        asker: Asker,
        missed: bool,
        depth: impl FnOnce() -> usize,
    ) -> Vec<PackEntry> {
        if !missed && self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let is_followed = || self.state().trails.contains_key(&asker);
        if asker == Asker::NOBODY || (!missed && !is_followed()) {
            return Vec::new();
        }
        let Some(order) = self.order.get() else {
            return Vec::new();
        };
        // Asked without a lock of ours: it takes another.
        let Some(place) = order.place(fileset, id) else {
            return Vec::new();
        };
        match self.step(fileset, place, asker, missed) {
            Some((furthest, course)) => order.after(fileset, furthest, course, depth()),
            None => Vec::new(),
        }
    }

    /// The pack that comes next on either course behind one that is new. None if that is not new, or
    /// if it depends on the course.
    pub(crate) fn next_behind(&self, fileset: &FilesetName, id: PackId) -> Option<PackEntry> {
        let order = self.order.get()?;
        let place = order.place(fileset, id)?;
        place.new_at?;
        let next = |course| order.after(fileset, place, course, 1).pop();
        next(Course::New).filter(|new| next(Course::All).is_some_and(|any| any.id == new.id))
    }

    /// Takes a step. Gives the furthest place of one who goes in order, and on which course.
    fn step(
        &self,
        fileset: &FilesetName,
        place: Place,
        asker: Asker,
        missed: bool,
    ) -> Option<(Place, Course)> {
        let mut state = self.state();
        state.steps += 1;
        let State { steps, trails } = &mut *state;
        if trails.len() >= TRAILS_MAX && !trails.contains_key(&asker) {
            let oldest = trails.iter().min_by_key(|(_, it)| it.last);
            let oldest = oldest.map(|(asker, _)| *asker);
            oldest.and_then(|oldest| trails.remove(&oldest));
        }
        let trail = trails
            .entry(asker)
            .or_insert_with(|| Trail::new(fileset, place.number));
        if trail.number != place.number || trail.fileset != *fileset {
            *trail = Trail::new(fileset, place.number);
        }
        trail.last = *steps;
        let (before, course) = (trail.all.high, trail.visit(place));
        let advances = course.is_some() && trail.all.high != before;
        trail.quiet = if missed || advances {
            0
        } else {
            trail.quiet + 1
        };
        let furthest = Place {
            at: trail.all.high,
            ..place
        };
        if trail.quiet > QUIET_MAX {
            trails.remove(&asker);
        }
        self.count.store(trails.len(), Ordering::Relaxed);
        course.map(|course| (furthest, course))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trail {
    fn new(fileset: &FilesetName, number: RevisionNumber) -> Self {
        Self {
            all: Steps::default(),
            fileset: fileset.clone(),
            last: 0,
            new: Steps::default(),
            number,
            quiet: 0,
        }
    }

    /// Takes a step, and says on which course, if in order.
    fn visit(&mut self, place: Place) -> Option<Course> {
        self.all.visit(place.at);
        match place.new_at {
            Some(new_at) => self.new.visit(new_at),
            // An update would not have asked for it.
            None => self.new = Steps::default(),
        }
        if self.new.is_in_order() {
            Some(Course::New)
        } else {
            self.all.is_in_order().then_some(Course::All)
        }
    }
}

impl Steps {
    /// Some are asked for at once, and may come in another order than they were sent.
    fn visit(&mut self, at: u32) {
        if self.seen == 0 || at.abs_diff(self.high) >= u16::BITS {
            // Whoever begins where a revision begins is about to read it: as if with one step more.
            let begins = u16::from(at == 0);
            (self.high, self.seen) = (at, 1 | begins << 1);
        } else if at > self.high {
            self.seen = self.seen << (at - self.high) | 1;
            self.high = at;
        } else {
            self.seen |= 1 << (self.high - at);
        }
    }

    fn is_in_order(self) -> bool {
        self.seen & IN_ORDER == IN_ORDER
    }
}

impl fmt::Debug for Trails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trails").finish_non_exhaustive()
    }
}

/// Three in a row: two follow each other by chance in many an update.
const IN_ORDER: u16 = 0b111;
/// More devices than that do not begin a pull together at one booster's line; each takes some 150
/// bytes.
const TRAILS_MAX: usize = 1024;
/// More than are fetched ahead at a time: one who finds so many there is on a road that is known.
const QUIET_MAX: u32 = 32;
