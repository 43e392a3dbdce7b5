//! Devices as an operator sees them: as JSON, or as text.

use std::fmt;

use content::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::revoke::reason_name;
use crate::ledger::certificates::Certificate;
use crate::ledger::devices::{Device, Stage};

/// A list of devices.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Devices {
    /// By name.
    pub devices: Vec<DeviceView>,
}

/// A device. Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceView {
    /// Its name.
    pub id: String,
    /// `booster` or `client`.
    pub role: String,
    /// How far it has come: `pending`, `approved`, `enrolled`, `renewing`, `expired`, `denied` or
    /// `revoked`.
    pub state: String,
    /// The fingerprint of its key in the form in which its user sees it too: 64 digits in groups of
    /// four.
    pub fingerprint: String,
    /// The same as programs write it: `sha256:` and 64 digits.
    pub key: String,
    /// Its group.
    pub group: Option<String>,
    /// Where its request came from.
    pub address: Option<String>,
    /// What it says of itself, unverified.
    pub claims_unverified: Option<String>,
    /// Whether it came with a token.
    pub with_token: bool,
    /// The id of that token.
    #[serde(default)]
    pub token: Option<String>,
    /// When it first asked.
    pub requested_at: i64,
    /// When it was decided about.
    pub decided_at: Option<i64>,
    /// Why it was revoked.
    #[serde(default)]
    pub revoked_for: Option<String>,
    /// When it was last heard of in enrolment.
    pub seen_at: i64,
    /// Its certificates that have not expired; empty in a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateView>,
}

/// A certificate of a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateView {
    /// Its serial, 32 hexadecimal digits.
    pub serial: String,
    /// When it begins.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
}

impl DeviceView {
    pub(super) fn new(device: &Device, stage: Stage, held: &[Certificate]) -> Self {
        let certificate = |held: &Certificate| CertificateView {
            serial: held.serial.to_string(),
            not_before: held.not_before,
            not_after: held.not_after,
        };
        Self {
            id: device.id.to_string(),
            role: device.role.to_string(),
            state: stage.to_string(),
            fingerprint: certs::key::fingerprint(&device.spki_sha256),
            key: Digest::from_raw(device.spki_sha256).to_string(),
            group: device.group.clone(),
            address: device.address.clone(),
            claims_unverified: device.claims.clone(),
            with_token: device.with_token,
            token: device.token.map(|token| token.to_string()),
            requested_at: device.requested_at,
            decided_at: device.decided_at,
            revoked_for: device.revoked_for.map(|why| reason_name(why).to_owned()),
            seen_at: device.seen_at,
            certificates: held.iter().map(certificate).collect(),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.devices.is_empty() {
            return f.write_str("no devices");
        }
        write!(
            f,
            "{:<32} {:<8} {:<9} {:<16} {:<20} {:<20} FROM",
            "ID", "ROLE", "STATE", "GROUP", "KEY BEGINS", "ASKED"
        )?;
        for device in &self.devices {
            let DeviceView {
                id, role, state, ..
            } = device;
            let group = device.group.as_deref().unwrap_or("-");
            let address = device.address.as_deref().unwrap_or("-");
            // Enough to tell keys apart; who approves compares all of it.
            let key = device.fingerprint.get(..19).unwrap_or_default();
            let asked = time(device.requested_at);
            write!(
                f,
                "\n{id:<32} {role:<8} {state:<9} {group:<16} {key:<20} {asked:<20} {address}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for DeviceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}): {}", self.id, self.role, self.state)?;
        writeln!(f, "  key        {}", self.fingerprint)?;
        writeln!(
            f,
            "  group      {}",
            self.group.as_deref().unwrap_or("none")
        )?;
        writeln!(
            f,
            "  from       {}",
            self.address.as_deref().unwrap_or("unknown")
        )?;
        if let Some(claims) = &self.claims_unverified {
            // Escaped: a stranger wrote it, and a terminal obeys what it is shown.
            writeln!(f, "  claims     {claims:?} (unverified)")?;
        }
        let token = match &self.token {
            Some(id) => id,
            None if self.with_token => "yes",
            None => "no",
        };
        writeln!(f, "  token      {token}")?;
        writeln!(f, "  requested  {}", time(self.requested_at))?;
        write!(f, "  seen       {}", time(self.seen_at))?;
        if let Some(decided_at) = self.decided_at {
            write!(f, "\n  decided    {}", time(decided_at))?;
        }
        if let Some(reason) = &self.revoked_for {
            write!(f, "\n  reason     {reason}")?;
        }
        for held in &self.certificates {
            write!(
                f,
                "\n  certified  {} until {}",
                held.serial,
                time(held.not_after)
            )?;
        }
        Ok(())
    }
}

/// A time for people, in UTC.
pub(crate) fn time(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
