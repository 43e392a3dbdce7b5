//! The hands of the agent: everything that it does to this machine.

mod scripts;

use std::sync::Arc;

use content::statement::{Item, Stage};
use member::Courier;
use protocol::SourceBytes;
use service::{CancellationToken, Report};

use super::ended::Outcome;
use super::files::Files;
use super::kept::Kept;
use super::state::{Ahead, Holding};
use super::step::{Act, What};
use super::through::Through;
use crate::choose::SourceAddress;
use crate::fetch::off_the_runtime;
use crate::fetch::sources::Traffic;
use crate::install::Target;
use crate::keep::{Place, confirm_at, work_at};
use crate::pull::ahead::{AheadError, fetch_ahead, install_ahead};
use crate::pull::verify::{VerifyRequest, verify_in};
use crate::pull::{PullError, PullRequest};
use crate::session::Session;

/// What acts are done with.
#[derive(Debug)]
pub(crate) struct Hands {
    /// The device at work.
    pub(crate) session: Session,
    /// Where the agent keeps what is its own.
    pub(crate) files: Files,
    /// The site that this device is in.
    pub(crate) site: Option<String>,
    /// Whom an operator wants asked before the origin.
    pub(crate) sources: Vec<SourceAddress>,
    /// Bytes that a verification reads from the disk in a second at the most.
    pub(crate) verify_rate: Option<u64>,
    /// What takes to the origin what is noted about others.
    pub(crate) courier: Courier,
    /// The boosters that are asked for scripts before the origin.
    pub(crate) through: Through,
}

impl Hands {
    /// Does `act` for a fileset that stands as `holding` says. A download ends early when it is
    /// told to `stop`.
    pub(crate) async fn perform(
        &mut self,
        act: &Act,
        holding: &Holding,
        stop: &CancellationToken,
    ) -> Outcome {
        let aimed = holding.aim.as_ref().map(|aim| &aim.item);
        let active = holding.active.as_ref();
        let going = holding.going.as_ref().and_then(|going| going.item.as_ref());
        let outcome = match act.what {
            What::Run(stage) => match going.filter(|_| holding.going.is_some()).or(aimed) {
                Some(item) => self.run_scripts(item, stage).await,
                None => Outcome::Done,
            },
            What::Download => self.download(aimed, stop).await,
            What::Install => self.install(aimed, holding.ahead.as_ref()).await,
            What::Adopt => self.adopt(active).await,
            What::Confirm => self.confirm(active).await,
            What::GoBack => self.go_back(active).await,
            What::TakeAway => self.take_away(holding.outgoing.as_ref().or(active)).await,
            What::Uninstall => self.take_away(active).await,
            What::Discard => self.discard(holding.ahead.as_ref()).await,
            What::Verify => self.verify(act, active).await,
        };
        self.session.tell_origin(&mut self.courier).await;
        outcome
    }

    async fn download(&mut self, item: Option<&Kept>, stop: &CancellationToken) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        if let Err(note) = self.fetch_scripts(item, |_| true).await {
            return Outcome::Failed { note };
        }
        let request = self.request(item);
        if let Err(note) = make_parent(item).await {
            return Outcome::Failed { note };
        }
        let Self {
            session, courier, ..
        } = self;
        let fetching = fetch_ahead(session, &request, item.statement, stop);
        let fetched = match courier.during(fetching).await {
            Ok(fetched) => fetched,
            Err(AheadError::BrokenOff) => return Outcome::BrokenOff,
            Err(error) => return failed(&error),
        };
        let (files, locator) = (self.files.clone(), Arc::clone(&fetched.locator));
        match off_the_runtime(move || files.put_locator(&locator)).await {
            Ok(Ok(locator)) => Outcome::Downloaded {
                locator,
                sources: source_bytes(fetched.traffic),
            },
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    }

