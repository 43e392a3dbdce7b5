//! Giving up what an operator names, and looking whether it is what it should be: both a slice at a
//! time, so that whoever asked sees it go on, and it ends when he goes away.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use content::{Digest, FilesetName, PackId};
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Admin, no_such_fileset};
use crate::cache::scrub::Examined;
use crate::cache::{Kept, off_runtime};

/// What of the cache is meant. As text `NAME` or `sha256:…`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum What {
    /// All packs of a fileset.
    Fileset(FilesetName),
    /// One pack.
    Pack(PackId),
}

/// What is to be done next.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slice {
    /// The last that has been seen to, in the order of digests; none at the beginning.
    pub after: Option<String>,
    /// What is meant; none for everything.
    pub what: Option<What>,
}

/// What an eviction came to, so far.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Evicted {
    /// Bytes of what was given up.
    pub bytes: u64,
    /// Packs that stay since somebody reads them.
    pub in_use: u64,
    /// The last that has been seen to; none if that was the last of all.
    pub next: Option<String>,
    /// Packs given up.
    pub packs: u64,
    /// Packs that stay since they are pinned.
    pub pinned: u64,
    /// Packs that stay since another fileset has them, too.
    pub shared: u64,
}

/// What a look came to, so far.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verified {
    /// Bytes that were read.
    pub bytes: u64,
    /// The names of those that were damaged, as far as there are not too many.
    pub damaged: Vec<String>,
    /// How many were damaged: they are in quarantine, and fetched again if they may be.
    pub damaged_files: u64,
    /// Files that are as they should be.
    pub good: u64,
    /// The last that has been seen to; none if that was the last of all.
    pub next: Option<String>,
    /// How much is done, in percent.
    pub percent: u8,
    /// Files that cannot be read for now.
    pub unreadable: u64,
}

impl Admin {
    /// Gives up a slice of what is meant.
    pub(super) async fn evict(&self, slice: &Slice) -> Result<Evicted, Fault> {
        let Some(what) = &slice.what else {
            return Err(Fault::new(Code::BadRequest, "name a fileset or a pack"));
        };
        self.refuse_pinned(what)?;
        let (ids, next) = self.packs_of(what, slice)?;
        let (cache, catalogue) = (self.cache.clone(), self.catalogue.clone());
        let meant = what.clone();
        let given_up = off_runtime(move || {
            let mut done = Evicted {
                next,
                ..Evicted::default()
            };
            for id in ids {
                let is_of_another = |name: &FilesetName| {
                    let is_other = |it: &FilesetName| it != name;
                    catalogue.filesets_with(id).iter().any(is_other)
                };
                if matches!(&meant, What::Fileset(name) if is_of_another(name)) {
                    done.shared += 1;
                    continue;
                }
                match cache.evict(id) {
                    Ok(bytes) => (done.packs, done.bytes) = (done.packs + 1, done.bytes + bytes),
                    Err(Kept::Absent) => {}
                    Err(Kept::InUse) => done.in_use += 1,
                    Err(Kept::Pinned) => done.pinned += 1,
                }
            }
            done
        });
        let done = given_up.await.ok_or_else(stopping)?;
        if let What::Pack(id) = &what
            && done == Evicted::default()
        {
            let told = format!("{id} is not here: see cache list");
            return Err(Fault::new(Code::UnknownPack, told));
        }
        Ok(done)
    }

    /// A pin says that something stays: who wants it gone takes the pin away first.
    fn refuse_pinned(&self, what: &What) -> Result<(), Fault> {
        let What::Fileset(name) = what else {
            return Ok(());
        };
        let mut pins = self.pins.wanted().into_iter();
        match pins.find(|pin| pin.fileset == *name) {
            Some(pin) => Err(Fault::new(
                Code::Conflict,
                format!("{pin} is pinned: run larder-booster cache unpin {pin} first"),
            )),
            None => Ok(()),
        }
    }

    /// Looks at a slice of what is meant, no faster than the scrub may.
    pub(super) async fn verify(&self, slice: &Slice) -> Result<Verified, Fault> {
        let mut done = Verified::default();
        let (mut keys, shard) = match &slice.what {
            Some(what) => {
                let (ids, next) = self.packs_of(what, slice)?;
                done.next = next;
                let keys = ids.into_iter().map(crate::cache::pack_key);
                (keys.collect::<VecDeque<_>>(), None)
            }
            None => {
                let after = digest(slice)?;
                let (keys, shard) = self.scrubber.keys_after(after).await;
                (keys, Some(shard))
            }
        };
        let begun = Instant::now();
        let mut last = None;
        while let Some(key) = keys.pop_front() {
            done.note(key.digest, &self.scrubber.examine(key, &self.stop).await);
            last = Some(key.digest);
            if begun.elapsed() >= SLICE {
                break;
            }
        }
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        let end = shard.filter(|shard| *shard < u8::MAX).map(|shard| {
            // The last of the folder that was read, whatever is in it.
            let mut raw = [u8::MAX; 32];
            raw[0] = shard;
            Digest::from_raw(raw)
        });
        if keys.is_empty() {
            done.next = end.map(|it| it.to_string()).or_else(|| done.next.take());
        } else {
            done.next = last.map(|it| it.to_string());
        }
        let reached = done
            .next
            .as_deref()
            .and_then(|it| it.parse::<Digest>().ok());
        done.percent = reached.map_or(100, |it| (u32::from(it.as_raw()[0]) * 100 / 256) as u8);
        Ok(done)
    }

