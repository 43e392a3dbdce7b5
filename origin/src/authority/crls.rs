//! Revocation lists: signed at each revocation and every hour, with numbers that never fall.

#[cfg(test)]
mod tests;

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use certs::crl::{self, Rollback};
use certs::trust::TrustCrlError;
use certs::{Ca, CaKind, IssuerId};
use service::Report;
use sqlx::SqliteConnection;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::Instant;
use tracing::{info, warn};
use transport::Backoff;

use super::{Authority, AuthorityError, seconds};
use crate::audit::{Actor, Draft, Event};
use crate::ledger::authorities::{self, CrlHead, StoredCrl};
use crate::ledger::{certificates, commit, counters};

/// A list is signed anew when it is so old, even if it says nothing new: whoever fetches one can
/// then go without the origin for almost its whole life.
const AGE_MAX: i64 = 3600;

/// The counter that numbers the CRLs of `issuer`.
#[must_use]
pub fn counter(issuer: IssuerId) -> String {
    format!("crl:{issuer}")
}

impl Authority {
    /// Puts in force what an earlier run has signed. A list from the future, which a clock that was
    /// ahead has made, is left out: nobody would take it, and [`Authority::refresh_crls`] signs
    /// the next one in its place.
    pub(super) async fn publish_stored(
        &self,
        stored: Vec<StoredCrl>,
    ) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        let ahead = |crl: &StoredCrl| is_ahead(crl.this_update, now);
        let (ahead, usable): (Vec<_>, Vec<_>) = stored.into_iter().partition(ahead);
        for crl in ahead {
            let issuer = IssuerId::from_bytes(crl.issuer);
            let (number, from) = (crl.number, crl.this_update);
            warn!(number, from, now, %issuer, "a revocation list is from the future: it is signed anew");
        }
        self.publish_crls(usable).await
    }

    /// Puts in force what was signed and is not yet, and signs anew every list that is old or
    /// missing, or from the future. After a failure, the next try waits for a second, and for up
    /// to a minute if it goes on: in between, this fails for the same reason.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or a signature fails.
    pub async fn refresh_crls(&self) -> Result<(), AuthorityError> {
        self.refresh_crls_at(Instant::now()).await
    }

    async fn refresh_crls_at(&self, at: Instant) -> Result<(), AuthorityError> {
        self.retries().check(at)?;
        let done = self.catch_up_crls().await;
        self.retries().note(at, &done);
        done
    }

    /// The same, without a wait.
    pub(super) async fn catch_up_crls(&self) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        let mut db = self.inner.ledger.read().await?;
        let heads = authorities::crl_heads(&mut db).await?;
        drop(db);
        let fresh_since = crl::backdated(now) - AGE_MAX;
        let is_old =
            |head: &CrlHead| head.this_update <= fresh_since || is_ahead(head.this_update, now);
        let (mut old, mut waiting) = (Vec::new(), Vec::new());
        for ca in self.keys().issuing() {
            let issuer = ca.id();
            // One that has run out itself signs for nobody any more.
            if self.inner.trust.issuer(issuer).is_none() {
                continue;
            }
            let head = heads.iter().find(|it| it.issuer == *issuer.as_bytes());
            let in_force = self.inner.trust.crls().current(issuer);
            match head.filter(|head| !is_old(head)) {
                None => old.push(issuer),
                Some(head) if in_force.is_none_or(|crl| crl.number() < head.number) => {
                    waiting.push(*head);
                }
                Some(_) => {}
            }
        }
        // One that cannot be put in force holds up no other.
        let published = self.publish_waiting(&waiting).await;
        if !old.is_empty() {
            let mut tx = self.inner.ledger.write().await?;
            let signed = self.sign_crls(&mut tx, &old, now).await?;
            commit(tx).await?;
            self.publish_crls(signed).await?;
        }
        published
    }

    /// Puts in force what was signed, when the disk or the caller left us in between.
    async fn publish_waiting(&self, waiting: &[CrlHead]) -> Result<(), AuthorityError> {
        for head in waiting {
            // A list may be long: not read for a disk that refuses.
            let counter = counter(IssuerId::from_bytes(head.issuer));
            self.inner.published.raise(&counter, head.number).await?;
            let mut db = self.inner.ledger.read().await?;
            let stored = authorities::crl(&mut db, &head.issuer).await?;
            drop(db);
            self.publish_crls(stored.into_iter().collect()).await?;
        }
        Ok(())
    }

    fn retries(&self) -> MutexGuard<'_, Retries> {
        let retries = self.inner.retries.lock();
        retries.unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs the lists of `issuers` within the transaction that changed them.
    pub(super) async fn sign_crls(
        &self,
        db: &mut SqliteConnection,
        issuers: &[IssuerId],
        now: i64,
    ) -> Result<Vec<StoredCrl>, AuthorityError> {
        let mut signed = Vec::new();
        for ca in self.keys().issuing() {
            if issuers.contains(&ca.id()) {
                let is_content = ca.cert().kind() == Some(CaKind::Content);
                let life = seconds(self.inner.lives.crl);
                signed.push(sign_crl(db, ca, is_content, now, life).await?);
            }
        }
        Ok(signed)
    }

    /// Puts committed lists in force, once their numbers are kept outside the database too.
    pub(super) async fn publish_crls(&self, signed: Vec<StoredCrl>) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        for stored in signed {
            let issuer = IssuerId::from_bytes(stored.issuer);
            if self.inner.trust.issuer(issuer).is_none() {
                // Of a root that was retired, and of what hung on it.
                continue;
            }
            self.inner
                .published
                .raise(&counter(issuer), stored.number)
                .await?;
            match heavy(|| self.inner.trust.verify_crl(issuer, &stored.der, now)) {
                Ok(crl) => match self.inner.trust.crls().install(crl) {
                    // Of two lists that finish together, the later stays.
                    Ok(_) | Err(Rollback::Older { .. }) => {}
                    Err(source) => return Err(TrustCrlError::Rollback { source }.into()),
                },
                Err(TrustCrlError::Rollback {
                    source: Rollback::Older { .. },
                }) => {}
                Err(source) => return Err(source.into()),
            }
            info!(number = stored.number, %issuer, "a revocation list is in force");
        }
        Ok(())
    }
}

