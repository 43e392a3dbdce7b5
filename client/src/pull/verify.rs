//! Verifying what is installed, and healing it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use content::statement::InstallMode;
use content::{FilesetName, RevisionNumber};
use member::{Data, Kind, Lock, OpenError};
use serde::Serialize;
use service::{Clock, Report};
use tracing::warn;

use super::{PullError, PullRequest, choose_and_find, job};
use crate::choose::SourceAddress;
use crate::fetch::off_the_runtime;
use crate::fetch::sources::{Bypass, Traffic};
use crate::install::Target;
use crate::install::examine::{Difference, DifferenceKind, Fate, Findings, Pace, Stop};
use crate::install::record::{Record, Revision};
use crate::session::{Session, SessionError, installed};
use crate::steps::Steps;

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The data folder of this device.
    pub data: PathBuf,
    /// Only the fileset of that name, or what is installed at that path; everything if left out.
    pub only: Option<String>,
    /// Whether damage is healed, or told alone.
    pub heal: bool,
    /// Bytes that are read from the disk in a second at the most; as fast as it goes if left out.
    pub rate: Option<u64>,
    /// As in [`PullRequest::sources`].
    pub sources: Vec<SourceAddress>,
    /// As in [`PullRequest::site`].
    pub site: Option<String>,
    /// As in [`PullRequest::grace`].
    pub grace: Duration,
}

impl VerifyRequest {
    /// Verifies everything on the device of `data`, and tells what is damaged.
    #[must_use]
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            only: None,
            heal: false,
            rate: None,
            sources: Vec::new(),
            site: None,
            grace: Duration::ZERO,
        }
    }
}

/// What a verification found, and what it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// What is installed, by target.
    pub filesets: Vec<Verified>,
}

impl VerifyReport {
    /// Whether damage is left, or something could not be examined.
    #[must_use]
    pub fn is_left(&self) -> bool {
        let left = |verified: &Verified| verified.left > 0 || verified.error.is_some();
        self.filesets.iter().any(left)
    }
}

/// One installed fileset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    /// The fileset.
    pub fileset: String,
    /// The revision.
    pub revision: u64,
    /// Where.
    pub target: PathBuf,
    /// Paths that were looked at.
    pub checked: u64,
    /// Bytes that were read from the disk.
    pub bytes: u64,
    /// Paths that were damaged.
    pub damaged: u64,
    /// Of these, paths that are healed.
    pub healed: u64,
    /// And those that are not.
    pub left: u64,
    /// Paths that differ and stay so by their rule.
    pub kept: u64,
    /// The first of all that differ.
    pub differences: Vec<Difference>,
    /// Paths in a tree that are of others. They are told, and never removed.
    pub foreign: u64,
    /// The first of them.
    pub foreign_paths: Vec<String>,
    /// Bytes of packs that were fetched.
    pub pack_bytes: u64,
    /// Bytes of everything else that was fetched.
    pub other_bytes: u64,
    /// Who was gone round, and why.
    pub bypasses: Vec<Bypass>,
    /// How long it took.
    pub seconds: f64,
    /// Why it could not be examined, or not be healed.
    pub error: Option<String>,
}

/// Verifies what is installed: each path against the index, each file to its last byte; and heals
/// what is damaged, if that is asked for, each path by its rule.
///
/// # Errors
///
/// Fails if nothing can be begun with. What goes wrong with one fileset is in its report.
pub async fn verify(request: VerifyRequest, clock: &Clock) -> Result<VerifyReport, PullError> {
    if !request.heal {
        let data = Data::new(&request.data, Kind::Client);
        let locked = off_the_runtime(move || data.lock()).await?;
        let lock = locked
            .map_err(OpenError::Data)
            .map_err(SessionError::Open)?;
        return all(&request, &mut Hands::Tied(lock)).await;
    }
    let mut session = super::open(&request.data, request.grace, clock).await?;
    let mut courier = session.courier();
    let mut hands = Hands::Free {
        session: &mut session,
        caught_up: false,
    };
    let verified = courier.during(all(&request, &mut hands)).await;
    session.tell_origin(&mut courier).await;
    verified
}

/// The same for whoever is at work on the data folder already; damage is healed.
pub(crate) async fn verify_in(
    session: &mut Session,
    request: &VerifyRequest,
) -> Result<VerifyReport, PullError> {
    let caught_up = false;
    all(request, &mut Hands::Free { session, caught_up }).await
}

/// What can be done about damage.
enum Hands<'s> {
    /// It can be healed.
    Free {
        session: &'s mut Session,
        /// Whether the session has caught up with the world.
        caught_up: bool,
    },
    /// It is told; others are kept away meanwhile.
    Tied(Lock),
}

