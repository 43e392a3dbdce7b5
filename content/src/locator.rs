//! The locator: in which packs the chunks of a revision lie.
//!
//! It names no chunk. Its runs go along with the chunk lists themselves: first the chunks of the
//! index root, then those of the index, each occurrence in order, so that reader and index are
//! joined without a map of everything. A chunk that occurs again occurs again in the runs; a long
//! repetition, such as the zeros of a sparse file, is one run.

use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::{Digest, PackId};
use crate::name::{FilesetName, RevisionNumber};
use crate::pack::{PACK_BYTES_MAX, PACK_CHUNKS_MAX, PACK_HEADER_BYTES_MAX};
use crate::statement::Payload;

/// The most packs of one revision: at 4 MiB each, 4 TiB.
pub const LOCATOR_PACKS_MAX: usize = 1 << 20;
/// The most runs of one revision.
pub const LOCATOR_RUNS_MAX: usize = 1 << 22;

/// Where the chunks of one revision lie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Locator {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// The fileset.
    pub fileset: FilesetName,
    /// The revision.
    pub number: RevisionNumber,
    /// The digest of the revision's index root.
    pub root: Digest,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// How many of the packs, from the first, hold chunks of the index.
    pub index_packs: u32,
    /// The packs.
    pub packs: Vec<PackEntry>,
    /// Where each chunk occurrence lies, in order.
    pub runs: Vec<Run>,
}

/// A pack as a locator lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PackEntry {
    /// Its name.
    pub id: PackId,
    /// Bytes of its header.
    pub header_bytes: u32,
    /// Bytes of all of it.
    pub total_bytes: u32,
}

/// Some chunk occurrences that lie in one pack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Which of the locator's packs.
    pub pack: u32,
    /// The first chunk, counted through the pack.
    pub first: u32,
    /// How many occurrences: at least one.
    pub count: u32,
    /// Whether they are all the first chunk, over and over, instead of it and those that follow.
    pub repeat: bool,
}

/// Where one chunk lies.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Which of the locator's packs.
    pub pack: u32,
    /// Which chunk, counted through the pack.
    pub ordinal: u32,
}

impl Locator {
    /// The places of all chunk occurrences, in order.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.runs.iter().flat_map(|run| {
            (0..run.count).map(|at| Place {
                pack: run.pack,
                ordinal: if run.repeat {
                    run.first
                } else {
                    run.first + at
                },
            })
        })
    }
}

impl Payload for Locator {
    const TYPE: &'static str = "application/vnd.larder.locator+cbor";
    const BYTES_MAX: usize = 64 << 20;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        Some(self.created)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(8);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(FILESET).text(self.fileset.as_str());
        writer.u64(NUMBER).u64(self.number.0);
        writer.u64(ROOT).digest(&self.root);
        writer.u64(CREATED).i64(self.created);
        writer.u64(INDEX_PACKS).u64(u64::from(self.index_packs));
        writer.u64(PACKS).array(self.packs.len() * 3);
        for pack in &self.packs {
            writer.digest(&pack.id.0);
            writer
                .u64(u64::from(pack.header_bytes))
                .u64(u64::from(pack.total_bytes));
        }
        writer.u64(RUNS).array(self.runs.len() * 3);
        for run in &self.runs {
            let count = i64::from(run.count);
            writer.u64(u64::from(run.pack)).u64(u64::from(run.first));
            writer.i64(if run.repeat { -count } else { count });
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut fileset, mut number, mut root) = (None, None, None, None);
        let (mut created, mut index_packs, mut packs, mut runs) = (None, None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                FILESET => fileset = Some(read_name(&mut fields)?),
                NUMBER => number = Some(RevisionNumber(fields.u64()?)),
                ROOT => root = Some(fields.digest()?),
                CREATED => created = Some(fields.i64()?),
                INDEX_PACKS => index_packs = Some(fields.u32()?),
                PACKS => packs = Some(read_packs(&mut fields)?),
                RUNS => runs = Some(read_runs(&mut fields, packs.as_ref().map_or(0, Vec::len))?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let locator = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            fileset: need(fileset, FILESET)?,
            number: need(number, NUMBER)?,
            root: need(root, ROOT)?,
            created: need(created, CREATED)?,
            index_packs: need(index_packs, INDEX_PACKS)?,
            packs: need(packs, PACKS)?,
            runs: need(runs, RUNS)?,
        };
        if locator.index_packs as usize > locator.packs.len() {
            return Err(CborError::Bounds {
                key: INDEX_PACKS,
                what: "more than there are packs",
            });
        }
        cbor::same(bytes, &locator.encode())?;
        Ok(locator)
    }
}

fn read_packs(fields: &mut Fields<'_>) -> Result<Vec<PackEntry>, CborError> {
    let items = fields.array(LOCATOR_PACKS_MAX * 3)?;
    if items % 3 != 0 {
        return Err(fields.bounds("not three values a pack"));
    }
    let mut packs = Vec::with_capacity(items / 3);
    for _ in 0..items / 3 {
        let id = PackId(fields.digest()?);
        let (header_bytes, total_bytes) = (fields.u32()?, fields.u32()?);
        let fits = header_bytes as usize <= PACK_HEADER_BYTES_MAX
            && total_bytes as usize <= PACK_BYTES_MAX
            && header_bytes < total_bytes;
        if !fits {
            return Err(fields.bounds("a pack's length"));
        }
        packs.push(PackEntry {
            id,
            header_bytes,
            total_bytes,
        });
    }
    Ok(packs)
}

