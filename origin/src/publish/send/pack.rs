//! Packing: asks which chunks are new, compresses them in order on all cores, sends full packs.

use std::collections::{HashSet, VecDeque};

use content::frame::{PackedFrame, PlainFrame};
use content::pack::PackBuilder;
use content::{ChunkId, ChunkRun};
use tokio::task::JoinHandle;

use super::calls::Calls;
use super::{PublishFailure, ZSTD_LEVEL};

/// Makes packs out of the chunks that the origin wants.
pub(super) struct Packer<'a> {
    calls: &'a Calls,
    plain: PlainFrame,
    /// Frames that are being compressed, in order.
    frames: VecDeque<JoinHandle<std::io::Result<PackedFrame>>>,
    frames_max: usize,
    builder: PackBuilder,
}

impl<'a> Packer<'a> {
    pub(super) fn new(calls: &'a Calls) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            calls,
            plain: PlainFrame::default(),
            frames: VecDeque::new(),
            // One more than there are cores: the next is ready when one is done.
            frames_max: cores + 1,
            builder: PackBuilder::default(),
        }
    }

    /// Takes the next chunks.
    pub(super) async fn push(&mut self, batch: ChunkRun) -> Result<(), PublishFailure> {
        let missing = self.calls.have(batch.refs()).await?;
        let mut missing: HashSet<ChunkId> = missing.into_iter().collect();
        for chunk in batch.iter() {
            // Taken out, since a batch may hold a chunk twice.
            if missing.remove(&chunk.id()) {
                if !self.plain.fits(chunk.bytes().len()) {
                    self.close_frame().await?;
                }
                self.plain.push(chunk);
            }
        }
        Ok(())
    }

    /// Sends what is left.
    pub(super) async fn finish(mut self) -> Result<(), PublishFailure> {
        if !self.plain.is_empty() {
            self.close_frame().await?;
        }
        while !self.frames.is_empty() {
            self.take_frame().await?;
        }
        self.close_pack().await
    }

    async fn close_frame(&mut self) -> Result<(), PublishFailure> {
        let plain = std::mem::take(&mut self.plain);
        self.frames
            .push_back(tokio::task::spawn_blocking(move || plain.pack(ZSTD_LEVEL)));
        if self.frames.len() >= self.frames_max {
            self.take_frame().await?;
        }
        Ok(())
    }

    async fn take_frame(&mut self) -> Result<(), PublishFailure> {
        if let Some(frame) = self.frames.pop_front() {
            let frame = frame.await?.map_err(PublishFailure::Scratch)?;
            if !self.builder.fits(&frame) {
                self.close_pack().await?;
            }
            self.builder.push(frame);
        }
        Ok(())
    }

    async fn close_pack(&mut self) -> Result<(), PublishFailure> {
        if let Some(pack) = std::mem::take(&mut self.builder).finish() {
            self.calls.pack(pack.bytes).await?;
        }
        Ok(())
    }
}