impl Hands<'_> {
    fn lock(&self) -> Arc<dyn Send + Sync> {
        match self {
            Self::Free { session, .. } => Arc::clone(&session.lock) as Arc<dyn Send + Sync>,
            Self::Tied(lock) => Arc::new(lock.clone()),
        }
    }
}

async fn all(request: &VerifyRequest, hands: &mut Hands<'_>) -> Result<VerifyReport, PullError> {
    let (records, only) = (installed(&request.data), request.only.clone());
    let found = off_the_runtime(move || meant(&records, only.as_deref())).await?;
    let mut report = VerifyReport::default();
    for meant in found? {
        let begun = Instant::now();
        let mut verified = Verified {
            fileset: meant.fileset.to_string(),
            revision: meant.number.0,
            target: meant.target.clone(),
            ..Verified::default()
        };
        if let Err(error) = Box::pin(one(request, hands, &meant, &mut verified)).await {
            let error = Report(&error).to_string();
            warn!(fileset = %meant.fileset, %error, "cannot verify or heal a fileset");
            verified.error = Some(error);
        }
        verified.seconds = begun.elapsed().as_secs_f64();
        report.filesets.push(verified);
    }
    Ok(report)
}

/// What is installed, as far as it was asked for.
struct Meant {
    target: PathBuf,
    fileset: FilesetName,
    number: RevisionNumber,
    mode: InstallMode,
}

fn meant(records: &Path, only: Option<&str>) -> Result<Vec<Meant>, PullError> {
    let listed = Record::list(records).map_err(crate::install::TargetError::Record)?;
    let path = only.and_then(|only| std::path::absolute(only).ok());
    let installed = listed.iter().filter_map(|record| {
        let revision = record.installed()?;
        let wanted = only.is_none_or(|only| only == revision.fileset())
            || path.as_deref() == Some(record.target());
        Some(Meant {
            target: record.target().to_owned(),
            fileset: revision.fileset().parse().ok().filter(|_| wanted)?,
            number: revision.number(),
            mode: if record.is_shared() {
                InstallMode::Merge
            } else {
                InstallMode::Tree
            },
        })
    });
    let found: Vec<_> = installed.collect();
    match only {
        Some(only) if found.is_empty() => Err(PullError::NotInstalled {
            wanted: only.to_owned(),
        }),
        Some(_) | None => Ok(found),
    }
}

/// What a look without the network comes to.
enum Looked {
    /// All is told: it is well, or as well as it gets.
    Done,
    /// The whole target is gone.
    Gone,
    /// It has to be healed, by what was found, or if the index is damaged, by what will be.
    Sick(Option<Findings>),
}

async fn one(
    request: &VerifyRequest,
    hands: &mut Hands<'_>,
    meant: &Meant,
    verified: &mut Verified,
) -> Result<(), PullError> {
    let stop = Stop::default();
    let _stops = stop.on_drop();
    let pace = Pace::new(request.rate, stop.clone());
    let (records, target) = (installed(&request.data), meant.target.clone());
    let (fileset, mode) = (meant.fileset.clone(), meant.mode);
    let (lock, mut told, heals) = (hands.lock(), verified.clone(), request.heal);
    let looked = off_the_runtime(move || {
        let _lock = lock;
        let looked = look(&records, &target, &fileset, mode, heals, pace, &mut told)?;
        Ok::<_, PullError>((looked, told))
    });
    let (looked, told) = looked.await??;
    *verified = told;
    let Hands::Free { session, caught_up } = hands else {
        return match looked {
            Looked::Sick(None) => Err(PullError::Index),
            Looked::Done | Looked::Gone | Looked::Sick(Some(_)) => Ok(()),
        };
    };
    if matches!(looked, Looked::Done) {
        return Ok(());
    }
    if !*caught_up {
        session.catch_up().await?;
        *caught_up = true;
    }
    heal(
        request,
        session,
        meant,
        looked,
        Pace::new(request.rate, stop),
        verified,
    )
    .await
}

