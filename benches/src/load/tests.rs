//! A small server in this process is loaded, and counts along.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::crl::{self, CrlStore};
use certs::tls::{self, CertCell, Listener as Purpose};
use certs::{Ca, CaKind, Identity, Key, Role, Serial, Trust, issue, key, pem};
use clap::Parser as _;
use content::locator::{Locator, PackEntry, Run};
use content::statement::{
    FilesetEntry, Payload, RevisionEntry, Signature, Snapshot, Timestamp, seal,
};
use content::{Digest, PackId, RevisionNumber};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use protocol::{Hello, Route};
use service::Clock;
use tempfile::TempDir;
use transport::listen::Limits;
use transport::{Body, ListenSettings, Listener, respond};

use super::{Args, Summary};

/// A booster that answers every pack with the same bytes, and a client's data folder.
struct Scene {
    data: TempDir,
    listener: Listener,
    served: Arc<AtomicU64>,
}

impl Scene {
    async fn new() -> Self {
        let clock = Clock::system();
        let now = clock.now();
        let deployment = "acme".parse().unwrap();
        let root = issue::root(&deployment, 1, new_key(), serial(), now).unwrap();
        let ca = |kind| issue::issuing_ca(kind, 1, &root, new_key(), serial(), now).unwrap();
        let (node, client) = (ca(CaKind::Node), ca(CaKind::Client));
        let trust = Arc::new(trust(&root, &[&node, &client], now));
        let data = TempDir::new().unwrap();
        let (chain, key) = own(&client, Role::Client, now);
        let folder = data.path().join("identity");
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("roots.pem"),
            pem::from_certs(&[root.cert_der()]),
        )
        .unwrap();
        fs::write(folder.join("cert.pem"), pem::from_certs(&chain)).unwrap();
        fs::write(folder.join("key.pem"), key.to_pem().as_bytes()).unwrap();

        let (chain, key) = own(&node, Role::Booster, now);
        let cell = Arc::new(CertCell::new(&chain, &key).unwrap());
        let purpose = Purpose::Data {
            roles: vec![Role::Client],
        };
        let time = tls::time_from(move || now);
        let tls = tls::server_config(&purpose, &trust, &cell, &time).unwrap();
        let settings = ListenSettings {
            tls: Arc::new(tls),
            trust,
            clock,
            limits: Limits::default(),
        };
        let served = Arc::<AtomicU64>::default();
        let count = Arc::clone(&served);
        let handler = move |request: Request<Incoming>, _| {
            let answer = answer(request.uri().path(), &count);
            async move { answer }
        };
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(local, settings, handler, Arc::new(())).await;
        Self {
            data,
            listener: listener.unwrap(),
            served,
        }
    }

    fn identity(&self, file: &str) -> PathBuf {
        self.data.path().join("identity").join(file)
    }

    /// Loads the server with these words and those that everybody needs.
    async fn load(&self, words: &str) -> anyhow::Result<Summary> {
        let address = self.listener.local_addr();
        let mut line = vec!["larder-load".to_owned()];
        for word in words.split_ascii_whitespace() {
            line.push(word.replace("ADDRESS", &address.to_string()));
        }
        if !words.contains("--server") {
            for (option, file) in [
                ("--cacert", "roots.pem"),
                ("--cert", "cert.pem"),
                ("--key", "key.pem"),
            ] {
                line.extend([option.to_owned(), self.identity(file).display().to_string()]);
            }
        } else {
            line.extend(["--data".to_owned(), self.data.path().display().to_string()]);
        }
        super::load(Args::try_parse_from(line)?).await
    }

    async fn end(self) {
        // How it ends is transport's own affair.
        let _drained = self.listener.drain(Duration::from_secs(5)).await;
    }
}

fn trust(root: &Ca, cas: &[&Ca], now: i64) -> Trust {
    let store = Arc::new(CrlStore::new(Duration::ZERO));
    let trust = Trust::new(&[root.cert_der()], store, now).unwrap();
    for ca in cas {
        trust.add_issuing_ca(ca.cert_der(), now).unwrap();
    }
    for ca in cas.iter().chain([&root]) {
        let der = crl::sign(ca, 1, &[], crl::backdated(now), now + 86_400).unwrap();
        let list = trust.verify_crl(ca.id(), &der, now).unwrap();
        trust.crls().install(list).unwrap();
    }
    trust
}

fn own(ca: &Ca, role: Role, now: i64) -> (Vec<Vec<u8>>, Key) {
    let key = new_key();
    let identity = Identity {
        deployment: ca.cert().deployment().clone(),
        role,
        id: "b1".parse().unwrap(),
    };
    let lifetime = issue::default_lifetime(role);
    let leaf = issue::leaf(&identity, key.spki_der(), ca, serial(), now, lifetime).unwrap();
    (vec![leaf, ca.cert_der().to_vec()], key)
}

fn new_key() -> Key {
    Key::generate().unwrap()
}

fn serial() -> Serial {
    Serial::from_random(key::random().unwrap())
}

/// Answers as a booster would whose fileset `tools` has three packs.
fn answer(path: &str, served: &AtomicU64) -> Response<Body> {
    let ok = |bytes: Vec<u8>| Response::new(Body::full(bytes));
    match Route::parse(path) {
        Ok(Route::Hello) => ok(hello().encode()),
        Ok(Route::Timestamp) => ok(sealed(&timestamp())),
        Ok(Route::Snapshot(_)) => ok(sealed(&snapshot())),
        Ok(Route::Statement(_)) => ok(sealed(&locator())),
        Ok(Route::Pack(..)) => {
            served.fetch_add(1, Ordering::Relaxed);
            ok(vec![7; PACK_BYTES])
        }
        Ok(_) | Err(_) => respond::status(StatusCode::NOT_FOUND),
    }
}

