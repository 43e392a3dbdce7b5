//! Keeping a membership fresh: revocation lists, the deployment document, the own certificate.

use std::sync::Arc;

use certs::{Crl, IssuerId};
use content::Digest;
use content::statement::{Deployment, Statement};
use service::Report;
use tracing::{info, warn};

use super::files;
use super::{Member, MemberError, enrol_role};
use crate::enrol::{Enrolled, accept};
use crate::source::{Fetched, Source, SourceSettings};
use certs::tls::Expected;
use certs::trust::Revocation;

/// What came of looking after the own certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// More than half of its life is left.
    NotDue,
    /// There is a new one.
    Renewed,
    /// It has run out, and an operator must look at the request for a new one.
    Vetting,
}

impl Member {
    /// Puts the revocation lists that are kept into force.
    pub(super) async fn load_crls(&self) -> Result<(), MemberError> {
        for issuer in self.issuers() {
            let (data, name) = (self.inner.data.clone(), crl_file(issuer));
            let read = tokio::task::spawn_blocking(move || files::read_state(&data, &name));
            let Some(der) = read.await?? else { continue };
            match self
                .inner
                .trust
                .verify_crl(issuer, &der, self.inner.clock.now())
            {
                Ok(crl) => self.install(crl),
                Err(error) => {
                    warn!(error = %Report(&error), "cannot use a revocation list that was kept");
                }
            }
        }
        Ok(())
    }

    /// Fetches the revocation lists of all issuers that we know, as far as they are new; says how
    /// many were. Each is kept before it comes into force.
    ///
    /// # Errors
    ///
    /// Fails if a list cannot be fetched, verified or kept; those before it are in force.
    pub async fn refresh_crls(&self, from: &Source) -> Result<usize, MemberError> {
        let mut new = 0;
        for issuer in self.issuers() {
            new += usize::from(self.refresh_crl(from, issuer).await?);
        }
        Ok(new)
    }

    async fn refresh_crl(&self, from: &Source, issuer: IssuerId) -> Result<bool, MemberError> {
        let trust = &self.inner.trust;
        let held = trust.crls().current(issuer);
        let tag = held.map(|crl| format!("\"{}\"", Digest::from_raw(*crl.digest()).hex()));
        let fetched = from.crl(issuer, tag.as_deref()).await;
        let step = "fetch a revocation list";
        let der = match fetched.map_err(|source| MemberError::Call { step, source })? {
            Fetched::Unchanged => return Ok(false),
            Fetched::New { bytes, .. } => bytes,
        };
        let (trust, now) = (Arc::clone(trust), self.inner.clock.now());
        let (data, name) = (self.inner.data.clone(), crl_file(issuer));
        // A list of a million entries takes a while to verify.
        let work = tokio::task::spawn_blocking(move || {
            let verified = trust.verify_crl(issuer, &der, now);
            let crl = verified.map_err(|error| MemberError::Trust(Box::new(error)))?;
            files::write_state(&data, &name, &der)?;
            Ok::<_, MemberError>(crl)
        });
        self.install(work.await??);
        Ok(true)
    }

    fn install(&self, crl: Crl) {
        let (issuer, number) = (crl.issuer(), crl.number());
        match self.inner.trust.crls().install(crl) {
            Ok(_) => info!(%issuer, number, "revocation list in force"),
            // Somebody else installed a newer one meanwhile.
            Err(error) => warn!(error = %Report(&error), "revocation list not taken"),
        }
    }

    fn issuers(&self) -> Vec<IssuerId> {
        let trust = &self.inner.trust;
        trust
            .roots()
            .iter()
            .chain(&trust.issuing_cas())
            .map(|ca| ca.id())
            .collect()
    }

