//! Whom to ask, in which order: boosters, then the origin.

use std::fmt;
use std::str::FromStr;

use certs::trust::Revocation;
use certs::{DeviceId, Identity as Name, Role};
use content::statement::{BoosterEntry, Deployment};
use thiserror::Error;
use tracing::warn;

use crate::net::Net;
use crate::session::{Session, SessionError};

/// A source that somebody named: `ID@HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceAddress {
    /// Its id: an address alone proves nothing.
    pub id: DeviceId,
    /// Where it serves content.
    pub address: String,
}

impl FromStr for SourceAddress {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        let failed = || ParseSourceError {
            text: text.to_owned(),
        };
        let (id, address) = text.split_once('@').ok_or_else(failed)?;
        // The same rule as for addresses in settings.
        let parsed: config::HostPort = address.parse().map_err(|_| failed())?;
        Ok(Self {
            id: id.parse().map_err(|_| failed())?,
            address: parsed.to_string(),
        })
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

/// A text that names no source.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("not a source: {text:?}; want ID@HOST:PORT, such as branch-7@10.0.0.2:7443")]
pub struct ParseSourceError {
    text: String,
}

/// The sources for one pull: those that were named, or the boosters of the deployment document,
/// and the origin last.
pub(crate) fn sources(
    session: &Session,
    named: &[SourceAddress],
    site: Option<&str>,
) -> Result<Vec<Net>, SessionError> {
    let mut sources = Vec::new();
    let document = session.document.as_deref();
    let origin_id = document.map_or(session.identity.joined.origin.as_str(), |document| {
        document.origin.id.as_str()
    });
    for source in named {
        let role = if source.id.as_str() == origin_id {
            Role::Origin
        } else {
            Role::Booster
        };
        let addresses = vec![source.address.clone()];
        sources.push(net(session, role, source.id.clone(), addresses)?);
    }
    let Some(document) = document else {
        return Ok(sources);
    };
    if named.is_empty() {
        for booster in near(document, site) {
            match booster.id.parse() {
                Ok(id) => {
                    let addresses = booster.addresses.clone();
                    sources.push(net(session, Role::Booster, id, addresses)?);
                }
                Err(error) => warn!(booster = %booster.id, %error, "leaving out a booster"),
            }
        }
    }
    let has_origin = named.iter().any(|source| source.id.as_str() == origin_id);
    if !has_origin && let Ok(id) = document.origin.id.parse() {
        let addresses = document.origin.addresses.clone();
        sources.push(net(session, Role::Origin, id, addresses)?);
    }
    Ok(sources)
}

/// The boosters to try: those of our site; without a site, those that have none either, and if
/// all have one, the first few.
fn near<'d>(document: &'d Deployment, site: Option<&str>) -> Vec<&'d BoosterEntry> {
    let serving = || {
        document
            .boosters
            .iter()
            .filter(|booster| !booster.addresses.is_empty())
    };
    let ours: Vec<_> = serving()
        .filter(|booster| booster.site == site.unwrap_or_default())
        .take(BOOSTERS_MAX)
        .collect();
    if ours.is_empty() && site.is_none() {
        serving().take(BOOSTERS_MAX).collect()
    } else {
        ours
    }
}

fn net(
    session: &Session,
    role: Role,
    id: DeviceId,
    addresses: Vec<String>,
) -> Result<Net, SessionError> {
    let name = Name {
        deployment: session.identity.name.deployment.clone(),
        role,
        id,
    };
    let shown = format!("{role} {}", name.id);
    let own = Some(&session.identity.cell);
    let source = session.source(name, addresses, own, Revocation::Required)?;
    Ok(Net::new(shown, source))
}

/// More are not worth the time that it takes to find them all out of reach.
const BOOSTERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use content::statement::OriginEntry;

    use super::*;

    fn check(sites: &[&str], site: Option<&str>, expected: &[&str]) {
        let entry = |(number, site): (usize, &&str)| BoosterEntry {
            id: format!("b{number}"),
            addresses: vec!["h:1".to_owned()],
            enrol_addresses: Vec::new(),
            site: (*site).to_owned(),
        };
        let document = Deployment {
            deployment: "d1".to_owned(),
            version: 1,
            created: 0,
            roots: Vec::new(),
            origin: OriginEntry {
                id: "o1".to_owned(),
                addresses: Vec::new(),
                enrol_addresses: Vec::new(),
            },
            boosters: sites.iter().enumerate().map(entry).collect(),
            protocol_min: 1,
            protocol_max: 1,
        };
        let near: Vec<_> = near(&document, site)
            .iter()
            .map(|booster| booster.id.as_str())
            .collect();
        assert_eq!(near, expected, "{sites:?} from {site:?}");
    }

    #[test]
    fn boosters_of_the_own_site_are_tried() {
        check(&["bonn", "rome", "bonn"], Some("bonn"), &["b0", "b2"]);
        check(&["bonn", ""], Some("oslo"), &[]);
        check(&["bonn", ""], None, &["b1"]);
        check(&["bonn", "rome"], None, &["b0", "b1"]);
        check(&["", "", "", "", ""], None, &["b0", "b1", "b2", "b3"]);
    }

    #[test]
    fn a_source_is_an_id_and_an_address() {
        let good: SourceAddress = "branch-7@10.0.0.2:7443".parse().unwrap();
        assert_eq!(good.to_string(), "branch-7@10.0.0.2:7443");
        for bad in ["", "b1", "b1@", "@h:1", "b1@h", "B1@h:1", "b1@h:0"] {
            assert!(bad.parse::<SourceAddress>().is_err(), "{bad:?} was taken");
        }
    }
}
