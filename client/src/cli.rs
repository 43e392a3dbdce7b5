//! The program's words: what can be typed after `larder-client`.

mod bar;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use certs::DeviceId;
use clap::{Parser, Subcommand};
use content::statement::InstallMode;
use content::{FilesetName, RevisionNumber};
use member::{DataError, EnrolRequest, Kind, OpenError, enrol};
use protocol::Join;
use service::{Clock, Output, logs, run_until_stopped};

use crate::agent::{Agent, AgentError, check_in};
use crate::choose::SourceAddress;
use crate::config::Config;
use crate::pull::verify::{VerifyRequest, verify};
use crate::pull::{PullRequest, pull};
use crate::session::SessionError;
use crate::status::status;
use crate::why::why;

/// The client of a Larder: enrols a device, pulls filesets and installs them
#[derive(Debug, Parser)]
#[command(name = "larder-client", version, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,

    /// The settings file
    #[arg(long, global = true, env = "LARDER_CLIENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The data folder; with it no settings file is needed
    #[arg(long, global = true, env = "LARDER_CLIENT_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check in once, and tell what the origin wants this device to hold
    CheckIn,
    /// Enrol this device with the join string that an operator handed out
    Enrol {
        /// The join string: larder1.…
        #[arg(value_name = "JOIN", env = "LARDER_JOIN", hide_env_values = true)]
        join: String,
        /// What to call this device; its host name if left out
        #[arg(long, value_name = "NAME")]
        id: Option<DeviceId>,
    },
    /// Make a folder a revision of a fileset, fetching what is not at hand
    Pull {
        /// The fileset, and its revision if not the current one
        #[arg(value_name = "NAME[@N]", value_parser = parse_wanted)]
        wanted: Wanted,
        /// The folder, which holds nothing else unless --merge is given
        target: PathBuf,
        /// Ask this booster instead of those that the deployment lists; may be repeated
        #[arg(long, value_name = "ID@HOST:PORT")]
        source: Vec<SourceAddress>,
        /// Put the files among those of others, and of other filesets
        #[arg(long)]
        merge: bool,
        /// Lose what others have put into the folder; with --merge, what is in the way
        #[arg(long)]
        replace: bool,
    },
    /// Keep this device as its manifest says, until asked to stop
    Run,
    /// Show who this device is and what is installed
    Status,
    /// Tell whom this device asks for content, in which order, and why
    Why {
        /// Tell of this fileset, too, where its bytes came from
        #[arg(value_name = "FILESET")]
        fileset: Option<FilesetName>,
    },
    /// Hold what is installed against its index, to the last byte
    Verify {
        /// Only this fileset, or what is installed at this path
        #[arg(value_name = "NAME|TARGET")]
        only: Option<String>,
        /// Heal what is damaged, each path by its rule
        #[arg(long)]
        heal: bool,
        /// Ask this booster instead of those that the deployment lists; may be repeated
        #[arg(long, value_name = "ID@HOST:PORT")]
        source: Vec<SourceAddress>,
        /// Read this many bytes from the disk in a second at the most, such as 20MiB
        #[arg(long, value_name = "BYTES")]
        rate: Option<bytesize::ByteSize>,
    },
}

/// A fileset, and which revision of it.
#[derive(Clone, Debug)]
struct Wanted {
    fileset: FilesetName,
    number: Option<RevisionNumber>,
}

