//! Whom to ask, in which order: boosters, then the origin.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use certs::trust::Revocation;
use certs::{DeviceId, Identity as Name, Role};
use content::statement::{BoosterEntry, Deployment};
use serde::Serialize;
use thiserror::Error;
use tracing::debug;

use crate::fetch::sources::{Shared, Sources};
use crate::guide::{Guide, Rest};
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

/// What is known when sources are chosen.
#[derive(Clone, Copy)]
pub(crate) struct View<'v> {
    /// Who is who, if that is known.
    pub(crate) document: Option<&'v Deployment>,
    /// The origin's id.
    pub(crate) origin: &'v str,
    /// Whom an operator wants asked, and nobody else before the origin.
    pub(crate) wanted: &'v [SourceAddress],
    /// The site that the settings name.
    pub(crate) site: Option<&'v str>,
    /// What the origin said, and who has failed.
    pub(crate) guide: &'v Guide,
    /// The time, in Unix seconds.
    pub(crate) now: i64,
}

/// Somebody whom content may be had from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// Booster or origin.
    pub(crate) role: Role,
    /// Its id.
    pub(crate) id: String,
    /// Where it serves content.
    pub(crate) addresses: Vec<String>,
    /// How we know of it.
    pub(crate) known_by: KnownBy,
    /// Why it is left alone for a while: it is asked after the origin.
    pub(crate) rest: Option<Rest>,
    /// Why it is not asked at all; none if it is.
    pub(crate) left_out: Option<&'static str>,
}

/// How a source is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KnownBy {
    /// An operator named it, in the settings or on the command line.
    Operator,
    /// The origin named it for this device at the last check-in.
    Origin,
    /// The deployment document lists it.
    Document,
}

impl KnownBy {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Operator => "named by the operator",
            Self::Origin => "named by the origin for this device",
            Self::Document => "listed in the deployment document",
        }
    }
}

impl<'v> View<'v> {
    /// What `session` knows, with `guide`.
    pub(crate) fn of(
        session: &'v Session,
        wanted: &'v [SourceAddress],
        site: Option<&'v str>,
        guide: &'v Guide,
    ) -> Self {
        let document = session.document.as_deref();
        let origin = document.map_or(session.identity.joined.origin.as_str(), |document| {
            document.origin.id.as_str()
        });
        Self {
            document,
            origin,
            wanted,
            site,
            guide,
            now: session.clock.now(),
        }
    }
}

impl View<'_> {
    /// Everybody, in the order in which they are asked, and then those who are not.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let mut found = if self.wanted.is_empty() {
            self.boosters()
        } else {
            self.wanted()
        };
        if let Some(document) = self.document
            && !found.iter().any(|it| it.role == Role::Origin)
        {
            let addresses = document.origin.addresses.clone();
            found.push(self.candidate(Role::Origin, self.origin, addresses, KnownBy::Document));
        }
        let order = |it: &Candidate| match (&it.left_out, &it.rest) {
            (None, None) => 0,
            (None, Some(_)) => 1,
            (Some(_), _) => 2,
        };
        found.sort_by_key(order);
        found
    }

    fn wanted(&self) -> Vec<Candidate> {
        let wanted = self.wanted.iter().map(|source| {
            let is_origin = source.id.as_str() == self.origin;
            let role = if is_origin {
                Role::Origin
            } else {
                Role::Booster
            };
            let addresses = vec![source.address.clone()];
            self.candidate(role, source.id.as_str(), addresses, KnownBy::Operator)
        });
        wanted.collect()
    }

    /// The boosters that the origin named, then those of the same site that the document lists.
    fn boosters(&self) -> Vec<Candidate> {
        let Some(document) = self.document else {
            return Vec::new();
        };
        let mut found: Vec<Candidate> = Vec::new();
        let mut site = self.site;
        for id in &self.guide.named {
            let listed = document.boosters.iter().find(|it| it.id == *id);
            let addresses = listed.map_or_else(Vec::new, |it| it.addresses.clone());
            let mut booster = self.candidate(Role::Booster, id, addresses, KnownBy::Origin);
            match listed {
                None => booster.left_out = Some("the deployment document does not list it"),
                Some(listed) => site = site.or(Some(&listed.site)),
            }
            found.push(booster);
        }
        for booster in near(document, site) {
            if !found.iter().any(|it| it.id == booster.id) {
                let addresses = booster.addresses.clone();
                found.push(self.candidate(
                    Role::Booster,
                    &booster.id,
                    addresses,
                    KnownBy::Document,
                ));
            }
        }
        let usable = found.iter_mut().filter(|it| it.left_out.is_none());
        for extra in usable.skip(BOOSTERS_MAX) {
            extra.left_out = Some("there are enough others");
        }
        found
    }

    fn candidate(
        &self,
        role: Role,
        id: &str,
        addresses: Vec<String>,
        known_by: KnownBy,
    ) -> Candidate {
        let rest = self.guide.rest(id, self.now);
        let left_out = if addresses.is_empty() && role == Role::Booster {
            Some("it has not said where it serves")
        } else if id.parse::<DeviceId>().is_err() {
            Some("its id is none")
        } else {
            None
        };
        Candidate {
            role,
            id: id.to_owned(),
            addresses,
            known_by,
            rest: rest.filter(|_| role == Role::Booster).cloned(),
            left_out,
        }
    }
}

