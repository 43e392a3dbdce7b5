//! The origin, killed again and again while devices come and go: what it told anybody stays true.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::tls::Expected;
use certs::trust::Revocation as Lists;
use certs::{CrlStore, IssuerId, Key, Peer, Role, Trust, csr};
use origin::admin::AdminClient;
use origin::fleet::{DeviceView, NewToken, Revocation, TokenCreated};
use protocol::{EnrolRole, Join};
use service::Clock;
use tokio::time::{Instant, sleep_until};
use transport::enrol::{Enrolled, first_contact};
use transport::source::CallLimits;
use transport::{Fetched, Source, SourceSettings};

/// What somebody was told.
#[derive(Clone, Debug)]
enum Told {
    /// A device got this certificate.
    Issued { id: String, serial: String },
    /// A list with this number, made of these bytes.
    List {
        issuer: IssuerId,
        number: u64,
        digest: [u8; 32],
    },
    /// A device is no more.
    Revoked { id: String },
}

/// All of it.
type Heard = Mutex<Vec<Told>>;

/// An origin in a process of its own, which dies with this.
struct Origin {
    process: Child,
    enrol: String,
}

impl Origin {
    fn start(data: &Path) -> Self {
        let config = data.with_extension("toml");
        let any = "\"127.0.0.1:0\"";
        let text = format!(
            "data = {data:?}\ncontent.listen = {any}\nenrol.listen = {any}\nops.listen = {any}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut process = larder(&["serve", "--json", "--config", &config.display().to_string()]);
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let serving: serde_json::Value = serde_json::from_str(&line).unwrap();
        let enrol = serving["enrol"].as_str().unwrap().to_owned();
        Self { process, enrol }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn larder(words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder-origin"));
    command.args(words).stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Somebody who knows the root, at the enrolment listener of whoever serves now.
struct Caller {
    source: Source,
    trust: Arc<Trust>,
}

impl Caller {
    async fn meet(origin: &Origin, pin: [u8; 32]) -> Self {
        let (clock, limits) = (Clock::system(), CallLimits::default());
        let addresses = vec![origin.enrol.clone()];
        let contact = first_contact(addresses.clone(), &[pin], &clock, &limits)
            .await
            .unwrap();
        let crls = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[contact.root.der()], crls, clock.now()).unwrap();
        for ca in &contact.certs {
            // The root is among them, which is known.
            let _known = trust.add_issuing_ca(ca, clock.now()).is_err();
        }
        let trust = Arc::new(trust);
        let source = Source::new(SourceSettings {
            addresses,
            expected: Expected::AnyOf(Role::Origin),
            revocation: Lists::BestEffort,
            trust: Arc::clone(&trust),
            own: None,
            clock,
            http2: false,
            limits,
            refusals: None,
        });
        Self {
            source: source.unwrap(),
            trust,
        }
    }

    /// The certificate that `id` gets with the token of `join`, if the origin lives that long.
    async fn enrol(&self, id: &str, join: &Join) -> Option<Peer> {
        let key = Key::generate().unwrap();
        let request = csr::make(&key, id).unwrap();
        let asked = self
            .source
            .simple_enroll(EnrolRole::Client, &request, join.token.as_ref());
        match asked.await.ok()? {
            Enrolled::Issued(certs) => {
                let now = Clock::system().now();
                Some(self.trust.verify_client(&certs[0], &[], now).unwrap())
            }
            Enrolled::Pending { .. } => None,
        }
    }

    async fn lists(&self) -> Option<Vec<Told>> {
        let mut lists = Vec::new();
        for ca in self.trust.issuing_cas() {
            let Fetched::New { bytes, .. } = self.source.crl(ca.id(), None).await.ok()? else {
                panic!("there is nothing to compare with");
            };
            let now = Clock::system().now();
            let crl = self.trust.verify_crl(ca.id(), &bytes, now).unwrap();
            lists.push(Told::List {
                issuer: ca.id(),
                number: crl.number(),
                digest: *crl.digest(),
            });
        }
        Some(lists)
    }
}

/// Devices come and go until the origin dies. Notes what was told, as soon as it was.
async fn bustle(origin: &Origin, admin: &AdminClient, pin: [u8; 32], name: &str, told: &Heard) {
    let caller = Caller::meet(origin, pin).await;
    let note = |it: Told| told.lock().unwrap().push(it);
    for n in 0.. {
        let id = format!("{name}-{n}");
        let Some(join) = invite(admin).await else {
            return;
        };
        let Some(peer) = caller.enrol(&id, &join).await else {
            return;
        };
        let serial = peer.serial().to_string();
        note(Told::Issued {
            id: id.clone(),
            serial,
        });
        let wish = Revocation::default();
        if n % 2 == 0 {
            let path = format!("/devices/{id}/revoke");
            if admin.post::<DeviceView>(&path, &wish).await.is_err() {
                return;
            }
            note(Told::Revoked { id });
        }
        let Some(lists) = caller.lists().await else {
            return;
        };
        lists.into_iter().for_each(note);
    }
}

async fn invite(admin: &AdminClient) -> Option<Join> {
    let new = NewToken {
        role: "client".to_owned(),
        auto_approve: true,
        group: None,
        device: None,
        uses: 1,
        ttl_seconds: 3600,
    };
    let made: TokenCreated = admin.post("/tokens", &new).await.ok()?;
    Some(made.join.parse().unwrap())
}

/// Holds what this origin knows against what its predecessors told.
async fn check(caller: &Caller, admin: &AdminClient, told: &[Told]) {
    let now = caller.lists().await.unwrap();
    for it in told {
        match it {
            Told::Issued { id, serial } => {
                let device: DeviceView = admin.get(&format!("/devices/{id}")).await.unwrap();
                let mut held = device.certificates.iter();
                assert!(held.any(|held| held.serial == *serial), "{it:?} {device:?}");
            }
            Told::Revoked { id } => {
                let device: DeviceView = admin.get(&format!("/devices/{id}")).await.unwrap();
                assert_eq!(device.state, "revoked", "{it:?}");
            }
            Told::List {
                issuer,
                number,
                digest,
            } => {
                let is_kept = now.iter().any(|now| {
                    matches!(now, Told::List { issuer: of, number: at, digest: with }
                        if of == issuer && (at > number || (at == number && with == digest)))
                });
                assert!(is_kept, "{it:?} {now:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_killed_again_and_again_keeps_to_all_that_it_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.display().to_string();
    let made = larder(&["init", "--data", &at, "--address", "127.0.0.1"]);
    assert!(made.wait_with_output().unwrap().status.success());
    let (admin, told) = (AdminClient::new(&data), Heard::default());
    let mut pin = None;
    // A slow machine needs more rounds for the same.
    for round in 0..100_u64 {
        if round >= 10 && is_enough(&told) {
            break;
        }
        let origin = Origin::start(&data);
        let pin = match pin {
            Some(pin) => pin,
            None => *pin.insert(invite(&admin).await.unwrap().pin),
        };
        let caller = Caller::meet(&origin, pin).await;
        let before = told.lock().unwrap().clone();
        check(&caller, &admin, &before).await;
        // At another moment each time.
        let until = Instant::now() + Duration::from_millis(40 + 37 * (round % 10));
        let name = format!("d{round}");
        tokio::select! {
            () = bustle(&origin, &admin, pin, &name, &told) => panic!("nothing ends by itself"),
            () = sleep_until(until) => {}
        }
        // SIGKILL, in whatever it is doing for whoever has just hung up.
        drop(origin);
    }
    let origin = Origin::start(&data);
    let caller = Caller::meet(&origin, pin.unwrap()).await;
    assert!(is_enough(&told), "{told:?}");
    check(&caller, &admin, &told.into_inner().unwrap()).await;
}

/// Whether more was told than comes of starting alone.
fn is_enough(told: &Heard) -> bool {
    let told = told.lock().unwrap();
    let count = |is: fn(&Told) -> bool| told.iter().filter(|it| is(it)).count();
    let issued = count(|it| matches!(it, Told::Issued { .. }));
    let revoked = count(|it| matches!(it, Told::Revoked { .. }));
    issued > 10 && revoked > 5
}
