//! The fleet: what an operator sees of the devices, and decides about them.

mod view;

use certs::{DeviceId, Role};
use content::Digest;
use protocol::{Code, Fault, Join, Token};
use thiserror::Error;

pub use view::{CertificateView, DeviceView, Devices, NewToken, TokenCreated};

use crate::authority::{Authority, AuthorityError};
use crate::documents::{DocumentError, Documents};
use crate::ledger::devices::{self, Device, State};
use crate::ledger::{LedgerError, certificates, commit, tokens};

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

/// The most devices in one answer.
pub const PAGE: u32 = 1000;
/// The longest life of a token: a join string in an old e-mail must be worth nothing.
const TOKEN_TTL_MAX: i64 = 90 * 86_400;
/// The most uses of a token: more devices than one site has.
const TOKEN_USES_MAX: u32 = 100_000;
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

    /// At most [`PAGE`] devices after the name `after`; with `state`, only those in it.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn list(&self, state: Option<State>, after: &str) -> Result<Devices, FleetError> {
        let mut db = self.authority.ledger().read().await?;
        let found = devices::list(&mut db, state, after, PAGE).await?;
        Ok(Devices {
            devices: found
                .iter()
                .map(|device| DeviceView::new(device, &[]))
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
        let found = devices::find(&mut db, id).await?;
        let device = found.ok_or_else(|| FleetError::Unknown { id: id.clone() })?;
        let now = self.authority.clock().now();
        let limit = CERTIFICATES_SHOWN;
        let held = certificates::list_by_holder(&mut db, device.role, id, now, limit).await?;
        Ok(DeviceView::new(&device, &held))
    }

    /// Carries out `verdict` on the device `id`. What is so already is no error.
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
            self.authority.revoke(tx, device.role, id).await?;
            // A booster that is no more must not be recommended to anybody.
            self.documents.refresh().await?;
        } else {
            let now = self.authority.clock().now();
            devices::change(&mut tx, id, next, Some(now)).await?;
            commit(tx).await?;
        }
        self.show(id).await
    }

    /// Makes a token and the join string that carries it. It is shown this once: only its SHA-256
    /// is kept.
    ///
    /// # Errors
    ///
    /// Fails if the token would be out of bounds, or the ledger does.
    pub async fn create_token(&self, new: &NewToken) -> Result<TokenCreated, FleetError> {
        let addresses = self.documents.addresses().enrol.clone();
        create_token(&self.authority, new, addresses).await
    }
}

/// [`Fleet::create_token`] for an origin that is not serving yet and will be reached at
/// `addresses`.
///
/// # Errors
///
/// Fails if the token would be out of bounds, or the ledger does.
pub async fn create_token(
    authority: &Authority,
    new: &NewToken,
    addresses: Vec<String>,
) -> Result<TokenCreated, FleetError> {
    let role = check_token(new)?;
    let now = authority.clock().now();
    let token = Token::new(certs::key::random().map_err(AuthorityError::from)?);
    let record = tokens::Token {
        role,
        auto_approve: new.auto_approve,
        group: new.group.clone(),
        uses_left: new.uses,
        created_at: now,
        expires_at: now + new.ttl_seconds,
    };
    let mut tx = authority.ledger().write().await?;
    tokens::insert(&mut tx, Digest::of(token.as_bytes()).as_raw(), &record).await?;
    commit(tx).await?;
    let join = Join {
        pin: authority.root_pin(),
        token: Some(token),
        addresses,
    };
    Ok(TokenCreated {
        join: join.reveal(),
        role: role.to_string(),
        auto_approve: new.auto_approve,
        group: new.group.clone(),
        uses: new.uses,
        expires_at: record.expires_at,
    })
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

impl FleetError {
    /// What the operator's program is told: an operator may know what went wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Authority(_) | Self::Document(_) | Self::Ledger(_) => Code::Internal,
            Self::Token { .. } => Code::BadRequest,
            Self::Unknown { .. } => Code::NotFound,
            Self::WrongState { .. } => Code::Conflict,
        };
        Fault::new(code, service::Report(self).to_string())
    }
}

fn check_token(new: &NewToken) -> Result<Role, FleetError> {
    let refuse = |why| FleetError::Token { why };
    if !(1..=TOKEN_USES_MAX).contains(&new.uses) {
        return Err(refuse("it must have 1 to 100000 uses"));
    }
    if !(1..=TOKEN_TTL_MAX).contains(&new.ttl_seconds) {
        return Err(refuse("it must live 1s to 90d"));
    }
    let is_plain = |group: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=63).contains(&group.len()) && group.bytes().all(plain)
    };
    if !new.group.as_ref().is_none_or(is_plain) {
        return Err(refuse(
            "a group's name is 1 to 63 of A-Z, a-z, 0-9, dot, hyphen, underscore",
        ));
    }
    match new.role.as_str() {
        "booster" => Ok(Role::Booster),
        "client" => Ok(Role::Client),
        _ => Err(refuse("its role must be booster or client")),
    }
}
