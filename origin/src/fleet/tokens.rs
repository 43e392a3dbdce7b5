//! Tokens as an operator makes, sees and revokes them.

use std::fmt;

use certs::{DeviceId, Role};
use content::Digest;
use protocol::{Join, Token};
use serde::{Deserialize, Serialize};

use super::view::time;
use super::{Fleet, FleetError, PAGE};
use crate::audit::{Actor, Draft, Event};
use crate::authority::{Authority, AuthorityError};
use crate::ledger::commit;
use crate::ledger::tokens::{self, TokenId};

/// What a new token should be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NewToken {
    /// `booster` or `client`.
    pub role: String,
    /// Whether nobody needs to approve who brings it.
    pub auto_approve: bool,
    /// The group that its devices join.
    pub group: Option<String>,
    /// The one name that may be claimed with it; none if any may.
    #[serde(default)]
    pub device: Option<String>,
    /// How many devices may use it.
    pub uses: u32,
    /// How long it lives.
    pub ttl_seconds: i64,
}

/// A token that was made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenCreated {
    /// What the token is called: good for `token revoke`, and for nothing else.
    pub id: String,
    /// What a new party is told. Whoever has it may use it.
    pub join: String,
    /// Who may.
    pub role: String,
    /// Whether nobody needs to approve.
    pub auto_approve: bool,
    /// The group that its devices join.
    pub group: Option<String>,
    /// The one name that may be claimed with it.
    pub device: Option<String>,
    /// How many may.
    pub uses: u32,
    /// Until when.
    pub expires_at: i64,
}

/// A list of tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tokens {
    /// By id.
    pub tokens: Vec<TokenView>,
}

/// A token as it can be seen afterwards: never the token itself. Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenView {
    /// What it is called.
    pub id: String,
    /// `good`, `used-up` or `expired`.
    pub state: String,
    /// `booster` or `client`.
    pub role: String,
    /// Whether nobody needs to approve who brings it.
    pub auto_approve: bool,
    /// The group that its devices join.
    pub group: Option<String>,
    /// The one name that may be claimed with it.
    pub device: Option<String>,
    /// How many devices could use it at first.
    pub uses: u32,
    /// How many more may.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: i64,
    /// From when on it is worth nothing.
    pub expires_at: i64,
}

/// The longest life of a token: a join string in an old e-mail must be worth nothing.
const TOKEN_TTL_MAX: i64 = 90 * 86_400;
/// The most uses of a token: more devices than one site has.
const TOKEN_USES_MAX: u32 = 100_000;

impl Fleet {
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

    /// At most [`PAGE`] tokens after the one called `after`, by id: all that have not expired,
    /// and a few that have.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn list_tokens(&self, after: Option<TokenId>) -> Result<Tokens, FleetError> {
        let mut db = self.authority.ledger().read().await?;
        let now = self.authority.clock().now();
        let found = tokens::list(&mut db, after, PAGE).await?;
        let tokens = found
            .iter()
            .map(|(id, token)| TokenView::new(*id, token, now))
            .collect();
        Ok(Tokens { tokens })
    }

    /// Makes the token called `id` worth nothing. Who came with it before stays.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that id, or the ledger fails.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenView, FleetError> {
        let mut tx = self.authority.ledger().write().await?;
        let gone = tokens::remove(&mut tx, id).await?;
        let gone = gone.ok_or(FleetError::UnknownToken { id })?;
        let now = self.authority.clock().now();
        let told = Event::TokenRevoked.by(&Actor::acting(), now);
        told.with("token", id).append(&mut tx).await?;
        commit(tx).await?;
        let mut view = TokenView::new(id, &gone, now);
        "revoked".clone_into(&mut view.state);
        Ok(view)
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
    let (role, device) = check_token(new)?;
    let now = authority.clock().now();
    let token = Token::new(certs::key::random().map_err(AuthorityError::from)?);
    let digest = Digest::of(token.as_bytes());
    let record = tokens::Token {
        role,
        auto_approve: new.auto_approve,
        group: new.group.clone(),
        device,
        uses: new.uses,
        uses_left: new.uses,
        created_at: now,
        expires_at: now + new.ttl_seconds,
    };
    let mut tx = authority.ledger().write().await?;
    tokens::insert(&mut tx, digest.as_raw(), &record).await?;
    told_created(digest.as_raw(), &record)
        .append(&mut tx)
        .await?;
    commit(tx).await?;
    let join = Join {
        pin: authority.root_pin(),
        token: Some(token),
        addresses,
    };
    Ok(TokenCreated {
        id: TokenId::of(digest.as_raw()).to_string(),
        join: join.reveal(),
        role: role.to_string(),
        auto_approve: new.auto_approve,
        group: new.group.clone(),
        device: new.device.clone(),
        uses: new.uses,
        expires_at: record.expires_at,
    })
}

