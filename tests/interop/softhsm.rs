//! Keys that were made in a token of SoftHSM2, by OpenSC's tool, and never leave it: a root and an
//! issuing CA sign with them, and OpenSSL judges what they signed.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use certs::crl::{self, RevocationReason, RevokedCert};
use certs::pkcs11::{Pkcs11Uri, TokenKey};
use certs::{CaKind, Identity, Key, Role, Serial, issue, pem};
use tempfile::TempDir;

use crate::openssl::openssl;
use crate::program::Program;

/// Where Debian keeps the driver.
const DRIVER: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "4711";
/// Names the folder to [`with_settings`].
const FOLDER: &str = "LARDER_TOKEN_FOLDER";
const DAY: Duration = Duration::from_secs(86_400);

/// A token, and where its driver finds it.
struct Token {
    folder: TempDir,
}

impl Token {
    async fn make() -> anyhow::Result<Self> {
        let token = Self {
            folder: tempfile::tempdir()?,
        };
        let private = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(token.folder.path(), private(0o700))?;
        fs::create_dir(token.at("tokens"))?;
        let tokens = token.at("tokens").display().to_string();
        fs::write(
            token.at("settings"),
            format!("directories.tokendir = {tokens}\n"),
        )?;
        fs::write(token.at("pin"), format!("{PIN}\n"))?;
        fs::set_permissions(token.at("pin"), private(0o600))?;
        token
            .runs("softhsm2-util")
            .args(["--init-token", "--free", "--label", "larder"])
            .args(["--pin", PIN, "--so-pin", "0815"])
            .succeed()
            .await?;
        Ok(token)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn runs(&self, program: &str) -> Program {
        Program::new(program).env("SOFTHSM2_CONF", self.at("settings"))
    }

    /// OpenSC's tool, logged in.
    fn tool(&self) -> Program {
        self.runs("pkcs11-tool")
            .args(["--module", DRIVER, "--token-label", "larder"])
            .args(["--login", "--pin", PIN])
    }
}

fn open(folder: &Path, object: &str) -> anyhow::Result<TokenKey> {
    let pin = folder.join("pin");
    let uri = format!(
        "pkcs11:token=larder;object={object}?pin-source=file:{}&module-path={DRIVER}",
        pin.display()
    );
    Ok(TokenKey::open(&uri.parse::<Pkcs11Uri>()?, None)?)
}

fn serial(number: u8) -> Serial {
    Serial::from_random([number; 16])
}

/// Signs two clients' certificates and the lists that revoke one of them.
fn sign(folder: &Path) -> anyhow::Result<()> {
    let now = service::Clock::system().now();
    let deployment = "token".parse()?;
    let root = issue::root(&deployment, 1, open(folder, "root")?, serial(1), now)?;
    let key = open(folder, "client-ca")?;
    let ca = issue::issuing_ca(CaKind::Client, 1, &root, key, serial(2), now)?;
    let write = |name: &str, der: &[u8]| fs::write(folder.join(name), pem::from_certs(&[der]));
    write("root.pem", root.cert_der())?;
    write("ca.pem", ca.cert_der())?;
    for (name, number) in [("good", 3), ("bad", 4)] {
        let identity = Identity {
            deployment: deployment.clone(),
            role: Role::Client,
            id: name.parse()?,
        };
        let (spki, number) = (Key::generate()?.spki_der().to_vec(), serial(number));
        let leaf = issue::leaf(&identity, &spki, &ca, number, now, DAY)?;
        write(&format!("{name}.pem"), &leaf)?;
    }
    let revoked = [RevokedCert {
        serial: serial(4),
        revoked_at: now,
        reason: RevocationReason::KeyCompromise,
    }];
    let (from, until) = (crl::backdated(now), now + DAY.as_secs() as i64);
    for (name, ca, entries) in [("root", &root, &[][..]), ("ca", &ca, &revoked[..])] {
        let list = crl::sign(ca, 1, entries, from, until)?;
        fs::write(folder.join(format!("{name}.crl")), list)?;
    }
    Ok(())
}

/// The driver takes its settings from the environment, which a running process does not change.
#[test]
#[ignore = "is run by the test below, with the driver's settings"]
fn with_settings() -> anyhow::Result<()> {
    match env::var_os(FOLDER) {
        Some(folder) => sign(Path::new(&folder)),
        None => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_believes_what_keys_in_a_token_have_signed() -> anyhow::Result<()> {
    let token = Token::make().await?;
    for (label, id) in [("root", "01"), ("client-ca", "02")] {
        token
            .tool()
            .args(["--keypairgen", "--key-type", "EC:prime256v1"])
            .args(["--sensitive", "--label", label, "--id", id])
            .succeed()
            .await?;
    }
    let own = env::current_exe()?.display().to_string();
    let signed = token
        .runs(&own)
        .args(["--ignored", "--exact", "softhsm::with_settings"])
        .env(FOLDER, token.folder.path())
        .run()
        .await?;
    signed.must_say("1 passed")?;
    let mut lists = Vec::new();
    for list in ["root.crl", "ca.crl"] {
        let read = openssl("crl -inform DER -in").arg(token.at(list));
        lists.extend(read.succeed().await?);
    }
    fs::write(token.at("lists.pem"), lists)?;
    for (name, wanted) in [("good", ": OK"), ("bad", "certificate revoked")] {
        let ended = openssl("verify -x509_strict -check_ss_sig -crl_check_all -CAfile")
            .arg(token.at("root.pem"))
            .arg("-untrusted")
            .arg(token.at("ca.pem"))
            .arg("-CRLfile")
            .arg(token.at("lists.pem"))
            .arg(token.at(&format!("{name}.pem")))
            .run()
            .await?;
        ended.must_say(wanted)?;
    }
    let listed = token.tool().args(["--list-objects", "--type", "privkey"]);
    let listed = listed.run().await?;
    let inside = listed.everything().matches("never extractable").count();
    ensure!(inside == 2, "{}", listed.told());
    Ok(())
}