fn read_runs(fields: &mut Fields<'_>, packs: usize) -> Result<Vec<Run>, CborError> {
    let items = fields.array(LOCATOR_RUNS_MAX * 3)?;
    if items % 3 != 0 {
        return Err(fields.bounds("not three values a run"));
    }
    let mut runs = Vec::with_capacity(items / 3);
    for _ in 0..items / 3 {
        let (pack, first, count) = (fields.u32()?, fields.u32()?, fields.i64()?);
        let repeat = count < 0;
        let count = u32::try_from(count.unsigned_abs()).unwrap_or(0);
        let last = if repeat {
            Some(first)
        } else {
            count
                .checked_sub(1)
                .and_then(|more| first.checked_add(more))
        };
        let fits = (pack as usize) < packs
            && count > 0
            && last.is_some_and(|last| (last as usize) < PACK_CHUNKS_MAX);
        if !fits {
            return Err(fields.bounds("a run"));
        }
        runs.push(Run {
            pack,
            first,
            count,
            repeat,
        });
    }
    Ok(runs)
}

pub(crate) fn read_name(fields: &mut Fields<'_>) -> Result<FilesetName, CborError> {
    let text = fields.text(FilesetName::BYTES_MAX)?;
    text.parse().map_err(|error| fields.malformed(error))
}

/// Makes runs out of places, as they come.
#[derive(Debug, Default)]
pub struct RunBuilder {
    runs: Vec<Run>,
}

impl RunBuilder {
    /// Adds the place of the next chunk occurrence.
    pub fn push(&mut self, place: Place) {
        if let Some(run) = self.runs.last_mut()
            && run.pack == place.pack
            && run.count < u32::MAX / 2
        {
            let goes_on = !run.repeat && place.ordinal == run.first + run.count;
            let repeats = place.ordinal == run.first && (run.repeat || run.count == 1);
            if goes_on || repeats {
                run.repeat = repeats;
                run.count += 1;
                return;
            }
        }
        self.runs.push(Run {
            pack: place.pack,
            first: place.ordinal,
            count: 1,
            repeat: false,
        });
    }

    /// The runs.
    #[must_use]
    pub fn finish(self) -> Vec<Run> {
        self.runs
    }
}

const DEPLOYMENT: u64 = 0;
const FILESET: u64 = 1;
const NUMBER: u64 = 2;
const ROOT: u64 = 3;
const CREATED: u64 = 4;
const INDEX_PACKS: u64 = 5;
const PACKS: u64 = 6;
const RUNS: u64 = 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locator() -> Locator {
        let pack = |name: &[u8]| PackEntry {
            id: PackId(Digest::of(name)),
            header_bytes: 200,
            total_bytes: 4 << 20,
        };
        Locator {
            deployment: "d1".to_owned(),
            fileset: "tools".parse().unwrap(),
            number: RevisionNumber(7),
            root: Digest::of(b"root"),
            created: 1_700_000_000,
            index_packs: 1,
            packs: vec![pack(b"a"), pack(b"b")],
            runs: vec![
                Run {
                    pack: 0,
                    first: 0,
                    count: 2,
                    repeat: false,
                },
                Run {
                    pack: 1,
                    first: 5,
                    count: 3,
                    repeat: true,
                },
            ],
        }
    }

    #[test]
    fn a_locator_comes_back_and_its_bytes_do_not_drift() {
        let bytes = locator().encode();
        assert_eq!(Locator::decode(&bytes), Ok(locator()));
        expect_test::expect!["cdaa588258799b91bac3e36cbe4c71feaf845b621b0646e2f107b3ceb8c23c55"]
            .assert_eq(&Digest::of(&bytes).hex());
    }

    #[test]
    fn what_points_nowhere_is_refused() {
        let check = |change: fn(&mut Locator)| {
            let mut bad = locator();
            change(&mut bad);
            assert!(Locator::decode(&bad.encode()).is_err(), "{bad:?}");
        };
        check(|locator| locator.runs[0].pack = 2);
        check(|locator| locator.runs[0].count = 0);
        check(|locator| locator.runs[0].first = 8191);
        check(|locator| locator.runs[0].first = u32::MAX);
        check(|locator| locator.runs[1].first = 8192);
        check(|locator| locator.packs[0].total_bytes = 200);
        check(|locator| locator.packs[0].total_bytes = (8 << 20) + 1);
        check(|locator| locator.index_packs = 3);
    }

    proptest! {
        #[test]
        fn runs_hold_the_places_that_made_them(
            places in prop::collection::vec((0u32..3, 0u32..6), 0..60)
        ) {
            let places: Vec<Place> =
                places.into_iter().map(|(pack, ordinal)| Place { pack, ordinal }).collect();
            let mut builder = RunBuilder::default();
            places.iter().for_each(|&place| builder.push(place));
            let locator = Locator { runs: builder.finish(), ..locator() };
            prop_assert_eq!(locator.places().collect::<Vec<_>>(), places);
        }
    }
}
