//! Pulling a fileset to a folder.

pub(crate) mod ahead;
mod index;
mod job;
pub(crate) mod verify;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use content::statement::{HealRule, InstallMode};
use content::{FilesetName, RevisionNumber};
use member::{Kind, roots, skew};
use serde::Serialize;
use service::Clock;
use thiserror::Error;

pub use index::AssembleError;
#[cfg(test)]
pub(crate) use index::Kept;
pub(crate) use job::Stated;

use crate::agent::of_sources;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::choose::{self, SourceAddress};
use crate::fetch::FetchError;
use crate::fetch::downloads::PartError;
use crate::fetch::sources::{Bypass, NoSource, Sources, Traffic};
use crate::install::TargetError;
use crate::install::build::BuildError;
use crate::install::room::{Room, RoomError};
use crate::net::Net;
use crate::plan::walk::WalkError;
use crate::progress::Progress;
use crate::session::{Session, SessionError};
use crate::steps::Steps;
use job::{Job, Outcome};

/// What to pull, and where to.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The data folder of this device.
    pub data: PathBuf,
    /// The fileset.
    pub fileset: FilesetName,
    /// The revision; the current one if none is named.
    pub number: Option<RevisionNumber>,
    /// The folder that becomes the revision, or holds it among other things.
    pub target: PathBuf,
    /// Whom to ask before the origin; the boosters of the deployment document if none is named.
    pub sources: Vec<SourceAddress>,
    /// The site whose boosters are near.
    pub site: Option<String>,
    /// For how long a timestamp or a revocation list counts after its end, if nobody has a newer
    /// one.
    pub grace: Duration,
    /// Whether the target is the fileset's alone, or shared with others.
    pub mode: InstallMode,
    /// What is to become of paths that others have changed; as it was said before if left out.
    pub rules: Option<Vec<HealRule>>,
    /// Whether what was there before is kept until [`confirm`](crate::confirm), so that
    /// [`go_back`](crate::go_back) is possible.
    pub keep: bool,
    /// Whether what others have put into the target may be lost.
    pub replace: bool,
    /// Told how far the pull is.
    pub progress: Arc<Progress>,
}

impl PullRequest {
    /// A pull of the current revision of `fileset` to `target`, for the device of `data`.
    #[must_use]
    pub fn new(data: PathBuf, fileset: FilesetName, target: PathBuf) -> Self {
        Self {
            data,
            fileset,
            number: None,
            target,
            sources: Vec::new(),
            site: None,
            grace: Duration::ZERO,
            mode: InstallMode::Tree,
            rules: None,
            keep: false,
            replace: false,
            progress: Arc::default(),
        }
    }
}

/// What a pull did. Byte counts are of the bodies of answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PullReport {
    /// The fileset.
    pub fileset: String,
    /// The revision that is installed now.
    pub revision: u64,
    /// The digest of its index root.
    pub root: String,
    /// Where.
    pub target: PathBuf,
    /// Files, hard links counted each.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Of these, bytes that were on this device already.
    pub reused_bytes: u64,
    /// Bytes of packs that were fetched.
    pub pack_bytes: u64,
    /// Bytes of everything else that was fetched.
    pub other_bytes: u64,
    /// What came from whom.
    pub sources: Vec<Traffic>,
    /// Who was gone round, and why.
    pub bypasses: Vec<Bypass>,
    /// How long it took.
    pub seconds: f64,
    /// Whether the target was already as it should be.
    pub unchanged: bool,
}

impl fmt::Display for PullReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fileset,
            revision,
            files,
            ..
        } = self;
        let target = self.target.display();
        let bytes = ByteSize(self.bytes);
        if self.unchanged {
            write!(
                f,
                "{target} is {fileset}@{revision} already: {files} files, {bytes}"
            )?;
        } else {
            let reused = ByteSize(self.reused_bytes);
            write!(
                f,
                "{target} is now {fileset}@{revision}: {files} files, {bytes}, \
                 of which {reused} were here already, in {:.1} s",
                self.seconds
            )?;
        }
        for Traffic {
            source,
            pack_bytes,
            other_bytes,
        } in &self.sources
        {
            let (packs, other) = (ByteSize(*pack_bytes), ByteSize(*other_bytes));
            write!(
                f,
                "\n  from {source}: {packs} of packs, {other} of the rest"
            )?;
        }
        for Bypass { source, reason, .. } in &self.bypasses {
            write!(f, "\n  went round {source}: {reason}")?;
        }
        Ok(())
    }
}

