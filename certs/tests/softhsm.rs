//! Keys in a token of SoftHSM2: issuing, lists and signatures.
//!
//! `cargo test -p certs --features pkcs11 --test softhsm -- --ignored`, with the Debian package
//! `softhsm2`. `SOFTHSM2_MODULE` and `SOFTHSM2_UTIL` name driver and tool where they lie
//! elsewhere.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use certs::crl::{CrlStore, RevocationReason, RevokedCert, Verdict};
use certs::pkcs11::{Pkcs11Uri, TokenError, TokenKey};
use certs::{
    Ca, CaKind, ContentSigner, DeploymentId, Identity, Key, Role, Serial, SigningKey, Trust, crl,
    issue,
};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

#[test]
#[ignore = "needs SoftHSM2, and starts itself anew for its settings"]
fn every_issuing_key_may_lie_in_a_token() {
    // The driver reads its settings from the environment, which a running process cannot
    // change for itself.
    if let Some(folder) = std::env::var_os("LARDER_SOFTHSM_FOLDER") {
        return in_token(Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("larder-softhsm-{}", std::process::id()));
    fs::create_dir_all(folder.join("tokens")).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let settings = folder.join("softhsm2.conf");
    let tokens = folder.join("tokens").display().to_string();
    fs::write(&settings, format!("directories.tokendir = {tokens}\n")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "every_issuing_key"])
        .env("SOFTHSM2_CONF", &settings)
        .env("LARDER_SOFTHSM_FOLDER", &folder)
        .output()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

fn in_token(folder: &Path) {
    tool(&[
        "--init-token",
        "--free",
        "--label",
        "larder",
        "--pin",
        "4711",
        "--so-pin",
        "0815",
    ]);
    for name in ["root", "client-ca", "content-ca", "signer"] {
        import(folder, name);
    }
    // Before anybody has logged in: that counts for all of the process.
    let uri = reference(folder, "root");
    put(&folder.join("pin"), "4712\n");
    let error = TokenKey::open(&uri.parse().unwrap(), Some(&driver())).unwrap_err();
    assert!(matches!(error, TokenError::PinRefused), "{error}");
    let root = issue::root(&deployment(), 1, open(folder, "root"), serial(1), NOW).unwrap();
    let ca = |kind, name, number| {
        let key = open(folder, name);
        issue::issuing_ca(kind, 1, &root, key, serial(number), NOW).unwrap()
    };
    let client = ca(CaKind::Client, "client-ca", 2);
    let content = ca(CaKind::Content, "content-ca", 3);
    let crls = Arc::new(CrlStore::new(Duration::ZERO));
    let trust = Trust::new(&[root.cert_der()], Arc::clone(&crls), NOW).unwrap();
    for ca in [&client, &content] {
        trust.add_issuing_ca(ca.cert_der(), NOW).unwrap();
    }
    let key = Key::generate().unwrap();
    let leaf = leaf(&client, Role::Client, key.spki_der(), 4);
    let peer = trust.verify_client(&leaf, &[], NOW).unwrap();
    for ca in [&root, &client, &content] {
        let revoked = RevokedCert {
            serial: serial(4),
            revoked_at: NOW,
            reason: RevocationReason::Superseded,
        };
        let der = crl::sign(ca, 1, &[revoked], NOW, NOW + DAY).unwrap();
        crls.install(trust.verify_crl(ca.id(), &der, NOW).unwrap())
            .unwrap();
    }
    let reason = RevocationReason::Superseded;
    let verdict = crls.lookup(peer.issuer(), peer.serial(), NOW);
    assert_eq!(verdict, Verdict::Revoked { reason });
    sign_content(folder, &trust, &content);
    refuse(folder);
}

fn sign_content(folder: &Path, trust: &Trust, content: &Ca) {
    let key: Arc<dyn SigningKey> = open(folder, "signer").into();
    let chain = vec![
        leaf(content, Role::Signer, key.spki_der(), 5),
        content.cert_der().to_vec(),
    ];
    let signer = ContentSigner::new(chain, key).unwrap();
    for number in 0..200 {
        let message = format!("message {number}");
        let signature = signer.sign(message.as_bytes()).unwrap();
        let chain = signer.chain_der();
        certs::signer::verify_content(trust, chain, message.as_bytes(), &signature, NOW).unwrap();
    }
}

/// What is not there, not once, or not ours is named.
fn refuse(folder: &Path) {
    let try_open = |text: String| TokenKey::open(&text.parse().unwrap(), Some(&driver()));
    let error = try_open(reference(folder, "nobody")).unwrap_err();
    assert!(
        matches!(error, TokenError::Object { found: 0, .. }),
        "{error}"
    );
    let elsewhere = reference(folder, "root").replace("token=larder", "token=pantry");
    let error = try_open(elsewhere).unwrap_err();
    assert!(matches!(error, TokenError::Token { found: 0 }), "{error}");
    import(folder, "signer");
    let error = try_open(reference(folder, "signer")).unwrap_err();
    assert!(
        matches!(error, TokenError::Object { found: 2, .. }),
        "{error}"
    );
}

fn deployment() -> DeploymentId {
    "acme".parse().unwrap()
}

fn serial(number: u8) -> Serial {
    Serial::from_random([number; 16])
}

fn leaf(ca: &Ca, role: Role, spki_der: &[u8], number: u8) -> Vec<u8> {
    let name = Identity {
        deployment: deployment(),
        role,
        id: "x-1".parse().unwrap(),
    };
    let life = issue::default_lifetime(role);
    issue::leaf(&name, spki_der, ca, serial(number), NOW, life).unwrap()
}

fn open(folder: &Path, name: &str) -> TokenKey {
    let uri: Pkcs11Uri = reference(folder, name).parse().unwrap();
    TokenKey::open(&uri, Some(&driver())).unwrap()
}

fn reference(folder: &Path, name: &str) -> String {
    let pin = folder.join("pin");
    put(&pin, "4711\n");
    format!(
        "pkcs11:token=larder;object={name}?pin-source=file:{}",
        pin.display()
    )
}

/// Puts a new key into the token.
fn import(folder: &Path, name: &str) {
    let path = folder.join("key.pem");
    put(&path, &Key::generate().unwrap().to_pem());
    let path = path.display().to_string();
    // An id of its own, in hexadecimal.
    let id = format!(
        "{:032x}",
        u128::from_be_bytes(certs::key::random().unwrap())
    );
    tool(&[
        "--import", &path, "--token", "larder", "--label", name, "--id", &id, "--pin", "4711",
    ]);
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn driver() -> PathBuf {
    let named = std::env::var_os("SOFTHSM2_MODULE");
    named.map_or_else(|| "/usr/lib/softhsm/libsofthsm2.so".into(), PathBuf::from)
}

fn tool(arguments: &[&str]) {
    let program = std::env::var_os("SOFTHSM2_UTIL").unwrap_or_else(|| "softhsm2-util".into());
    let output = Command::new(program)
        .arg("--module")
        .arg(driver())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}
