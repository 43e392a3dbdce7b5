//! The part of a record that says how to go on, and how to go back.

use std::path::PathBuf;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{Next, Record, RecordError, Revision, Rules};

/// Which way a journal is carried out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// It is taken back.
    Back,
    /// It is done.
    Forward,
}

/// What was installed before what is installed now.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Previous {
    /// None if that was nothing.
    pub(super) revision: Option<Revision>,
}

impl Record {
    /// Whether the target is shared with others.
    pub(crate) fn is_shared(&self) -> bool {
        self.state.fileset.is_some()
    }

    /// Where the journal of a merge is, or would be.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    /// Which way the journal is being carried out, if it is.
    pub(crate) fn journal(&self) -> Option<Way> {
        self.state.journal
    }

    /// Says that the journal, which is there and whole, is carried out from now on.
    pub(crate) fn begin_journal(&mut self, way: Way) -> Result<(), RecordError> {
        self.state.journal = Some(way);
        self.store()
    }

    /// Says that the journal has been carried out. What was there before can be gone back to.
    pub(crate) fn end_journal(&mut self) -> Result<(), RecordError> {
        match self.state.journal.take() {
            Some(Way::Forward) => {
                let next = self.state.next.take().map(|next| next.revision);
                let revision = std::mem::replace(&mut self.state.installed, next);
                self.state.previous = Some(Previous { revision });
            }
            Some(Way::Back) => {
                self.state.next = None;
                if let Some(previous) = self.state.previous.take() {
                    self.state.installed = previous.revision;
                }
            }
            None => self.state.next = None,
        }
        self.store()
    }

    /// Says that what was about to be installed will not be.
    pub(crate) fn drop_next(&mut self) -> Result<(), RecordError> {
        if self.state.next.take().is_some() {
            self.store()?;
        }
        Ok(())
    }

    /// Says that a journal cannot be carried out either way: what is staged for it is lost.
    pub(crate) fn lose_journal(&mut self) -> Result<(), RecordError> {
        self.state.journal = None;
        self.state.next = None;
        self.state.previous = None;
        self.store()
    }

    /// Says that `previous`, which is the folder of `stat`, is about to become the target again.
    pub(crate) fn begin_back(
        &mut self,
        previous: Revision,
        stat: &Stat,
    ) -> Result<(), RecordError> {
        self.state.journal = Some(Way::Back);
        self.state.next = Some(Next {
            revision: previous,
            switching: Some(stat.into()),
        });
        self.store()
    }

    /// Says that the whole tree is about to get the staging folder's name, and then to go.
    pub(crate) fn begin_removal(&mut self) -> Result<(), RecordError> {
        self.state.journal = Some(Way::Back);
        self.state.next = None;
        self.state.staging = true;
        self.store()
    }

    /// Whether that has begun.
    pub(crate) fn is_removing(&self) -> bool {
        self.state.journal == Some(Way::Back) && self.state.next.is_none() && !self.is_shared()
    }

    /// Says that it is done.
    pub(crate) fn end_removal(&mut self) -> Result<(), RecordError> {
        self.state.journal = None;
        self.state.previous = None;
        self.state.installed = None;
        self.store()
    }

    /// Whether what was there before can be gone back to.
    pub(crate) fn can_go_back(&self) -> bool {
        self.state.previous.is_some()
    }

    /// What was installed before, if that can be gone back to and was not nothing.
    pub(crate) fn previous(&self) -> Option<&Revision> {
        let previous = self.state.previous.as_ref()?;
        previous.revision.as_ref()
    }

    /// Says that nobody will go back.
    pub(crate) fn confirm(&mut self) -> Result<(), RecordError> {
        if self.state.previous.take().is_some() {
            self.store()?;
        }
        Ok(())
    }

    /// Whether a folder of the healing name is ours.
    pub(crate) fn owns_healing(&self) -> bool {
        self.state.healing
    }

    /// Says whether a folder of the healing name is ours: before it is made, and when it is gone.
    pub(crate) fn set_healing(&mut self, healing: bool) -> Result<(), RecordError> {
        if self.state.healing != healing {
            self.state.healing = healing;
            self.store()?;
        }
        Ok(())
    }

    /// What is to become of paths that others have changed.
    pub(crate) fn rules(&self) -> &Rules {
        &self.state.rules
    }

    /// Goes by `rules` from now on.
    pub(crate) fn set_rules(&mut self, rules: Rules) -> Result<(), RecordError> {
        if self.state.rules != rules {
            self.state.rules = rules;
            self.store()?;
        }
        Ok(())
    }
}

/// The file name of a journal.
pub(super) const JOURNAL: &str = "journal";
