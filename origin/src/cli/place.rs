//! Where the data folder is.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use crate::admin::AdminClient;
use crate::config::Config;

/// Which origin is meant.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The settings file
    #[arg(long, global = true, env = "LARDER_ORIGIN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The data folder; with it no settings file is needed
    #[arg(long, global = true, env = "LARDER_ORIGIN_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Place {
    /// The settings: of the file named, or the defaults with the folder named, or of the file
    /// where the package puts it.
    ///
    /// # Errors
    ///
    /// Fails if both or neither are named, or if the file cannot be used.
    pub fn config(&self) -> anyhow::Result<Config> {
        match (&self.config, &self.data) {
            (Some(_), Some(_)) => {
                bail!("cannot use both --config and --data: the settings name the data folder")
            }
            (Some(file), None) => Ok(Config::load(file)?),
            (None, Some(data)) => Ok(Config::with_data(std::path::absolute(data)?)),
            (None, None) if Path::new(DEFAULT_FILE).exists() => {
                Ok(Config::load(Path::new(DEFAULT_FILE))?)
            }
            (None, None) => bail!("cannot tell which origin is meant: name --data or --config"),
        }
    }

    /// The way to the origin that runs there.
    ///
    /// # Errors
    ///
    /// Fails as [`Place::config`] does.
    pub fn admin(&self) -> anyhow::Result<AdminClient> {
        Ok(AdminClient::new(self.config()?.data()))
    }
}

/// Where the package puts the settings.
const DEFAULT_FILE: &str = "/etc/larder/origin.toml";
