//! What the agent tells people: how its filesets stand, and what a check-in has brought.

use std::fmt;
use std::path::Path;

use content::FilesetName;
use protocol::{CheckInAnswer, Command, SourceBytes};
use serde::Serialize;
use service::Clock;

use super::AgentError;
use super::files::{Files, FilesError};
use super::run::{check_in_once, wake};
use super::state::{Holding, State};
use super::step::earlier;
use crate::config::Config;
use crate::guide::Guide;
use crate::status::time;

/// What the agent knows. Times are Unix seconds.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct AgentStatus {
    /// The number of the manifest that it goes by; none before the first.
    pub manifest: Option<u64>,
    /// The model that it was made from.
    pub model: Option<u64>,
    /// What is being done, or was when the agent was ended.
    pub doing: Option<String>,
    /// When everything is looked at next.
    pub verify_at: Option<i64>,
    /// The fileset and the revision whose settings are in force; none if none are.
    pub settings: Option<String>,
    /// How many results the origin has not heard.
    pub untold: usize,
    /// The filesets, by name.
    pub filesets: Vec<FilesetStatus>,
}

/// How one fileset stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FilesetStatus {
    /// Its name.
    pub fileset: String,
    /// The revision that the manifest wants; none if it wants none any more.
    pub wanted: Option<u64>,
    /// The revision that is at its target.
    pub installed: Option<u64>,
    /// Where that is, or will be.
    pub target: Option<String>,
    /// How it stands, in a word.
    pub state: &'static str,
    /// When something falls due for it.
    pub next_at: Option<i64>,
    /// What went wrong last, or why it waits.
    pub note: String,
}

/// What the agent of the device with the data folder `data` knows; none if it has never run.
pub(crate) fn agent_status(data: &Path, now: i64) -> Result<Option<AgentStatus>, FilesError> {
    let state = Files::new(data).state()?;
    if state == State::default() {
        return Ok(None);
    }
    let filesets = state.filesets.iter();
    Ok(Some(AgentStatus {
        manifest: state.manifest.as_ref().map(|manifest| manifest.number),
        model: state.manifest.as_ref().map(|manifest| manifest.model),
        doing: state.doing.as_ref().map(ToString::to_string),
        verify_at: state.verify_at,
        settings: state
            .in_force(state.settings_at.as_deref())
            .map(|it| format!("{}@{}", it.item.fileset, it.item.revision.0)),
        untold: state.results.len(),
        filesets: filesets
            .map(|(name, holding)| fileset_status(name.to_string(), holding, now))
            .collect(),
    }))
}

/// What the agent of the device with the data folder `data` knows of sources, none if it has never
/// run; and how `fileset` stands, with where its bytes came from.
pub(crate) fn of_sources(
    data: &Path,
    fileset: Option<&FilesetName>,
    now: i64,
) -> Result<(Option<Guide>, OfFileset), FilesError> {
    let state = Files::new(data).state()?;
    if state == State::default() {
        return Ok((None, None));
    }
    let found = fileset.and_then(|name| Some((name, state.filesets.get(name)?)));
    let found = found.map(|(name, holding)| {
        let sources = holding.last.as_ref().map(|last| last.sources.clone());
        let status = fileset_status(name.to_string(), holding, now);
        (status, sources.unwrap_or_default())
    });
    Ok((Some(state.guide), found))
}

/// How a fileset stands, and where its bytes came from.
pub(crate) type OfFileset = Option<(FilesetStatus, Vec<SourceBytes>)>;

fn fileset_status(fileset: String, holding: &Holding, now: i64) -> FilesetStatus {
    let wanted = holding.aim.as_ref().map(|aim| &*aim.item);
    let installed = holding.active.as_deref();
    let times = wanted.map(|item| item.times.all()).unwrap_or_default();
    let due = times.into_iter().flatten().filter(|at| *at > now).min();
    let trouble = match (&holding.going, &holding.aim) {
        (Some(going), _) => Some(&going.trouble),
        (None, aim) => aim.as_ref().map(|aim| &aim.trouble),
    };
    let retry = trouble.and_then(|trouble| trouble.retry_at);
    let last = holding.last.as_ref();
    FilesetStatus {
        fileset,
        wanted: wanted.map(|item| item.revision.0),
        installed: installed.map(|item| item.revision.0),
        target: wanted.or(installed).map(|item| item.target.clone()),
        state: last.map_or("new", |last| last.state.word()),
        next_at: earlier(due, retry.filter(|at| *at > now)),
        note: last.map(|last| last.note.clone()).unwrap_or_default(),
    }
}

