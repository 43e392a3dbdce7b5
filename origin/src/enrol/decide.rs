//! Decides who gets a certificate. Knows the ledger and the authority, and no HTTP.

use std::net::IpAddr;

use certs::csr::Csr;
use certs::{DeviceId, Peer, Role};
use content::Digest;
use protocol::Token;

use super::limits::Limits;
use super::refusal::EnrolError;
use super::rekeys::Rekeys;
use crate::audit::{Actor, Draft, Event};
use crate::authority::Authority;
use crate::config::Enrol;
use crate::ledger::certificates::Certificate;
use crate::ledger::devices::{self, Device, State};
use crate::ledger::tokens::TokenId;
use crate::ledger::{Write, certificates, commit, rekeys, tokens};

/// Enrolment at this origin. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Enrolment {
    authority: Authority,
    limits: Limits,
    pub(super) rekeys: Rekeys,
    rules: Enrol,
}

/// Somebody asks for a first certificate, or again for the one that was promised.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it wants to be.
    pub role: Role,
    /// The key, proved, and the name that it claims.
    pub csr: Csr,
    /// The token that it brought.
    pub token: Option<Token>,
    /// Where it asks from.
    pub address: IpAddr,
    /// What it says of itself. Unverified.
    pub claims: Option<String>,
}

/// What became of a request that was not refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Here it is.
    Issued(Certificate),
    /// An operator has to look at it first: ask again.
    Pending,
}

