//! The end of devices, one or many, with the reason that their entries on the list carry.

use std::fmt;

use certs::crl::RevocationReason;
use certs::{DeviceId, Role};
use serde::{Deserialize, Serialize};

use super::{DeviceView, Fleet, FleetError};
use crate::ledger::Write;
use crate::ledger::devices::{self, Doomed, State};

/// Whom to revoke, and why.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Revocation {
    /// Their names; where one is named otherwise, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The first word of one of [`REASONS`]; none is `unspecified`.
    pub reason: Option<String>,
}

/// What came of revoking many.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RevokedAll {
    /// How many were revoked.
    pub revoked: usize,
    /// How many had been before, which stay as they were.
    pub already: usize,
    /// Why.
    pub reason: String,
}

/// Why a device is revoked, as operators say it, and as its entry on the list says it (RFC 5280
/// §5.3.1).
pub const REASONS: [(&str, RevocationReason); 4] = [
    ("unspecified", RevocationReason::Unspecified),
    ("key_compromise", RevocationReason::KeyCompromise),
    ("superseded", RevocationReason::Superseded),
    ("cessation", RevocationReason::CessationOfOperation),
];
/// How many of those that cannot be revoked are named in a refusal.
const NAMED_MAX: usize = 20;

impl Fleet {
    /// Ends the membership of the device `id`. One that is revoked stays as it is.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, it waits to be let in, the reason is unknown, or the
    /// ledger fails.
    pub async fn revoke(
        &self,
        id: &DeviceId,
        reason: Option<&str>,
    ) -> Result<DeviceView, FleetError> {
        let reason = parse_reason(reason)?;
        let mut tx = self.authority.ledger().write().await?;
        let found = devices::find(&mut tx, id).await?;
        let device = found.ok_or_else(|| FleetError::Unknown { id: id.clone() })?;
        let next = super::Verdict::Revoke.next(&device)?;
        if next == device.state {
            drop(tx);
        } else {
            self.end(tx, &[(device.role, device.id)], reason).await?;
        }
        self.show(id).await
    }

    /// Ends the membership of many devices, or of none: their certificates go onto one list of
    /// each issuer.
    ///
    /// # Errors
    ///
    /// Fails, and changes nothing, if one of them is unknown or waits to be let in, if the reason
    /// is unknown, or if the ledger fails.
    pub async fn revoke_all(&self, wish: &Revocation) -> Result<RevokedAll, FleetError> {
        let reason = parse_reason(wish.reason.as_deref())?;
        let mut tx = self.authority.ledger().write().await?;
        let mut all = devices::doomed(&mut tx, &names(&wish.devices)?).await?;
        check_all(&all)?;
        let count = all.len();
        all.retain(|doomed| doomed.state != Some(State::Revoked));
        let whom: Vec<(Role, DeviceId)> = all
            .into_iter()
            .filter_map(|doomed| Some((doomed.role?, doomed.id)))
            .collect();
        let revoked = whom.len();
        if whom.is_empty() {
            drop(tx);
        } else {
            self.end(tx, &whom, reason).await?;
        }
        Ok(RevokedAll {
            revoked,
            already: count - revoked,
            reason: reason_name(reason).to_owned(),
        })
    }

    pub(super) async fn end(
        &self,
        tx: Write,
        whom: &[(Role, DeviceId)],
        reason: RevocationReason,
    ) -> Result<(), FleetError> {
        let ended = self.authority.revoke(tx, whom, reason).await;
        // A booster that is no more must not be recommended to anybody, also if its list waits.
        let told = self.documents.refresh().await;
        ended?;
        Ok(told?)
    }
}

/// What a reason is called.
#[must_use]
pub fn reason_name(reason: RevocationReason) -> &'static str {
    let found = REASONS.iter().find(|(_, known)| *known == reason);
    found.map_or("other", |(name, _)| name)
}

pub(super) fn reason_names() -> String {
    REASONS.map(|(name, _)| name).join(", ")
}

fn parse_reason(reason: Option<&str>) -> Result<RevocationReason, FleetError> {
    let Some(reason) = reason else {
        return Ok(RevocationReason::Unspecified);
    };
    let found = REASONS.iter().find(|(name, _)| *name == reason);
    let found = found.ok_or_else(|| FleetError::Reason {
        reason: reason.to_owned(),
    })?;
    Ok(found.1)
}

fn names(named: &[String]) -> Result<Vec<DeviceId>, FleetError> {
    let parse = |name: &String| {
        name.parse().map_err(|_| FleetError::NotAll {
            whom: vec![format!("{name:?} (no name of a device)")],
            more: false,
        })
    };
    named.iter().map(parse).collect()
}

fn check_all(all: &[Doomed]) -> Result<(), FleetError> {
    let mut not = all.iter().filter_map(|doomed| match doomed.state {
        None => Some(format!("{} (no such device)", doomed.id)),
        Some(State::Pending) => Some(format!("{} (it is pending: deny it)", doomed.id)),
        Some(State::Approved | State::Denied | State::Enrolled | State::Revoked) => None,
    });
    let whom: Vec<String> = not.by_ref().take(NAMED_MAX).collect();
    if whom.is_empty() {
        return Ok(());
    }
    let more = not.next().is_some();
    Err(FleetError::NotAll { whom, more })
}

impl fmt::Display for RevokedAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            revoked,
            already,
            reason,
        } = self;
        write!(f, "revoked {revoked} ({reason}); {already} had been before")
    }
}