/// When to look after the lists again, after it has failed: each try may sign or read a list of a
/// million, and the disk that refused it is asked every second.
#[derive(Debug)]
pub(super) struct Retries {
    backoff: Backoff,
    /// Not before then, and why.
    waits: Option<(Instant, String)>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
            waits: None,
        }
    }
}

impl Retries {
    fn check(&self, at: Instant) -> Result<(), AuthorityError> {
        match &self.waits {
            Some((until, why)) if at < *until => {
                Err(AuthorityError::Postponed { why: why.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn note(&mut self, at: Instant, done: &Result<(), AuthorityError>) {
        self.waits = match done {
            Ok(()) => {
                self.backoff.succeeded();
                None
            }
            Err(failure) => {
                let wait = self.backoff.failed(1.0);
                Some((at + wait, Report(failure).to_string()))
            }
        };
    }
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Whether others would refuse a list made at `this_update`, since it is only `now`.
fn is_ahead(this_update: i64, now: i64) -> bool {
    this_update > now + seconds(crl::SKEW_MAX)
}

/// Signs the next list of `ca` and records it. Of a CA whose entries stay `for_ever`, all are on
/// it; else those whose certificates had not expired when the list before it began, so that each
/// is on one list after its expiry (RFC 5280 §3.3), however long none was signed.
pub(super) async fn sign_crl(
    db: &mut SqliteConnection,
    ca: &Ca,
    for_ever: bool,
    now: i64,
    life: i64,
) -> Result<StoredCrl, AuthorityError> {
    let issuer = *ca.id().as_bytes();
    let listed_at = certificates::listed_at(db, &issuer).await?;
    if listed_at.is_none_or(|at| is_ahead(at, now)) {
        let missed = certificates::revoke_missed(db, &issuer, now).await?;
        if missed > 0 {
            warn!(missed, issuer = %ca.id(), "certificates that a clock ahead of its time took for over are revoked");
        }
    }
    let before = listed_at.filter(|_| !for_ever);
    // A list that was made by a clock ahead of its time must not drop what still counts.
    let expired_before = before.map_or(0, |at| at.min(now));
    let entries = certificates::revoked(db, &issuer, expired_before).await?;
    let number = counters::next(db, &counter(ca.id())).await?;
    let (this_update, next_update) = (crl::backdated(now), now + life);
    let count = entries.len();
    let der = heavy(|| {
        let entries = entries;
        crl::sign(ca, number, &entries, this_update, next_update)
    })?;
    let signed = StoredCrl {
        issuer,
        number,
        this_update,
        next_update,
        der,
    };
    authorities::put_crl(db, &signed).await?;
    told(&signed, count, now).append(db).await?;
    Ok(signed)
}

/// Does `work`, which takes a second for a list of a million, or waits for a token that keeps the
/// key, where it holds up nobody else.
pub(super) fn heavy<T>(work: impl FnOnce() -> T) -> T {
    // A runtime of one thread, as tests have, knows no other place.
    if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        block_in_place(work)
    } else {
        work()
    }
}

fn told(signed: &StoredCrl, entries: usize, now: i64) -> Draft {
    Event::Crl
        .by(&Actor::acting(), now)
        .with_issuer(&signed.issuer)
        .with("number", signed.number)
        .with("entries", entries)
        .with("until", signed.next_update)
        .with_digest("sha256", content::Digest::of(&signed.der).as_raw())
}