/// Looks at one target; heals what takes no more than a mode and a time.
fn look(
    records: &Path,
    path: &Path,
    fileset: &FilesetName,
    mode: InstallMode,
    heals: bool,
    mut pace: Pace,
    told: &mut Verified,
) -> Result<Looked, PullError> {
    if mode == InstallMode::Tree && path.symlink_metadata().is_err() {
        // Opening it would take note that nothing is installed any more.
        (told.checked, told.damaged, told.left) = (1, 1, 1);
        told.differences = vec![Difference {
            path: ".".to_owned(),
            kind: DifferenceKind::Missing,
            fate: Fate::Left,
        }];
        return Ok(Looked::Gone);
    }
    let mut target = match mode {
        InstallMode::Tree => Target::open(records, path, Steps::default()),
        InstallMode::Merge => Target::open_shared(records, path, fileset, Steps::default()),
    }?;
    // What was found half done is done now, and may have changed what is installed.
    if let Some(number) = target.record().installed().map(Revision::number) {
        told.revision = number.0;
    }
    if target.is_damaged() {
        return Ok(Looked::Sick(None));
    }
    let strangers = target.strangers()?;
    told.foreign = strangers.count;
    told.foreign_paths = strangers.named.into_iter().collect();
    let mut findings = target.examine(&mut pace)?;
    let only_dress = findings.make.is_empty();
    let mut healed = 0;
    if heals && only_dress && findings.damaged > 0 {
        let done = target.heal(&findings)?;
        done.tell(&mut findings);
        healed = done.count;
    }
    told.take(&findings, healed);
    Ok(if only_dress {
        Looked::Done
    } else {
        Looked::Sick(Some(findings))
    })
}

async fn heal(
    request: &VerifyRequest,
    session: &mut Session,
    meant: &Meant,
    looked: Looked,
    pace: Pace,
    verified: &mut Verified,
) -> Result<(), PullError> {
    let pull = PullRequest {
        // It may have been finished by now, and be another than the record said at first.
        number: Some(RevisionNumber(verified.revision)),
        sources: request.sources.clone(),
        site: request.site.clone(),
        grace: request.grace,
        mode: meant.mode,
        ..PullRequest::new(
            request.data.clone(),
            meant.fileset.clone(),
            meant.target.clone(),
        )
    };
    let (sources, stated) = Box::pin(choose_and_find(session, &pull)).await?;
    let work = job(&pull, session, &stated, &sources);
    let done = match looked {
        Looked::Gone => work.run().await.map(|_| verified.come_back()),
        Looked::Sick(findings) => work
            .heal(findings, pace)
            .await
            .map(|(findings, healed)| verified.take(&findings, healed)),
        Looked::Done => Ok(()),
    };
    let traffic = sources.traffic();
    verified.pack_bytes = traffic.iter().map(|it: &Traffic| it.pack_bytes).sum();
    verified.other_bytes = traffic.iter().map(|it| it.other_bytes).sum();
    verified.bypasses = sources.bypasses();
    done
}

impl Verified {
    fn take(&mut self, findings: &Findings, healed: u64) {
        self.checked = findings.checked;
        self.bytes = findings.bytes;
        self.damaged = findings.damaged;
        self.healed = healed;
        self.left = findings.damaged.saturating_sub(healed);
        self.kept = findings.kept;
        self.differences.clone_from(&findings.differences);
    }

    fn come_back(&mut self) {
        (self.healed, self.left) = (1, 0);
        for difference in &mut self.differences {
            difference.fate = Fate::Healed;
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.filesets.is_empty() {
            return f.write_str("nothing is installed");
        }
        for (at, verified) in self.filesets.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            verified.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fileset,
            revision,
            checked,
            damaged,
            healed,
            left,
            kept,
            ..
        } = self;
        let (target, bytes) = (self.target.display(), ByteSize(self.bytes));
        write!(
            f,
            "{fileset}@{revision} at {target}: {checked} paths, {bytes} read in {:.1} s; \
             {damaged} damaged, {healed} healed, {left} left; {kept} kept as they are",
            self.seconds
        )?;
        for Difference { path, kind, fate } in &self.differences {
            write!(f, "\n  {fate} ({kind}): {path}")?;
        }
        let named = self.differences.len() as u64;
        if damaged + kept > named {
            write!(f, "\n  and {} more", damaged + kept - named)?;
        }
        if self.foreign > 0 {
            let paths = self.foreign_paths.join(", ");
            write!(f, "\n  of others: {} paths: {paths}", self.foreign)?;
        }
        if self.pack_bytes + self.other_bytes > 0 {
            let (packs, other) = (ByteSize(self.pack_bytes), ByteSize(self.other_bytes));
            write!(f, "\n  fetched {packs} of packs, {other} of the rest")?;
        }
        for Bypass { source, reason, .. } in &self.bypasses {
            write!(f, "\n  went round {source}: {reason}")?;
        }
        match &self.error {
            Some(error) => write!(f, "\n  failed: {error}"),
            None => Ok(()),
        }
    }
}
