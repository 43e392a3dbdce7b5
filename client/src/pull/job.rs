//! One pull, from a verified revision to the tree in its place.

mod ahead;
mod building;
mod heal;
mod learn;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use content::index::IndexRoot;
use content::locator::Locator;
use content::statement::{HealRule, InstallMode};
use content::{Digest, FilesetName, RevisionNumber};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::PullError;
use crate::fetch::downloads::Downloads;
use crate::fetch::reader::Arrivals;
use crate::fetch::sources::Shared;
use crate::fetch::stale::remove_stale;
use crate::fetch::supply::Supply;
use crate::fetch::{Fetcher, off_the_runtime};
use crate::install::Target;
use crate::install::record::Revision;
use crate::install::room::{Need, Room};
use crate::install::rules::Rules;
use crate::plan::{Demand, New, Old, Plan, Scope};
use crate::progress::Progress;
use crate::steps::Steps;
use building::Building;

/// A revision that the origin has stated.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    /// The fileset.
    pub(crate) fileset: FilesetName,
    /// The revision.
    pub(crate) number: RevisionNumber,
    /// The digest of its index root.
    pub(crate) root: Digest,
    /// The digest of its statement.
    pub(crate) statement: Digest,
    /// Where its chunks lie.
    pub(crate) locator: Arc<Locator>,
}

impl Stated {
    /// The revision whose chunks lie where `locator` says.
    pub(crate) fn of(locator: Locator, statement: Digest) -> Self {
        Self {
            fileset: locator.fileset.clone(),
            number: locator.number,
            root: locator.root,
            statement,
            locator: Arc::new(locator),
        }
    }
}

/// Everything that a pull needs.
pub(crate) struct Job<S> {
    /// What to install.
    pub(crate) stated: Stated,
    /// Whom to ask.
    pub(crate) sources: Shared<S>,
    /// Where records and downloads are kept.
    pub(crate) data: PathBuf,
    /// Where to install to.
    pub(crate) target: PathBuf,
    /// Whether the target is shared with others.
    pub(crate) mode: InstallMode,
    /// What is to become of paths that others have changed; as it was said before if left out.
    pub(crate) rules: Option<Vec<HealRule>>,
    /// Whether what was there before is kept until it is confirmed.
    pub(crate) keep: bool,
    /// Whether what others put into the target may be lost.
    pub(crate) replace: bool,
    /// The time, in Unix seconds.
    pub(crate) now: i64,
    /// How much room there is.
    pub(crate) room: Room,
    /// Who watches.
    pub(crate) progress: Arc<Progress>,
    /// Where tests end the world.
    pub(crate) steps: Steps,
    /// What shows others that we are at work; held by everything that works for us.
    pub(crate) lock: Arc<dyn Send + Sync>,
}

/// What a pull did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// Regular files and hard links of the revision.
    pub(crate) files: u64,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Bytes that were at hand.
    pub(crate) reused: u64,
    /// Whether the target was already as it should be.
    pub(crate) unchanged: bool,
}

impl Outcome {
    fn of(plan: &Plan) -> Self {
        Self {
            files: plan.files,
            bytes: plan.bytes,
            reused: plan.reused,
            unchanged: false,
        }
    }
}

/// What was made, and which installed files turned out to be damaged.
type Made = (Outcome, BTreeSet<String>);

impl<S: Supply> Job<S> {
    /// Pulls.
    pub(crate) async fn run(self) -> Result<Outcome, PullError> {
        let mut target = self.open(true).await?;
        let root = Arc::new(self.root(&target).await?);
        let downloads = self.downloads(&target).await?;
        target = self.index(target, &root, &downloads).await?;
        target = self.mend(target, &root).await?;
        let unchanged;
        (target, unchanged) = self.unchanged(target, &root).await?;
        if let Some(outcome) = unchanged {
            return Ok(outcome);
        }
        let scope;
        (target, scope) = self.scope(target).await?;
        let mut distrusted = BTreeSet::new();
        for attempt in 1..=ATTEMPTS_MAX {
            // Among files of others, a hard link may need the file that stays.
            let shared = self.mode == InstallMode::Merge;
            let old = target.old();
            let old = old.filter(|_| shared || attempt < ATTEMPTS_MAX);
            let old = old.map(|old| Old {
                distrusted: distrusted.clone(),
                ..old
            });
            let made;
            (target, made) = self
                .make(target, &root, &downloads, old, scope.clone())
                .await?;
            match made {
                Ok((outcome, damaged)) if damaged.is_empty() => {
                    return self.finish(target, &downloads, outcome).await;
                }
                Ok((_, damaged)) => {
                    warn!(
                        files = damaged.len(),
                        "installed files are not what they look like"
                    );
                    distrusted.extend(damaged);
                }
                Err(error) => return Err(self.give_up(target, error).await),
            }
        }
        Err(self.give_up(target, PullError::Damaged).await)
    }

