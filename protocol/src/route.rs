//! Routes: what can be asked for, as a path and as a type.

use std::fmt;

use content::{Digest, FilesetName, PackId};
use thiserror::Error;

/// What a request asks for. The method is checked by whoever answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// The CA certificates (RFC 7030 §4.1).
    CaCerts,
    /// A party tells how it is.
    CheckIn,
    /// The CRL of one issuer: SHA-256 of its public key info.
    Crl([u8; 32]),
    /// The CRLs of all, as EST clients ask for them (RFC 8295 §5).
    Crls,
    /// The deployment document.
    Deployment,
    /// A first certificate (RFC 7030 §4.2.1).
    Enrol(EnrolRole),
    /// Who answers.
    Hello,
    /// A client says what it is.
    Inventory,
    /// A client shows its log.
    Log,
    /// A pack of a fileset.
    Pack(FilesetName, PackId),
    /// A new certificate for an old one (RFC 7030 §4.2.2).
    Reenrol(EnrolRole),
    /// A booster passes on what its devices say.
    Relayed,
    /// A party tells whom it refused.
    Reports,
    /// What holds for the devices of a booster, or for one of them.
    Roster,
    /// A snapshot by its name.
    Snapshot(Digest),
    /// A statement or an index root by its name.
    Statement(Digest),
    /// The timestamp.
    Timestamp,
    /// A client waits for a change.
    Wait,
}

/// For what one can enrol: the labels of RFC 7030 §3.2.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnrolRole {
    /// A booster.
    Booster,
    /// A client.
    Client,
}

impl EnrolRole {
    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Booster => "booster",
            Self::Client => "client",
        }
    }
}

impl Route {
    /// The route of a request's path.
    ///
    /// # Errors
    ///
    /// Fails if the path is too long or leads nowhere; says which part is wrong.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        if path.len() > crate::TARGET_BYTES_MAX {
            return Err(RouteError::TooLong);
        }
        if let Some(rest) = path.strip_prefix("/.well-known/est/") {
            return est(rest).ok_or(RouteError::Nowhere);
        }
        let rest = path.strip_prefix("/v1/").ok_or(RouteError::Nowhere)?;
        let (mut parts, mut length) = ([""; 4], 0);
        let mut after = Some(rest);
        while let Some(rest) = after {
            let part = parts.get_mut(length).ok_or(RouteError::Nowhere)?;
            (*part, after) = cut(rest);
            length += 1;
        }
        match (parts[0], &parts[1..length]) {
            ("check-in", []) => Ok(Self::CheckIn),
            ("crl", [issuer]) => Digest::from_hex(issuer)
                .map(|issuer| Self::Crl(*issuer.as_raw()))
                .map_err(|_| RouteError::Malformed { part: "issuer" }),
            ("deployment", []) => Ok(Self::Deployment),
            ("filesets", [name, "packs", id]) => {
                let name = name
                    .parse()
                    .map_err(|_| RouteError::Malformed { part: "fileset" })?;
                let id =
                    Digest::from_hex(id).map_err(|_| RouteError::Malformed { part: "pack" })?;
                Ok(Self::Pack(name, PackId(id)))
            }
            ("hello", []) => Ok(Self::Hello),
            ("inventory", []) => Ok(Self::Inventory),
            ("log", []) => Ok(Self::Log),
            ("relayed", []) => Ok(Self::Relayed),
            ("reports", []) => Ok(Self::Reports),
            ("roster", []) => Ok(Self::Roster),
            ("snapshots", [digest]) => named(digest).map(Self::Snapshot),
            ("statements", [digest]) => named(digest).map(Self::Statement),
            ("timestamp", []) => Ok(Self::Timestamp),
            ("wait", []) => Ok(Self::Wait),
            (_, _) => Err(RouteError::Nowhere),
        }
    }

    /// A short name for metrics and logs: one for each kind, none for what it names.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CheckIn => "check-in",
            Self::Crl(_) => "crl",
            Self::Crls => "crls",
            Self::Deployment => "deployment",
            Self::Enrol(_) => "enrol",
            Self::Hello => "hello",
            Self::Inventory => "inventory",
            Self::Log => "log",
            Self::Pack(..) => "pack",
            Self::Reenrol(_) => "reenrol",
            Self::Relayed => "relayed",
            Self::Reports => "reports",
            Self::Roster => "roster",
            Self::Snapshot(_) => "snapshot",
            Self::Statement(_) => "statement",
            Self::Timestamp => "timestamp",
            Self::Wait => "wait",
        }
    }

    /// The methods that it takes, as `Allow` lists them (RFC 9110 §10.2.1).
    #[must_use]
    pub fn methods(&self) -> &'static str {
        match self {
            Self::CheckIn
            | Self::Enrol(_)
            | Self::Inventory
            | Self::Log
            | Self::Reenrol(_)
            | Self::Relayed
            | Self::Reports => "POST",
            Self::Roster | Self::Wait => "GET",
            Self::CaCerts
            | Self::Crl(_)
            | Self::Crls
            | Self::Deployment
            | Self::Hello
            | Self::Pack(..)
            | Self::Snapshot(_)
            | Self::Statement(_)
            | Self::Timestamp => "GET, HEAD",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaCerts => f.write_str("/.well-known/est/cacerts"),
            Self::CheckIn => f.write_str("/v1/check-in"),
            Self::Crl(issuer) => write!(f, "/v1/crl/{}", Digest::from_raw(*issuer).hex()),
            Self::Crls => f.write_str("/.well-known/est/crls"),
            Self::Deployment => f.write_str("/v1/deployment"),
            Self::Enrol(role) => write!(f, "/.well-known/est/{}/simpleenroll", role.label()),
            Self::Hello => f.write_str("/v1/hello"),
            Self::Inventory => f.write_str("/v1/inventory"),
            Self::Log => f.write_str("/v1/log"),
            Self::Pack(name, id) => write!(f, "/v1/filesets/{name}/packs/{}", id.0.hex()),
            Self::Reenrol(role) => write!(f, "/.well-known/est/{}/simplereenroll", role.label()),
            Self::Relayed => f.write_str("/v1/relayed"),
            Self::Reports => f.write_str("/v1/reports"),
            Self::Roster => f.write_str("/v1/roster"),
            Self::Snapshot(digest) => write!(f, "/v1/snapshots/{digest}"),
            Self::Statement(digest) => write!(f, "/v1/statements/{digest}"),
            Self::Timestamp => f.write_str("/v1/timestamp"),
            Self::Wait => f.write_str("/v1/wait"),
        }
    }
}