/// Sources that were chosen, and who would have been asked before the origin and was left alone.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Them.
    pub(crate) sources: Shared<Net>,
    /// Boosters that were left alone, by their ids.
    pub(crate) resting: Vec<String>,
}

/// The sources for one piece of work: boosters, best first, and the origin; then boosters that have
/// failed lately.
pub(crate) fn sources(
    session: &mut Session,
    wanted: &[SourceAddress],
    site: Option<&str>,
) -> Result<Shared<Net>, SessionError> {
    let view = View::of(session, wanted, site, &session.guide);
    let (mut nets, mut resting) = (Vec::new(), Vec::new());
    for candidate in view.candidates() {
        if let Some(why) = candidate.left_out {
            debug!(source = %candidate.id, why, "leaving out a source");
            continue;
        }
        let Ok(id) = candidate.id.parse() else {
            continue;
        };
        nets.push(net(session, candidate.role, id, candidate.addresses)?);
        if candidate.rest.is_some() {
            resting.push(candidate.id);
        }
    }
    let sources = Arc::new(Sources::new(nets));
    session.chosen.push(Chosen {
        sources: Arc::clone(&sources),
        resting,
    });
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
    use protocol::report::BypassReason;

    use super::*;

    fn document(sites: &[&str]) -> Deployment {
        let entry = |(number, site): (usize, &&str)| BoosterEntry {
            id: format!("b{number}"),
            addresses: vec!["h:1".to_owned()],
            enrol_addresses: Vec::new(),
            site: (*site).to_owned(),
        };
        Deployment {
            deployment: "d1".to_owned(),
            version: 1,
            created: 0,
            roots: Vec::new(),
            origin: OriginEntry {
                id: "o1".to_owned(),
                addresses: vec!["o:1".to_owned()],
                enrol_addresses: Vec::new(),
            },
            boosters: sites.iter().enumerate().map(entry).collect(),
            protocol_min: 1,
            protocol_max: 1,
        }
    }

    /// Who is asked at 1000 s; those who are not, in brackets.
    fn asked(sites: &[&str], site: Option<&str>, guide: &Guide) -> Vec<String> {
        asked_at(1000, sites, site, &[], guide)
    }

    fn asked_at(
        now: i64,
        sites: &[&str],
        site: Option<&str>,
        wanted: &[SourceAddress],
        guide: &Guide,
    ) -> Vec<String> {
        let document = document(sites);
        let view = View {
            document: Some(&document),
            origin: "o1",
            wanted,
            site,
            guide,
            now,
        };
        let found = view.candidates().into_iter();
        let found = found.map(|it| match it.left_out {
            Some(_) => format!("({})", it.id),
            None => it.id,
        });
        found.collect()
    }

    fn check(sites: &[&str], site: Option<&str>, expected: &[&str]) {
        let near = asked(sites, site, &Guide::default());
        assert_eq!(near, expected, "{sites:?} from {site:?}");
    }

    #[test]
    fn boosters_of_the_own_site_are_tried() {
        let own = ["b0", "b2", "o1"];
        check(&["bonn", "rome", "bonn"], Some("bonn"), &own);
        check(&["bonn", ""], Some("oslo"), &["o1"]);
        check(&["bonn", ""], None, &["b1", "o1"]);
        check(&["bonn", "rome"], None, &["b0", "b1", "o1"]);
        let four = ["b0", "b1", "b2", "b3", "o1"];
        check(&["", "", "", "", ""], None, &four);
    }

    #[test]
    fn whom_the_origin_names_goes_before_whom_the_document_lists() {
        let check = |sites: &[&str], named: &[&str], expected: &[&str]| {
            let guide = Guide {
                named: named.iter().map(|id| (*id).to_owned()).collect(),
                ..Guide::default()
            };
            let asked = asked(sites, None, &guide);
            assert_eq!(asked, expected, "{named:?} of {sites:?}");
        };
        let bonn = ["bonn", "rome", "bonn"];
        check(&bonn, &["b2"], &["b2", "b0", "o1"]);
        check(&bonn, &["b2", "b0"], &["b2", "b0", "o1"]);
        // It has gone since.
        check(&bonn, &["b9", "b0"], &["b0", "b2", "o1", "(b9)"]);
        check(&[""; 6], &["b5"], &["b5", "b0", "b1", "b2", "o1", "(b3)"]);
    }

    #[test]
    fn who_has_failed_is_asked_after_the_origin_for_a_while() {
        let mut guide = Guide::default();
        guide.went_round("b0", BypassReason::Timeout, "it is slow", 1000, 1.0);
        let at = |now| asked_at(now, &["", ""], None, &[], &guide);
        assert_eq!(at(1059), ["b1", "o1", "b0"]);
        assert_eq!(at(1060), ["b0", "b1", "o1"]);
    }

    #[test]
    fn whom_an_operator_names_is_asked_alone() {
        let asked = |wanted: &str| {
            let wanted = [wanted.parse().unwrap()];
            asked_at(1000, &[""], None, &wanted, &Guide::default())
        };
        assert_eq!(asked("x7@h:1"), ["x7", "o1"]);
        assert_eq!(asked("o1@h:1"), ["o1"]);
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