    /// The deployment document that is kept, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub async fn deployment(&self) -> Result<Option<Statement<Deployment>>, MemberError> {
        let data = self.inner.data.clone();
        let read = tokio::task::spawn_blocking(move || files::read_state(&data, DEPLOYMENT));
        let Some(bytes) = read.await?? else {
            return Ok(None);
        };
        // One that no longer counts, after its signer was revoked, is fetched anew.
        Ok(Statement::open(&bytes, &self.judge(), self.inner.clock.now()).ok())
    }

    /// Fetches the deployment document and keeps it, if it is new.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be fetched, does not count, or is older than the one that is kept.
    pub async fn refresh_deployment(
        &self,
        from: &Source,
    ) -> Result<Statement<Deployment>, MemberError> {
        let kept = self.deployment().await?;
        let tag = kept
            .as_ref()
            .map(|kept| format!("\"{}\"", kept.digest().hex()));
        let fetched = from.deployment(tag.as_deref()).await;
        let step = "fetch the deployment document";
        let bytes = match (
            fetched.map_err(|source| MemberError::Call { step, source })?,
            &kept,
        ) {
            (Fetched::New { bytes, .. }, _) => bytes,
            (Fetched::Unchanged, Some(kept)) => return Ok(kept.clone()),
            (Fetched::Unchanged, None) => {
                let source = crate::CallError::bad("304 without a tag");
                return Err(MemberError::Call { step, source });
            }
        };
        let now = self.inner.clock.now();
        let new = Statement::<Deployment>::open(&bytes, &self.judge(), now)
            .map_err(|source| MemberError::Document(Box::new(source)))?;
        if let Some(kept) = kept.filter(|kept| kept.version > new.version) {
            return Err(MemberError::DocumentRollback {
                seen: kept.version,
                got: new.version,
            });
        }
        for root in &new.roots {
            // A root that we have, or that has run out, changes nothing.
            let _known = self.inner.trust.add_root(root, now).is_err();
        }
        let data = self.inner.data.clone();
        let work =
            tokio::task::spawn_blocking(move || files::write_state(&data, DEPLOYMENT, &bytes));
        work.await??;
        Ok(new)
    }

    /// Renews the own certificate if half of its life is over; if it has run out, asks for one
    /// with the same key as on the first day.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot be reached or refuses; the old certificate stays.
    pub async fn renew_if_due(&self) -> Result<Renewal, MemberError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let (not_before, not_after) = inner.cell.validity().unwrap_or_default();
        if now < not_before + (not_after - not_before) / 2 {
            return Ok(Renewal::NotDue);
        }
        let (role, request) = (enrol_role(inner.role), self.csr(&self.joined().id)?);
        let step = "renew the own certificate";
        let asked = if now >= not_after {
            // An expired certificate would end the handshake; the key alone is shown.
            self.public_source()?
                .simple_enroll(role, &request, None)
                .await
        } else {
            self.own_public_source()?
                .simple_reenroll(role, &request)
                .await
        };
        let issued = match asked.map_err(|source| MemberError::Call { step, source })? {
            Enrolled::Issued(issued) => issued,
            Enrolled::Pending { .. } => return Ok(Renewal::Vetting),
        };
        let accepted = accept(&inner.trust, &issued, &inner.key, inner.role, now)?;
        let (data, chain) = (inner.data.clone(), accepted.chain_der.clone());
        tokio::task::spawn_blocking(move || files::store_chain(&data, &chain)).await??;
        inner.cell.replace(&accepted.chain_der, &inner.key)?;
        info!(
            not_after = accepted.peer.not_after(),
            "own certificate renewed"
        );
        Ok(Renewal::Renewed)
    }

    /// Calls to the enrolment listener, with our certificate shown.
    fn own_public_source(&self) -> Result<Source, MemberError> {
        let own = Some(Arc::clone(&self.inner.cell));
        let expected = Expected::Exactly(self.origin());
        let addresses = self.joined().enrol_addresses;
        let settings: SourceSettings =
            self.settings(addresses, expected, Revocation::BestEffort, own);
        Ok(Source::new(settings)?)
    }
}

fn crl_file(issuer: IssuerId) -> String {
    format!("crl-{}", Digest::from_raw(*issuer.as_bytes()).hex())
}

const DEPLOYMENT: &str = "deployment";
