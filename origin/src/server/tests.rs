//! The origin as others meet it: over real sockets on loopback.

mod fleet;
mod models;
mod rekey;
mod roots;

use std::sync::Arc;
use std::time::Duration;

use ::content::Digest;
use ::content::index::CasePolicy;
use ::content::statement::{Deployment, Statement};
use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use certs::{CrlStore, Key, RefusalReason, Role, Trust, csr};
use protocol::{BoosterAddresses, CheckIn, EnrolRole, Join};
use service::{Clock, Drained};
use tempfile::TempDir;
use transport::enrol::{Enrolled, accept, first_contact};
use transport::source::CallLimits;
use transport::{CallError, ContentJudge, Fetched, Source, SourceSettings};

use super::*;
use crate::admin::AdminClient;
use crate::authority::init;
use crate::fleet::{DeviceView, Devices, NewToken, TokenCreated};
use crate::publish::send;
use crate::testing::new_deployment;

const GRACE: Duration = Duration::from_secs(10);

/// An origin at work, and the way to administer it.
struct Served {
    admin: AdminClient,
    clock: Clock,
    folder: TempDir,
    origin: Origin,
}

/// A device that knows its deployment.
struct Device {
    cell: Arc<CertCell>,
    key: Key,
    join: Join,
    trust: Arc<Trust>,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        init(folder.path(), new_deployment(), clock.now())
            .await
            .unwrap();
        let config = Config::on_loopback(folder.path().to_owned());
        let origin = Origin::bind(config, clock.clone()).await.unwrap();
        Self {
            admin: AdminClient::new(folder.path()),
            clock,
            folder,
            origin,
        }
    }

    async fn join(&self, role: &str, auto_approve: bool) -> Join {
        let role = role.to_owned();
        let new = NewToken {
            role,
            auto_approve,
            group: None,
            device: None,
            uses: 1,
            ttl_seconds: 60,
        };
        let created: TokenCreated = self.admin.post("/tokens", &new).await.unwrap();
        created.join.parse().unwrap()
    }

    /// First contact with what a join string says, and nothing more.
    async fn device(&self, join: Join) -> Device {
        let limits = CallLimits::default();
        let addresses = join.addresses.clone();
        let contact = first_contact(addresses, &[join.pin], &self.clock, &limits)
            .await
            .unwrap();
        let now = self.clock.now();
        let crls = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Arc::new(Trust::new(&[contact.root.der()], crls, now).unwrap());
        for ca in contact
            .certs
            .iter()
            .filter(|cert| *cert != contact.root.der())
        {
            trust.add_issuing_ca(ca, now).unwrap();
        }
        let key = Key::generate().unwrap();
        Device {
            cell: Arc::new(CertCell::empty()),
            key,
            join,
            trust,
        }
    }

    fn source(&self, device: &Device, addresses: Vec<String>) -> Source {
        Source::new(SourceSettings {
            addresses,
            expected: Expected::AnyOf(Role::Origin),
            revocation: Revocation::BestEffort,
            trust: Arc::clone(&device.trust),
            own: Some(Arc::clone(&device.cell)),
            clock: self.clock.clone(),
            http2: true,
            limits: CallLimits::default(),
            refusals: None,
        })
        .unwrap()
    }

    fn content(&self, device: &Device) -> Source {
        self.source(device, vec![self.origin.addresses().content.to_string()])
    }

    /// Asks for a certificate; whether there is one.
    async fn enrol(&self, device: &Device, role: EnrolRole, id: &str) -> bool {
        let source = self.source(device, device.join.addresses.clone());
        let request = csr::make(&device.key, id).unwrap();
        let asked = source
            .simple_enroll(role, &request, device.join.token.as_ref())
            .await;
        match asked.unwrap() {
            Enrolled::Issued(certs) => {
                let party = match role {
                    EnrolRole::Booster => Role::Booster,
                    EnrolRole::Client => Role::Client,
                };
                let now = self.clock.now();
                let accepted = accept(&device.trust, &certs, &device.key, party, now).unwrap();
                device
                    .cell
                    .replace(&accepted.chain_der, &device.key)
                    .unwrap();
                true
            }
            Enrolled::Pending { .. } => false,
        }
    }
}

