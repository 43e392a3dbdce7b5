//! The fleet: what an operator sees of the devices, and decides about them.

mod revoke;
mod tokens;
mod view;

use certs::DeviceId;
use certs::crl::RevocationReason;
use protocol::{Code, Fault};
use thiserror::Error;

pub use revoke::{REASONS, Revocation, RevokedAll, reason_name};
pub use tokens::{NewToken, TokenCreated, TokenView, Tokens, create_token};
pub(crate) use view::time;
pub use view::{CertificateView, DeviceView, Devices};

use crate::audit::{Actor, Draft, Event};
use crate::authority::{Authority, AuthorityError};
use crate::documents::{DocumentError, Documents};
use crate::ledger::devices::{self, Device, Stage, State};
use crate::ledger::tokens::TokenId;
use crate::ledger::{LedgerError, certificates, commit};
use revoke::reason_names;

/// The devices, and those who may become some. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Fleet {
    authority: Authority,
    documents: Documents,
}

/// What an operator decides about a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may have its certificate.
    Approve,
    /// Its key may not.
    Deny,
    /// It had one, and must not use it any more.
    Revoke,
}

/// Why an operator's wish was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The authority failed.
    #[error("cannot carry it out")]
    Authority(#[from] AuthorityError),
    /// The deployment document could not be signed.
    #[error("cannot publish the change")]
    Document(#[from] DocumentError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// What the token should be makes no sense.
    #[error("cannot create such a token: {why}")]
    Token {
        /// What is wrong.
        why: &'static str,
    },
    /// There is no such device.
    #[error("cannot find a device called {id}")]
    Unknown {
        /// The name.
        id: DeviceId,
    },
    /// Some of those that were to be revoked cannot be, so none was.
    #[error("cannot revoke any of them: {named}", named = named(whom, *more))]
    NotAll {
        /// Those, each with the reason.
        whom: Vec<String>,
        /// Whether there are more of them.
        more: bool,
    },
    /// Nobody knows that reason.
    #[error("cannot revoke because of {reason:?}: want one of {known}", known = reason_names())]
    Reason {
        /// What was said.
        reason: String,
    },
    /// There is no such token.
    #[error("cannot find a token called {id}")]
    UnknownToken {
        /// Its id.
        id: TokenId,
    },
    /// It does not fit the device's state.
    #[error("cannot {wish} {id}: it is {state}{hint}")]
    WrongState {
        /// What was wished.
        wish: &'static str,
        /// The device.
        id: DeviceId,
        /// Its state.
        state: State,
        /// What to do instead, in parentheses.
        hint: &'static str,
    },
}

/// The most devices, or tokens, in one answer.
pub const PAGE: u32 = 1000;
/// How many certificates of a device are shown.
const CERTIFICATES_SHOWN: u32 = 10;

impl Fleet {
    /// The fleet of `authority`.
    #[must_use]
    pub fn new(authority: Authority, documents: Documents) -> Self {
        Self {
            authority,
            documents,
        }
    }

    /// At most [`PAGE`] devices after the name `after`; with `stage`, only those in it.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn list(&self, stage: Option<Stage>, after: &str) -> Result<Devices, FleetError> {
        let mut db = self.authority.ledger().read().await?;
        let now = self.authority.clock().now();
        let found = devices::list(&mut db, stage, after, PAGE, now).await?;
        Ok(Devices {
            devices: found
                .iter()
                .map(|(device, stage)| DeviceView::new(device, *stage, &[]))
                .collect(),
        })
    }

    /// One device with its certificates.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn show(&self, id: &DeviceId) -> Result<DeviceView, FleetError> {
        let mut db = self.authority.ledger().read().await?;
        let now = self.authority.clock().now();
        let found = devices::find_staged(&mut db, id, now).await?;
        let (device, stage) = found.ok_or_else(|| FleetError::Unknown { id: id.clone() })?;
        let limit = CERTIFICATES_SHOWN;
        let held = certificates::list_by_holder(&mut db, device.role, id, now, limit).await?;
        Ok(DeviceView::new(&device, stage, &held))
    }

    /// Carries out `verdict` on the device `id`; a revocation is for no reason that anybody gave.
    /// What is so already is no error.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, its state does not allow it, or the ledger fails.
    pub async fn decide(&self, id: &DeviceId, verdict: Verdict) -> Result<DeviceView, FleetError> {
        let mut tx = self.authority.ledger().write().await?;
        let found = devices::find(&mut tx, id).await?;
        let device = found.ok_or_else(|| FleetError::Unknown { id: id.clone() })?;
        let next = verdict.next(&device)?;
        if next == device.state {
            drop(tx);
        } else if next == State::Revoked {
            let reason = RevocationReason::Unspecified;
            self.end(tx, &[(device.role, device.id)], reason).await?;
        } else {
            let now = self.authority.clock().now();
            devices::change(&mut tx, id, next, Some(now)).await?;
            verdict.told(&device, now).append(&mut tx).await?;
            commit(tx).await?;
        }
        self.show(id).await
    }

    /// Takes up new and retired CAs and lists of the roots, which a program beside us has written.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be used.
    pub async fn reload_authority(&self) -> Result<(), FleetError> {
        self.authority.reload().await?;
        // The roots are named there.
        Ok(self.documents.refresh().await?)
    }
}

impl Verdict {
    /// The verb.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Revoke => "revoke",
        }
    }

    /// What the audit log is told of a decision that is no revocation.
    fn told(self, device: &Device, now: i64) -> Draft {
        let event = match self {
            Self::Approve => Event::Approval,
            Self::Deny => Event::Denial,
            Self::Revoke => Event::Revocation,
        };
        event
            .by(&Actor::acting(), now)
            .with("profile", device.role)
            .with("device", &device.id)
            .with_digest("key", &device.spki_sha256)
    }

    /// The state that follows for `device`.
    fn next(self, device: &Device) -> Result<State, FleetError> {
        let refused = |hint| FleetError::WrongState {
            wish: self.as_str(),
            id: device.id.clone(),
            state: device.state,
            hint,
        };
        match (self, device.state) {
            (Self::Approve, State::Pending | State::Denied) => Ok(State::Approved),
            (Self::Approve, same @ (State::Approved | State::Enrolled)) => Ok(same),
            (Self::Deny, State::Pending | State::Approved | State::Denied) => Ok(State::Denied),
            (Self::Deny, State::Enrolled) => Err(refused(" (revoke it)")),
            (Self::Approve | Self::Deny, State::Revoked) => {
                Err(refused(" (it may ask again with a new key)"))
            }
            (Self::Revoke, State::Pending) => Err(refused(" (deny it)")),
            (Self::Revoke, State::Approved | State::Denied | State::Enrolled | State::Revoked) => {
                Ok(State::Revoked)
            }
        }
    }
}

/// Some names, and whether there are others.
fn named(whom: &[String], more: bool) -> String {
    let others = if more { ", and others" } else { "" };
    format!("{}{others}", whom.join(", "))
}

impl FleetError {
    /// What the operator's program is told: an operator may know what went wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Authority(_) | Self::Document(_) | Self::Ledger(_) => Code::Internal,
            Self::Reason { .. } | Self::Token { .. } => Code::BadRequest,
            Self::Unknown { .. } | Self::UnknownToken { .. } => Code::NotFound,
            Self::NotAll { .. } | Self::WrongState { .. } => Code::Conflict,
        };
        Fault::new(code, service::Report(self).to_string())
    }
}
