//! Small trees for tests, and a revision as a reader finds it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::Context as _;
use certs::Trust;
use content::FilesetName;
use content::locator::Locator;
use content::pack::PackHeader;
use content::statement::{Payload as _, RevisionEntry, Snapshot, Statement, Timestamp};
use std::sync::Arc;
use transport::{ContentJudge, Fetched, PackBody, Source};

/// Bytes that do not compress, the same for the same `seed`: an xorshift generator (Marsaglia 2003).
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut noise: Vec<u8> = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend_from_slice(&next().to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// A tree with `megabytes` of files that do not compress, and one of everything else.
///
/// # Errors
///
/// Fails if it cannot be written.
pub fn tree(folder: &Path, megabytes: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("small/deep"))?;
    fs::create_dir_all(folder.join("large"))?;
    for file in 0..megabytes {
        let path = folder.join(format!("large/{file:03}"));
        fs::write(path, noise(1 << 20, file as u64 + 1))?;
    }
    for file in 0..50 {
        fs::write(
            folder.join(format!("small/{file}.txt")),
            format!("file {file}\n").repeat(file),
        )?;
    }
    fs::write(folder.join("small/deep/tool"), b"#!/bin/sh\n")?;
    fs::set_permissions(
        folder.join("small/deep/tool"),
        fs::Permissions::from_mode(0o755),
    )?;
    fs::hard_link(folder.join("small/7.txt"), folder.join("small/deep/seven"))?;
    Ok(symlink("../large/000", folder.join("small/first"))?)
}

/// The locator of the current revision of `fileset`, verified from the timestamp down.
///
/// # Errors
///
/// Fails if anything on the way cannot be fetched or does not count.
pub async fn locator(
    source: &Source,
    trust: &Arc<Trust>,
    fileset: &str,
) -> anyhow::Result<Locator> {
    let judge = ContentJudge::new(Arc::clone(trust));
    let current = current(source, trust, fileset).await?;
    let locator = source
        .statement(&current.locator, Locator::ENVELOPE_BYTES_MAX)
        .await?;
    let locator = Statement::<Locator>::open_named(&locator, current.locator, &judge, NEVER)?;
    Ok(locator.into_payload())
}

/// The names of the current revision's statement and locator, verified from the timestamp down.
///
/// # Errors
///
/// Fails if anything on the way cannot be fetched or does not count.
pub async fn current(
    source: &Source,
    trust: &Arc<Trust>,
    fileset: &str,
) -> anyhow::Result<RevisionEntry> {
    let judge = ContentJudge::new(Arc::clone(trust));
    let fileset: FilesetName = fileset.parse()?;
    let Fetched::New { bytes, .. } = source.timestamp(None).await? else {
        anyhow::bail!("nothing was asked that could be unchanged")
    };
    // Signed for the present, and judged at its own time: tests move their clocks.
    let timestamp = Timestamp::decode(&payload(&bytes)?)?;
    let _signed = Statement::<Timestamp>::open(&bytes, &judge, timestamp.issued)?;
    let snapshot = source.snapshot(&timestamp.snapshot).await?;
    let snapshot = Statement::<Snapshot>::open_named(&snapshot, timestamp.snapshot, &judge, NEVER)?;
    let entry = snapshot
        .fileset(&fileset)
        .context("the fileset is not in the snapshot")?;
    let current = entry.revision(entry.current);
    current.copied().context("the current revision is not kept")
}

/// What is not judged at the present does not look at this time.
const NEVER: i64 = i64::MAX / 4;

/// The snapshot that a party's timestamp names, unjudged.
///
/// # Errors
///
/// Fails if it cannot be fetched.
pub async fn snapshot(source: &Source) -> anyhow::Result<content::Digest> {
    let Fetched::New { bytes, .. } = source.timestamp(None).await? else {
        anyhow::bail!("nothing was asked that could be unchanged")
    };
    Ok(Timestamp::decode(&payload(&bytes)?)?.snapshot)
}

/// Reads the rest of a pack, and holds it against its header.
///
/// # Errors
///
/// Fails if it breaks off, or is not what its name says.
pub async fn rest_of(
    mut body: PackBody,
    mut bytes: Vec<u8>,
    id: content::PackId,
) -> anyhow::Result<()> {
    while let Some(piece) = body.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let length = PackHeader::length(&bytes)?.context("it is shorter than a header")?;
    let header = PackHeader::verify(&bytes[..length], id)?;
    for (frame, info) in header.frames().iter().enumerate() {
        let range = header.frame_range(frame);
        let stored = &bytes[range.start as usize..range.end as usize];
        content::frame::Frame::verify(info, stored)?;
    }
    Ok(())
}

/// The payload of an envelope, unjudged.
fn payload(envelope: &[u8]) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    let envelope: serde_json::Value = serde_json::from_slice(envelope)?;
    let text = envelope["payload"]
        .as_str()
        .context("an envelope has a payload")?;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
}
