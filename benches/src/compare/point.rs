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
    /// many entries, by so many connections at a time; at the booster alone if it is measured beside
    /// those with a list of more entries, to be compared with them.
    Handshake {
        entries: u32,
        connections: u16,
        beside: Option<u32>,
    },
    /// Memory for each of so many connections that do nothing.
    Memory { http: HttpVersion, connections: u32 },
    /// So many clients ask at once for what is not in the cache, over a thin line.
    Herd {
        clients: u16,
        mbit: u32,
        object: Object,
        /// Whether somebody who is slow has asked before them.
        slow: bool,
    },
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
            What::Get { .. } | What::Herd { .. } | What::Memory { .. } => 0,
            What::Handshake { entries, .. } => entries,
        }
    }

    /// The same of those points in whose rounds it is measured.
    pub(super) fn entries_beside(&self) -> u32 {
        match self.what {
            What::Handshake {
                beside: Some(beside),
                ..
            } => beside,
            What::Get { .. } | What::Handshake { .. } | What::Herd { .. } | What::Memory { .. } => {
                self.entries()
            }
        }
    }

    /// The object that it asks for.
    pub(super) fn object(&self) -> Object {
        match self.what {
            What::Get { object, .. } | What::Herd { object, .. } => object,
            What::Handshake { .. } | What::Memory { .. } => SMALLEST,
        }
    }

    /// How many connections at a time load tools have for it.
    pub(super) fn connections(&self) -> u16 {
        match self.what {
            What::Get { connections, .. } | What::Handshake { connections, .. } => connections,
            What::Herd { .. } | What::Memory { .. } => 1,
        }
    }

    /// With which tools, of those that are wanted.
    pub(super) fn tools(&self, wanted: &[Tool]) -> Vec<Tool> {
        match self.what {
            What::Get { .. } => wanted.to_vec(),
            What::Handshake { .. } => vec![Tool::Ab],
            What::Herd { .. } | What::Memory { .. } => vec![Tool::LarderLoad],
        }
    }

    /// Whether objects have to come over a line whose rate can be set.
    pub(super) fn wants_link(&self) -> bool {
        matches!(self.what, What::Herd { .. })
    }

    /// Whether a smoke run has it.
    pub(super) fn is_smoke(&self) -> bool {
        let name = self.to_string();
        SMOKE.contains(&name.as_str())
    }
}

impl Point {
    /// Whether something was promised of it.
    pub(super) fn has_gate(&self) -> bool {
        match self.what {
            What::Get {
                object,
                http,
                connections,
            } => {
                let is_small = object.bytes < 64 << 10 || http == HttpVersion::One;
                connections == 8
                    && object.bytes < LARGE.bytes
                    && (object.bytes >= 1 << 20 || is_small)
            }
            What::Handshake { .. } | What::Herd { .. } | What::Memory { .. } => true,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Get {
                object,
                http,
                connections,
            } => write!(f, "get/{}/{}/c{connections}", object.name, short(*http)),
            What::Handshake {
                entries,
                connections,
                beside,
            } => {
                write!(f, "handshake/crl{entries}")?;
                if *connections != 8 {
                    write!(f, "/c{connections}")?;
                }
                beside.map_or(Ok(()), |beside| write!(f, "/beside-crl{beside}"))
            }
            What::Herd {
                clients,
                mbit,
                object,
                slow,
            } => {
                let slow = if *slow { "/slow" } else { "" };
                write!(f, "herd/{clients}x{}/{mbit}mbit{slow}", object.name)
            }
            What::Memory { http, connections } => {
                write!(f, "memory/{}/c{connections}", short(*http))
            }
        }
    }
}

fn short(http: HttpVersion) -> &'static str {
    match http {
        HttpVersion::One => "h1",
        HttpVersion::Two => "h2",
    }
}

/// All points, in the order in which they are measured.
pub(super) fn all() -> Vec<Point> {
    let mut points = Vec::new();
    for object in OBJECTS {
        for http in HTTP {
            for connections in CONNECTIONS {
                points.push(What::Get {
                    object,
                    http,
                    connections,
                });
            }
        }
    }
    points.extend(
        HANDSHAKES.map(|(entries, connections, beside)| What::Handshake {
            entries,
            connections,
            beside,
        }),
    );
    points.extend(HTTP.map(|http| What::Memory {
        http,
        connections: HELD,
    }));
    points.extend(HERDS.map(|(clients, object, mbit, slow)| What::Herd {
        clients,
        mbit,
        object,
        slow,
    }));
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
    LARGE,
];
const LARGE: Object = Object {
    bytes: 64 << 20,
    name: "64MiB",
};
const HUGE: Object = Object {
    bytes: 256 << 20,
    name: "256MiB",
};
const SMALLEST: Object = Object {
    bytes: 4 << 10,
    name: "4KiB",
};
const CONNECTIONS: [u16; 3] = [1, 8, 64];
/// Herds: clients, object, megabits a second, and whether a slow one goes before them.
const HERDS: [(u16, Object, u32, bool); 5] = [
    (64, HUGE, 100, false),
    (256, LARGE, 20, false),
    (8, LARGE, 1000, false),
    (8, LARGE, 1000, true),
    (64, HUGE, 1000, false),
];
/// Idle connections: more than a process's memory has by chance.
const HELD: u32 = 10_000;
const HTTP: [HttpVersion; 2] = [HttpVersion::One, HttpVersion::Two];
/// Handshakes: entries of the list, and how many at a time. One by itself shows what a handshake takes;
/// of eight, each waits for seven others that want the load tool's processor. What a long list costs is
/// told from rounds in which both lists have their turn: minutes apart, the machine is another.
const HANDSHAKES: [(u32, u16, Option<u32>); 5] = [
    (0, 8, None),
    (0, 1, None),
    (10_000, 8, None),
    (1_000_000, 8, None),
    (0, 8, Some(1_000_000)),
];
const SMOKE: [&str; 2] = ["get/1MiB/h1/c8", "handshake/crl0"];
