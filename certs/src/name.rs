//! The names of parties: a deployment, a device in it, the role that it plays.
//!
//! A name in a certificate is a SPIFFE-style URI,
//! `spiffe://<deployment>.larder.internal/<role>/<id>`. Origin and boosters carry a synthetic
//! DNS name besides, `<id>.<deployment>.larder.internal`, which never resolves anywhere:
//! it is what clients send as SNI, so that an address is a hint and not an identity.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The name of one deployment: 1 to 32 characters of `[a-z0-9]`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeploymentId(Box<str>);

impl DeploymentId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, `<deployment>.larder.internal`.
    pub fn domain(&self) -> String {
        format!("{self}{DOMAIN_SUFFIX}")
    }

    /// The URI that this deployment's CA certificates carry: a trust domain without a path.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}", self.domain())
    }

    /// Reads what [`DeploymentId::uri`] writes.
    ///
    /// # Errors
    ///
    /// Fails on any other text.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        uri.strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_suffix(DOMAIN_SUFFIX))
            .ok_or_else(|| NameError::Uri { got: shown(uri) })?
            .parse()
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeploymentId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=DEPLOYMENT_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(is_alphanumeric) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Deployment { got: shown(text) })
        }
    }
}

/// The name of one device: a lower-case DNS label, 1 to 63 characters of `[a-z0-9-]` that
/// neither starts nor ends with a hyphen.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId(Box<str>);

impl DeviceId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=DEVICE_BYTES_MAX).contains(&text.len());
        let edges = !text.starts_with('-') && !text.ends_with('-');
        if fits
            && edges
            && text
                .bytes()
                .all(|byte| is_alphanumeric(byte) || byte == b'-')
        {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Device { got: shown(text) })
        }
    }
}

/// What a party is in its deployment.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The origin: the authority, of which there is one.
    Origin,
    /// A booster in a branch.
    Booster,
    /// The program on a device.
    Client,
    /// Signs content; never speaks TLS.
    Signer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Origin, Self::Booster, Self::Client, Self::Signer];

    /// The role as it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Booster => "booster",
            Self::Client => "client",
            Self::Signer => "signer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::Role { got: shown(text) })
    }
}

/// One party of one deployment. Its text form is its URI.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    /// The deployment that it belongs to.
    pub deployment: DeploymentId,
    /// What it is there.
    pub role: Role,
    /// What it is called there. Unique within its role.
    pub id: DeviceId,
}

impl Identity {
    /// The URI in its certificate: `spiffe://<deployment>.larder.internal/<role>/<id>`.
    pub fn uri(&self) -> String {
        format!("{}/{}/{}", self.deployment.uri(), self.role, self.id)
    }