/// Pulls a fileset: finds the revision, fetches what is not at hand, installs it in one step.
///
/// # Errors
///
/// Fails as [`PullError`] says. The target is then as it was, and what was fetched is kept for the
/// next try.
pub async fn pull(request: PullRequest, clock: &Clock) -> Result<PullReport, PullError> {
    let begun = Instant::now();
    let mut session = match open(&request.data, request.grace, clock).await {
        Ok(session) => session,
        Err(error) => {
            // By a clock that is far ahead we do not even know ourselves.
            let _told_by_status = skew::look(&request.data, Kind::Client, clock).await;
            return Err(error);
        }
    };
    // What is noted on the way outlives whatever ends us in the middle.
    let mut courier = session.courier();
    let pulled = courier.during(async {
        let pulled = pull_as(&mut session, request).await;
        let failed = pulled.as_ref().err();
        let failed = failed.is_some_and(PullError::may_be_of_time);
        session.compare_clock(failed).await;
        pulled
    });
    let pulled = pulled.await;
    // However it ended: whom we turned from on the way, the origin should hear of.
    session.tell_origin(&mut courier).await;
    let report = pulled?;
    Ok(PullReport {
        seconds: begun.elapsed().as_secs_f64(),
        ..report
    })
}

async fn pull_as(session: &mut Session, request: PullRequest) -> Result<PullReport, PullError> {
    session.catch_up().await?;
    // On the heap: the walk is large, and who calls us may be deep.
    let (sources, stated) = Box::pin(choose_and_find(session, &request)).await?;
    let job = job(&request, session, &stated, &sources);
    let outcome = job.run().await?;
    Ok(report(request.target, &stated, outcome, session, &sources))
}

async fn open(data: &Path, grace: Duration, clock: &Clock) -> Result<Session, PullError> {
    let (data, clock) = (data.to_owned(), clock.clone());
    let open = move || {
        let mut session = Session::open(&data, grace, &clock)?;
        // Whom the origin named for this device at its last check-in. A pull can do without.
        if let Ok((Some(guide), _)) = of_sources(&data, None, clock.now()) {
            session.guide.named = guide.named;
        }
        Ok::<_, SessionError>(session)
    };
    Ok(crate::fetch::off_the_runtime(open).await??)
}

/// What is to be done for `request`, of which the origin has `stated` the revision.
fn job(
    request: &PullRequest,
    session: &Session,
    stated: &Stated,
    sources: &Arc<Sources<Net>>,
) -> Job<Net> {
    Job {
        stated: stated.clone(),
        sources: Arc::clone(sources),
        data: session.data.root().to_owned(),
        target: request.target.clone(),
        mode: request.mode,
        rules: request.rules.clone(),
        keep: request.keep,
        replace: request.replace,
        now: session.clock.now(),
        room: Room::default(),
        progress: Arc::clone(&request.progress),
        steps: Steps::default(),
        lock: Arc::clone(&session.lock) as Arc<dyn Send + Sync>,
    }
}

/// Chooses the sources and finds the revision; once more if those who answered are certified by a
/// CA that we had not heard of, since another one was revoked and we are the last to know.
async fn choose_and_find(
    session: &mut Session,
    request: &PullRequest,
) -> Result<(Arc<Sources<Net>>, Stated), PullError> {
    let choose =
        |session: &mut Session| choose::sources(session, &request.sources, request.site.as_deref());
    let mut sources = choose(session)?;
    let mut found = find(session, &sources, request).await;
    if found.is_err() && session.is_behind() && session.fetch_standing().await.is_ok() {
        sources = choose(session)?;
        found = find(session, &sources, request).await;
    }
    Ok((sources, found?))
}

