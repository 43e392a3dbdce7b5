//! A pack that was found: how, and where its bytes come from.

use std::sync::Arc;

use content::locator::PackEntry;

use super::ahead::Lead;
use super::fill::{FillError, Tail};
use super::reader::Reader;
use super::rope::Rope;
use super::store::StoredPack;

/// How much of a pack a request wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Less than all of it.
    Part,
    /// All of it.
    Whole,
}

/// How a request for a pack was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// From disk.
    Disk,
    /// By a fill.
    Fill {
        /// Whether another request had started it.
        collapsed: bool,
        /// Whether the pack is going to be kept.
        stored: bool,
    },
    /// From memory.
    Memory,
}

/// A pack whose header has been checked, and whose bytes are here or on their way.
#[derive(Debug)]
pub struct Served {
    /// Fills of what comes next, which go on as long as this is read.
    pub(super) ahead: Option<Arc<Lead>>,
    pub(super) how: How,
    pub(super) origin: Origin,
    pub(super) total_bytes: u64,
}

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum Origin {
    Disk(Arc<StoredPack>),
    Fill(Tail),
    Memory(Arc<Rope>),
}

impl Served {
    /// The pack `entry`, read behind a fill, once the fill has its header.
    pub(super) async fn behind(
        mut tail: Tail,
        collapsed: bool,
        entry: PackEntry,
    ) -> Result<Self, FillError> {
        let stored = tail.header().await?;
        Ok(Self {
            ahead: None,
            how: How::Fill { collapsed, stored },
            origin: Origin::Fill(tail),
            total_bytes: u64::from(entry.total_bytes),
        })
    }

    /// How it was found.
    #[must_use]
    pub fn how(&self) -> How {
        self.how
    }

    /// Bytes of the whole pack.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Waits until all of it is here. Its fill goes on for as long as this is waited for.
    ///
    /// # Errors
    ///
    /// Fails as its fill fails.
    pub(crate) async fn arrived(&mut self) -> Result<(), FillError> {
        match &mut self.origin {
            Origin::Disk(_) | Origin::Memory(_) => Ok(()),
            Origin::Fill(tail) => tail.end().await,
        }
    }

    /// Reads it, from byte `from` up to, but not including, byte `end`.
    #[must_use]
    pub fn reader(self, from: u64, end: u64) -> Reader {
        Reader::new(self.origin, from, end.min(self.total_bytes), self.ahead)
    }
}
