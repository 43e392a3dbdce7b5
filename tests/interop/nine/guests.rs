//! Everybody who may knock at a listener: nine certificates and two more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::key::random;
use certs::{Ca, CaKind, Identity, Key, RefusalReason, Role, Serial, issue, keyfile, pem};
use tests::testbed::Testbed;

use crate::openssl::{Pair, openssl};

/// Somebody with a certificate, or with none.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) pair: Option<Pair>,
    /// Why he is refused, by whom he is.
    pub(crate) reason: Option<RefusalReason>,
}

/// A CA of a bed's deployment, with its key.
fn own_ca(bed: &Testbed, kind: CaKind) -> anyhow::Result<Ca> {
    let cas = bed.origin().authority().trust().issuing_cas();
    let ca = cas.iter().find(|ca| ca.kind() == Some(kind));
    let ca = ca.context("a deployment has a CA of each kind")?;
    let key = keyfile::load(&key_file(bed, kind))?;
    Ok(Ca::load(ca.der(), key)?)
}

/// Where the origin of a bed keeps a CA's key.
fn key_file(bed: &Testbed, kind: CaKind) -> PathBuf {
    let name = kind.as_str().to_lowercase();
    bed.path(&format!("origin/keys/{name}-g1.pem"))
}

/// All of them. The clients `c1` and `c2` are enrolled, and `c2` is revoked.
pub(crate) async fn all(bed: &Testbed) -> anyhow::Result<Vec<Guest>> {
    use RefusalReason as Why;
    let folder = bed.path("guests");
    fs::create_dir_all(&folder)?;
    let now = bed.clock().now();
    let ca = own_ca(bed, CaKind::Client)?;
    let mint = |name: &str, ca: &Ca, now: i64, life: Duration| {
        let key = Key::generate()?;
        let deployment = ca.cert().deployment().clone();
        let identity = identity(deployment, name)?;
        let leaf = issue::leaf(&identity, key.spki_der(), ca, serial()?, now, life)?;
        let chain = [leaf.as_slice(), ca.cert_der()];
        write(&folder, name, &pem::from_certs(&chain), &key)
    };
    let week = Duration::from_secs(7 * 86_400);
    let stranger = foreign_ca("stranger", now)?;
    // A deployment of our own name, with other keys.
    let impostor = foreign_ca(ca.cert().deployment().as_str(), now)?;
    let lonely = mint("lonely", &impostor, now, week)?;
    keep_leaf(&lonely)?;
    let guest = |name, pair, reason| Guest { name, pair, reason };
    Ok(vec![
        guest("in order", Some(Pair::of(&bed.path("c1"))), None),
        guest(
            "revoked",
            Some(Pair::of(&bed.path("c2"))),
            Some(Why::Revoked),
        ),
        guest(
            "of another CA",
            Some(mint("foreign", &stranger, now, week)?),
            Some(Why::UnknownIssuer),
        ),
        guest(
            "of a CA of that name with another key",
            Some(lonely),
            Some(Why::BadSignature),
        ),
        guest(
            "the same, with that CA's certificate",
            Some(mint("false", &impostor, now, week)?),
            Some(Why::BadSignature),
        ),
        guest(
            "expired",
            // As long ago as its CA allows.
            Some(mint("expired", &ca, now - 300, Duration::ZERO)?),
            Some(Why::Expired),
        ),
        guest(
            "not yet valid",
            Some(mint("early", &ca, now + 86_400, week)?),
            Some(Why::NotYetValid),
        ),
        guest(
            "for servers",
            Some(for_servers(&folder, &ca, &key_file(bed, CaKind::Client)).await?),
            Some(Why::WrongEku),
        ),
        guest("none", None, Some(Why::NoCertificate)),
    ])
}

/// A certificate of the right CA, for the wrong purpose: by OpenSSL, as we do not make such.
async fn for_servers(folder: &Path, ca: &Ca, ca_key: &Path) -> anyhow::Result<Pair> {
    let at = |name: &str| folder.join(name);
    fs::write(at("ca.pem"), pem::from_certs(&[ca.cert_der()]))?;
    let name = identity(ca.cert().deployment().clone(), "server")?.uri();
    let extensions = format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=serverAuth\nsubjectAltName=URI:{name}\n\
         authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    );
    fs::write(at("server.ext"), extensions)?;
    let key = Key::generate()?;
    let pair = write(folder, "server", "", &key)?;
    let request = openssl("req -new -subj /CN=server -key").arg(&pair.key);
    let request = request.succeed().await?;
    let cert = openssl("x509 -req -days 7 -set_serial 4711 -CA")
        .arg(at("ca.pem"))
        .arg("-CAkey")
        .arg(ca_key)
        .arg("-extfile")
        .arg(at("server.ext"))
        .input(request)
        .succeed()
        .await?;
    let chain = [cert, fs::read(at("ca.pem"))?].concat();
    fs::write(&pair.cert, chain)?;
    Ok(pair)
}

/// The Client CA of a deployment of somebody else's.
fn foreign_ca(name: &str, now: i64) -> anyhow::Result<Ca> {
    let root = issue::root(&name.parse()?, 1, Key::generate()?, serial()?, now)?;
    let (key, number) = (Key::generate()?, serial()?);
    let ca = issue::issuing_ca(CaKind::Client, 1, &root, key, number, now)?;
    Ok(ca)
}

fn identity(deployment: certs::DeploymentId, id: &str) -> anyhow::Result<Identity> {
    Ok(Identity {
        deployment,
        role: Role::Client,
        id: id.parse()?,
    })
}

/// Leaves only the first certificate of a chain's file.
fn keep_leaf(pair: &Pair) -> anyhow::Result<()> {
    let chain = crate::openssl::certs_in(&pair.cert)?;
    ensure!(chain.len() == 2, "a leaf and its CA");
    crate::openssl::write_certs(pair.cert.clone(), &chain[..1])?;
    Ok(())
}

fn write(folder: &Path, name: &str, chain: &str, key: &Key) -> anyhow::Result<Pair> {
    let at = |kind: &str| -> PathBuf { folder.join(format!("{name}.{kind}")) };
    let pair = Pair {
        cert: at("pem"),
        key: at("key"),
    };
    fs::write(&pair.cert, chain)?;
    fs::write(&pair.key, key.to_pem().as_bytes())?;
    Ok(pair)
}

fn serial() -> anyhow::Result<Serial> {
    Ok(Serial::from_random(random()?))
}