impl fmt::Display for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.manifest, self.model) {
            (Some(manifest), Some(model)) => {
                write!(f, "\n  manifest     {manifest}, of model {model}")?;
            }
            (_, _) => write!(f, "\n  manifest     none yet")?,
        }
        if let Some(doing) = &self.doing {
            write!(f, "\n  under way    {doing}")?;
        }
        if let Some(settings) = &self.settings {
            write!(f, "\n  settings     of {settings}")?;
        }
        for fileset in &self.filesets {
            write!(f, "\n  {fileset}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FilesetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {}", self.state, self.fileset)?;
        match (self.wanted, self.installed) {
            (Some(wanted), Some(installed)) if wanted == installed => write!(f, "@{wanted}")?,
            (Some(wanted), Some(installed)) => write!(f, "@{wanted}, {installed} is installed")?,
            (Some(wanted), None) => write!(f, "@{wanted}")?,
            (None, Some(installed)) => write!(f, "@{installed}, which is to go")?,
            (None, None) => {}
        }
        if let Some(target) = &self.target {
            write!(f, " at {target}")?;
        }
        if let Some(next) = self.next_at {
            write!(f, "; next {}", time(next))?;
        }
        if !self.note.is_empty() {
            write!(f, ": {}", self.note)?;
        }
        Ok(())
    }
}

/// What came of a check-in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CheckedIn {
    /// Whether the origin had nothing new to say.
    pub unchanged: bool,
    /// The number of the manifest that the device goes by now.
    pub manifest: Option<u64>,
    /// The model that it was made from.
    pub model: Option<u64>,
    /// When the origin wants the device to come again, in seconds.
    pub next_seconds: Option<u32>,
    /// What an operator asks for; the agent does it when it runs.
    pub commands: Vec<Command>,
    /// How the filesets stand by that manifest.
    pub filesets: Vec<FilesetStatus>,
}

impl CheckedIn {
    fn new(answer: Option<CheckInAnswer>, status: AgentStatus, interval: Option<u32>) -> Self {
        Self {
            unchanged: answer.is_none(),
            manifest: status.manifest,
            model: status.model,
            next_seconds: interval,
            commands: answer.map(|answer| answer.commands).unwrap_or_default(),
            filesets: status.filesets,
        }
    }
}

impl fmt::Display for CheckedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = if self.unchanged { "nothing new; " } else { "" };
        match (self.manifest, self.model) {
            (Some(manifest), Some(model)) => {
                write!(f, "checked in: {says}manifest {manifest}, of model {model}")?;
            }
            (_, _) => write!(f, "checked in: {says}no manifest yet")?,
        }
        if let Some(seconds) = self.next_seconds {
            write!(f, "; again in {seconds} s")?;
        }
        for Command { id, what } in &self.commands {
            write!(f, "\n  asked for {} (command {id})", what.word())?;
        }
        for fileset in &self.filesets {
            write!(f, "\n  {fileset}")?;
        }
        Ok(())
    }
}

/// Checks in once, and keeps what is heard for the agent to act by.
///
/// # Errors
///
/// Fails if the device is not ready, if its agent or another command is at work, or if the origin
/// does not answer.
pub async fn check_in(config: &Config, clock: &Clock) -> Result<CheckedIn, AgentError> {
    let (mut hands, mut mind, line) = wake(config, clock).await?;
    let before = mind.least();
    let heard = Box::pin(check_in_once(&mut hands, &mut mind, &line)).await;
    hands.session.tell_origin(&mut hands.courier).await;
    let answer = heard?;
    let data = config.data().to_owned();
    let now = mind.now();
    let status = crate::fetch::off_the_runtime(move || agent_status(&data, now));
    let status = status.await.map_err(|_| AgentError::Stopped)??;
    let interval = mind.state.interval;
    let mut told = CheckedIn::new(answer, status.unwrap_or_default(), interval);
    // A booster that says nothing may prove all the same that something has changed.
    told.unchanged &= mind.least() == before;
    Ok(told)
}