fn sealed<T: Payload>(payload: &T) -> Vec<u8> {
    let signature = Signature {
        signature: b"unjudged".to_vec(),
        chain: vec![b"leaf".to_vec()],
        key_id: "k".to_owned(),
    };
    let Ok(envelope) = seal(payload, |_| Ok::<_, std::convert::Infallible>(signature));
    envelope
}

fn hello() -> Hello {
    Hello {
        deployment: "acme".to_owned(),
        role: "booster".to_owned(),
        id: "b1".to_owned(),
        protocol_min: 1,
        protocol_max: 1,
        time: 0,
    }
}

fn timestamp() -> Timestamp {
    Timestamp {
        deployment: "acme".to_owned(),
        epoch: 1,
        version: 1,
        issued: 0,
        expires: 1,
        snapshot: Digest::of(&sealed(&snapshot())),
        deployment_document: Digest::of(b"document"),
        crl_minimums: Vec::new(),
    }
}

fn snapshot() -> Snapshot {
    let number = RevisionNumber(1);
    Snapshot {
        deployment: "acme".to_owned(),
        created: 0,
        filesets: vec![FilesetEntry {
            name: "tools".parse().unwrap(),
            current: number,
            retained: vec![RevisionEntry {
                number,
                statement: Digest::of(b"statement"),
                locator: Digest::of(&sealed(&locator())),
            }],
        }],
    }
}

fn locator() -> Locator {
    let pack = |name: &[u8]| PackEntry {
        id: PackId(Digest::of(name)),
        header_bytes: 100,
        total_bytes: PACK_BYTES as u32,
    };
    Locator {
        deployment: "acme".to_owned(),
        fileset: "tools".parse().unwrap(),
        number: RevisionNumber(1),
        root: Digest::of(b"root"),
        created: 0,
        index_packs: 1,
        packs: vec![pack(b"a"), pack(b"b"), pack(b"c")],
        runs: vec![Run {
            pack: 0,
            first: 0,
            count: 1,
            repeat: false,
        }],
    }
}

#[track_caller]
fn check(summary: &Summary, requests: u64) {
    assert_eq!(summary.first_error, None);
    assert_eq!(
        (summary.requests, summary.errors, summary.cut_off),
        (requests, 0, 0)
    );
    assert_eq!(summary.bytes, requests * PACK_BYTES as u64);
    let latency = summary.latency_ms;
    assert!(0.0 < latency.p50 && latency.p50 <= latency.p999 && latency.p999 <= latency.max);
    assert!(summary.gib_per_second > 0.0 && summary.requests_per_second > 0.0);
}

#[tokio::test]
async fn the_counts_are_those_of_the_server_with_either_version_of_http() {
    let scene = Scene::new().await;
    let pack = Route::Pack("tools".parse().unwrap(), PackId(Digest::of(b"a")));
    let url = format!("https://b1.acme.larder.internal{pack} --connect ADDRESS");
    let one = format!("{url} --requests 40 --connections 4");
    let summary = scene.load(&one).await.unwrap();
    check(&summary, 40);
    assert!(summary.handshakes <= 4);
    assert_eq!(scene.served.load(Ordering::Relaxed), 40);

    let two = format!("{url} --requests 60 --connections 2 --http 2 --streams 5");
    check(&scene.load(&two).await.unwrap(), 60);
    assert_eq!(scene.served.load(Ordering::Relaxed), 100);
    scene.end().await;
}

#[tokio::test]
async fn a_fileset_is_found_with_a_clients_data_folder_and_the_servers_cpu_time_is_measured() {
    let scene = Scene::new().await;
    let pid = std::process::id();
    let words = format!("--fileset tools --server b1@ADDRESS --requests 30 --pid {pid}");
    let summary = scene.load(&words).await.unwrap();
    check(&summary, 30);
    assert!(summary.server_cpu_seconds_per_gib.is_some());
    scene.end().await;
}

#[tokio::test]
async fn a_list_of_objects_is_asked_for_in_turn_and_refusals_are_counted() {
    let scene = Scene::new().await;
    let list = scene.data.path().join("list");
    let pack = Route::Pack("tools".parse().unwrap(), PackId(Digest::of(b"a")));
    fs::write(&list, format!("# packs\n{pack}\n\n/v1/nothing\n")).unwrap();
    let words = format!(
        "https://b1.acme.larder.internal{pack} --connect ADDRESS --object-list {} \
         --requests 9 --connections 1",
        list.display()
    );
    let summary = scene.load(&words).await.unwrap();
    assert_eq!((summary.requests, summary.errors), (6, 3));
    assert_eq!(summary.handshakes, 1);
    assert_eq!(
        summary.first_error.as_deref(),
        Some("cannot get /v1/nothing: status 404 Not Found")
    );
    scene.end().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_is_said_before_the_clock_starts() {
    let scene = Scene::new().await;
    let check = async |words: &str, expected: &str| {
        let error = scene.load(words).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{words}: {error}");
    };
    check("", "want a URL, or --fileset").await;
    check("http://localhost/", "want https://").await;
    check("https://a/ https://b/", "two servers at once").await;
    check("https://x/ --connect 192.0.2.1:443", "--allow-remote").await;
    check(
        "https://other.acme.larder.internal/ --connect ADDRESS",
        "cannot connect",
    )
    .await;
    check(
        "--fileset toys --server b1@ADDRESS",
        "cannot find the fileset toys",
    )
    .await;
    check("https://a/ --connections 5000", "invalid value").await;
    scene.end().await;
}

const PACK_BYTES: usize = 20_000;
