//! The program's words: what can be typed after `larder-booster`.

mod cache;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{HostPort, Period};
use anyhow::{Context as _, bail};
use certs::DeviceId;
use clap::{Parser, Subcommand};
use member::{EnrolRequest, Kind, enrol};
use protocol::Join;
use serde::Serialize;
use service::{Clock, Output, logs, run_until_stopped};
use tracing::info;

use crate::config::Config;
use crate::server::{Booster, Bound};
use crate::status::status;

/// The booster of a branch: keeps what the origin publishes close to its devices
#[derive(Debug, Parser)]
#[command(name = "larder-booster", version, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,

    /// The settings file
    #[arg(
        long,
        global = true,
        env = "LARDER_BOOSTER_CONFIG",
        value_name = "FILE"
    )]
    config: Option<PathBuf>,

    /// The data folder; with it no settings file is needed
    #[arg(long, global = true, env = "LARDER_BOOSTER_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get this booster its certificate; run again, it goes on where it was
    Enrol {
        /// The join string that the operator of the origin handed out
        #[arg(env = "LARDER_JOIN", hide_env_values = true)]
        join: Join,

        /// What the booster shall be called [default: the host's name]
        #[arg(long, value_name = "NAME")]
        id: Option<DeviceId>,

        /// Where clients reach it, if that is not to be found out
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Vec<HostPort>,

        /// How long to wait for an operator
        #[arg(long, value_name = "TIME", default_value = "1d")]
        wait: Period,
    },
    /// See and change what the running booster keeps
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Run the booster until it is asked to stop
    Serve,
    /// Tell how the booster is
    Status,
}

impl Args {
    /// How results are printed.
    #[must_use]
    pub fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// The settings: of the file named, or the defaults with the folder named, or of the file
    /// where the package puts it.
    fn settings(&self) -> anyhow::Result<Config> {
        match (&self.config, &self.data) {
            (Some(_), Some(_)) => {
                bail!("cannot use both --config and --data: the settings name the data folder")
            }
            (Some(file), None) => Ok(Config::load(file)?),
            (None, Some(data)) => Ok(Config::with_data(std::path::absolute(data)?)),
            (None, None) if Path::new(DEFAULT_FILE).exists() => {
                Ok(Config::load(Path::new(DEFAULT_FILE))?)
            }
            (None, None) => bail!("cannot tell which booster is meant: name --data or --config"),
        }
    }
}

/// Does what `args` say.
///
/// # Errors
///
/// Fails as the command does.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let output = args.output();
    let config = args.settings()?;
    logs::init(config.log().format, &config.log().filter)?;
    let clock = Clock::system();
    match args.command {
        Command::Enrol {
            join,
            id,
            advertise,
            wait: Period(patience),
        } => {
            let request = EnrolRequest {
                advertise,
                data: config.data().to_owned(),
                id,
                join,
                kind: Kind::Booster,
                patience,
            };
            let report = enrol(request, &clock, |note| output.note(note)).await?;
            Ok(output.result(&report)?)
        }
        Command::Cache(command) => cache::run(command, &config, output).await,
        Command::Serve => serve(config, clock, output).await,
        Command::Status => {
            let status = status(&config, &clock).await?;
            Ok(output.result(&status)?)
        }
    }
}

/// Printed once it listens, for programs that started it.
#[derive(Debug, Serialize)]
struct Serving {
    #[serde(flatten)]
    bound: Bound,
}

async fn serve(config: Config, clock: Clock, output: Output) -> anyhow::Result<()> {
    let grace: Duration = config.stop_grace();
    service::raise_open_files();
    let booster = Booster::bind(config, clock)
        .await
        .context("cannot start the booster")?;
    let bound = booster.addresses();
    info!(content = %bound.content, enrol = %bound.enrol, ops = %bound.ops, "serving");
    output.result(&Serving { bound })?;
    run_until_stopped(booster, grace).await
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound {
            content,
            enrol,
            ops,
        } = self.bound;
        write!(
            f,
            "serving: content {content}, enrolment {enrol}, operators {ops}"
        )
    }
}

/// Where the package puts the settings.
const DEFAULT_FILE: &str = "/etc/larder/booster.toml";
