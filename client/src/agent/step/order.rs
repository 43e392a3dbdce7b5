//! Who waits for whom.

use std::collections::BTreeSet;

use content::FilesetName;
use content::statement::{InstallMode, Item, Stage};

use super::super::state::{Holding, Reached};
use super::{Look, Phase, has_scripts};

/// Which of two filesets goes first, where one comes and the other leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Handover {
    /// They have nothing to do with each other.
    Free,
    /// What comes takes over what both have.
    ComingFirst,
    /// There is no room for both.
    GoingFirst,
}

impl Handover {
    /// Which goes first.
    pub(super) fn between(going: &Item, coming: &Item) -> Self {
        let (one, other) = (&going.target, &coming.target);
        if !within(one, other) && !within(other, one) {
            return Self::Free;
        }
        match (going.mode, coming.mode) {
            (InstallMode::Merge, InstallMode::Merge) => Self::ComingFirst,
            // One exchange of names replaces the one by the other.
            (InstallMode::Tree, InstallMode::Tree) if one == other => Self::ComingFirst,
            (InstallMode::Tree | InstallMode::Merge, InstallMode::Tree | InstallMode::Merge) => {
                Self::GoingFirst
            }
        }
    }
}

/// Whether the folder `inner` is `outer` or lies in it.
fn within(inner: &str, outer: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Look<'_> {
    /// Whether a fileset depends on `item` that may be downloaded and whose requirements nobody
    /// has looked at: they are asked first. If they are not met, `item` comes all the same: it
    /// stands in the manifest by its own right.
    pub(super) fn has_unasked_dependants(self, item: &Item) -> bool {
        self.manifest.items.iter().any(|other| {
            let phase = Phase::at(&other.times, self.now);
            let aim = self
                .state
                .filesets
                .get(&other.fileset)
                .and_then(|it| it.aim.as_ref());
            other.depends.contains(&item.fileset)
                && matches!(phase, Phase::Ahead | Phase::Active)
                && has_scripts(other, Stage::Requirement)
                && aim.is_none_or(|aim| {
                    let unasked = aim.trouble.failures == 0 && !aim.skipped;
                    aim.reached == Reached::Begun && unasked
                })
        })
    }

    /// What keeps `item` from being installed; none if nothing does.
    pub(super) fn blocker<'a>(self, item: &'a Item) -> Option<&'a FilesetName>
    where
        Self: 'a,
    {
        let missing = item.depends.iter().find(|name| !self.is_there(name));
        missing.or_else(move || self.in_the_way(item).next())
    }

    /// Whether that fileset is as the manifest wants it.
    fn is_there(self, name: &FilesetName) -> bool {
        let holding = self.state.filesets.get(name);
        let aim = holding.and_then(|holding| holding.aim.as_ref());
        let is_wanted = holding.is_some_and(|holding| holding.going.is_none());
        is_wanted && aim.is_some_and(super::Aim::is_settled)
    }

    /// The filesets that have to go before `item` has room.
    fn in_the_way<'a>(self, item: &'a Item) -> impl Iterator<Item = &'a FilesetName>
    where
        Self: 'a,
    {
        let others = self.state.filesets.iter();
        others.filter_map(move |(name, holding)| {
            let leaving = leaving(holding).any(|old| {
                *name != item.fileset && Handover::between(old, item) == Handover::GoingFirst
            });
            leaving.then_some(name)
        })
    }

    /// Whether the fileset called `name`, which goes, has to stay for another one.
    pub(super) fn has_to_stay(self, name: &FilesetName) -> bool {
        self.has_leaving_dependants(name) || self.hands_over(name, |item| self.can_come(item))
    }

    /// Whether something else goes that depends on it: that goes first.
    fn has_leaving_dependants(self, name: &FilesetName) -> bool {
        self.state.filesets.values().any(|other| {
            let item = other.active.as_ref().filter(|_| other.going.is_some());
            item.is_some_and(|item| item.depends.contains(name))
        })
    }

    /// Whether a fileset that should be active by now, and is not, takes over what it has.
    fn hands_over(self, name: &FilesetName, counts: impl Fn(&Item) -> bool) -> bool {
        let old = self
            .state
            .filesets
            .get(name)
            .and_then(|holding| holding.active.as_ref());
        old.is_some_and(|old| {
            let items = self.manifest.items.iter();
            let mut coming = items.filter(|item| item.fileset != *name && self.is_due(item));
            coming.any(|item| Handover::between(old, item) == Handover::ComingFirst && counts(item))
        })
    }

    /// Whether a fileset should be active and is not.
    fn is_due(self, item: &Item) -> bool {
        Phase::at(&item.times, self.now) == Phase::Active && !self.is_there(&item.fileset)
    }

    /// Whether a fileset that should be active can be expected to become so while nothing else
    /// goes: not if it, or what it depends on, has failed for good or is not due, or waits for
    /// something that itself waits.
    fn can_come(self, item: &Item) -> bool {
        let mut seen = BTreeSet::from([&item.fileset]);
        let mut left = vec![item];
        while let Some(item) = left.pop() {
            if !self.can_come_alone(item) {
                return false;
            }
            for name in item.depends.iter().filter(|name| !self.is_there(name)) {
                let Some(other) = self.manifest.item(name).filter(|other| self.is_due(other))
                else {
                    return false;
                };
                if seen.insert(&other.fileset) {
                    left.push(other);
                }
            }
        }
        true
    }

    /// The same, if nothing that it depends on is looked at.
    fn can_come_alone(self, item: &Item) -> bool {
        let aim = self
            .state
            .filesets
            .get(&item.fileset)
            .and_then(|it| it.aim.as_ref());
        let waits = |name: &FilesetName| {
            self.has_leaving_dependants(name) || self.hands_over(name, |_| true)
        };
        let failed = aim.is_some_and(|aim| aim.trouble.never);
        !failed && !self.in_the_way(item).any(waits)
    }
}

/// What of a fileset goes, and is still there.
fn leaving(holding: &Holding) -> impl Iterator<Item = &Item> {
    let active = holding.active.as_ref().filter(|_| holding.going.is_some());
    active
        .into_iter()
        .chain(&holding.outgoing)
        .map(|kept| &**kept)
}
