//! The roster of a booster: which manifest is the current one of each device that comes to it.
//!
//! The origin signs a short head, which bears the root of a Merkle tree over the entries. Whoever has
//! all of them can prove one of them to its device with a hash for each level. Leaves and nodes are
//! told apart by their first byte, as in RFC 6962 §2.1.

use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::{Digest, Hasher};

/// What holds for one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RosterEntry {
    /// The device.
    pub device: String,
    /// The model that its manifest was made from.
    pub model: u64,
    /// The number of its manifest; 0 if it has none, and there is then no digest either.
    pub number: u64,
    /// The digest of its manifest's envelope.
    pub manifest: Option<Digest>,
    /// The highest id of a command that it was asked and has not done; 0 if there is none.
    pub asked: u64,
}

/// All of them, in order of the devices' ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roster {
    entries: Vec<RosterEntry>,
}

/// A roster with all hashes of its tree, so that a proof costs a look at each level.
#[derive(Clone, Debug)]
pub struct RosterTree {
    roster: Roster,
    levels: Vec<Vec<Digest>>,
}

/// One entry, and how it hangs from the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RosterProof {
    /// The envelope of the head.
    pub head: Vec<u8>,
    /// The entry.
    pub entry: RosterEntry,
    /// Which of the entries it is, from 0.
    pub at: u64,
    /// The hashes beside the way to the root, from the leaf up.
    pub path: Vec<Digest>,
}

impl Roster {
    /// The most devices on one roster.
    pub const DEVICES_MAX: usize = 20_000;
    /// The most bytes of its CBOR form: an entry takes at most 127.
    pub const BYTES_MAX: usize = Self::DEVICES_MAX * 128 + 64;

    /// A roster with these entries; of those beyond [`Roster::DEVICES_MAX`], the last are left out.
    #[must_use]
    pub fn new(mut entries: Vec<RosterEntry>) -> Self {
        entries.sort_by(|a, b| a.device.cmp(&b.device));
        entries.dedup_by(|a, b| a.device == b.device);
        entries.truncate(Self::DEVICES_MAX);
        Self { entries }
    }

    /// The entries, in order of the devices' ids.
    #[must_use]
    pub fn entries(&self) -> &[RosterEntry] {
        &self.entries
    }

    /// What holds for `device`, if it is on the roster.
    #[must_use]
    pub fn entry(&self, device: &str) -> Option<&RosterEntry> {
        self.entries.get(self.place(device)?)
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        root(&self.levels())
    }

    /// The CBOR form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(1);
        writer.u64(ENTRIES).array(self.entries.len());
        for entry in &self.entries {
            put(&mut writer, entry);
        }
        writer.finish()
    }

    /// Reads the CBOR form.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not exactly one roster in deterministic form and within limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let mut entries: Option<Vec<RosterEntry>> = None;
        while let Some(key) = fields.next_key()? {
            match key {
                ENTRIES => {
                    let count = fields.array(Self::DEVICES_MAX)?;
                    let mut read = Vec::new();
                    for _ in 0..count {
                        read.push(take(&mut fields)?);
                    }
                    let in_order = |pair: &[RosterEntry]| pair[0].device < pair[1].device;
                    if !read.windows(2).all(in_order) {
                        return Err(fields.bounds("devices out of order"));
                    }
                    entries = Some(read);
                }
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let roster = Self {
            entries: need(entries, ENTRIES)?,
        };
        cbor::same(bytes, &roster.encode())?;
        Ok(roster)
    }

    fn place(&self, device: &str) -> Option<usize> {
        let by = |entry: &RosterEntry| entry.device.as_str().cmp(device);
        self.entries.binary_search_by(by).ok()
    }

    /// The hashes of the tree from the leaves up. A node without a neighbour goes up as it is.
    fn levels(&self) -> Vec<Vec<Digest>> {
        let mut levels = Vec::new();
        let mut level: Vec<Digest> = self.entries.iter().map(leaf).collect();
        while level.len() > 1 {
            let above = level.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                alone => alone[0],
            });
            let above = above.collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        levels
    }
}

impl RosterTree {
    /// Computes the hashes: two for each device, which takes milliseconds for the longest roster.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        let levels = roster.levels();
        Self { roster, levels }
    }

    /// The roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        root(&self.levels)
    }

    /// The entry of `device` with its way to the root, under the envelope of the head `head`.
    #[must_use]
    pub fn proof(&self, device: &str, head: &[u8]) -> Option<RosterProof> {
        let place = self.roster.place(device)?;
        let (mut at, mut path) = (place, Vec::new());
        for level in &self.levels {
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(RosterProof {
            head: head.to_vec(),
            entry: self.roster.entries.get(place)?.clone(),
            at: place as u64,
            path,
        })
    }
}

impl RosterProof {
    /// The most bytes of its CBOR form.
    pub const BYTES_MAX: usize = 128 << 10;
    /// The most levels of the tree over [`Roster::DEVICES_MAX`] entries.
    pub const LEVELS_MAX: usize = 15;

