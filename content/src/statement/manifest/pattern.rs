//! Patterns of paths. The rules are few, so that a client in any language can follow them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A pattern of paths, held against them component by component: `**` stands for any number of
/// components, none included; within a component `*` stands for any text and `?` for one character.
/// Everything else stands for itself.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathPattern(String);

/// A text that is no pattern.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "not a pattern of paths: {got:?}; want a relative path of at most 256 bytes in which * ? and \
     ** stand for others, such as etc/**/*.conf"
)]
pub struct PatternError {
    got: String,
}

impl PathPattern {
    /// The longest pattern, in bytes. Holding a path against one takes at most as many steps as
    /// the product of both lengths.
    pub const BYTES_MAX: usize = 256;

    /// Whether `path` fits.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        wild(
            &pattern,
            &path,
            |part| *part == "**",
            |part, component| {
                let (part, component): (Vec<char>, Vec<char>) =
                    (part.chars().collect(), component.chars().collect());
                wild(&part, &component, |c| *c == '*', |a, b| *a == '?' || a == b)
            },
        )
    }

    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` fits `pattern`, in which what `is_any` stands for any run of items. Greedy with
/// one place to come back to: no input makes it slow.
fn wild<T, A: Fn(&T) -> bool, E: Fn(&T, &T) -> bool>(
    pattern: &[T],
    text: &[T],
    is_any: A,
    fits: E,
) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(part) if is_any(part) => {
                back = Some((at + 1, from));
                at += 1;
            }
            Some(part) if text.get(from).is_some_and(|item| fits(part, item)) => {
                at += 1;
                from += 1;
            }
            Some(_) | None => {
                let Some((after, taken)) = back else {
                    return false;
                };
                back = Some((after, taken + 1));
                at = after;
                from = taken + 1;
            }
        }
    }
    pattern.iter().skip(at).all(is_any)
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if text.len() <= Self::BYTES_MAX && text.split('/').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            let got = text.chars().take(Self::BYTES_MAX).collect();
            Err(PatternError { got })
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_it_says() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let pattern: PathPattern = pattern.parse().unwrap();
            assert_eq!(pattern.fits(path), expected, "{pattern} {path}");
        };
        check("a", "a", true);
        check("a", "a/b", false);
        check("*", "a", true);
        check("*", "a/b", false);
        check("**", "a/b/c", true);
        check("a/**", "a", true);
        check("a/**", "ab", false);
        check("**/x", "x", true);
        check("**/x", "a/b/x", true);
        check("**/x", "a/x/b", false);
        check("etc/**/*.conf", "etc/a/b/c.conf", true);
        check("etc/**/*.conf", "etc/.conf", true);
        check("etc/**/*.conf", "etc/c.con", false);
        check("?", "ä", true);
        check("a?c", "ac", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxa", false);
        check("**/a/**/b", "a/a/c/b", true);
        check("[a]", "[a]", true);
        check("[a]", "a", false);
    }

    #[test]
    fn no_pattern_is_slow() {
        let pattern: PathPattern = "*a".repeat(128).parse().unwrap();
        assert!(!pattern.fits(&"a".repeat(127)));
        assert!(!pattern.fits(&"ab".repeat(2000)));
    }

    #[test]
    fn what_is_no_relative_path_is_no_pattern() {
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/./b",
            "a\0",
            &"x".repeat(257),
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad:?} was taken");
        }
    }
}
