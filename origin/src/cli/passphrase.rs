//! The passphrase of the root's key.

use std::path::PathBuf;

use anyhow::Context as _;
use certs::key::Passphrase;
use certs::keyfile;
use clap::Args;

/// Where the passphrase is.
#[derive(Args, Clone, Debug)]
pub(super) struct RootPassphrase {
    /// The file with the passphrase of the root's key, which nobody else may read
    #[arg(long, env = "LARDER_ROOT_PASSPHRASE_FILE", value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
}

impl RootPassphrase {
    /// Reads the passphrase, if a file is named.
    pub(super) fn load(&self) -> anyhow::Result<Option<Passphrase>> {
        let file = self.root_passphrase_file.as_deref();
        let loaded = file.map(keyfile::load_passphrase).transpose();
        loaded.context("cannot get the passphrase of the root's key")
    }

    /// Reads the passphrase.
    pub(super) fn need(&self) -> anyhow::Result<Passphrase> {
        let passphrase = self.load()?;
        passphrase.context("name the file with the passphrase: --root-passphrase-file FILE")
    }
}
