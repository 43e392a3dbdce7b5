//! What becomes of what was installed before: it is confirmed, gone back to, or removed.

use std::path::PathBuf;

use content::FilesetName;
use content::statement::InstallMode;
use member::{Data, Kind, Lock, OpenError};

use crate::fetch::downloads::Downloads;
use crate::fetch::off_the_runtime;
use crate::install::{Target, TargetError};
use crate::pull::PullError;
use crate::session::{SessionError, installed};
use crate::steps::Steps;

/// What a fileset has at a target of this device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The data folder of this device.
    pub data: PathBuf,
    /// The fileset.
    pub fileset: FilesetName,
    /// The folder.
    pub target: PathBuf,
    /// Whether the folder is the fileset's alone, or shared with others.
    pub mode: InstallMode,
}

/// Says that what is installed is good, after a pull with
/// [`keep`](crate::PullRequest::keep): what was there before is removed.
///
/// # Errors
///
/// Fails if another command is at work, or as the disk fails. Then it can be done again.
pub async fn confirm(place: Place) -> Result<(), PullError> {
    let done = off_the_runtime(move || {
        let _lock = lock(&place)?;
        confirm_at(&place)
    });
    done.await?
}

/// Goes back to what was there before the last pull with [`keep`](crate::PullRequest::keep), which
/// may be nothing. False if it has been confirmed since, or there was no such pull.
///
/// # Errors
///
/// Fails if another command is at work, or as the disk fails. What was begun in a shared folder is
/// then done to the end before anything else is done there; in any case it can be done again.
pub async fn go_back(place: Place) -> Result<bool, PullError> {
    at(place, Target::go_back).await
}

/// Removes what is installed: the whole tree, or what the fileset alone has put into a shared
/// folder, each path as its rule says.
///
/// # Errors
///
/// Fails if another command is at work, or as the disk fails. Then it can be done again.
pub async fn uninstall(place: Place) -> Result<(), PullError> {
    at(place, Target::uninstall).await
}

async fn at<T: Send + 'static>(
    place: Place,
    work: impl FnOnce(&mut Target) -> Result<T, TargetError> + Send + 'static,
) -> Result<T, PullError> {
    let done = off_the_runtime(move || {
        let _lock = lock(&place)?;
        work_at(&place, work)
    });
    done.await?
}

fn lock(place: &Place) -> Result<Lock, PullError> {
    let locked = Data::new(&place.data, Kind::Client).lock();
    Ok(locked
        .map_err(OpenError::Data)
        .map_err(SessionError::Open)?)
}

/// Does `work` at a place; whoever calls holds the lock of the data folder.
pub(crate) fn work_at<T>(
    place: &Place,
    work: impl FnOnce(&mut Target) -> Result<T, TargetError>,
) -> Result<T, PullError> {
    let (records, steps) = (installed(&place.data), Steps::default());
    let mut target = match place.mode {
        InstallMode::Tree => Target::open(&records, &place.target, steps),
        InstallMode::Merge => Target::open_shared(&records, &place.target, &place.fileset, steps),
    }?;
    let is_its = target.record().installed().is_none_or(|installed| {
        // A tree is of whichever fileset was pulled to it last.
        installed.fileset() == place.fileset.as_str()
    });
    if !is_its {
        return Err(PullError::Other {
            target: place.target.clone(),
            fileset: place.fileset.clone(),
        });
    }
    Ok(work(&mut target)?)
}

/// Lets go of what was there before, and of what was downloaded for what is there now.
pub(crate) fn confirm_at(place: &Place) -> Result<(), PullError> {
    let id = work_at(place, |target| {
        target.confirm()?;
        Ok(target.record().id().to_owned())
    })?;
    Downloads::forget(&place.data.join("downloads").join(id));
    Ok(())
}
