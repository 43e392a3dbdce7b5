//! A deployment with something to fetch.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use content::frame::Frame;
use content::pack::{PackDir, PackHeader};
use content::{Chunk, PackId};
use tests::fixture;
use tests::testbed::Testbed;

/// Megabytes that are published: two packs of content.
const MEGABYTES: usize = 6;
/// The fileset's name.
const FILESET: &str = "tools";

/// An origin with a fileset, an enrolled client, and the longest pack that there is.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) bed: Testbed,
    /// The data folder of the client called `c1`.
    pub(crate) client: PathBuf,
    /// The pack's bytes as the origin stores them.
    pub(crate) bytes: Vec<u8>,
    pub(crate) pack: PackId,
}

impl Shop {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let bed = Testbed::start().await?;
        let client = bed.enrol_client("c1").await?;
        let folder = bed.path("tree");
        fixture::tree(&folder, MEGABYTES)?;
        bed.publish(FILESET, &folder).await?;
        let packs = PackDir::new(bed.path("origin").join("packs"));
        let mut found = Vec::new();
        for pack in packs.list()? {
            found.push((packs.path(pack).metadata()?.len(), pack));
        }
        let longest = found.into_iter().max_by_key(|(bytes, _)| *bytes);
        let (_, pack) = longest.context("nothing was published")?;
        let bytes = std::fs::read(packs.path(pack))?;
        verify(&bytes, pack)?;
        Ok(Self {
            bed,
            client,
            bytes,
            pack,
        })
    }

    /// The pack's entity tag.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.pack.0.hex())
    }

    /// The path of the pack on the wire.
    pub(crate) fn path(&self) -> String {
        format!("/v1/filesets/{FILESET}/packs/{}", self.pack.0.hex())
    }
}

/// Verifies a pack as a client does: header, frames, chunks.
pub(crate) fn verify(bytes: &[u8], pack: PackId) -> anyhow::Result<()> {
    let length = PackHeader::length(bytes)?.context("a pack is longer than that")?;
    let header = bytes.get(..length).context("the header is cut off")?;
    let header = PackHeader::verify(header, pack)?;
    let total = header.total_bytes() as usize;
    ensure!(
        bytes.len() == total,
        "want {total} bytes, got {}",
        bytes.len()
    );
    let mut plain = Vec::new();
    for (number, info) in header.frames().iter().enumerate() {
        let range = header.frame_range(number);
        let stored = &bytes[range.start as usize..range.end as usize];
        Frame::verify(info, stored)?.unpack(&mut plain)?;
        let mut rest = &plain[..];
        for chunk in &header.chunks()[info.first_chunk as usize..][..info.chunks as usize] {
            let (head, tail) = rest.split_at(chunk.length as usize);
            Chunk::verify(head, chunk.id)?;
            rest = tail;
        }
    }
    Ok(())
}
