//! What is left of an open folder: its names, in one piece of memory.

use std::cmp::Ordering;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

/// The names of a folder, and the steps through them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Its path below the root, with a slash behind it; empty for the root itself.
    prefix: String,
    names: String,
    /// The steps that are left, last first.
    steps: Vec<Slot>,
}

/// What to do next.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// A path to visit.
    Visit(String),
    /// A folder to open.
    Enter(String),
}

/// A step, as it is kept: its name is a part of `names`.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    length: u16,
    enters: bool,
}

/// Bytes for each name beside the name itself: its steps, and the room to find names that differ
/// only by case.
const NAME_OVERHEAD_BYTES: usize = 2 * size_of::<Slot>() + size_of::<(u64, u32)>();

// A million names of fifty bytes in one folder.
const _: () = assert!(1_000_000 * (50 + NAME_OVERHEAD_BYTES) <= super::LISTINGS_BYTES_MAX);

impl Listing {
    /// Of the folder at `path` below the root; nothing is in it yet.
    pub(super) fn of(path: &str) -> Self {
        let prefix = match path {
            "" => String::new(),
            path => format!("{path}/"),
        };
        Self {
            prefix,
            ..Self::default()
        }
    }

    /// To begin with: the root is to be opened.
    pub(super) fn start() -> Self {
        let root = Slot {
            start: 0,
            length: 0,
            enters: true,
        };
        Self {
            steps: vec![root],
            ..Self::default()
        }
    }

    /// Bytes of memory that it takes, at most.
    pub(super) fn bytes(&self) -> usize {
        self.names.len() + self.steps.len() * NAME_OVERHEAD_BYTES
    }

    /// Adds a name; false if there is no room for it, in a list of `most` bytes.
    #[must_use]
    pub(super) fn push(&mut self, name: &str, is_folder: bool, most: usize) -> bool {
        let place = (u32::try_from(self.names.len()), u16::try_from(name.len()));
        let (Ok(start), Ok(length)) = place else {
            return false;
        };
        let slot = Slot {
            start,
            length,
            enters: false,
        };
        self.names.push_str(name);
        self.steps.push(slot);
        if is_folder {
            let enters = true;
            self.steps.push(Slot { enters, ..slot });
        }
        self.bytes() <= most
    }

    /// Brings the steps into their order.
    pub(super) fn sort(&mut self) {
        let Self { names, steps, .. } = self;
        steps.sort_unstable_by(|a, b| b.compare(*a, names));
        steps.shrink_to_fit();
        names.shrink_to_fit();
    }

    /// The next step.
    pub(super) fn pop(&mut self) -> Option<Step> {
        let slot = self.steps.pop()?;
        let path = format!("{}{}", self.prefix, slot.name(&self.names));
        Some(match slot.enters {
            true => Step::Enter(path),
            false => Step::Visit(path),
        })
    }

    /// Tells `found` of each name that differs from one before it only by case.
    pub(super) fn same_but_for_case(&self, mut found: impl FnMut(&str, &str)) {
        let visits = (0..).zip(&self.steps).filter(|(_, slot)| !slot.enters);
        let mut hashes: Vec<(u64, u32)> = visits
            .map(|(at, slot)| (hash(&slot.name(&self.names).to_lowercase()), at))
            .collect();
        hashes.sort_unstable();
        let name = |at: u32| self.steps[at as usize].name(&self.names);
        for alike in hashes.chunk_by(|a, b| a.0 == b.0) {
            for (done, &(_, at)) in alike.iter().enumerate().skip(1) {
                let folded = name(at).to_lowercase();
                let mut before = alike[..done].iter().map(|&(_, other)| name(other));
                if let Some(other) = before.find(|other| other.to_lowercase() == folded) {
                    found(name(at), other);
                }
            }
        }
    }
}

impl Slot {
    fn name(self, names: &str) -> &str {
        let start = self.start as usize;
        &names[start..start + usize::from(self.length)]
    }

    fn compare(self, other: Self, names: &str) -> Ordering {
        let slash = |slot: Self| if slot.enters { "/" } else { "" };
        let bytes = |slot: Self| slot.name(names).bytes().chain(slash(slot).bytes());
        bytes(self).cmp(bytes(other))
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_folder_comes_where_its_slash_sorts() {
        let mut listing = Listing::of("top");
        for (name, is_folder) in [("a0", false), ("a", true), ("a-b", false)] {
            assert!(listing.push(name, is_folder, 1000));
        }
        listing.sort();
        let steps: Vec<_> = std::iter::from_fn(|| listing.pop()).collect();
        let visit = |path: &str| Step::Visit(path.to_owned());
        let enter = Step::Enter("top/a".to_owned());
        assert_eq!(
            steps,
            [visit("top/a"), visit("top/a-b"), enter, visit("top/a0")]
        );
    }

    #[test]
    fn names_that_differ_by_case_are_told_in_pairs() {
        let mut listing = Listing::of("");
        for name in ["É", "dup", "x", "Dup", "é", "DUP"] {
            assert!(listing.push(name, false, 1000));
        }
        let mut pairs = Vec::new();
        listing.same_but_for_case(|name, other| pairs.push(format!("{name} {other}")));
        pairs.sort();
        assert_eq!(pairs, ["DUP dup", "Dup dup", "é É"]);
    }
}