    /// Opens the target; refuses it if `strict`, and others have something there.
    async fn open(&self, strict: bool) -> Result<Target, PullError> {
        let (installed, path) = (self.data.join("installed"), self.target.clone());
        let (fileset, mode) = (self.stated.fileset.clone(), self.mode);
        let (rules, steps) = (self.rules.clone(), self.steps.clone());
        let (replace, keep) = (self.replace, self.keep);
        let opened = off_the_runtime(move || {
            let mut target = match mode {
                InstallMode::Tree => Target::open(&installed, &path, steps)?,
                InstallMode::Merge => Target::open_shared(&installed, &path, &fileset, steps)?,
            };
            target.replace(replace);
            target.keep(keep);
            if let Some(rules) = rules {
                target.set_rules(Rules::new(rules))?;
            }
            if strict && !replace && !target.is_damaged() {
                target.refuse_foreign()?;
            }
            Ok::<_, PullError>(target)
        });
        opened.await?
    }

    /// What of the revision is made: in a shared folder, what is not there yet.
    async fn scope(&self, target: Target) -> Result<(Target, Scope), PullError> {
        let index = target.record().index_path(self.stated.root);
        let (target, survey) = with(target, move |target| target.survey(Some(&index))).await?;
        let scope = Scope {
            only: survey?.map(|survey| Arc::new(survey.put)),
            doubt: false,
        };
        Ok((target, scope))
    }

    /// Where packs of this revision are kept on their way. Those for targets that are pulled no
    /// more are removed: nobody else would ever do it.
    async fn downloads(&self, target: &Target) -> Result<Downloads, PullError> {
        let (all, id) = (self.data.join("downloads"), target.record().id().to_owned());
        let (root, now, lock) = (self.stated.root, self.now, Arc::clone(&self.lock));
        let opened = off_the_runtime(move || {
            let _lock = lock;
            remove_stale(&all, &id, now);
            Downloads::open(&all.join(id), root)
        });
        Ok(opened.await??)
    }

    /// What to say if the target is as it should be already.
    async fn unchanged(
        &self,
        target: Target,
        root: &Arc<IndexRoot>,
    ) -> Result<(Target, Option<Outcome>), PullError> {
        let (wanted, revision) = (self.stated.root, self.revision());
        let keep = self.keep;
        let (target, intact) = with(target, move |target| {
            let installed = target.record().installed();
            let same = installed.and_then(Revision::root) == Some(wanted);
            let intact = same && target.is_intact();
            if intact {
                // Another revision may have the same files.
                target.renumber(revision)?;
                if !keep {
                    target.confirm()?;
                }
            }
            Ok::<_, PullError>(intact)
        })
        .await?;
        if !intact? {
            return Ok((target, None));
        }
        let plan = self
            .plan(&target, root, target.old(), Scope::default())
            .await?;
        let outcome = Outcome {
            files: plan.files,
            bytes: plan.bytes,
            reused: plan.bytes,
            unchanged: true,
        };
        Ok((target, Some(outcome)))
    }

    async fn plan(
        &self,
        target: &Target,
        root: &Arc<IndexRoot>,
        old: Option<Old>,
        scope: Scope,
    ) -> Result<Plan, PullError> {
        let index = target.record().index_path(self.stated.root);
        let (root, locator) = (Arc::clone(root), Arc::clone(&self.stated.locator));
        let plan = off_the_runtime(move || {
            let new = New {
                index: &index,
                root: &root,
                locator: &locator,
            };
            Plan::make(new, old.as_ref(), scope)
        });
        Ok(plan.await??)
    }

    /// Plans, fetches and builds in the staging folder. The error outside is of tasks alone.
    async fn make(
        &self,
        target: Target,
        root: &Arc<IndexRoot>,
        downloads: &Downloads,
        old: Option<Old>,
        scope: Scope,
    ) -> Result<(Target, Result<Made, PullError>), PullError> {
        let plan = match self.plan(&target, root, old.clone(), scope.clone()).await {
            Ok(plan) => Arc::new(plan),
            Err(error) => return Ok((target, Err(error))),
        };
        let to_fetch = plan.demand.bytes(&self.stated.locator);
        if let Err(error) = self.check_room(&target, &plan, to_fetch) {
            return Ok((target, Err(error)));
        }
        self.progress.plan(plan.bytes, to_fetch);
        info!(
            bytes = plan.bytes,
            reused = plan.reused,
            to_fetch,
            "building"
        );
        let (revision, heals) = (self.revision(), scope.doubt);
        let (target, staged) = with(target, move |target| {
            if heals {
                target.stage_healing()
            } else {
                target.stage(revision)
            }
        })
        .await?;
        let needed = plan.new_bytes + to_fetch;
        if let Err(error) = staged {
            let error = out_of_room(error.into(), &target, needed);
            return Ok((target, Err(error)));
        }
        let arrivals = Arc::new(Arrivals::new(self.stated.locator.packs.len()));
        let building = Building {
            index: target.record().index_path(self.stated.root),
            root: Arc::clone(root),
            locator: Arc::clone(&self.stated.locator),
            staging: if heals {
                target.healing().to_owned()
            } else {
                target.staging().to_owned()
            },
            flat: heals || self.mode == InstallMode::Merge,
            old,
            plan: Arc::clone(&plan),
            downloads: downloads.clone(),
            arrivals: Arc::clone(&arrivals),
            progress: Arc::clone(&self.progress),
            steps: self.steps.clone(),
            _lock: Arc::clone(&self.lock),
        };
        let built = self
            .fetch_and_build(&plan.demand, downloads, arrivals, building)
            .await
            .map_err(|error| out_of_room(error, &target, needed));
        Ok((target, built.map(|damaged| (Outcome::of(&plan), damaged))))
    }

