//! A member that has enrolled before: does its certificate still count, and for whom?
//!
//! A certificate that counts no more proves nothing, and is not used as proof. What makes the origin
//! know the member again is its key, under the request: the origin has it in its ledger.

use std::sync::Arc;

use certs::tls::CertCell;
use certs::trust::{Revocation, TrustError};
use certs::{DeviceId, RefusalReason, Trust};
use protocol::Join;
use transport::{CallError, Source};

use super::error::refused;
use super::patience::Patience;
use super::{Asker, EnrolError, EnrolNote, EnrolReport, Met, stopped};
use crate::blocking::off_the_runtime;
use crate::identity::Identity;
use crate::state::State;

/// Who a member has been so far, in the deployment that it is to join.
pub(super) struct Known(Identity);

/// What a certificate is worth.
pub(super) enum Standing {
    /// It counts. With calls to the origin that show it.
    Good(Box<Source>),
    /// It counts no more.
    Void(Box<Met>, RefusalReason),
}

impl Known {
    /// Fails if the join string is for another deployment.
    pub(super) fn of(known: Identity, join: &Join) -> Result<Self, EnrolError> {
        let roots = known.trust.roots();
        if roots.iter().any(|root| root.spki_sha256() == join.pin) {
            return Ok(Self(known));
        }
        let deployment = known.joined.deployment;
        Err(EnrolError::OtherDeployment { deployment })
    }

    pub(super) fn id(&self) -> &DeviceId {
        &self.0.name.id
    }

    /// Where others reach it, if that was said before.
    pub(super) fn advertise(&self) -> &[String] {
        &self.0.joined.advertise
    }

    /// Whether its certificate counts as far as the time goes, at `now` in Unix seconds.
    pub(super) fn is_in_date(&self, now: i64) -> bool {
        !self.0.has_expired(now)
    }

    /// Nothing was to be done.
    pub(super) fn already(&self) -> EnrolReport {
        EnrolReport {
            already: true,
            anew: false,
            deployment: self.0.joined.deployment.clone(),
            fingerprint: self.0.key.fingerprint(),
            id: self.0.joined.id.clone(),
            not_after: self.0.expires(),
        }
    }

    /// Why the certificate counts no more, as far as `trust` and the time `now` tell: its CA or its
    /// root has been retired or revoked, or it has run out.
    fn flaw(&self, trust: &Trust, now: i64) -> Option<RefusalReason> {
        let chain = self.0.cell.chain_der();
        let leaf = chain.first().map_or(&[][..], Vec::as_slice);
        let roots = trust.roots();
        let roots: Vec<&[u8]> = roots.iter().map(|root| root.der()).collect();
        // Apart: the CA beside the certificate is not one to go on believing.
        let Ok(apart) = Trust::new(&roots, Arc::clone(trust.crls()), now) else {
            return Some(RefusalReason::UnknownIssuer);
        };
        for ca in chain.iter().skip(1) {
            if let Err(TrustError::Revoked) = apart.add_issuing_ca(ca, now) {
                return Some(RefusalReason::Revoked);
            }
        }
        let peer = apart.verify_client(leaf, &[], now);
        let checked = peer.and_then(|peer| apart.check_with(&peer, Revocation::BestEffort, now));
        checked.err()
    }
}

impl Asker<'_> {
    /// Finds out what the certificate of `known` is worth.
    pub(super) async fn look(
        &self,
        known: &Known,
        patience: &Patience<impl Fn(EnrolNote)>,
    ) -> Result<Standing, EnrolError> {
        let met = self.meet(patience).await?;
        if let Some(reason) = known.flaw(&met.trust, self.clock.now()) {
            return Ok(Standing::Void(Box::new(met), reason));
        }
        // Whom we do not judge, we have no lists of: the origin tells, by letting us in.
        let own: Arc<CertCell> = Arc::clone(&known.0.cell);
        let source = self.showing(&met, own)?;
        let show = || async { source.identify().await.map_err(refused) };
        match patience.with(show).await {
            Ok(_) => Ok(Standing::Good(Box::new(source))),
            Err(EnrolError::Call {
                source: CallError::Refused { reason },
            }) => Ok(Standing::Void(Box::new(met), reason)),
            Err(failure) => Err(failure),
        }
    }

    /// Goes on from the lists that earlier runs have kept: nobody takes us back behind them.
    pub(super) async fn take_up_lists(&self, trust: &Arc<Trust>) -> Result<(), EnrolError> {
        let (state, now) = (State::new(self.data.state()), self.clock.now());
        let trust = Arc::clone(trust);
        let taken = off_the_runtime(move || state.load_crls(&trust, now)).await;
        taken.map_err(|source| stopped(self.data, source))
    }
}