impl Args {
    /// How results are printed.
    #[must_use]
    pub fn output(&self) -> Output {
        Output::new(self.json)
    }

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
            (None, None) => bail!("cannot tell which device is meant: name --data or --config"),
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
    let settings = args.settings()?;
    let log = logs::init_keeping(settings.log_format(), settings.log_filter())?;
    let clock = Clock::system();
    match args.command {
        Command::Enrol { join, id } => {
            let (data, join) = (settings.data().to_owned(), join.parse::<Join>()?);
            let request = EnrolRequest {
                id,
                patience: settings.approval_wait(),
                ..EnrolRequest::new(Kind::Client, data, join)
            };
            let report = enrol(request, &clock, |note| output.note(note)).await?;
            output.result(&report)?;
        }
        Command::Pull {
            wanted,
            target,
            source,
            merge,
            replace,
        } => {
            let mut request = PullRequest::new(settings.data().to_owned(), wanted.fileset, target);
            request.number = wanted.number;
            request.sources = or_set(source, &settings);
            request.site = settings.site().map(str::to_owned);
            request.grace = settings.grace();
            request.replace = replace;
            if merge {
                request.mode = InstallMode::Merge;
            }
            let progress = Arc::clone(&request.progress);
            let report = bar::watch(output, &progress, pull(request, &clock)).await?;
            output.result(&report)?;
        }
        Command::CheckIn => {
            let checked = check_in(&settings, &clock).await;
            output.result(&checked.map_err(of_agent)?)?;
        }
        Command::Run => {
            let agent = Agent::start_logging(&settings, &clock, log).await;
            run_until_stopped(agent.map_err(of_agent)?, STOP_GRACE).await?;
        }
        Command::Status => {
            let (data, grace) = (settings.data().to_owned(), settings.grace());
            let status = tokio::task::spawn_blocking(move || status(&data, grace, &clock));
            output.result(&status.await.context("cannot look at the data folder")??)?;
        }
        Command::Why { fileset } => tell_why(&settings, fileset, &clock, &output).await?,
        Command::Verify {
            only,
            heal,
            source,
            rate,
        } => {
            let mut request = VerifyRequest::new(settings.data().to_owned());
            (request.only, request.heal) = (only, heal);
            request.rate = rate.map(|rate| rate.as_u64());
            request.sources = or_set(source, &settings);
            look(&settings, request, &clock, &output).await?;
        }
    }
    Ok(())
}

async fn look(
    settings: &Config,
    mut request: VerifyRequest,
    clock: &Clock,
    output: &Output,
) -> anyhow::Result<()> {
    request.site = settings.site().map(str::to_owned);
    request.grace = settings.grace();
    let report = verify(request, clock).await?;
    output.result(&report)?;
    if report.is_left() {
        bail!("damage is left");
    }
    Ok(())
}

async fn tell_why(
    settings: &Config,
    fileset: Option<FilesetName>,
    clock: &Clock,
    output: &Output,
) -> anyhow::Result<()> {
    let why = why(settings, fileset, clock).await?;
    output.result(&why)?;
    if !why.is_served() {
        bail!("nobody serves this device");
    }
    Ok(())
}

/// The sources that were named, or those of the settings.
fn or_set(named: Vec<SourceAddress>, settings: &Config) -> Vec<SourceAddress> {
    if named.is_empty() {
        settings.sources().to_vec()
    } else {
        named
    }
}

/// Another program at work is most often the agent, which does by itself what was asked for.
fn of_agent(error: AgentError) -> anyhow::Error {
    let is_busy = matches!(
        &error,
        AgentError::Session(SessionError::Open(OpenError::Data(DataError::Busy { .. })))
    );
    let error = anyhow::Error::new(error);
    if is_busy {
        error.context("cannot work beside the agent, which checks in by itself")
    } else {
        error
    }
}

fn parse_wanted(text: &str) -> Result<Wanted, String> {
    let (name, number) = match text.split_once('@') {
        None => (text, None),
        Some((name, number)) => {
            let parsed = number.parse::<u64>().ok().filter(|number| *number > 0);
            let number = parsed.ok_or_else(|| format!("{number:?} is no revision number"))?;
            (name, Some(RevisionNumber(number)))
        }
    };
    let fileset = name.parse().map_err(|error| format!("{error}"))?;
    Ok(Wanted { fileset, number })
}

/// How long a script or an installation that is under way may take to end.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// Where the package puts the settings.
const DEFAULT_FILE: &str = "/etc/larder/client.toml";