#[tokio::test]
async fn a_client_enrols_is_answered_and_after_its_revocation_refused() {
    let served = Served::start().await;
    let device = served.device(served.join("client", true).await).await;
    assert!(served.enrol(&device, EnrolRole::Client, "laptop").await);
    let source = served.content(&device);
    assert_eq!(source.hello().await.unwrap().id, "origin");

    let shown: DeviceView = served
        .admin
        .post("/devices/laptop/revoke", &())
        .await
        .unwrap();
    assert_eq!(shown.state, "revoked");
    // The session that was open is cut, in whatever words; who comes again hears why.
    source.hello().await.unwrap_err();
    let refusal = served.content(&device).hello().await.unwrap_err();
    let revoked = RefusalReason::Revoked;
    assert!(
        matches!(refusal, CallError::Refused { reason } if reason == revoked),
        "{refusal:?}"
    );
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_device_waits_until_an_operator_approves_it() {
    let served = Served::start().await;
    let device = served.device(served.join("client", false).await).await;
    assert!(!served.enrol(&device, EnrolRole::Client, "laptop").await);
    let pending: Devices = served.admin.get("/devices?state=pending").await.unwrap();
    assert_eq!(pending.devices[0].id, "laptop");
    // What the operator compares is what the device shows.
    let fingerprint = device.key.fingerprint();
    assert_eq!(pending.devices[0].fingerprint, fingerprint);
    assert!(pending.devices[0].to_string().contains(&fingerprint));
    let approved: DeviceView = served
        .admin
        .post("/devices/laptop/approve", &())
        .await
        .unwrap();
    assert_eq!(approved.state, "approved");
    assert!(served.enrol(&device, EnrolRole::Client, "laptop").await);
    let shown: DeviceView = served.admin.get("/devices/laptop").await.unwrap();
    assert_eq!(
        (shown.state.as_str(), shown.certificates.len()),
        ("enrolled", 1)
    );
    let unknown = served
        .admin
        .get::<DeviceView>("/devices/other")
        .await
        .unwrap_err();
    assert_eq!(unknown.to_string(), "cannot find a device called other");
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_that_checks_in_is_in_the_deployment_document() {
    let served = Served::start().await;
    let device = served.device(served.join("booster", true).await).await;
    assert!(served.enrol(&device, EnrolRole::Booster, "berlin").await);
    let source = served.content(&device);
    let at = BoosterAddresses {
        content: vec!["10.0.0.1:8543".to_owned()],
        enrol: Vec::new(),
    };
    let check_in = CheckIn {
        release: "0.1.0".to_owned(),
        booster: Some(at),
        held: None,
    };
    let answer = source.check_in(&check_in).await.unwrap();
    assert!(answer.is_some_and(|answer| answer.next_seconds > 0));

    // Anybody may read it, and believe it by its signature alone.
    let anybody = served.device(served.join("client", true).await).await;
    for crl in served.origin.authority().trust().crls().all() {
        let own = anybody
            .trust
            .verify_crl(crl.issuer(), &crl.der(), served.clock.now())
            .unwrap();
        anybody.trust.crls().install(own).unwrap();
    }
    let public = served.source(&anybody, anybody.join.addresses.clone());
    let Fetched::New { bytes, .. } = public.deployment(None).await.unwrap() else {
        panic!("nothing new");
    };
    let judge = ContentJudge::new(Arc::clone(&anybody.trust));
    let document = Statement::<Deployment>::open(&bytes, &judge, served.clock.now()).unwrap();
    let boosters: Vec<_> = document
        .boosters
        .iter()
        .map(|booster| &booster.id[..])
        .collect();
    assert_eq!(boosters, ["berlin"]);
    assert_eq!(document.origin.enrol_addresses, anybody.join.addresses);
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_stranger_gets_public_documents_and_no_content() {
    let served = Served::start().await;
    let device = served.device(served.join("client", true).await).await;
    let public = served.source(&device, device.join.addresses.clone());
    assert_eq!(public.hello().await.unwrap().deployment, "acme");
    let issuer = device.trust.issuing_cas()[0].id();
    assert!(matches!(
        public.crl(issuer, None).await.unwrap(),
        Fetched::New { .. }
    ));
    let digest = Digest::of(b"anything");
    assert!(public.snapshot(&digest).await.is_err());
    // Without a certificate, the content listener does not even shake hands.
    let refusal = served.content(&device).hello().await.unwrap_err();
    assert!(matches!(refusal, CallError::Refused { .. }), "{refusal:?}");
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn two_origins_cannot_serve_onefolder() {
    let served = Served::start().await;
    let config = Config::on_loopback(served.folder.path().to_owned());
    let second = Origin::bind(config, served.clock.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(second, StartError::Admin(unix::BindError::InUse { .. })),
        "{second:?}"
    );
    let nothing = tempfile::tempdir().unwrap();
    let config = Config::on_loopback(nothing.path().to_owned());
    let missing = Origin::bind(config, served.clock.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(missing, StartError::NotInitialised { .. }),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_start_without_a_pack_says_which_revisions_lack_it() {
    let served = Served::start().await;
    assert_eq!(served.origin.health.failing(), []);
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("a"), b"bread").unwrap();
    let request = send::Request {
        fileset: "tools".parse().unwrap(),
        folder: tree.path().to_owned(),
        case_policy: CasePolicy::Unique,
    };
    let socket = served.folder.path().join(SOCKET_FILE);
    let published = send::publish(&socket, request, Arc::new(send::Quiet));
    assert_eq!(published.await.unwrap().revision, 1);
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);

    std::fs::remove_dir_all(served.folder.path().join("packs")).unwrap();
    let config = Config::on_loopback(served.folder.path().to_owned());
    let origin = Origin::bind(config, served.clock.clone()).await.unwrap();
    let failing = origin.health.failing();
    assert_eq!(failing.len(), 1, "{failing:?}");
    let (name, reason) = &failing[0];
    assert_eq!(*name, "packs");
    assert!(
        reason.ends_with("these revisions need: tools@1"),
        "{reason}"
    );
    assert_eq!(origin.drain(GRACE).await, Drained::InTime);
}
