//! `os-release`: what the system calls itself (freedesktop.org, os-release(5)).

use super::text::short;

/// What a system calls itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OsRelease {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) name: String,
}

impl OsRelease {
    /// Reads the file: lines of `NAME=value`, the value quoted as in a shell.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((name, value)) = line.trim().split_once('=') else {
                continue;
            };
            match name {
                "ID" => found.id = short(&unquoted(value)),
                "VERSION_ID" => found.version = short(&unquoted(value)),
                "PRETTY_NAME" => found.name = short(&unquoted(value)),
                _ => {}
            }
        }
        found
    }
}

fn unquoted(value: &str) -> String {
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(value) = quoted('\'') {
        return value.to_owned();
    }
    let mut plain = String::new();
    let mut letters = quoted('"').unwrap_or(value).chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' {
            letters.next()
        } else {
            Some(letter)
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_known_by_its_file() {
        let check = |text: &str, expected: [&str; 3]| {
            let OsRelease { id, version, name } = OsRelease::parse(text.as_bytes());
            assert_eq!([id, version, name], expected, "{text}");
        };
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
            ["debian", "12", "Debian GNU/Linux 12 (bookworm)"],
        );
        check(
            "ID='arch'\n# ID=no\n  PRETTY_NAME=\"a \\\"b\\\"\"",
            ["arch", "", "a \"b\""],
        );
        check("ID=\"\nVERSION_ID=\\\n=x\nnothing", ["\"", "", ""]);
        check("ID=a\u{7}b", ["ab", "", ""]);
        let long = OsRelease::parse(&[b"ID=".to_vec(), vec![0xff; 1000]].concat());
        assert!(long.id.len() <= 256);
    }
}