/// What the audit log is told of a new token.
fn told_created(token_sha256: &[u8; 32], record: &tokens::Token) -> Draft {
    Event::TokenCreated
        .by(&Actor::acting(), record.created_at)
        .with("token", TokenId::of(token_sha256))
        .with("profile", record.role)
        .with("auto-approve", record.auto_approve)
        .with_some("group", record.group.as_ref())
        .with_some("device", record.device.as_ref())
        .with("uses", record.uses)
        .with("until", record.expires_at)
}

fn check_token(new: &NewToken) -> Result<(Role, Option<DeviceId>), FleetError> {
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
    let role = match new.role.as_str() {
        "booster" => Role::Booster,
        "client" => Role::Client,
        _ => return Err(refuse("its role must be booster or client")),
    };
    let device = new.device.as_deref().map(str::parse).transpose();
    let device = device.map_err(|_| refuse("a device's name is a DNS label in lower case"))?;
    Ok((role, device))
}

impl TokenView {
    fn new(id: TokenId, token: &tokens::Token, now: i64) -> Self {
        let state = match token {
            token if token.expires_at <= now => "expired",
            token if token.uses_left == 0 => "used-up",
            _ => "good",
        };
        Self {
            id: id.to_string(),
            state: state.to_owned(),
            role: token.role.to_string(),
            auto_approve: token.auto_approve,
            group: token.group.clone(),
            device: token.device.as_ref().map(DeviceId::to_string),
            uses: token.uses,
            uses_left: token.uses_left,
            created_at: token.created_at,
            expires_at: token.expires_at,
        }
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tokens.is_empty() {
            return f.write_str("no tokens");
        }
        write!(
            f,
            "{:<16} {:<7} {:<8} {:<6} {:<16} {:>13} {:<20} {:<20} FOR",
            "ID", "STATE", "ROLE", "WAITS", "GROUP", "LEFT", "MADE", "UNTIL"
        )?;
        self.tokens
            .iter()
            .try_for_each(|token| write!(f, "\n{token}"))
    }
}

impl fmt::Display for TokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id, state, role, ..
        } = self;
        let waits = if self.auto_approve { "no" } else { "yes" };
        let group = self.group.as_deref().unwrap_or("-");
        let left = format!("{}/{}", self.uses_left, self.uses);
        let (made, until) = (time(self.created_at), time(self.expires_at));
        let device = self.device.as_deref().unwrap_or("any");
        write!(
            f,
            "{id:<16} {state:<7} {role:<8} {waits:<6} {group:<16} {left:>13} {made:<20} \
             {until:<20} {device}"
        )
    }
}

impl fmt::Display for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            join,
            role,
            uses,
            ..
        } = self;
        let who = self.device.as_deref().unwrap_or("any name");
        let how = if self.auto_approve {
            "approved at once"
        } else {
            "to be approved"
        };
        let until = time(self.expires_at);
        write!(
            f,
            "{join}\n{role} ({who}), {how}, {uses} uses, until {until}, token {id}"
        )
    }
}
