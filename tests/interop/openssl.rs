//! OpenSSL's programs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use certs::pem;

use crate::program::Program;

/// A certificate and its key, as PEM files.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Those of an enrolled party with the data folder `data`.
    pub(crate) fn of(data: &Path) -> Self {
        let identity = data.join("identity");
        Self {
            cert: identity.join("cert.pem"),
            key: identity.join("key.pem"),
        }
    }
}

/// A key that nobody knows with a certificate that it signed itself, in the new folder `folder`.
pub(crate) async fn self_signed(folder: &Path, name: &str) -> anyhow::Result<Pair> {
    fs::create_dir_all(folder)?;
    let pair = Pair {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 1")
        // Nothing must be wrong with it but who signed it.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "extendedKeyUsage=clientAuth"])
        .args(["-subj", &format!("/CN={name}"), "-keyout"])
        .arg(&pair.key)
        .arg("-out")
        .arg(&pair.cert)
        .succeed()
        .await?;
    Ok(pair)
}

/// `openssl` with these words.
pub(crate) fn openssl(words: &str) -> Program {
    Program::new("openssl").args(words.split_whitespace())
}

/// A TLS client that hangs up as soon as it has shaken hands.
pub(crate) fn s_client(address: SocketAddr, roots: &Path) -> Program {
    openssl("s_client -connect")
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(roots)
}

/// The certificates in a PEM file, in DER.
pub(crate) fn certs_in(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    Ok(pem::to_certs(&fs::read_to_string(path)?)?)
}

/// Writes certificates to a PEM file.
pub(crate) fn write_certs<C: AsRef<[u8]>>(path: PathBuf, certs: &[C]) -> anyhow::Result<PathBuf> {
    fs::write(&path, pem::from_certs(certs))?;
    Ok(path)
}

/// The public key in a PEM file that `kind` (`x509`, `req`) reads, as PEM.
pub(crate) async fn public_key(kind: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = openssl(kind).args(["-pubkey", "-noout", "-in"]).arg(path);
    program.succeed().await
}
