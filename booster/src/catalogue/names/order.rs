//! In which order the packs of a revision are read, and which of them are new in it.

use content::locator::PackEntry;
use content::{FilesetName, PackId, RevisionNumber};

use super::{Fileset, Known, Names, Read};
use crate::cache::{Course, Order, Place};

/// A mark or none for each of some things in a row, a bit each: a revision may have a million
/// packs.
#[derive(Clone, Debug, Default)]
pub(super) struct Marked {
    words: Vec<u64>,
}

impl Marked {
    /// None of `count`.
    pub(super) fn none(count: usize) -> Self {
        Self {
            words: vec![0; count.div_ceil(64)],
        }
    }

    /// Marks the one at `at`, or takes its mark away.
    pub(super) fn set(&mut self, at: u32, marked: bool) {
        if let Some(word) = self.words.get_mut(at as usize / 64) {
            let bit = 1 << (at % 64);
            *word = if marked { *word | bit } else { *word & !bit };
        }
    }

    /// Whether the one at `at` is marked.
    pub(super) fn is_set(&self, at: u32) -> bool {
        let word = self.words.get(at as usize / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// How many before `at` are marked.
    pub(super) fn before(&self, at: u32) -> u32 {
        let (whole, rest) = (at as usize / 64, at % 64);
        let ones: u32 = self
            .words
            .iter()
            .take(whole)
            .map(|word| word.count_ones())
            .sum();
        let last = self.words.get(whole).copied().unwrap_or(0);
        ones + (last & ((1 << rest) - 1)).count_ones()
    }
}

impl Fileset {
    /// Enters the packs of a revision that has been read.
    pub(super) fn enter(&mut self, number: RevisionNumber) {
        let Some(mut read) = self.read.remove(&number) else {
            return;
        };
        read.new = Marked::none(read.packs.len());
        for (at, pack) in (0..).zip(&read.packs) {
            let here = Known {
                entry: *pack,
                newest: (number, at),
            };
            let Some(known) = self.packs.insert(pack.id, here) else {
                read.new.set(at, true);
                continue;
            };
            if known.newest.0 > number {
                // It is not as new there as it seemed.
                if let Some(newer) = self.read.get_mut(&known.newest.0) {
                    newer.new.set(known.newest.1, false);
                }
                self.packs.insert(pack.id, known);
            }
        }
        self.read.insert(number, read);
    }
}

impl Order for Names {
    fn place(&self, fileset: &FilesetName, id: PackId) -> Option<Place> {
        let fileset = self.filesets.get(fileset)?;
        let (number, at) = fileset.packs.get(&id)?.newest;
        let new = &fileset.read.get(&number)?.new;
        Some(Place {
            number,
            at,
            new_at: new.is_set(at).then(|| new.before(at)),
        })
    }

    fn after(
        &self,
        fileset: &FilesetName,
        place: Place,
        course: Course,
        count: usize,
    ) -> Vec<PackEntry> {
        let fileset = self.filesets.get(fileset);
        let Some(read) = fileset.and_then(|it| it.read.get(&place.number)) else {
            return Vec::new();
        };
        let is_on_course = |at: &u32| course == Course::All || read.new.is_set(*at);
        let behind = (place.at + 1..read.packs.len() as u32).filter(is_on_course);
        behind
            .take(count)
            .map(|at| read.packs[at as usize])
            .collect()
    }
}

impl Fileset {
    /// What the newest revision whose locator has been read consists of.
    pub(super) fn newest_read(&self) -> Option<&Read> {
        let is_known = |number, it: &Read| it.locator.is_some() && Some(number) <= self.current;
        let read = self
            .read
            .iter()
            .filter(|(number, it)| is_known(**number, it));
        read.max_by_key(|(number, _)| **number).map(|(_, it)| it)
    }
}

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;

    #[test]
    fn marks_are_found_and_counted() {
        let mut marked = Marked::none(130);
        for at in [0, 63, 64, 100, 129] {
            marked.set(at, true);
        }
        marked.set(100, false);
        let found: Vec<u32> = (0..200).filter(|at| marked.is_set(*at)).collect();
        assert_eq!(found, [0, 63, 64, 129]);
        let counted = [0, 1, 63, 64, 65, 129, 130, 1000].map(|at| marked.before(at));
        assert_eq!(counted, [0, 1, 1, 2, 3, 3, 4, 4]);
    }

    fn packs(ids: &[u8]) -> Vec<PackEntry> {
        let entry = |id: &u8| PackEntry {
            id: PackId(Digest::from_raw([*id; 32])),
            header_bytes: 100,
            total_bytes: 1000,
        };
        ids.iter().map(entry).collect()
    }

    /// What comes after `from` in revisions that have been read in that order.
    fn check(read: &[(u64, &[u8])], from: u8, course: Course, expected: &[u8]) {
        let (mut fileset, name) = (Fileset::default(), "tools".parse().unwrap());
        for (number, ids) in read {
            let number = RevisionNumber(*number);
            fileset.read.entry(number).or_default().packs = packs(ids);
            fileset.enter(number);
        }
        let mut names = Names::default();
        names.filesets.insert(name, fileset);
        let name = "tools".parse().unwrap();
        let place = names.place(&name, packs(&[from])[0].id).unwrap();
        let after = names.after(&name, place, course, 3);
        assert_eq!(after, packs(expected), "{read:?} from {from}, {course:?}");
    }

    #[test]
    fn what_comes_next_is_told_of_the_newest_revision_however_they_were_read() {
        let (first, second) = ((1, &[1, 2, 3, 4][..]), (2, &[9, 1, 8, 2, 7, 3, 4][..]));
        for read in [[first, second], [second, first]] {
            check(&read, 9, Course::All, &[1, 8, 2]);
            check(&read, 9, Course::New, &[8, 7]);
            check(&read, 2, Course::All, &[7, 3, 4]);
            check(&read, 4, Course::All, &[]);
        }
        // What the newest revision has dropped is followed in the one that has it.
        let third = (3, &[5, 6][..]);
        check(&[third, first, second], 7, Course::New, &[]);
        check(&[third, first, second], 8, Course::All, &[2, 7, 3]);
        check(&[third], 5, Course::New, &[6]);
    }
}
