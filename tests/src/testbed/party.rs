//! A party by its bare keys: speaks to anybody, and says what it hears.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use certs::tls::{self, CertCell, Expected};
use certs::trust::Revocation;
use certs::{CrlStore, DeviceId, Identity, RefusalReason, Role, Trust, keyfile, pem};
use protocol::Join;
use service::Clock;
use transport::enrol::first_contact;
use transport::listen::Limits;
use transport::source::CallLimits;
use transport::{CallError, Fetched, ListenSettings, Source, SourceSettings};

/// A device that has enrolled, without the program that enrolled it.
#[derive(Debug)]
pub struct Party {
    clock: Clock,
    own: Option<Arc<CertCell>>,
    trust: Arc<Trust>,
}

impl Party {
    /// The device whose identity lies in the data folder `data`; `join` names the deployment.
    ///
    /// # Errors
    ///
    /// Fails if its files cannot be read or the origin cannot be reached.
    pub async fn of(data: &Path, join: &Join, clock: &Clock) -> anyhow::Result<Self> {
        let identity = data.join("identity");
        let key = keyfile::load(&identity.join("key.pem"))?;
        let chain = pem::to_certs(&std::fs::read_to_string(identity.join("cert.pem"))?)?;
        let own = Some(Arc::new(CertCell::new(&chain, &key)?));
        let mut party = Self::stranger(join, clock).await?;
        party.own = own;
        Ok(party)
    }

    /// Somebody without a certificate, who knows the deployment's root.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot be reached.
    pub async fn stranger(join: &Join, clock: &Clock) -> anyhow::Result<Self> {
        let limits = CallLimits::default();
        let contact = first_contact(join.addresses.clone(), &[join.pin], clock, &limits).await?;
        let crls = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Arc::new(Trust::new(&[contact.root.der()], crls, clock.now())?);
        for ca in &contact.certs {
            // The root is among them, and is known.
            let _root = trust.add_issuing_ca(ca, clock.now()).is_err();
        }
        let party = Self {
            clock: clock.clone(),
            own: None,
            trust,
        };
        let public = party.calls(
            Expected::AnyOf(Role::Origin),
            Revocation::BestEffort,
            join.addresses.clone(),
            false,
        )?;
        for ca in party.trust.roots().iter().chain(&party.trust.issuing_cas()) {
            let Fetched::New { bytes, .. } = public.crl(ca.id(), None).await? else {
                anyhow::bail!("there is no list of {}", ca.id())
            };
            let crl = party.trust.verify_crl(ca.id(), &bytes, clock.now())?;
            party.trust.crls().install(crl)?;
        }
        Ok(party)
    }

    /// Whom this party believes.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Calls to the party called `id`, with that `role`, at `address`.
    ///
    /// # Errors
    ///
    /// Fails if such a party cannot listen.
    pub fn source(&self, role: Role, id: &str, address: String) -> anyhow::Result<Source> {
        self.source_over(false, role, id, address)
    }

    /// The same, over HTTP/2 if that is wanted.
    ///
    /// # Errors
    ///
    /// Fails if such a party cannot listen.
    pub fn source_over(
        &self,
        http2: bool,
        role: Role,
        id: &str,
        address: String,
    ) -> anyhow::Result<Source> {
        let id: DeviceId = id.parse()?;
        let deployment = self.trust.deployment().clone();
        let expected = Expected::Exactly(Identity {
            deployment,
            role,
            id,
        });
        self.calls(expected, Revocation::Required, vec![address], http2)
    }

    /// What a listener needs that shows our certificate and lets `roles` in.
    ///
    /// # Errors
    ///
    /// Fails if this party has no certificate.
    pub fn listen_settings(&self, roles: &[Role]) -> anyhow::Result<ListenSettings> {
        let own = self.own.as_ref().context("a stranger cannot listen")?;
        let clock = self.clock.clone();
        let time = tls::time_from(move || clock.now());
        let kind = tls::Listener::Data {
            roles: roles.to_vec(),
        };
        Ok(ListenSettings {
            tls: Arc::new(tls::server_config(&kind, &self.trust, own, &time)?),
            trust: Arc::clone(&self.trust),
            clock: self.clock.clone(),
            limits: Limits::default(),
        })
    }

    /// How that party refuses us, by its alert; none if it does not.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be reached.
    pub async fn refusal(source: &Source) -> anyhow::Result<Option<RefusalReason>> {
        match source.hello().await {
            Ok(_) => Ok(None),
            Err(CallError::Refused { reason }) => Ok(Some(reason)),
            Err(other) => Err(other).context("the call failed otherwise"),
        }
    }

    fn calls(
        &self,
        expected: Expected,
        revocation: Revocation,
        addresses: Vec<String>,
        http2: bool,
    ) -> anyhow::Result<Source> {
        Ok(Source::new(SourceSettings {
            addresses,
            expected,
            revocation,
            trust: Arc::clone(&self.trust),
            own: self.own.clone(),
            clock: self.clock.clone(),
            http2,
            limits: CallLimits::default(),
            refusals: None,
        })?)
    }
}
