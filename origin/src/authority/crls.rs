//! Revocation lists: signed at each revocation and every hour, with numbers that never fall.

#[cfg(test)]
mod tests;

use certs::crl::{self, Rollback};
use certs::trust::TrustCrlError;
use certs::{Ca, CaKind, IssuerId};
use sqlx::SqliteConnection;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tracing::{info, warn};

use super::{Authority, AuthorityError, seconds};
use crate::audit::{Actor, Draft, Event};
use crate::ledger::authorities::{self, StoredCrl};
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

    /// Signs anew every list that is old or missing, or from the future.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, the disk or a signature fails.
    pub async fn refresh_crls(&self) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        let fresh_since = crl::backdated(now) - AGE_MAX;
        let old = |issuer| {
            let current = self.inner.trust.crls().current(issuer);
            current.is_none_or(|crl| {
                crl.this_update() <= fresh_since || is_ahead(crl.this_update(), now)
            })
        };
        // One that has run out itself signs for nobody any more.
        let counts = |issuer| self.inner.trust.issuer(issuer).is_some();
        let keys = self.keys();
        let issuers = keys.issuing().map(Ca::id);
        let old: Vec<IssuerId> = issuers.filter(|it| counts(*it) && old(*it)).collect();
        if old.is_empty() {
            return Ok(());
        }
        let mut tx = self.inner.ledger.write().await?;
        let signed = self.sign_crls(&mut tx, &old, now).await?;
        commit(tx).await?;
        self.publish_crls(signed).await
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
    let before = if for_ever {
        None
    } else {
        certificates::listed_at(db, &issuer).await?
    };
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