    /// A slice of the packs that are meant and here, and where the next slice begins.
    fn packs_of(&self, what: &What, slice: &Slice) -> Result<(Vec<PackId>, Option<String>), Fault> {
        let name = match what {
            What::Pack(id) => return Ok((vec![*id], None)),
            What::Fileset(name) => name,
        };
        let contents = self.catalogue.contents(name);
        let contents = contents.ok_or_else(|| no_such_fileset(name))?;
        let after = digest(slice)?.map(PackId);
        let later = contents.packs.into_keys().filter(|id| Some(*id) > after);
        let mut ids: Vec<PackId> = later.collect();
        let more = ids.len() > PACKS_MAX;
        ids.truncate(PACKS_MAX);
        let next = more.then(|| ids.last().map(ToString::to_string)).flatten();
        ids.retain(|id| self.cache.sight(*id).is_some());
        Ok((ids, next))
    }
}

/// After which digest a slice begins.
fn digest(slice: &Slice) -> Result<Option<Digest>, Fault> {
    let after = slice.after.as_ref().map(|after| after.parse());
    let after = after.transpose();
    after
        .map_err(|error: content::ParseDigestError| Fault::new(Code::BadRequest, error.to_string()))
}

fn stopping() -> Fault {
    Fault::new(Code::Busy, "the booster is stopping")
}

impl Verified {
    fn note(&mut self, digest: Digest, examined: &Examined) {
        match examined {
            Examined::Absent | Examined::Stopped => {}
            Examined::Damaged { bytes } => {
                self.bytes += bytes;
                self.damaged_files += 1;
                if self.damaged.len() < NAMED_MAX {
                    self.damaged.push(digest.to_string());
                }
            }
            Examined::Good { bytes } => {
                (self.bytes, self.good) = (self.bytes + bytes, self.good + 1)
            }
            Examined::Unreadable { .. } => self.unreadable += 1,
        }
    }

    /// Adds what a later slice came to.
    pub fn add(&mut self, later: Self) {
        self.bytes += later.bytes;
        self.damaged_files += later.damaged_files;
        let room = NAMED_MAX.saturating_sub(self.damaged.len());
        self.damaged.extend(later.damaged.into_iter().take(room));
        self.good += later.good;
        self.next = later.next;
        self.percent = later.percent;
        self.unreadable += later.unreadable;
    }
}

impl Evicted {
    /// Adds what a later slice came to.
    pub fn add(&mut self, later: Self) {
        self.bytes += later.bytes;
        self.in_use += later.in_use;
        self.next = later.next;
        self.packs += later.packs;
        self.pinned += later.pinned;
        self.shared += later.shared;
    }
}

impl fmt::Display for Evicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = config::Bytes(self.bytes);
        write!(f, "gave up {} packs, {bytes}", self.packs)?;
        let stay = [
            (self.in_use, "in use"),
            (self.pinned, "pinned"),
            (self.shared, "of other filesets, too"),
        ];
        for (packs, why) in stay {
            if packs > 0 {
                write!(f, "\n{packs} stay: {why}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = config::Bytes(self.bytes);
        write!(f, "{} files are good, {bytes} were read", self.good)?;
        if self.damaged_files > 0 {
            let damaged = self.damaged_files;
            write!(
                f,
                "\n{damaged} damaged, now in quarantine; packs are fetched again:"
            )?;
        }
        for name in &self.damaged {
            write!(f, "\n  {name}")?;
        }
        if self.unreadable > 0 {
            write!(
                f,
                "\n{} cannot be read for now: the log says why",
                self.unreadable
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fileset(name) => name.fmt(f),
            Self::Pack(id) => id.fmt(f),
        }
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // No name of a fileset has a colon.
        if text.contains(':') {
            let digest = text.parse::<Digest>().map_err(|error| error.to_string())?;
            return Ok(Self::Pack(PackId(digest)));
        }
        let name = text.parse::<FilesetName>();
        name.map(Self::Fileset).map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for What {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<What> for String {
    fn from(what: What) -> Self {
        what.to_string()
    }
}

/// How long a slice of looks takes, about: whoever asked sees that it goes on.
const SLICE: Duration = Duration::from_secs(2);
/// Packs of a slice.
const PACKS_MAX: usize = 4096;
/// More damaged files than that need no names.
const NAMED_MAX: usize = 100;
