//! An issuing CA whose key lies in a token of SoftHSM2.
//!
//! `cargo test -p origin --test softhsm -- --ignored`, with the Debian package `softhsm2`.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use certs::{CaKind, Key, Role};
use origin::authority::rotate::{KeyView, Which, retire, rotate, view};
use origin::authority::{Authority, NewDeployment, init};
use origin::config::Config;
use origin::ledger::{Ledger, commit};
use service::Clock;

const DAY: i64 = 86_400;
const DRIVER: &str = "/usr/lib/softhsm/libsofthsm2.so";

#[test]
#[ignore = "needs SoftHSM2, and starts itself anew for its settings"]
fn a_ca_issues_signs_its_lists_and_retires_from_a_token() {
    // The driver reads its settings from the environment, which a running process cannot change
    // for itself.
    if let Some(folder) = std::env::var_os("LARDER_SOFTHSM_FOLDER") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(in_token(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("tokens")).unwrap();
    let settings = folder.path().join("softhsm2.conf");
    let tokens = folder.path().join("tokens").display().to_string();
    fs::write(&settings, format!("directories.tokendir = {tokens}\n")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "a_ca_issues"])
        .env("SOFTHSM2_CONF", &settings)
        .env("LARDER_SOFTHSM_FOLDER", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

fn tool(args: &[&str]) {
    let output = Command::new("softhsm2-util").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Puts a key into a token, and returns how it is named.
fn make_token(folder: &Path) -> String {
    let pins = ["--pin", "4711", "--so-pin", "0815"];
    tool(&[&["--init-token", "--free", "--label", "larder"], &pins[..]].concat());
    let key = folder.join("key.pem");
    fs::write(&key, Key::generate().unwrap().to_pem().as_bytes()).unwrap();
    let file = key.to_str().unwrap();
    let name = ["--label", "client-ca", "--id", "01", "--token", "larder"];
    tool(&[&["--import", file, "--pin", "4711"], &name[..]].concat());
    fs::remove_file(&key).unwrap();
    let pin = folder.join("pin");
    fs::write(&pin, "4711\n").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let pin = pin.display();
    format!("pkcs11:token=larder;object=client-ca?pin-source=file:{pin}&module-path={DRIVER}")
}

async fn in_token(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    let (uri, data) = (make_token(folder), folder.join("origin"));
    let offset = Arc::new(AtomicI64::new(0));
    let clock = Clock::fixed_offset(Arc::clone(&offset));
    let new = NewDeployment {
        id: "acme".parse().unwrap(),
        origin_id: "origin".parse().unwrap(),
        host: "127.0.0.1".to_owned(),
    };
    init(&data, new, clock.now()).await.unwrap();
    let ledger = Ledger::open(&data.join(origin::LEDGER_FILE)).await.unwrap();
    let lives = Config::with_data(data.clone()).certificates().clone();
    let open = async || Authority::open(&data, ledger.clone(), lives.clone(), clock.clone()).await;
    let authority = open().await.unwrap();
    let which = Which::InToken(CaKind::Client, Box::new(uri.parse().unwrap()));
    rotate(&data, &ledger, &which, None, DAY, clock.now())
        .await
        .unwrap();
    authority.reload().await.unwrap();
    offset.fetch_add(2 * DAY, Ordering::Relaxed);
    authority.refresh_crls().await.unwrap();

    let key = Key::generate().unwrap();
    let mut tx = ledger.write().await.unwrap();
    let id = "laptop".parse().unwrap();
    let issued = authority
        .issue(&mut tx, Role::Client, &id, key.spki_der())
        .await
        .unwrap();
    commit(tx).await.unwrap();
    let trust = authority.trust();
    let peer = trust
        .verify_client(&issued.certificate.der, &[], clock.now())
        .unwrap();
    assert_eq!(trust.check(&peer, clock.now()), Ok(()));
    let cas = view(&data, &mut ledger.read().await.unwrap(), clock.now())
        .await
        .unwrap();
    let new = cas
        .iter()
        .find(|ca| ca.kind == "client" && ca.generation == 2)
        .unwrap();
    assert_eq!((new.key, new.state), (KeyView::Token, "in use"));
    assert_eq!(new.issuer, peer.issuer().to_string());
    // The next start finds the key again; back to a file, and the token signs its last list.
    let again = open().await.unwrap();
    let which = Which::Issuing(CaKind::Client);
    rotate(&data, &ledger, &which, None, DAY, clock.now())
        .await
        .unwrap();
    offset.fetch_add(20 * DAY, Ordering::Relaxed);
    retire(&data, &ledger, "client", 2, clock.now())
        .await
        .unwrap();
    again.reload().await.unwrap();
    let last = again.trust().crls().current(peer.issuer()).unwrap();
    assert!(last.next_update() > clock.now() + 1000 * DAY);
}
