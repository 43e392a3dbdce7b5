//! What a program prints: the only place that writes to stdout.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::report::Report;

/// Prints results: for people, or as one JSON object for programs.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// With `json`, results are JSON objects of one line.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result of a command: `Display` for people, `Serialize` for programs.
    ///
    /// # Errors
    ///
    /// Fails if stdout does, except when its reader has gone: that is its own affair.
    pub fn result<T: Display + Serialize>(self, result: &T) -> io::Result<()> {
        if self.json {
            self.write(&serde_json::to_string(result)?)
        } else {
            self.write(result)
        }
    }

    /// Prints a line of talk for people, on stderr; nothing with `--json`.
    pub fn note(self, text: impl Display) {
        if !self.json {
            // Talk that nobody hears is no failure.
            writeln!(io::stderr().lock(), "{text}").unwrap_or_default();
        }
    }

    /// Prints why the program ends in failure, on stderr.
    pub fn failure(self, error: &anyhow::Error) {
        writeln!(io::stderr().lock(), "error: {}", Report(error.as_ref())).unwrap_or_default();
    }

    fn write(self, text: impl Display) -> io::Result<()> {
        match writeln!(io::stdout().lock(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}
