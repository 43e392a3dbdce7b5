//! Packing anew what lies in packs of which a revision needs too little.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use content::frame::PlainFrame;
use content::pack::{BuiltPack, PackBuilder};
use content::{ChunkId, PackId};

use super::commit::CommitError;
use super::intake::Intake;
use super::locate::ChunkReader;
use crate::ledger::packs::Pack;
use crate::ledger::publishes::{self, ChunkPlace, Use};
use crate::ledger::{commit, packs};

/// A pack is reused only if at least so much of it is live in the revision, in percent: below, a
/// client or booster would fetch more dead bytes than reuse saves.
const LIVE_PERCENT_MIN: i64 = 70;

/// The packs of which the revision needs too little.
pub(super) fn weak(uses: &[Use]) -> HashMap<i64, Pack> {
    uses.iter()
        .filter(|it| it.used_bytes * 100 < it.pack.plain_bytes * LIVE_PERCENT_MIN)
        .map(|it| (it.pack.number, it.pack))
        .collect()
}

/// Gathers the chunks of weak packs, in the order in which the revision needs them.
#[derive(Debug)]
pub(super) struct Repacker<'a> {
    intake: &'a Intake,
    publish: i64,
    weak: HashMap<i64, Pack>,
    reader: Option<ChunkReader>,
    plain: PlainFrame,
    builder: PackBuilder,
    taken: HashSet<ChunkId>,
}

impl<'a> Repacker<'a> {
    pub(super) fn new(intake: &'a Intake, publish: i64, weak: HashMap<i64, Pack>) -> Self {
        let reader = Some(ChunkReader::new(intake.catalogue.packs().clone()));
        Self {
            intake,
            publish,
            weak,
            reader,
            plain: PlainFrame::default(),
            builder: PackBuilder::default(),
            taken: HashSet::new(),
        }
    }

    /// Whether there is anything to pack anew.
    pub(super) fn is_needed(&self) -> bool {
        !self.weak.is_empty()
    }

    /// Takes those of `chunks` that lie in weak packs.
    pub(super) async fn push(
        &mut self,
        chunks: Vec<(ChunkId, ChunkPlace)>,
    ) -> Result<(), CommitError> {
        let mut wanted: Vec<(ChunkId, PackId, u32, u32)> = Vec::new();
        for (id, place) in chunks {
            if let Some(pack) = self.weak.get(&place.pack)
                && self.taken.insert(id)
            {
                wanted.push((id, pack.id, place.ordinal, place.length));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut reader = self
            .reader
            .take()
            .expect("the reader is back after each push");
        let mut plain = std::mem::take(&mut self.plain);
        let mut builder = std::mem::take(&mut self.builder);
        let worked = tokio::task::spawn_blocking(move || {
            let mut built = Vec::new();
            for (id, pack, ordinal, length) in wanted {
                if !plain.fits(length as usize) {
                    close_frame(&mut plain, &mut builder, &mut built)?;
                }
                reader.with(pack, ordinal, id, |chunk| {
                    plain.push(chunk);
                    Ok(())
                })?;
            }
            Ok::<_, CommitError>((reader, plain, builder, built))
        });
        let (reader, plain, builder, built) = worked.await??;
        (self.reader, self.plain, self.builder) = (Some(reader), plain, builder);
        self.store(built).await
    }

    /// Closes the last pack. To be called where content of another kind begins, and at the end.
    pub(super) async fn flush(&mut self) -> Result<(), CommitError> {
        let mut plain = std::mem::take(&mut self.plain);
        let mut builder = std::mem::take(&mut self.builder);
        let worked = tokio::task::spawn_blocking(move || {
            let mut built = Vec::new();
            close_frame(&mut plain, &mut builder, &mut built)?;
            built.extend(builder.finish());
            Ok::<_, CommitError>(built)
        });
        let built = worked.await??;
        self.store(built).await
    }

    async fn store(&self, built: Vec<BuiltPack>) -> Result<(), CommitError> {
        for BuiltPack { header, bytes } in built {
            let id = header.id();
            let stored = self
                .intake
                .store(self.publish, header, Bytes::from(bytes))
                .await;
            stored.map_err(CommitError::of_repack)?;
            let mut tx = self.intake.catalogue.authority().ledger().write().await?;
            let new = packs::find(&mut tx, id).await?;
            if let Some(new) = new {
                publishes::move_chunks(&mut tx, self.publish, new.number).await?;
            }
            commit(tx).await?;
        }
        Ok(())
    }
}

fn close_frame(
    plain: &mut PlainFrame,
    builder: &mut PackBuilder,
    built: &mut Vec<BuiltPack>,
) -> Result<(), CommitError> {
    if plain.is_empty() {
        return Ok(());
    }
    let packed = std::mem::take(plain).pack(super::send::ZSTD_LEVEL)?;
    if !builder.fits(&packed) {
        built.extend(std::mem::take(builder).finish());
    }
    builder.push(packed);
    Ok(())
}