    async fn install(&mut self, item: Option<&Kept>, ahead: Option<&Ahead>) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        if let Err(note) = make_parent(item).await {
            return Outcome::Failed { note };
        }
        let ahead = ahead.filter(|ahead| ahead.item.is_same_content(item));
        let locator = match ahead.map(|ahead| ahead.locator) {
            Some(digest) => {
                let (files, fileset) = (self.files.clone(), item.fileset.clone());
                let read = off_the_runtime(move || files.locator(&fileset, digest));
                read.await.ok().flatten()
            }
            None => None,
        };
        let request = self.request(item);
        let Self {
            session, courier, ..
        } = self;
        let installing = install_ahead(session, &request, item.statement, locator);
        match courier.during(installing).await {
            Ok(traffic) => Outcome::Installed {
                sources: source_bytes(traffic),
            },
            Err(error) => failed(&error),
        }
    }

    async fn confirm(&self, item: Option<&Kept>) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        let files = self.files.clone();
        self.at(item, move |place| {
            confirm_at(place)?;
            // What is left over is replaced by the next download.
            files.remove_locator(&place.fileset).unwrap_or_default();
            Ok(Outcome::Done)
        })
        .await
    }

    async fn adopt(&self, item: Option<&Kept>) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        let target = std::path::PathBuf::from(&item.target);
        let read = off_the_runtime(move || super::adopt::read(&target)).await;
        read.unwrap_or_else(|error| failed(&error))
    }

    async fn go_back(&self, item: Option<&Kept>) -> Outcome {
        let Some(item) = item else {
            return Outcome::WentBack { to: None };
        };
        self.at(item, |place| {
            let went = work_at(place, |target| {
                let _was_there = target.go_back()?;
                let installed = target.record().installed();
                let own = installed.filter(|it| it.fileset() == place.fileset.as_str());
                Ok(own.map(|revision| revision.number().0))
            });
            match went {
                Ok(to) => Ok(Outcome::WentBack { to }),
                Err(PullError::Other { .. }) => Ok(Outcome::WentBack { to: None }),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn take_away(&self, item: Option<&Kept>) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        self.at(item, |place| match work_at(place, Target::uninstall) {
            // Another fileset has taken its place already.
            Ok(()) | Err(PullError::Other { .. }) => Ok(Outcome::Done),
            Err(error) => Err(error),
        })
        .await
    }

    async fn discard(&self, ahead: Option<&Ahead>) -> Outcome {
        let Some(ahead) = ahead else {
            return Outcome::Done;
        };
        let files = self.files.clone();
        self.at(&ahead.item, move |place| {
            match work_at(place, |target| Ok(target.record().id().to_owned())) {
                Ok(id) => {
                    let downloads = place.data.join("downloads").join(id);
                    crate::fetch::downloads::Downloads::forget(&downloads);
                }
                // What another fileset needs there is not ours to remove.
                Err(PullError::Other { .. }) => {}
                Err(error) => return Err(error),
            }
            files.remove_locator(&place.fileset).unwrap_or_default();
            Ok(Outcome::Done)
        })
        .await
    }

    async fn verify(&mut self, act: &Act, item: Option<&Kept>) -> Outcome {
        let Some(item) = item else {
            return Outcome::Done;
        };
        let request = VerifyRequest {
            only: Some(act.fileset.to_string()),
            heal: true,
            rate: self.verify_rate,
            site: self.site.clone(),
            sources: self.sources.clone(),
            grace: self.session.grace,
            ..VerifyRequest::new(self.session.data.root().to_owned())
        };
        let Self {
            session, courier, ..
        } = self;
        let verifying = verify_in(session, &request);
        let report = match courier.during(verifying).await {
            Ok(report) => report,
            Err(error) => return failed(&error),
        };
        for verified in &report.filesets {
            if let Some(error) = &verified.error {
                return Outcome::Failed {
                    note: error.clone(),
                };
            }
            if verified.left > 0 {
                let first = verified.differences.first();
                let first = first.map(|it| format!(", {} first", it.path));
                return Outcome::Damaged {
                    note: format!("{} paths{}", verified.left, first.unwrap_or_default()),
                };
            }
        }
        let ran = self.run_scripts(item, Stage::Verification).await;
        if let Outcome::Exit { note, .. } = ran {
            return Outcome::Damaged { note };
        }
        ran
    }

    fn request(&self, item: &Item) -> PullRequest {
        let data = self.session.data.root().to_owned();
        let target = item.target.clone().into();
        PullRequest {
            number: Some(item.revision),
            site: self.site.clone(),
            sources: self.sources.clone(),
            grace: self.session.grace,
            mode: item.mode,
            rules: Some(item.heal.clone()),
            keep: true,
            ..PullRequest::new(data, item.fileset.clone(), target)
        }
    }

    /// Works on what `item` has at its target, where that holds up nobody.
    async fn at(
        &self,
        item: &Item,
        work: impl FnOnce(&Place) -> Result<Outcome, PullError> + Send + 'static,
    ) -> Outcome {
        let place = Place {
            data: self.session.data.root().to_owned(),
            fileset: item.fileset.clone(),
            target: item.target.clone().into(),
            mode: item.mode,
        };
        let lock = Arc::clone(&self.session.lock);
        let done = off_the_runtime(move || {
            let _lock = lock;
            work(&place)
        });
        match done.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    }
}

/// The folder that a target lies in is made if need be.
async fn make_parent(item: &Item) -> Result<(), String> {
    let target = std::path::PathBuf::from(&item.target);
    let made = off_the_runtime(move || match target.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    });
    let made = made.await.map_err(|error| Report(&error).to_string())?;
    made.map_err(|error| format!("cannot make the folder above {}: {error}", item.target))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::Failed {
        note: Report(error).to_string(),
    }
}

/// What came from whom, by their ids.
fn source_bytes(traffic: Vec<Traffic>) -> Vec<SourceBytes> {
    let bytes = traffic.into_iter().map(|traffic| {
        let id = traffic.source.rsplit(' ').next().unwrap_or_default();
        SourceBytes {
            id: id.chars().take(63).collect(),
            bytes: traffic.pack_bytes + traffic.other_bytes,
        }
    });
    bytes.filter(|source| source.bytes > 0).collect()
}