/// Walks from the timestamp to the revision, and keeps what was learnt on the way.
async fn find(
    session: &mut Session,
    sources: &Sources<Net>,
    request: &PullRequest,
) -> Result<Stated, PullError> {
    let judge = session.judge();
    let catalogue = Catalogue {
        judge: &judge,
        trust: Some(&session.identity.trust),
        state: &session.state,
        now: session.clock.now(),
        grace: session.grace,
    };
    let found = catalogue.look_up(sources, &request.fileset, request.number);
    let (document, stated) = found.await?;
    let now = session.clock.now();
    roots::follow(&session.identity.trust, &document, now);
    session
        .identity
        .keep_cas_aside()
        .await
        .map_err(SessionError::Identity)?;
    session.document = Some(document);
    Ok(stated)
}

fn report(
    target: PathBuf,
    stated: &Stated,
    outcome: Outcome,
    session: &Session,
    sources: &Sources<Net>,
) -> PullReport {
    let mut traffic = sources.traffic();
    traffic.retain(|traffic| traffic.pack_bytes + traffic.other_bytes > 0);
    if session.enrol_bytes > 0 {
        traffic.push(Traffic {
            source: "enrolment listener".to_owned(),
            pack_bytes: 0,
            other_bytes: session.enrol_bytes,
        });
    }
    PullReport {
        fileset: stated.fileset.to_string(),
        revision: stated.number.0,
        root: stated.root.to_string(),
        // What was found is told even if the current folder is gone by now.
        target: std::path::absolute(&target).unwrap_or(target),
        files: outcome.files,
        bytes: outcome.bytes,
        reused_bytes: outcome.reused,
        pack_bytes: traffic.iter().map(|traffic| traffic.pack_bytes).sum(),
        other_bytes: traffic.iter().map(|traffic| traffic.other_bytes).sum(),
        sources: traffic,
        bypasses: sources.bypasses(),
        seconds: 0.0,
        unchanged: outcome.unchanged,
    }
}

/// Why a pull failed. What was installed is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PullError {
    /// What the agent knows cannot be read.
    #[error(transparent)]
    Agent(#[from] crate::agent::FilesError),
    /// The index cannot be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The tree cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The revision cannot be found.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The installed tree keeps changing under our hands.
    #[error("cannot build on the installed tree: it keeps changing while it is read")]
    Damaged,
    /// What is installed cannot be held against its index.
    #[error("cannot verify: the index of what is installed is damaged; healing fetches it again")]
    Index,
    /// Nobody has enrolled there.
    #[error("cannot tell whom to ask: this device has not enrolled")]
    NotEnrolled,
    /// Nothing of that name is installed.
    #[error("cannot verify {wanted:?}: no such fileset or target is installed")]
    NotInstalled {
        /// What was asked for.
        wanted: String,
    },
    /// Another fileset is installed there.
    #[error("cannot change {path}: what is installed there is not {fileset}", path = target.display())]
    Other {
        /// Where.
        target: PathBuf,
        /// What was meant.
        fileset: FilesetName,
    },
    /// Packs cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file of ours cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No source is left.
    #[error(transparent)]
    NoSource(#[from] NoSource),
    /// A download cannot be kept.
    #[error(transparent)]
    Part(#[from] PartError),
    /// There is too little room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// This device is not ready.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The index cannot be gone through.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

impl PullError {
    /// Whether a clock that is off may be what it comes of.
    fn may_be_of_time(&self) -> bool {
        matches!(self, Self::Session(_)) || !self.bypasses().is_empty()
    }

    /// Why each source was gone round, if the pull failed for want of one.
    #[must_use]
    pub fn bypasses(&self) -> &[Bypass] {
        match self {
            Self::Catalogue(CatalogueError::NoSource(error))
            | Self::Fetch(FetchError::NoSource(error))
            | Self::NoSource(error) => error.bypasses(),
            Self::Agent(_)
            | Self::Assemble(_)
            | Self::Build(_)
            | Self::Catalogue(_)
            | Self::Damaged
            | Self::Fetch(_)
            | Self::Index
            | Self::Io { .. }
            | Self::NotEnrolled
            | Self::NotInstalled { .. }
            | Self::Other { .. }
            | Self::Part(_)
            | Self::Room(_)
            | Self::Session(_)
            | Self::Target(_)
            | Self::Walk(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests;
