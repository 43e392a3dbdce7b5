//! dpkg's status file (dpkg(1), deb-control(5)): stanzas of `Field: value`, an empty line between
//! two. It is read as it is, since to ask dpkg itself would start a program for each hour.

use protocol::{Inventory, Software};

use super::text::short;

/// Where it is.
pub(super) const STATUS: &str = "/var/lib/dpkg/status";
/// The most of it that is read: a desktop's has 4 MB.
pub(super) const STATUS_BYTES_MAX: u64 = 32 << 20;

/// The packages that are installed.
pub(super) fn packages(status: &[u8]) -> Vec<Software> {
    let mut found = Vec::new();
    let mut stanza = Stanza::default();
    for line in status.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        if line.is_empty() {
            found.extend(std::mem::take(&mut stanza).package());
            if found.len() == Inventory::SOFTWARE_MAX {
                break;
            }
        } else {
            stanza.hear(line);
        }
    }
    found
}

#[derive(Default)]
struct Stanza {
    is_installed: bool,
    software: Software,
}

impl Stanza {
    fn hear(&mut self, line: &[u8]) {
        let value = |name: &[u8]| {
            let value = line.strip_prefix(name)?;
            Some(short(&String::from_utf8_lossy(
                &value[..value.len().min(VALUE_MAX)],
            )))
        };
        if let Some(name) = value(b"Package:") {
            self.software.name = name;
        } else if let Some(status) = value(b"Status:") {
            // What is wanted, whether it is well, and what it is.
            self.is_installed = status.split(' ').nth(2) == Some("installed");
        } else if let Some(version) = value(b"Version:") {
            self.software.version = version;
        } else if let Some(arch) = value(b"Architecture:") {
            self.software.arch = arch;
        }
    }

    fn package(self) -> Option<Software> {
        let is_whole = !self.software.name.is_empty() && !self.software.version.is_empty();
        (self.is_installed && is_whole).then_some(self.software)
    }
}

/// What is looked at of a line: more than is kept.
const VALUE_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: &str, expected: &str) {
        let found = packages(status.as_bytes());
        let line = |it: &Software| format!("{} {} {}", it.name, it.version, it.arch);
        let found: Vec<String> = found.iter().map(line).collect();
        assert_eq!(found.join("; "), expected, "{status}");
    }

    #[test]
    fn what_is_installed_is_found() {
        let bash = "Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b7\n\
                    Architecture: amd64\nDescription: GNU\n Version: 9\n .\n more\n";
        check(bash, "bash 5.2.15-2+b7 amd64");
        let gone = "Package: vim\nStatus: deinstall ok config-files\nVersion: 1\n";
        let half = "Package: x\nStatus: install reinstreq half-installed\nVersion: 1\n";
        let held = "Package: lib\nStatus: hold ok installed\nVersion: 1:2-3\n";
        check(
            &format!("{bash}\n{gone}\n{half}\n\n\n{held}"),
            "bash 5.2.15-2+b7 amd64; lib 1:2-3 ",
        );
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        for nonsense in [
            "",
            "\n\n\n",
            "Package: x\n\nStatus: install ok installed\nVersion: 1\n",
            "Status: install ok installed\nVersion: 1\n",
            "Package: x\nStatus: installed\nVersion: 1\n",
            "Package: x\nStatus: install ok installed\n",
            "package: x\nStatus: install ok installed\nVersion: 1",
        ] {
            check(nonsense, "");
        }
        check(
            "Package: a\u{7}b\nStatus: a b installed\nVersion: 1",
            "ab 1 ",
        );
        let one = "Package: x\nStatus: install ok installed\nVersion: 1\n\n";
        assert_eq!(
            packages(one.repeat(20_000).as_bytes()).len(),
            Inventory::SOFTWARE_MAX
        );
        let long = format!(
            "Package: {}\nStatus: a b installed\nVersion: 1",
            "x".repeat(100_000)
        );
        assert_eq!(
            packages(long.as_bytes())[0].name.len(),
            Inventory::TEXT_BYTES_MAX
        );
        assert_eq!(packages(&vec![0xff; 100_000]), []);
    }
}