    fn check_room(&self, target: &Target, plan: &Plan, to_fetch: u64) -> Result<(), PullError> {
        let tree = Need {
            bytes: plan.new_bytes,
            files: plan.entries,
        };
        let downloads = Need {
            bytes: to_fetch,
            files: 0,
        };
        let needs = [(target.parent(), tree), (self.data.as_path(), downloads)];
        Ok(self.room.check(needs)?)
    }

    /// Fetches packs while the tree is built out of those that have come.
    async fn fetch_and_build(
        &self,
        demand: &Demand,
        downloads: &Downloads,
        arrivals: Arc<Arrivals>,
        building: Building,
    ) -> Result<BTreeSet<String>, PullError> {
        let mut built = spawn_blocking(move || building.run());
        let joined = |built: Result<_, _>| match built {
            Ok(built) => built,
            Err(source) => Err(crate::fetch::FetchError::Task { source }.into()),
        };
        let fetcher = self.fetcher(downloads);
        tokio::select! {
            // Built or failed without needing more: what is under way is dropped.
            built = &mut built => joined(built),
            fetched = fetcher.fetch(&self.stated.locator, demand, arrivals) => {
                // The builder sees the end of the arrivals, so it ends too.
                let built = joined(built.await);
                // Why the fetching failed says more than that the builder had to stop.
                fetched?;
                built
            }
        }
    }

    fn fetcher(&self, downloads: &Downloads) -> Arc<Fetcher<S>> {
        Arc::new(Fetcher {
            sources: Arc::clone(&self.sources),
            downloads: downloads.clone(),
            fileset: self.stated.fileset.clone(),
            progress: Arc::clone(&self.progress),
        })
    }

    fn revision(&self) -> Revision {
        Revision::new(&self.stated.fileset, self.stated.number, self.stated.root)
    }

    async fn finish(
        &self,
        target: Target,
        downloads: &Downloads,
        outcome: Outcome,
    ) -> Result<Outcome, PullError> {
        let (replace, downloads, keep) = (self.replace, downloads.clone(), self.keep);
        let (root, lock) = (self.stated.root, Arc::clone(&self.lock));
        let (target, switched) = with(target, move |target| {
            let _lock = lock;
            target.switch(replace)?;
            target.record().tidy(Some(root));
            // Who may have to go back may have to come again.
            if !keep {
                // What is left over costs room and nothing else.
                downloads.remove().unwrap_or_default();
            }
            Ok::<_, PullError>(())
        })
        .await?;
        match switched {
            Ok(()) => Ok(outcome),
            Err(error) => Err(self.give_up(target, error).await),
        }
    }

    /// Leaves everything as it was before, downloads apart: those the next try goes on with.
    async fn give_up(&self, target: Target, error: PullError) -> PullError {
        if Steps::is_crash(&error) {
            return error;
        }
        match with(target, Target::give_up).await {
            Ok((_, Ok(()))) => {}
            Ok((_, Err(left))) => {
                warn!(error = %service::Report(&left), "cannot tidy up");
            }
            Err(left) => warn!(error = %service::Report(&left), "cannot tidy up"),
        }
        error
    }
}

/// Works on the target where that holds up nobody.
async fn with<T: Send + 'static>(
    mut target: Target,
    work: impl FnOnce(&mut Target) -> T + Send + 'static,
) -> Result<(Target, T), PullError> {
    let done = off_the_runtime(move || {
        let done = work(&mut target);
        (target, done)
    });
    Ok(done.await?)
}

/// A disk that filled up on the way is told like one that was too full from the start.
fn out_of_room(error: PullError, target: &Target, needed: u64) -> PullError {
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        {
            let path = target.parent().to_owned();
            let available = crate::install::room::free(&path);
            return PullError::Room(crate::install::room::RoomError::Full {
                path,
                needed,
                available,
            });
        }
        next = cause.source();
    }
    error
}

/// Once with what is installed, once without what turned out to be damaged, once with nothing.
const ATTEMPTS_MAX: u32 = 3;