/// The first part of a path, and what comes after it. Parts are short: looking at one byte after the
/// other takes less than getting ready to look at many.
fn cut(path: &str) -> (&str, Option<&str>) {
    let slash = path.bytes().position(|byte| byte == b'/');
    slash.map_or((path, None), |at| (&path[..at], Some(&path[at + 1..])))
}

fn named(text: &str) -> Result<Digest, RouteError> {
    text.parse()
        .map_err(|_| RouteError::Malformed { part: "digest" })
}

fn est(rest: &str) -> Option<Route> {
    let role = |label: &str| {
        [EnrolRole::Booster, EnrolRole::Client]
            .into_iter()
            .find(|role| role.label() == label)
    };
    match rest.split_once('/') {
        // A label selects a profile; CA certificates and lists are the same under each.
        None if rest == "cacerts" => Some(Route::CaCerts),
        None if rest == "crls" => Some(Route::Crls),
        Some((label, "cacerts")) => role(label).map(|_| Route::CaCerts),
        Some((label, "crls")) => role(label).map(|_| Route::Crls),
        Some((label, "simpleenroll")) => role(label).map(Route::Enrol),
        Some((label, "simplereenroll")) => role(label).map(Route::Reenrol),
        // Without a label, as stock EST clients ask, a client is meant.
        None if rest == "simpleenroll" => Some(Route::Enrol(EnrolRole::Client)),
        None if rest == "simplereenroll" => Some(Route::Reenrol(EnrolRole::Client)),
        None | Some(_) => None,
    }
}

/// Why a path is no route.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RouteError {
    /// A part of it is not what stands there.
    #[error("the {part} in the path is malformed")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// There is nothing.
    #[error("nothing is at this path")]
    Nowhere,
    /// It is longer than any route.
    #[error("the path is longer than any that there is")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn routes_come_back_and_do_not_drift() {
        let digest = Digest::of(b"x");
        let routes = [
            Route::CaCerts,
            Route::CheckIn,
            Route::Crl([7; 32]),
            Route::Crls,
            Route::Deployment,
            Route::Enrol(EnrolRole::Booster),
            Route::Hello,
            Route::Inventory,
            Route::Log,
            Route::Pack("tools".parse().unwrap(), PackId(digest)),
            Route::Reenrol(EnrolRole::Client),
            Route::Relayed,
            Route::Reports,
            Route::Roster,
            Route::Snapshot(digest),
            Route::Statement(digest),
            Route::Timestamp,
            Route::Wait,
        ];
        let mut lines = String::new();
        for route in routes {
            let path = route.to_string();
            assert_eq!(Route::parse(&path), Ok(route.clone()));
            lines += &format!("{} {path}\n", route.kind());
        }
        expect![[r#"
            cacerts /.well-known/est/cacerts
            check-in /v1/check-in
            crl /v1/crl/0707070707070707070707070707070707070707070707070707070707070707
            crls /.well-known/est/crls
            deployment /v1/deployment
            enrol /.well-known/est/booster/simpleenroll
            hello /v1/hello
            inventory /v1/inventory
            log /v1/log
            pack /v1/filesets/tools/packs/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
            reenrol /.well-known/est/client/simplereenroll
            relayed /v1/relayed
            reports /v1/reports
            roster /v1/roster
            snapshot /v1/snapshots/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
            statement /v1/statements/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
            timestamp /v1/timestamp
            wait /v1/wait
        "#]].assert_eq(&lines);
    }

    #[test]
    fn a_path_that_leads_nowhere_says_why() {
        let check = |path: &str, expected: RouteError| {
            assert_eq!(Route::parse(path), Err(expected), "{path}")
        };
        let malformed = |part| RouteError::Malformed { part };
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/hello/",
            "/v2/hello",
            "/v1/filesets/a",
            "/.well-known/est/x",
        ] {
            check(path, RouteError::Nowhere);
        }
        check("/v1/crl/00", malformed("issuer"));
        check("/v1/filesets/../packs/00", malformed("fileset"));
        check("/v1/filesets/a/packs/00", malformed("pack"));
        check("/v1/statements/sha256:00", malformed("digest"));
        check(&format!("/v1/{}", "x".repeat(600)), RouteError::TooLong);
    }
}
