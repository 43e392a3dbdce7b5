//! Paths within a fileset, which cannot lead out of it.

use std::fmt;

use thiserror::Error;

/// A path below a fileset's root: UTF-8, `/` between components, never absolute, no component
/// empty, `.` or `..`, no NUL.
///
/// Ordered by bytes, which is the order of an index.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryPath(String);

impl EntryPath {
    /// The most bytes that a path may have: Linux's `PATH_MAX` less the closing NUL.
    pub const BYTES_MAX: usize = 4095;
    /// The most bytes that a component may have: `NAME_MAX` of ext4, xfs, btrfs and NTFS.
    pub const COMPONENT_BYTES_MAX: usize = 255;
    /// The deepest nesting: deeper trees are a loop or an attack, and each level costs a handle.
    pub const DEPTH_MAX: usize = 128;

    /// Takes `text` if it is a path that stays below its root.
    ///
    /// # Errors
    ///
    /// Says which rule it breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, PathError> {
        let text = text.into();
        match fault(&text) {
            None => Ok(Self(text)),
            Some(rule) => Err(PathError { path: text, rule }),
        }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that it lies in; none if that is the root.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Its last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.0.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no path within a fileset.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("cannot use the path {path:?}: {rule}")]
pub struct PathError {
    /// The text.
    pub path: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > EntryPath::BYTES_MAX {
        return Some("it is longer than 4095 bytes");
    }
    if text.contains('\0') {
        return Some("it holds a NUL");
    }
    if text.split('/').count() > EntryPath::DEPTH_MAX {
        return Some("it is nested more than 128 deep");
    }
    text.split('/').find_map(|component| match component {
        "" => Some("it has an empty component"),
        "." | ".." => Some("it has a component . or .."),
        long if long.len() > EntryPath::COMPONENT_BYTES_MAX => {
            Some("it has a component longer than 255 bytes")
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cas.md 12: names that climb out are no names.
    #[test]
    fn b12_no_path_leads_out() {
        for good in [
            "a",
            "a/b",
            "...",
            "a b/ä",
            &format!("{}a", "a/".repeat(127)),
        ] {
            assert!(EntryPath::new(good).is_ok(), "{good:?} was refused");
        }
        let long = "x".repeat(256);
        let deep = format!("{}a", "a/".repeat(128));
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b", &long, &deep,
        ] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
