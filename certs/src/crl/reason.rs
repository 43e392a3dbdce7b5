//! Why certificates are revoked.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a certificate was revoked (RFC 5280 §5.3.1): as many codes as we have use for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RevocationReason {
    /// Nobody said, or a code that we do not use.
    #[default]
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// The issuer's key is not its own any more.
    CaCompromise,
    /// The device moved to another owner.
    AffiliationChanged,
    /// It has been replaced.
    Superseded,
    /// The device is out of service.
    CessationOfOperation,
    /// The device may do less than it could.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The code in a list's entry.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason with this code; codes that we do not use count as unspecified, since the
    /// certificate is revoked all the same.
    pub fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.code() == code);
        known.unwrap_or_default()
    }

    /// The reason as operators, files and reports spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::CaCompromise => "ca_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RevocationReason {
    type Err = UnknownRevocationReason;

    fn from_str(text: &str) -> Result<Self, UnknownRevocationReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(UnknownRevocationReason)
    }
}

/// A text that is no reason for a revocation.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "cannot read this as a reason for a revocation: want unspecified, key_compromise, \
     ca_compromise, affiliation_changed, superseded, cessation_of_operation or \
     privilege_withdrawn"
)]
pub struct UnknownRevocationReason;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_word_and_its_code() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
            assert_eq!(RevocationReason::from_code(reason.code()), reason);
            let words = UnknownRevocationReason.to_string();
            assert!(words.contains(reason.as_str()), "{reason}");
        }
        assert_eq!(
            "stolen".parse::<RevocationReason>(),
            Err(UnknownRevocationReason)
        );
    }
}