impl Enrolment {
    /// Enrolment by `rules`, for certificates of `authority`.
    #[must_use]
    pub fn new(authority: Authority, rules: Enrol) -> Self {
        let limits = Limits::new(rules.rate_per_address, rules.burst_per_address);
        Self {
            authority,
            limits,
            rekeys: Rekeys::default(),
            rules,
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Enrol {
        &self.rules
    }

    /// The authority behind it.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// How often one may ask.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Decides about a request. One transaction: a refusal leaves no trace, and a token is used up
    /// only together with the record of who used it.
    ///
    /// # Errors
    ///
    /// Says why there is nothing for this key.
    pub async fn enrol(&self, request: Request) -> Result<Decision, EnrolError> {
        let mut tx = self.authority.ledger().write().await?;
        let known = devices::find_by_key(&mut tx, &request.csr.spki_sha256()).await?;
        let device = match known {
            Some(device) => self.again(&mut tx, device, &request).await?,
            None => self.first(&mut tx, &request).await?,
        };
        let decision = match device.state {
            State::Pending => Decision::Pending,
            State::Approved | State::Enrolled => {
                let (role, id) = (device.role, &device.id);
                let issued = self
                    .authority
                    .issue(&mut tx, role, id, &device.spki)
                    .await?;
                devices::change(&mut tx, id, State::Enrolled, None).await?;
                Decision::Issued(issued.certificate)
            }
            State::Denied => {
                return Err(EnrolError::Denied {
                    id: device.id.to_string(),
                });
            }
            State::Revoked => {
                return Err(EnrolError::Revoked {
                    id: device.id.to_string(),
                });
            }
        };
        commit(tx).await?;
        Ok(decision)
    }

    /// Renews the certificate of `peer`, which proved in the handshake that it holds the old key,
    /// for the key in `csr`: the same or a new one.
    ///
    /// # Errors
    ///
    /// Says why there is nothing for this key.
    pub async fn renew(&self, role: Role, csr: &Csr, peer: &Peer) -> Result<Decision, EnrolError> {
        let id = peer.id();
        let taken = || EnrolError::Taken { id: id.to_string() };
        let other_name = csr
            .claimed_id()
            .is_some_and(|claimed| claimed != id.as_str());
        if peer.role() != role || other_name {
            return Err(taken());
        }
        let mut tx = self.authority.ledger().write().await?;
        let device = devices::find(&mut tx, id).await?.ok_or_else(taken)?;
        match device.state {
            State::Enrolled if device.role == role => {}
            State::Revoked => return Err(EnrolError::Revoked { id: id.to_string() }),
            // The name has passed to another key since.
            State::Approved | State::Denied | State::Enrolled | State::Pending => {
                return Err(taken());
            }
        }
        let is_new = csr.spki_sha256() != device.spki_sha256;
        if is_new && !self.rekey(&mut tx, &device, csr, peer).await? {
            return Err(taken());
        }
        devices::seen(&mut tx, id, self.authority.clock().now()).await?;
        let issued = self
            .authority
            .issue(&mut tx, role, id, csr.spki_der())
            .await?;
        if is_new {
            // Before the end of it: whoever is cut off in between must not leave it unnoticed.
            self.rekeys.began(id);
        }
        commit(tx).await?;
        Ok(Decision::Issued(issued.certificate))
    }

    /// Binds `device` to the key in `csr`, if `peer` may wish that. What it had goes on until the
    /// new one has been seen at work.
    async fn rekey(
        &self,
        tx: &mut Write,
        device: &Device,
        csr: &Csr,
        peer: &Peer,
    ) -> Result<bool, EnrolError> {
        // Whoever holds a key that was left has no say in the next: it may have been left because
        // it was stolen. But until the new one has been seen, nothing shows that anybody ever had
        // it: the answer, or the new key, may have been lost.
        let shown = certificates::key_of(tx, peer.issuer(), peer.serial()).await?;
        let left = rekeys::left(tx, &device.id).await?;
        // The key of the certificate in the ledger must be that of the one which was shown: whoever
        // has stolen a CA's key can make another with the same number.
        let shown = shown.filter(|it| it == peer.spki_sha256());
        let Some(shown) = shown.filter(|it| *it == device.spki_sha256 || Some(*it) == left) else {
            return Ok(false);
        };
        let is_taken = devices::find_by_key(tx, &csr.spki_sha256()).await?;
        if is_taken.is_some() {
            return Ok(false);
        }
        devices::rekey(tx, &device.id, csr.spki_der(), &csr.spki_sha256()).await?;
        rekeys::put(tx, &device.id, &shown).await?;
        Event::Rekey
            .by(&Actor::party(peer.identity()), self.authority.clock().now())
            .with_digest("before", &device.spki_sha256)
            .with_digest("key", &csr.spki_sha256())
            .append(tx)
            .await?;
        Ok(true)
    }

    /// A key that asked before.
    async fn again(
        &self,
        tx: &mut Write,
        mut device: Device,
        request: &Request,
    ) -> Result<Device, EnrolError> {
        let claimed = request.csr.claimed_id();
        if device.role != request.role || claimed.is_some_and(|id| id != device.id.as_str()) {
            let id = claimed.unwrap_or(device.id.as_str()).to_owned();
            return Err(EnrolError::Taken { id });
        }
        let now = self.authority.clock().now();
        devices::seen(tx, &device.id, now).await?;
        if device.state == State::Enrolled && self.is_long_gone(tx, &device, now).await? {
            self.check_room(tx, request.address, true).await?;
            let (address, claims) = (request.address.to_string(), request.claims.as_deref());
            devices::ask_again(tx, &device.id, &address, claims).await?;
            (device.state, device.with_token) = (State::Pending, false);
            told(request, &device, now).append(tx).await?;
        }
        // Somebody who was waiting without a token may have been given one meanwhile. Other
        // tokens are not looked at: this key is known, and its token may be used up long since.
        if device.state == State::Pending && !device.with_token && request.token.is_some() {
            self.vouched(tx, &mut device, request, now).await?;
        }
        Ok(device)
    }

    /// A pending device brings a token.
    async fn vouched(
        &self,
        tx: &mut Write,
        device: &mut Device,
        request: &Request,
        now: i64,
    ) -> Result<(), EnrolError> {
        let taken = self.take_token(tx, request, &device.id, now).await;
        let Some((id, token)) = (match taken {
            // One that was enrolled before may well show the token that it came with then.
            Err(EnrolError::Token) if device.decided_at.is_some() => None,
            taken => taken?,
        }) else {
            return Ok(());
        };
        devices::bring_token(tx, &device.id, id, token.group.as_deref()).await?;
        told(request, device, now).append(tx).await?;
        if token.auto_approve {
            devices::change(tx, &device.id, State::Approved, Some(now)).await?;
            device.state = State::Approved;
        }
        Ok(())
    }

    /// Whether an enrolled device comes back so late that a person has to look at it again.
    async fn is_long_gone(
        &self,
        tx: &mut Write,
        device: &Device,
        now: i64,
    ) -> Result<bool, EnrolError> {
        let last = certificates::newest_by_key(tx, &device.spki_sha256).await?;
        let grace = self.rules.return_grace.as_secs();
        // Whose certificates are all revoked is not let in without a look either.
        Ok(last.is_none_or(|last| now > last.not_after.saturating_add_unsigned(grace)))
    }

    /// A key that nobody has seen.
    async fn first(&self, tx: &mut Write, request: &Request) -> Result<Device, EnrolError> {
        let now = self.authority.clock().now();
        let id: DeviceId = request
            .csr
            .claimed_id()
            .ok_or(EnrolError::NoName)?
            .parse()?;
        let token = self.take_token(tx, request, &id, now).await?;
        let before = devices::find(tx, &id).await?;
        let is_ours = id == self.authority.deployment().origin_id;
        let is_held = before.as_ref().is_some_and(|device| match device.state {
            State::Approved | State::Enrolled | State::Pending => true,
            State::Denied | State::Revoked => false,
        });
        if is_ours || is_held {
            return Err(EnrolError::Taken { id: id.to_string() });
        }
        // A name that somebody lost is never handed on without a person looking.
        let auto = token.as_ref().is_some_and(|(_, token)| token.auto_approve) && before.is_none();
        if !auto {
            self.check_room(tx, request.address, token.is_some())
                .await?;
        }
        let device = Device {
            id,
            role: request.role,
            state: if auto {
                State::Approved
            } else {
                State::Pending
            },
            spki: request.csr.spki_der().to_vec(),
            spki_sha256: request.csr.spki_sha256(),
            with_token: token.is_some(),
            token: token.as_ref().map(|(id, _)| *id),
            group: token.and_then(|(_, token)| token.group),
            address: Some(request.address.to_string()),
            claims: request.claims.clone(),
            requested_at: now,
            decided_at: auto.then_some(now),
            revoked_for: None,
            seen_at: now,
        };
        devices::insert(tx, &device).await?;
        told(request, &device, now).append(tx).await?;
        Ok(device)
    }

    /// The token of a request, one use less; none if it needs none.
    async fn take_token(
        &self,
        tx: &mut Write,
        request: &Request,
        device: &DeviceId,
        now: i64,
    ) -> Result<Option<(TokenId, tokens::Token)>, EnrolError> {
        let Some(token) = &request.token else {
            let fine = self.rules.accept_without_token;
            return if fine {
                Ok(None)
            } else {
                Err(EnrolError::Token)
            };
        };
        let digest = Digest::of(token.as_bytes());
        let taken = tokens::take(tx, digest.as_raw(), request.role, device, now).await?;
        let taken = taken.ok_or(EnrolError::Token)?;
        Ok(Some((TokenId::of(digest.as_raw()), taken)))
    }

    async fn check_room(
        &self,
        tx: &mut Write,
        address: IpAddr,
        with_token: bool,
    ) -> Result<(), EnrolError> {
        let (total, here) = devices::count_pending(tx, &address.to_string()).await?;
        let (all, each) = (self.rules.pending_max, self.rules.pending_per_address_max);
        if total >= i64::from(all) {
            return Err(EnrolError::TooMany { limit: all });
        }
        // Behind a booster's relay a whole branch has one address: its tokens vouch for it.
        if !with_token && here >= i64::from(each) {
            return Err(EnrolError::TooMany { limit: each });
        }
        Ok(())
    }
}

/// What the audit log is told of a request that leaves a trace.
fn told(request: &Request, device: &Device, now: i64) -> Draft {
    let token = request.token.as_ref().map(|token| {
        let digest = Digest::of(token.as_bytes());
        TokenId::of(digest.as_raw())
    });
    Event::Request
        .by(&Actor::stranger(request.role, request.address), now)
        .with("device", &device.id)
        .with_digest("key", &device.spki_sha256)
        .with("state", device.state)
        .with_some("token", token)
}
