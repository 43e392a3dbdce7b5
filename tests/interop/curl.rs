//! curl, as somebody calls it who has read the operators' guide.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::answer::Answer;
use crate::program::Program;

/// Calls to one party under its own name.
#[derive(Clone, Debug)]
pub(crate) struct Curl {
    args: Vec<String>,
    base: String,
}

impl Curl {
    /// To the party called `id` at `address`, whose certificate must chain to one in `roots`.
    pub(crate) fn to(id: &str, address: SocketAddr, roots: &Path) -> Self {
        let (host, port) = (host(id), address.port());
        let mut curl = Self::plain(&format!("https://{host}:{port}"));
        let resolve = format!("{host}:{port}:{}", address.ip());
        curl.args.extend(["--resolve".to_owned(), resolve]);
        curl.args.extend(["--cacert".to_owned(), text(roots)]);
        curl
    }

    /// To anything that speaks HTTP at `base`.
    pub(crate) fn plain(base: &str) -> Self {
        // Nobody's own settings and nobody's proxy.
        let args = ["-q", "--noproxy", "*", "--silent", "--show-error"];
        let limits = ["--max-time", "20", "--connect-timeout", "10"];
        Self {
            args: args
                .iter()
                .chain(&limits)
                .map(ToString::to_string)
                .collect(),
            base: base.to_owned(),
        }
    }

    /// The same, showing the certificate of an enrolled party with the data folder `data`.
    pub(crate) fn with(&self, data: &Path) -> Self {
        let identity = data.join("identity");
        self.showing(&identity.join("cert.pem"), &identity.join("key.pem"))
    }

    /// The same, showing a certificate.
    pub(crate) fn showing(&self, cert: &Path, key: &Path) -> Self {
        let own = [
            "--cert".to_owned(),
            text(cert),
            "--key".to_owned(),
            text(key),
        ];
        let mut curl = self.clone();
        curl.args.extend(own);
        curl
    }

    /// The same with more arguments.
    pub(crate) fn and<A: ToString>(&self, args: impl IntoIterator<Item = A>) -> Self {
        let mut curl = self.clone();
        curl.args
            .extend(args.into_iter().map(|arg| arg.to_string()));
        curl
    }

    /// The program that asks for `path`.
    pub(crate) fn program(&self, path: &str) -> Program {
        Program::new("curl")
            .args(&self.args)
            .arg(format!("{}{path}", self.base))
    }

    /// Asks for `path`. Any status is an answer.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let heads = tempfile::NamedTempFile::new()?;
        let dump = ["--dump-header".to_owned(), text(heads.path())];
        let ended = self.and(dump).program(path).run().await?;
        ensure!(ended.status.success(), "no answer: {}", ended.told());
        Answer::parse(&fs::read_to_string(heads.path())?, ended.stdout)
    }

    /// Asks for the head of `path`.
    pub(crate) async fn head(&self, path: &str) -> anyhow::Result<Answer> {
        let mut answer = self.and(["--head"]).get(path).await?;
        // With --head, curl writes the head where the body would go.
        answer.body.clear();
        Ok(answer)
    }
}

/// The name in the certificate of the booster or origin called `id` of a testbed.
pub(crate) fn host(id: &str) -> String {
    format!("{id}.bed.larder.internal")
}

/// Where an enrolled party keeps the roots that it trusts.
pub(crate) fn roots_of(data: &Path) -> PathBuf {
    data.join("identity/roots.pem")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
