//! What the demo measured.

use std::fmt;

use anyhow::ensure;
use bytesize::ByteSize;
use client::PullReport;
use serde::Serialize;

/// What crossed which line. Byte counts are application bytes: bodies of answers as each receiver
/// counted them, without HTTP heads and TLS.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The folder that was published.
    pub folder: String,
    /// Files of the first revision.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths of the first revision, folders and links among them.
    pub entries: u64,
    /// Chunks of the first revision, each counted as often as it occurs.
    pub chunks: u64,
    /// Bytes of all its packs, those of the index among them.
    pub packs_bytes: u64,
    /// Bytes of what is not files: index packs, index root, locator and statement.
    pub metadata_bytes: u64,
    /// Seconds that publishing took.
    pub publish_seconds: f64,
    /// Client one, with an empty booster.
    pub cold: Step,
    /// Client two, with a full one.
    pub hot: Step,
    /// Client one, the second revision.
    pub update: Update,
    /// Bytes of new packs that hold files, of a revision that only renames some.
    pub renames_alone_pack_bytes: u64,
    /// Whether booster and origin both refuse client two, once it is revoked, with the alert
    /// `certificate_revoked`.
    pub revoked_refused: bool,
    /// Whether every tree that was pulled is, by an independent walk, equal to what was published.
    pub verified: bool,
}

/// One pull.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Bytes from origin to booster.
    pub origin_bytes: u64,
    /// Of these, bytes of packs.
    pub origin_pack_bytes: u64,
    /// Bytes from booster to client.
    pub client_bytes: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Seconds.
    pub seconds: f64,
}

/// The pull of the second revision.
#[derive(Clone, Debug, Serialize)]
pub struct Update {
    /// The pull itself.
    #[serde(flatten)]
    pub step: Step,
    /// Bytes of packs that are new in this revision, those of the index among them.
    pub packs_bytes: u64,
    /// Of these, bytes of index packs.
    pub index_bytes: u64,
    /// Files replaced, edited, renamed and deleted.
    pub changed: u64,
}

impl Step {
    pub(super) fn new(pull: &PullReport, origin_bytes: u64, origin_pack_bytes: u64) -> Self {
        Self {
            origin_bytes,
            origin_pack_bytes,
            client_bytes: pull.pack_bytes + pull.other_bytes,
            bytes: pull.bytes,
            files: pull.files,
            seconds: pull.seconds,
        }
    }
}

impl Report {
    /// Whether all is as it must be.
    ///
    /// # Errors
    ///
    /// Says what is not.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.verified,
            "a tree that was pulled differs from what was published"
        );
        ensure!(
            self.revoked_refused,
            "a revoked client was not refused everywhere"
        );
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, step: &Step) -> fmt::Result {
        let rate = ByteSize((step.bytes as f64 / step.seconds.max(0.001)) as u64);
        let [bytes, origin, client] = [step.bytes, step.origin_bytes, step.client_bytes]
            .map(|bytes| ByteSize(bytes).to_string());
        let (files, seconds) = (step.files, step.seconds);
        write!(
            f,
            "\n{name:<26} {files:>7} {bytes:>11} {origin:>15} {client:>15} {seconds:>8.1} {:>13}",
            format!("{rate}/s")
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bytes, packs, metadata] =
            [self.bytes, self.packs_bytes, self.metadata_bytes].map(ByteSize);
        writeln!(f, "\n{}", self.folder)?;
        writeln!(
            f,
            "{} files, {bytes}; packs of {packs}, of which {metadata} say what is where",
            self.files
        )?;
        writeln!(
            f,
            "\n{:<26} {:>7} {:>11} {:>15} {:>15} {:>8} {:>13}",
            "", "files", "size", "origin→booster", "booster→client", "seconds", "rate"
        )?;
        write!(
            f,
            "{:<26} {:>7} {:>11} {:>15} {:>15} {:>8.1} {:>13}",
            "publish",
            self.files,
            bytes.to_string(),
            "-",
            "-",
            self.publish_seconds,
            format!(
                "{}/s",
                ByteSize((self.bytes as f64 / self.publish_seconds.max(0.001)) as u64)
            )
        )?;
        self.row(f, "client one, cold booster", &self.cold)?;
        self.row(f, "client two, hot booster", &self.hot)?;
        self.row(
            f,
            &format!("client one, {} changes", self.update.changed),
            &self.update.step,
        )?;
        let new = ByteSize(self.update.packs_bytes);
        writeln!(
            f,
            "\n\nthe second revision made {new} of new packs; one that only renames 20 files makes {} of them",
            ByteSize(self.renames_alone_pack_bytes)
        )?;
        let word = |good: bool| if good { "yes" } else { "NO" };
        writeln!(
            f,
            "every path equal to the source, by a walk of its own: {}",
            word(self.verified)
        )?;
        write!(
            f,
            "the revoked client refused by booster and origin: {}",
            word(self.revoked_refused)
        )
    }
}
