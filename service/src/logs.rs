//! Logs: to stderr, as text or JSON.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

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
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(io::stderr);
    let set = match format {
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
        Format::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).finish().try_init()
        }
    };
    set.map_err(LogError::Twice)
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
