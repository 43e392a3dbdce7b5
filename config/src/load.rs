//! The loader and its errors.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;

/// The largest settings file that is read, in bytes: thousands of times what a full one needs, and
/// small enough that pointing the program at the wrong file does no harm.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a settings file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file says something that the program does not take.
    #[error(
        "cannot use the settings in {path}, line {line}{key}: {message}",
        path = path.display(),
        key = key.as_ref().map(|key| format!(", key `{key}`")).unwrap_or_default()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The key in full (`table.key`), where the mistake belongs to one.
        key: Option<String>,
        /// What is wrong and what is expected.
        message: String,
    },
    /// The file could not be read.
    #[error("cannot read the settings in {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than [`FILE_BYTES_MAX`].
    #[error(
        "cannot use the settings in {path}: more than {FILE_BYTES_MAX} bytes",
        path = path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the settings file at `path`, of at most [`FILE_BYTES_MAX`] bytes.
///
/// # Errors
///
/// Fails if the file cannot be read, is too long, or has a key that is unknown, missing or out of
/// its bounds.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let read = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    let length = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLong {
            path: path.to_owned(),
        });
    }
    parse(path, &text)
}

/// Reads settings from `text`; `path` is only what an error names.
///
/// # Errors
///
/// Fails if a key is unknown, missing or out of its bounds.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, LoadError> {
    toml::from_str(text).map_err(|error| {
        // No span: the mistake is in the file as a whole, such as a missing key.
        let span = error.span().filter(|span| !span.is_empty());
        LoadError::Parse {
            path: path.to_owned(),
            line: span.as_ref().map_or(1, |span| line_of(text, span.start)),
            key: span.and_then(|span| key_at(text, &span)),
            message: error.message().trim_end().replace('\n', " "),
        }
    })
}

/// The line, from one, that holds byte `at`.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The full name of the key whose line `span` starts in, if that line is `key = value`.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    // What spans lines is a whole table: the message names the keys.
    if text.get(span.clone())?.contains('\n') {
        return None;
    }
    let before = text.get(..span.start)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    let key = match line.split_once('=') {
        Some((key, _)) if !line.trim_start().starts_with(['#', '[']) => key.trim(),
        Some(_) | None => return None,
    };
    let table = text.get(..start)?.lines().rev().find_map(table_name);
    Some(table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}")))
}

/// `name` of a line `[name]` or `[[name]]`.
fn table_name(line: &str) -> Option<&str> {
    let line = line.trim();
    let inner = line.strip_prefix('[')?.trim_start_matches('[');
    inner.split_once(']').map(|(name, _)| name.trim())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use expect_test::{Expect, expect};
    use serde::Deserialize;

    use super::*;
    use crate::{Bytes, Listen, Period};

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Raw")]
    #[expect(dead_code, reason = "read through Debug only")]
    struct Settings {
        disk: u64,
        listen: std::net::SocketAddr,
        timeout: std::time::Duration,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        disk: Bytes,
        memory: Bytes,
        wire: RawWire,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawWire {
        listen: Listen,
        timeout: Period,
    }

    impl TryFrom<Raw> for Settings {
        type Error = String;

        fn try_from(raw: Raw) -> Result<Self, String> {
            if raw.memory.0 > raw.disk.0 {
                let Raw { disk, memory, .. } = raw;
                return Err(format!("`memory` is {memory}, more than `disk` ({disk})"));
            }
            let RawWire { listen, timeout } = raw.wire;
            Ok(Self {
                disk: raw.disk.0,
                listen: listen.0,
                timeout: timeout.0,
            })
        }
    }

    fn check(text: &str, expected: Expect) {
        let path = Path::new("x.toml");
        match parse::<Settings>(path, text) {
            Ok(settings) => expected.assert_eq(&format!("{settings:?}")),
            Err(error) => {
                let error = error
                    .to_string()
                    .replace("cannot use the settings in x.toml, ", "");
                expected.assert_eq(&error.replace(": ", ":\n"));
            }
        }
    }

    const WIRE: &str = "[wire]\nlisten = \"[::1]:0\"\ntimeout = \"1m30s\"\n";

    #[test]
    fn a_good_file_becomes_settings() {
        check(
            &format!("disk = \"1 MiB\"\nmemory = 9\n{WIRE}"),
            expect!["Settings { disk: 1048576, listen: [::1]:0, timeout: 90s }"],
        );
    }

    #[test]
    fn a_mistake_names_file_line_key_and_what_is_expected() {
        check(
            &format!("disk = 1\nmemroy = 1\n{WIRE}"),
            expect![[r#"
                line 2, key `memroy`:
                unknown field `memroy`, expected one of `disk`, `memory`, `wire`"#]],
        );
        check(
            "disk = 1\nmemory = 1\n[wire]\nlisten = \"home\"\ntimeout = \"1m\"\n",
            expect![[r#"
                line 4, key `wire.listen`:
                cannot read "home":
                want an address and a port, such as 0.0.0.0:7443 or [::]:7443"#]],
        );
        check(
            "disk = \"much\"\nmemory = 1\n",
            expect![[r#"
                line 1, key `disk`:
                cannot read "much":
                want a size, such as 512 MiB or 10 GiB"#]],
        );
        check(
            &format!("disk = 1\n{WIRE}"),
            expect![[r#"
                line 1:
                missing field `memory`"#]],
        );
        check(
            &format!("disk = 1\nmemory = 2\n{WIRE}"),
            expect![[r#"
                line 1:
                `memory` is 2 B, more than `disk` (1 B)"#]],
        );
        check(
            "disk = ",
            expect![[r#"
                line 1:
                string values must be quoted, expected literal string"#]],
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'#'; FILE_BYTES_MAX as usize + 1])
            .unwrap();
        assert!(matches!(
            load::<Settings>(file.path()),
            Err(LoadError::TooLong { .. })
        ));
        let missing = load::<Settings>(Path::new("/nowhere/x.toml")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "cannot read the settings in /nowhere/x.toml"
        );
    }
}