    /// Whether the entry is the one at its place under `root`, in a tree over `count` entries.
    #[must_use]
    pub fn holds(&self, root: &Digest, count: u64) -> bool {
        if self.at >= count || self.path.len() > Self::LEVELS_MAX {
            return false;
        }
        let (mut at, mut width) = (self.at, count);
        let (mut hash, mut path) = (leaf(&self.entry), self.path.iter());
        while width > 1 {
            if at ^ 1 < width {
                let Some(beside) = path.next() else {
                    return false;
                };
                hash = match at & 1 {
                    0 => node(&hash, beside),
                    _ => node(beside, &hash),
                };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none() && hash == *root
    }

    /// The CBOR form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(4);
        writer.u64(HEAD).bytes(&self.head);
        writer.u64(ENTRY).array(1);
        put(&mut writer, &self.entry);
        writer.u64(AT).u64(self.at);
        writer.u64(PATH).array(self.path.len());
        for hash in &self.path {
            writer.digest(hash);
        }
        writer.finish()
    }

    /// Reads the CBOR form.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not exactly one proof in deterministic form and within limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut head, mut entry, mut at, mut path) = (None, None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                HEAD => head = Some(fields.bytes(Self::BYTES_MAX)?.to_vec()),
                ENTRY => {
                    if fields.array(1)? != 1 {
                        return Err(fields.bounds("not one entry"));
                    }
                    entry = Some(take(&mut fields)?);
                }
                AT => at = Some(fields.u64()?),
                PATH => {
                    let count = fields.array(Self::LEVELS_MAX)?;
                    let hashes = (0..count).map(|_| fields.digest());
                    path = Some(hashes.collect::<Result<_, _>>()?);
                }
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let proof = Self {
            head: need(head, HEAD)?,
            entry: need(entry, ENTRY)?,
            at: need(at, AT)?,
            path: need(path, PATH)?,
        };
        cbor::same(bytes, &proof.encode())?;
        Ok(proof)
    }
}

/// Five values, and four if there is no manifest.
fn put(writer: &mut Writer, entry: &RosterEntry) {
    writer.array(4 + usize::from(entry.manifest.is_some()));
    writer.text(&entry.device).u64(entry.model);
    writer.u64(entry.number).u64(entry.asked);
    if let Some(manifest) = &entry.manifest {
        writer.digest(manifest);
    }
}

fn take(fields: &mut Fields<'_>) -> Result<RosterEntry, CborError> {
    let values = fields.array(5)?;
    if values < 4 {
        return Err(fields.bounds("not four or five values an entry"));
    }
    let device = fields.text(DEVICE_BYTES_MAX)?.to_owned();
    let (model, number, asked) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let manifest = (values == 5).then(|| fields.digest()).transpose()?;
    if manifest.is_some() != (number > 0) {
        return Err(fields.bounds("a number without a manifest, or the other way round"));
    }
    Ok(RosterEntry {
        device,
        model,
        number,
        manifest,
        asked,
    })
}

/// The hash at the top. That of no device at all is the hash of nothing.
fn root(levels: &[Vec<Digest>]) -> Digest {
    let top = levels.last().and_then(|level| level.first());
    top.copied().unwrap_or_else(|| Digest::of(b""))
}

fn leaf(entry: &RosterEntry) -> Digest {
    let mut writer = Writer::map(1);
    writer.u64(ENTRY);
    put(&mut writer, entry);
    let mut hasher = Hasher::default();
    hasher.update(&[0]);
    hasher.update(&writer.finish());
    hasher.finish()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(&[1]);
    hasher.update(left.as_raw());
    hasher.update(right.as_raw());
    hasher.finish()
}

/// The longest id of a device: a DNS label.
const DEVICE_BYTES_MAX: usize = 63;

const ENTRIES: u64 = 0;
const HEAD: u64 = 0;
const ENTRY: u64 = 1;
const AT: u64 = 2;
const PATH: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64) -> RosterEntry {
        RosterEntry {
            device: format!("d{at:03}"),
            model: 2,
            number: at,
            manifest: (at > 0).then(|| Digest::of(&at.to_be_bytes())),
            asked: at % 3,
        }
    }

    #[test]
    fn each_entry_of_a_roster_of_any_size_hangs_from_its_root_and_no_other_does() {
        for count in (0..20).chain([64, 100]) {
            let roster = Roster::new((0..count).map(entry).collect());
            let (root, tree) = (roster.root(), RosterTree::new(roster.clone()));
            assert_eq!(tree.root(), root);
            assert_eq!(Roster::decode(&roster.encode()), Ok(roster.clone()));
            for at in 0..count {
                let proof = tree.proof(&entry(at).device, b"head").unwrap();
                assert_eq!(RosterProof::decode(&proof.encode()), Ok(proof.clone()));
                assert!(proof.holds(&root, count), "{at} of {count}");
                let bad = |edit: &dyn Fn(&mut RosterProof)| {
                    let mut bad = proof.clone();
                    edit(&mut bad);
                    assert!(!bad.holds(&root, count), "{at} of {count}");
                };
                bad(&|proof| proof.entry.number += 1);
                bad(&|proof| proof.entry.asked += 1);
                bad(&|proof| proof.entry.device = "d999".to_owned());
                bad(&|proof| proof.at += count);
                bad(&|proof| proof.path.push(root));
                if count > 1 {
                    bad(&|proof| proof.path.truncate(proof.path.len() - 1));
                    bad(&|proof| proof.entry = entry((at + 1) % count));
                }
            }
            assert_eq!(tree.proof("d999", b"head"), None);
        }
    }

    #[test]
    fn a_roster_out_of_order_or_with_half_a_manifest_is_refused() {
        let check = |entries: Vec<RosterEntry>| {
            let roster = Roster { entries };
            let read = Roster::decode(&roster.encode());
            assert!(matches!(read, Err(CborError::Bounds { .. })), "{read:?}");
        };
        check(vec![entry(2), entry(1)]);
        check(vec![entry(1), entry(1)]);
        let manifest = None;
        check(vec![RosterEntry {
            manifest,
            ..entry(1)
        }]);
        let number = 0;
        check(vec![RosterEntry { number, ..entry(1) }]);
    }
}
