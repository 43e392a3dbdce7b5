//! The inventory that the agent has at hand: what it tells of in check-ins, and when it looks again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use content::Digest;
use protocol::{FilesetHeld, Inventory};
use tracing::debug;

use super::collect;
use crate::fetch::off_the_runtime;

/// What the agent knows of its device.
#[derive(Debug)]
pub(crate) struct Stock {
    /// Between two looks, in seconds; none for never.
    every: Option<i64>,
    fields: PathBuf,
    taken: Option<Taken>,
    is_asked: bool,
}

#[derive(Debug)]
struct Taken {
    at: i64,
    body: Arc<Vec<u8>>,
    digest: Digest,
    filesets: BTreeMap<String, FilesetHeld>,
}

/// So soon, in seconds, is looked again for filesets that have changed: a roll-out of many in a row
/// is told at once.
const FILESETS_PAUSE: i64 = 900;

impl Stock {
    /// Nothing is known yet; it is looked every `every` seconds, and in `fields` for scripts.
    pub(crate) fn new(every: Option<i64>, fields: PathBuf) -> Self {
        Self {
            every,
            fields,
            taken: None,
            is_asked: false,
        }
    }

    /// Looks as often as that from now on.
    pub(crate) fn look_every(&mut self, every: Option<i64>) {
        self.every = every;
    }

    /// The name of what would be sent.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.taken.as_ref().map(|taken| taken.digest)
    }

    /// The origin has asked for it, or does no more.
    pub(crate) fn asked(&mut self, is_asked: bool) {
        self.is_asked = is_asked;
    }

    /// What is to be sent now, once.
    pub(crate) fn wanted(&mut self) -> Option<Arc<Vec<u8>>> {
        let taken = self.taken.as_ref().filter(|_| self.is_asked)?;
        self.is_asked = false;
        Some(Arc::clone(&taken.body))
    }

    /// When to look, `filesets` being what they are now; none for never.
    pub(crate) fn due(&self, filesets: &BTreeMap<String, FilesetHeld>) -> Option<i64> {
        let every = self.every?;
        let Some(taken) = &self.taken else {
            return Some(i64::MIN);
        };
        let pause = if *filesets == taken.filesets {
            every
        } else {
            every.min(FILESETS_PAUSE)
        };
        Some(taken.at.saturating_add(pause))
    }

    /// Looks; whether there is something new to tell.
    pub(crate) async fn take(&mut self, filesets: BTreeMap<String, FilesetHeld>, now: i64) -> bool {
        let mut inventory = collect(&self.fields).await;
        inventory.filesets.clone_from(&filesets);
        let encoded = off_the_runtime(move || {
            let body = encode(inventory);
            (Digest::of(&body), body)
        });
        let Ok((digest, body)) = encoded.await else {
            return false;
        };
        let is_news = self.digest() != Some(digest);
        debug!(%digest, bytes = body.len(), is_news, "took stock of the device");
        self.taken = Some(Taken {
            at: now,
            body: Arc::new(body),
            digest,
            filesets,
        });
        is_news
    }
}

/// The body of `inventory`; if it is too long, with as much of its software as there is room for.
fn encode(mut inventory: Inventory) -> Vec<u8> {
    loop {
        let body = inventory.encode();
        if body.len() <= Inventory::BYTES_MAX || inventory.software.is_empty() {
            return body;
        }
        let fits = inventory.software.len() * Inventory::BYTES_MAX / body.len();
        inventory
            .software
            .truncate(fits.min(inventory.software.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use protocol::{FilesetState, Software};

    use super::*;

    #[tokio::test]
    async fn it_looks_again_when_it_should_and_sends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut stock = Stock::new(Some(3600), folder.path().to_owned());
        let none = BTreeMap::new();
        assert_eq!(stock.due(&none), Some(i64::MIN));
        stock.asked(true);
        assert_eq!(stock.wanted(), None, "there is nothing yet");
        assert!(stock.take(none.clone(), 1000).await);
        assert_eq!(stock.due(&none), Some(4600));
        let body = stock.wanted().unwrap();
        assert_eq!(stock.digest(), Some(Digest::of(&body)));
        assert_eq!(stock.wanted(), None, "it was sent");
        let held = FilesetHeld {
            revision: 1,
            state: FilesetState::Active,
        };
        let some = BTreeMap::from([("tools".to_owned(), held)]);
        assert_eq!(stock.due(&some), Some(1900));
        assert!(stock.take(some.clone(), 1900).await);
        assert_eq!(stock.due(&some), Some(5500));
        assert_eq!(Stock::new(None, PathBuf::new()).due(&none), None);
    }

    #[test]
    fn what_is_too_long_is_cut_until_it_fits() {
        let package = Software {
            name: "\"".repeat(256),
            version: "\"".repeat(256),
            arch: String::new(),
        };
        let inventory = Inventory {
            software: vec![package; Inventory::SOFTWARE_MAX],
            ..Inventory::default()
        };
        let body = encode(inventory);
        let read = Inventory::decode(&body).unwrap();
        assert!(read.software.len() > 900, "{}", read.software.len());
    }
}
