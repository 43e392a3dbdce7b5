//! `restore`: a backup of the database, put in place.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use service::{Clock, Output};

use super::{Place, RootPassphrase};
use crate::admin::SOCKET_FILE;
use crate::audit::{Actor, acting_for};
use crate::restore::{Restored, restore};

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// The backup: a copy of larder.db
    file: PathBuf,

    #[command(flatten)]
    passphrase: RootPassphrase,
}

pub(super) async fn run(args: RestoreArgs, place: &Place, output: Output) -> anyhow::Result<()> {
    let config = place.config()?;
    if UnixStream::connect(config.data().join(SOCKET_FILE)).is_ok() {
        bail!("cannot restore while the origin runs: stop it first");
    }
    let (passphrase, now) = (args.passphrase.load()?, Clock::system().now());
    let work = restore(config.data(), &args.file, passphrase.as_ref(), now);
    let restored = acting_for(Actor::this_user(), work).await?;
    Ok(output.result(&restored)?)
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "restored {}; its epoch is {} now",
            self.deployment, self.epoch
        )?;
        if let Some(replaced) = &self.replaced {
            write!(f, "\nthe database that was here is {}", replaced.display())?;
        }
        write!(
            f,
            "\nwhat happened after the backup is forgotten: revoke again whom you revoked since"
        )
    }
}
