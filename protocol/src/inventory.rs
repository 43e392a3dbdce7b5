//! Inventory: what a device says of itself, so that operators can find it and rules can group it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check_in::FilesetState;

/// What a device says of itself. Untrusted text throughout, within bounds.
///
/// It travels as the body of `PUT /v1/inventory`, and is named by the digest of those bytes, which
/// the device's check-in carries: whoever passes the body on cannot change it unnoticed. What is
/// unknown here is passed over, so that later agents can say more.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Inventory {
    /// The machine and its system.
    pub system: System,
    /// File systems of disks: at most [`Inventory::DISKS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Packages of the system's package managers: at most [`Inventory::SOFTWARE_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub software: Vec<Software>,
    /// Filesets that are here or under way, by name: at most [`Inventory::FILESETS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filesets: BTreeMap<String, FilesetHeld>,
    /// What scripts of the operator's found out: at most [`Inventory::FIELDS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// The machine and its system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct System {
    /// What the machine calls itself.
    pub hostname: String,
    /// `ID` of `os-release`, such as `debian`.
    pub os: String,
    /// `VERSION_ID` of `os-release`, such as `12`.
    pub os_version: String,
    /// `PRETTY_NAME` of `os-release`.
    pub os_name: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture as its kernel calls it.
    pub arch: String,
    /// The agent's release.
    pub agent: String,
    /// Processors that are on.
    pub cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
}

/// A file system of a disk.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Its type, such as `ext4`.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// What programs can still write, in bytes, rounded: it would change all the time.
    pub free: u64,
}

/// A package of the system's package manager.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// Its version, with epoch and release.
    pub version: String,
    /// For which architecture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
}

/// How a fileset stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilesetHeld {
    /// The revision that is at its target; of one that is not there, the one that is under way.
    pub revision: u64,
    /// What it is.
    pub state: FilesetState,
}

impl Inventory {
    /// The most bytes of one: 16,384 packages of 60 bytes each.
    pub const BYTES_MAX: usize = 1 << 20;
    /// The most disks.
    pub const DISKS_MAX: usize = 64;
    /// The most packages; a desktop has some 3,000.
    pub const SOFTWARE_MAX: usize = 16_384;
    /// The most filesets, as in a manifest.
    pub const FILESETS_MAX: usize = 1024;
    /// The most custom fields.
    pub const FIELDS_MAX: usize = 64;
    /// The longest of its texts, in bytes.
    pub const TEXT_BYTES_MAX: usize = 256;
    /// The longest name of a custom field, in bytes.
    pub const FIELD_NAME_BYTES_MAX: usize = 63;

    /// The body that carries it: for the same inventory the same.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and lists always encode")
    }

    /// Reads a body; none if it is no inventory, or one beyond its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let inventory: Self = serde_json::from_slice(bytes).ok()?;
        inventory.fits().then_some(inventory)
    }

    /// Whether `name` can be that of a custom field: 1 to 63 of `a–z`, `0–9`, `_` and `-`.
    #[must_use]
    pub fn is_field_name(name: &str) -> bool {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        (1..=Self::FIELD_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
    }

    fn fits(&self) -> bool {
        let System {
            hostname,
            os,
            os_version,
            os_name,
            kernel,
            arch,
            agent,
            cpus: _,
            memory: _,
        } = &self.system;
        let disks = self.disks.iter().flat_map(|it| [&it.mount, &it.kind]);
        let packages = self.software.iter();
        let packages = packages.flat_map(|it| [&it.name, &it.version, &it.arch]);
        let system = [hostname, os, os_version, os_name, kernel, arch, agent];
        self.disks.len() <= Self::DISKS_MAX
            && self.software.len() <= Self::SOFTWARE_MAX
            && self.filesets.len() <= Self::FILESETS_MAX
            && self.fields.len() <= Self::FIELDS_MAX
            && self.fields.keys().all(|name| Self::is_field_name(name))
            && system
                .into_iter()
                .chain(disks)
                .chain(packages)
                .chain(self.filesets.keys())
                .chain(self.fields.values())
                .all(|text| is_text(text))
    }
}

/// Whether `text` is short and of one line.
fn is_text(text: &str) -> bool {
    text.len() <= Inventory::TEXT_BYTES_MAX && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn desk() -> Inventory {
        let held = FilesetHeld {
            revision: 3,
            state: FilesetState::Active,
        };
        Inventory {
            system: System {
                hostname: "desk".to_owned(),
                os: "debian".to_owned(),
                memory: 8 << 30,
                ..System::default()
            },
            disks: vec![Disk {
                mount: "/".to_owned(),
                kind: "ext4".to_owned(),
                size: 100,
                free: 50,
            }],
            software: vec![Software {
                name: "bash".to_owned(),
                version: "5.2.15-2+b7".to_owned(),
                arch: "amd64".to_owned(),
            }],
            filesets: BTreeMap::from([("tools".to_owned(), held)]),
            fields: BTreeMap::from([("room".to_owned(), "Zürich 3".to_owned())]),
        }
    }

    #[test]
    fn the_wire_does_not_drift() {
        let body = desk().encode();
        assert_eq!(Inventory::decode(&body), Some(desk()));
        expect![[r#"{"system":{"hostname":"desk","os":"debian","os_version":"","os_name":"","kernel":"","arch":"","agent":"","cpus":0,"memory":8589934592},"disks":[{"mount":"/","kind":"ext4","size":100,"free":50}],"software":[{"name":"bash","version":"5.2.15-2+b7","arch":"amd64"}],"filesets":{"tools":{"revision":3,"state":"active"}},"fields":{"room":"Zürich 3"}}"#]].assert_eq(std::str::from_utf8(&body).unwrap());
        let later = br#"{"system":{"os":"x","mood":"good"},"printers":[]}"#;
        assert_eq!(Inventory::decode(later).unwrap().system.os, "x");
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused() {
        let check = |edit: &dyn Fn(&mut Inventory)| {
            let mut bad = desk();
            edit(&mut bad);
            assert_eq!(Inventory::decode(&bad.encode()), None);
        };
        check(&|it| it.system.kernel = "x".repeat(257));
        check(&|it| it.system.os_name = "two\nlines".to_owned());
        check(&|it| it.disks = vec![it.disks[0].clone(); 65]);
        check(&|it| it.disks[0].mount = "/\u{1b}[2J".to_owned());
        check(&|it| it.software = vec![it.software[0].clone(); 16_385]);
        check(&|it| it.software[0].version = "x".repeat(257));
        check(&|it| {
            it.fields.insert("Bad Name".to_owned(), String::new());
        });
        check(&|it| {
            it.fields.insert("a".to_owned(), "x".repeat(257));
        });
        check(&|it| it.fields = (0..65).map(|n| (n.to_string(), String::new())).collect());
        let long = vec![b' '; Inventory::BYTES_MAX + 1];
        assert_eq!(Inventory::decode(&long), None);
        assert_eq!(Inventory::decode(b"[]"), None);
        assert_eq!(Inventory::decode(b"{}"), None);
        assert_eq!(Inventory::decode(br#"{"system":{"cpus":-1}}"#), None);
    }
}