    /// The synthetic DNS name of a party that listens, `<id>.<deployment>.larder.internal`.
    /// Clients and signers have none.
    pub fn dns(&self) -> Option<String> {
        match self.role {
            Role::Origin | Role::Booster => {
                Some(format!("{}.{}", self.id, self.deployment.domain()))
            }
            Role::Client | Role::Signer => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

impl FromStr for Identity {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Uri { got: shown(text) };
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            deployment: domain
                .strip_suffix(DOMAIN_SUFFIX)
                .ok_or_else(wrong)?
                .parse()?,
            role: role.parse()?,
            id: id.parse()?,
        })
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NameError {
    /// Not a deployment's name.
    #[error("cannot use {got} as a deployment's name: want 1 to 32 characters of a-z and 0-9")]
    Deployment {
        /// What was found, escaped and cut short.
        got: String,
    },
    /// Not a device's name.
    #[error("cannot use {got} as a name: want 1 to 63 of a-z, 0-9 and inner hyphens")]
    Device {
        /// What was found, escaped and cut short.
        got: String,
    },
    /// Not a role.
    #[error("cannot use {got} as a role: want origin, booster, client or signer")]
    Role {
        /// What was found, escaped and cut short.
        got: String,
    },
    /// Not an identity's URI.
    #[error("cannot read {got} as spiffe://<deployment>.larder.internal/<role>/<id>")]
    Uri {
        /// What was found, escaped and cut short.
        got: String,
    },
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// The start of `text`, escaped: it may come from a stranger's certificate.
fn shown(text: &str) -> String {
    format!(
        "{:?}",
        text.chars().take(SHOWN_CHARS_MAX).collect::<String>()
    )
}

/// The longest deployment name: with a device's label it stays far inside DNS's 253 bytes.
const DEPLOYMENT_BYTES_MAX: usize = 32;
/// The longest DNS label (RFC 1035 §2.3.4).
const DEVICE_BYTES_MAX: usize = 63;
/// `.internal` is reserved for private use (ICANN, July 2024) and never resolves publicly.
const DOMAIN_SUFFIX: &str = ".larder.internal";
const SCHEME: &str = "spiffe://";
/// How much of a wrong name an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<(), &str>) {
        let got = text.parse::<Identity>();
        match want {
            Ok(()) => assert_eq!(got.unwrap().to_string(), text),
            Err(part) => {
                let message = got.unwrap_err().to_string();
                assert!(message.contains(part), "{text:?}: {message}");
            }
        }
    }

    #[test]
    fn an_identity_has_exactly_one_text_form() {
        check("spiffe://acme.larder.internal/client/laptop-7", Ok(()));
        check("spiffe://a1.larder.internal/origin/o", Ok(()));
        check("SPIFFE://acme.larder.internal/client/x", Err("cannot read"));
        check(
            "spiffe://acme.larder.internal/client/x/",
            Err("cannot read"),
        );
        check("spiffe://acme.larder.internal/client", Err("cannot read"));
        check("spiffe://acme.example/client/x", Err("cannot read"));
        check("spiffe://acme.larder.internal/admin/x", Err("as a role"));
        check("spiffe://acme.larder.internal/client/-x", Err("as a name"));
        check("spiffe://acme.larder.internal/client/X", Err("as a name"));
        check(
            "spiffe://ac-me.larder.internal/client/x",
            Err("deployment's name"),
        );
        check("spiffe://acme.larder.internal/client/x?y", Err("as a name"));
        check("spiffe://acme.larder.internal/client/%78", Err("as a name"));
    }

    #[test]
    fn names_have_lengths() {
        assert!("a".repeat(32).parse::<DeploymentId>().is_ok());
        assert!("a".repeat(33).parse::<DeploymentId>().is_err());
        assert!("".parse::<DeploymentId>().is_err());
        assert!("a".repeat(63).parse::<DeviceId>().is_ok());
        assert!("a".repeat(64).parse::<DeviceId>().is_err());
        assert!("".parse::<DeviceId>().is_err());
    }

    #[test]
    fn a_long_wrong_name_is_cut_short_in_the_error() {
        let error = "X"
            .repeat(10_000)
            .parse::<DeviceId>()
            .unwrap_err()
            .to_string();
        assert!(error.len() < 200, "{}", error.len());
    }

    #[test]
    fn only_those_who_listen_have_a_dns_name() {
        let name = |uri: &str| uri.parse::<Identity>().unwrap().dns();
        assert_eq!(
            name("spiffe://acme.larder.internal/booster/oslo").as_deref(),
            Some("oslo.acme.larder.internal")
        );
        assert_eq!(name("spiffe://acme.larder.internal/client/x"), None);
        assert_eq!(name("spiffe://acme.larder.internal/signer/x"), None);
    }

    #[test]
    fn a_deployment_has_a_uri_without_a_path() {
        let id: DeploymentId = "acme".parse().unwrap();
        assert_eq!(DeploymentId::from_uri(&id.uri()).unwrap(), id);
        assert!(DeploymentId::from_uri("spiffe://acme.larder.internal/").is_err());
    }
}
