//! Settings that a fileset brings ("superprefs"): which of them are in force, and how they are
//! tried before they are confirmed. Drawn in docs/fleet.md, "Settings by fileset".

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use content::statement::{Item, Manifest};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::ended::Outcome;
use super::files::{Files, FilesError};
use super::kept::Kept;
use super::state::{Holding, Reached, State};
use super::step::What;
use crate::config::{Config, Delivered};

/// Settings as they came with a revision of a fileset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adopted {
    /// What they came with.
    pub(crate) item: Kept,
    /// What the file said: it was good when it was read.
    pub(crate) text: String,
}

/// What `config` and the fileset that is in force make of each other, for whoever looks beside the
/// agent.
pub(crate) fn in_force(config: &Config) -> Result<Config, FilesError> {
    Ok(Files::new(config.data()).state()?.over(config))
}

/// Reads the file of settings in the folder `target`, and says what came of it.
pub(super) fn read(target: &Path) -> Outcome {
    let path = target.join(Delivered::FILE);
    let text = read_file(&path).map_err(|error| {
        let note = format!("cannot read {}: {error}", Delivered::FILE);
        // So it came, and so it will be found whenever it is read.
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) {
            Outcome::Unusable { note }
        } else {
            Outcome::Failed { note }
        }
    });
    match text.map(|text| (Delivered::parse(&text).map(drop), text)) {
        Ok((Ok(()), text)) => Outcome::Adopted { text },
        Ok((Err(error), _)) => Outcome::Unusable {
            note: error.to_string(),
        },
        Err(outcome) => outcome,
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    // A link or a device is no file of settings.
    if !path.symlink_metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = String::new();
    let mut file = File::open(path)?.take(Delivered::BYTES_MAX as u64 + 1);
    file.read_to_string(&mut text)?;
    Ok(text)
}

impl State {
    /// What `config` comes to under the settings that are in force.
    pub(crate) fn over(&self, config: &Config) -> Config {
        let adopted = self.in_force(config.settings());
        // A later agent may not know what an earlier one has read.
        let said = adopted.and_then(|adopted| Delivered::parse(&adopted.text).ok());
        said.map_or_else(|| config.clone(), |said| config.with(said))
    }

    /// The settings that are in force, by the folder that brings them: those of the revision that
    /// is there, unless it has to make way.
    pub(crate) fn in_force(&self, folder: Option<&str>) -> Option<&Adopted> {
        self.adopted.iter().find(|adopted| {
            let holding = self.filesets.get(&adopted.item.fileset);
            let holding = holding.filter(|holding| !holding.undo);
            let active = holding.and_then(|holding| holding.active.as_ref());
            Some(&*adopted.item.target) == folder
                && active.is_some_and(|active| active.is_same_content(&adopted.item))
        })
    }

    /// Whether `item` brings settings.
    pub(super) fn is_settings(&self, item: &Item) -> bool {
        self.settings_at.as_ref() == Some(&item.target)
    }

    /// Takes note of what was read for a fileset that is at its target.
    pub(super) fn adopt(&mut self, item: &Kept, text: String) {
        self.disown(item);
        let item = item.clone();
        self.adopted.push(Adopted { item, text });
    }

    /// Forgets what was read for a fileset, though that is at its target.
    pub(super) fn disown(&mut self, item: &Kept) {
        self.adopted
            .retain(|known| !known.item.is_same_content(item));
    }

    /// Forgets what was read of revisions that are neither installed nor kept.
    pub(super) fn forget_settings(&mut self) {
        let filesets = &self.filesets;
        self.adopted.retain(|adopted| {
            let holding = filesets.get(&adopted.item.fileset);
            holding.is_some_and(|it| {
                let mut here = [&it.active, &it.previous].into_iter().flatten();
                here.any(|kept| kept.is_same_content(&adopted.item))
            })
        });
    }

    /// Whether settings are on trial: the next check-in decides about them.
    pub(super) fn is_on_trial(&self) -> bool {
        self.filesets.values().any(Holding::is_on_trial)
    }

    /// A check-in that began under settings on trial was answered, or was not, and why.
    pub(super) fn tried(&mut self, failure: Option<&str>, manifest: &Manifest, now: i64) {
        let trials = self.filesets.values_mut().filter(|it| it.is_on_trial());
        trials.for_each(|holding| holding.tried(failure, now));
        self.settle(manifest, now);
    }
}

impl Holding {
    fn is_on_trial(&self) -> bool {
        let aim = self.aim.as_ref();
        !self.undo && self.going.is_none() && aim.is_some_and(|aim| aim.reached == Reached::Adopted)
    }

    fn tried(&mut self, failure: Option<&str>, now: i64) {
        let Some(aim) = &mut self.aim else { return };
        let Some(failure) = failure else {
            info!(fileset = %aim.item.fileset, "the settings work");
            (aim.reached, aim.trials) = (Reached::Tried, 0);
            return;
        };
        aim.trials += 1;
        let trials = aim.trials;
        warn!(fileset = %aim.item.fileset, trials, "the settings do not work");
        if trials >= TRIALS {
            aim.trials = 0;
            let note = format!("with these settings, {trials} check-ins failed: {failure}");
            self.turned_down(What::Adopt, &note, now);
        }
    }
}

/// After how many check-ins in a row that nobody answers settings go back.
const TRIALS: u32 = 3;
