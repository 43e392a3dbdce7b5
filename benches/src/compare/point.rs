//! What is measured.

use std::fmt;

use super::tools::Tool;
use crate::load::HttpVersion;

/// One thing that is measured at every server.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) what: What,
}

/// What kind of thing.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// The same object again and again, from the cache.
    Get {
        object: Object,
        http: HttpVersion,
        connections: u16,
    },
    /// A full handshake for each request of the smallest object, with a revocation list of so
    /// many entries.
    Handshake { entries: u32 },
}

/// An object of about this size: for the booster a pack, or a run of packs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Object {
    pub(super) bytes: u64,
    pub(super) name: &'static str,
}

impl Point {
    /// Entries of the revocation list that servers have to have.
    pub(super) fn entries(&self) -> u32 {
        match self.what {
            What::Get { .. } => 0,
            What::Handshake { entries } => entries,
        }
    }

    /// The object that it asks for.
    pub(super) fn object(&self) -> Object {
        match self.what {
            What::Get { object, .. } => object,
            What::Handshake { .. } => SMALLEST,
        }
    }

    /// With which tools, of those that are wanted.
    pub(super) fn tools(&self, wanted: &[Tool]) -> Vec<Tool> {
        match self.what {
            What::Get { .. } => wanted.to_vec(),
            What::Handshake { .. } => vec![Tool::Ab],
        }
    }

    /// Whether a smoke run has it.
    pub(super) fn is_smoke(&self) -> bool {
        let name = self.to_string();
        SMOKE.contains(&name.as_str())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Get {
                object,
                http,
                connections,
            } => {
                let http = match http {
                    HttpVersion::One => "h1",
                    HttpVersion::Two => "h2",
                };
                write!(f, "get/{}/{http}/c{connections}", object.name)
            }
            What::Handshake { entries } => write!(f, "handshake/crl{entries}"),
        }
    }
}

/// All points, in the order in which they are measured.
pub(super) fn all() -> Vec<Point> {
    let mut points = Vec::new();
    for object in OBJECTS {
        for http in [HttpVersion::One, HttpVersion::Two] {
            for connections in CONNECTIONS {
                points.push(What::Get {
                    object,
                    http,
                    connections,
                });
            }
        }
    }
    points.extend(ENTRIES.map(|entries| What::Handshake { entries }));
    points.into_iter().map(|what| Point { what }).collect()
}

/// The objects. The last is larger than a pack can be.
pub(super) const OBJECTS: [Object; 5] = [
    SMALLEST,
    Object {
        bytes: 64 << 10,
        name: "64KiB",
    },
    Object {
        bytes: 1 << 20,
        name: "1MiB",
    },
    Object {
        bytes: 4 << 20,
        name: "4MiB",
    },
    Object {
        bytes: 64 << 20,
        name: "64MiB",
    },
];
const SMALLEST: Object = Object {
    bytes: 4 << 10,
    name: "4KiB",
};
const CONNECTIONS: [u16; 3] = [1, 8, 64];
const ENTRIES: [u32; 3] = [0, 10_000, 1_000_000];
const SMOKE: [&str; 2] = ["get/1MiB/h1/c8", "handshake/crl0"];
