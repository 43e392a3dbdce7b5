//! Logs: to stderr, as text or JSON; and the end of them in memory, for who asks later.

mod recent;

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, fmt};

pub use recent::Recent;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, for programs.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Why logs cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter makes no sense.
    #[error("cannot use the log filter {filter:?}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The format has another name.
    #[error("cannot use the log format {0:?}: want text or json")]
    Format(String),
    /// This process has set up its log before.
    #[error("cannot set up the log twice")]
    Twice(#[source] TryInitError),
}

/// Sends the log to stderr from now on, in `format`, as far as `filter` lets it through: a level
/// (`info`) or levels by target (`warn,origin=debug`).
///
/// # Errors
///
/// Fails if the filter cannot be read or logging was set up before.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    let parsed = read(filter)?;
    let set = tracing_subscriber::registry().with(shown(format).with_filter(parsed));
    set.try_init().map_err(LogError::Twice)
}

/// Does the same, and keeps the last lines in memory, from the level `info` on whatever `filter`
/// says.
///
/// # Errors
///
/// Fails as [`init`] does.
pub fn init_keeping(format: Format, filter: &str) -> Result<Recent, LogError> {
    let (parsed, recent) = (read(filter)?, Recent::default());
    let lines = recent.clone();
    let kept = fmt::layer()
        .with_ansi(false)
        .with_writer(move || lines.line());
    let set = tracing_subscriber::registry()
        .with(shown(format).with_filter(parsed))
        .with(kept.with_filter(LevelFilter::INFO));
    set.try_init().map_err(LogError::Twice)?;
    Ok(recent)
}

fn read(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

/// What goes to stderr.
fn shown(format: Format) -> Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync> {
    let layer = fmt::layer().with_writer(io::stderr);
    match format {
        Format::Json => layer.json().flatten_event(true).boxed(),
        Format::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            layer.with_ansi(colour).boxed()
        }
    }
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}
