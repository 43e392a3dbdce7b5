//! Why a peer was refused, in words that a report can carry.

use std::fmt;
use std::str::FromStr;

use rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake or a session was refused, by whoever refused it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RefusalReason {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come, or the clock is wrong.
    NotYetValid,
    /// No chain to a root that we trust.
    UnknownIssuer,
    /// A signature is wrong: in the chain, or the proof that the peer holds the key.
    BadSignature,
    /// The certificate, or its issuer's, is on a revocation list.
    Revoked,
    /// The certificate is for something else.
    WrongEku,
    /// The party is not one that may speak here, or not the one expected.
    WrongRole,
    /// The peer showed no certificate.
    NoCertificate,
    /// We have no revocation list for the issuer, or an old one: our fault, not the peer's.
    CrlStale,
    /// The certificate is for another name.
    NameMismatch,
    /// Something else in TLS, or no TLS at all.
    Protocol,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownIssuer,
        Self::BadSignature,
        Self::Revoked,
        Self::WrongEku,
        Self::WrongRole,
        Self::NoCertificate,
        Self::CrlStale,
        Self::NameMismatch,
        Self::Protocol,
    ];

    /// The reason as reports and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Revoked => "revoked",
            Self::WrongEku => "wrong_eku",
            Self::WrongRole => "wrong_role",
            Self::NoCertificate => "no_certificate",
            Self::CrlStale => "crl_stale",
            Self::NameMismatch => "name_mismatch",
            Self::Protocol => "protocol",
        }
    }

    /// The reason behind our *own* TLS error. What our verifier captured is more exact: ask
    /// that first.
    pub fn of_error(error: &Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "rustls has dozens, and adds more"
        )]
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate_error(error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            _ => Self::Protocol,
        }
    }

    /// What a peer's alert says about why *it* refused *us*. Only a hint: revocation status
    /// unknown and a stale list both arrive as `unknown_ca`.
    pub fn of_alert(alert: AlertDescription) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others say nothing of use"
        )]
        match alert {
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::UnknownCA => Self::UnknownIssuer,
            AlertDescription::DecryptError => Self::BadSignature,
            AlertDescription::UnsupportedCertificate => Self::WrongEku,
            AlertDescription::AccessDenied => Self::WrongRole,
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::BadCertificate => Self::NameMismatch,
            _ => Self::Protocol,
        }
    }

    fn of_certificate_error(error: &CertificateError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest is malformed in some way"
        )]
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::CrlStale,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::NameMismatch
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongEku
            }
            CertificateError::ApplicationVerificationFailure => Self::WrongRole,
            _ => Self::Protocol,
        }
    }

    /// The error that makes rustls send the alert which fits.
    pub(crate) fn to_error(self) -> Error {
        match self {
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::UnknownIssuer => CertificateError::UnknownIssuer,
            Self::BadSignature => CertificateError::BadSignature,
            Self::Revoked => CertificateError::Revoked,
            Self::WrongEku => CertificateError::InvalidPurpose,
            Self::WrongRole => CertificateError::ApplicationVerificationFailure,
            Self::NoCertificate => return Error::NoCertificatesPresented,
            Self::CrlStale => CertificateError::ExpiredRevocationList,
            Self::NameMismatch => CertificateError::NotValidForName,
            Self::Protocol => CertificateError::BadEncoding,
        }
        .into()
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RefusalReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(UnknownReason)
    }
}

/// A text that is no reason for a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot read this as a reason for a refusal")]
pub struct UnknownReason;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_text_and_its_error() {
        for reason in RefusalReason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
            assert_eq!(RefusalReason::of_error(&reason.to_error()), reason);
        }
    }

    #[test]
    fn p20_our_own_error_knows_more_than_the_alert() {
        let alert = |reason: RefusalReason| {
            let error = reason.to_error();
            let Error::InvalidCertificate(error) = error else {
                panic!("{error}");
            };
            AlertDescription::from(error)
        };
        let check = |reason, want, hint| {
            assert_eq!(alert(reason), want);
            assert_eq!(RefusalReason::of_alert(want), hint);
        };
        use AlertDescription as Alert;
        use RefusalReason as Reason;
        check(Reason::Revoked, Alert::CertificateRevoked, Reason::Revoked);
        check(Reason::Expired, Alert::CertificateExpired, Reason::Expired);
        check(
            Reason::NotYetValid,
            Alert::CertificateExpired,
            Reason::Expired,
        );
        check(Reason::CrlStale, Alert::UnknownCA, Reason::UnknownIssuer);
        check(
            Reason::UnknownIssuer,
            Alert::UnknownCA,
            Reason::UnknownIssuer,
        );
        check(Reason::WrongRole, Alert::AccessDenied, Reason::WrongRole);
    }
}
