//! What can be typed after `larder-booster cache`.

use std::fmt;
use std::time::Duration;

use clap::Subcommand;
use content::FilesetName;
use serde::Serialize;
use service::Output;
use transport::admin::AdminClient;

use crate::admin::evict::{Evicted, Slice, Verified, What};
use crate::admin::list::{CacheList, PackList};
use crate::admin::{PAGE_MAX, PinWish, Pinned};
use crate::config::Config;
use crate::pins::{At, Pin};

/// See and change what the running booster keeps.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Give up what nobody uses of a fileset, or one pack
    Evict {
        /// Which
        #[arg(value_name = "NAME|sha256:…")]
        what: What,
    },
    /// List filesets with what is here of them, or the packs of one
    List {
        /// Which fileset
        #[arg(value_name = "NAME")]
        fileset: Option<FilesetName>,

        /// Begin after this one
        #[arg(long, value_name = "NAME|sha256:…", default_value = "")]
        after: String,

        /// List so many, at most 1000
        #[arg(long, value_name = "N", default_value_t = PAGE_MAX)]
        limit: usize,
    },
    /// Keep a fileset here, whoever uses it: its latest revision, or the one named
    Pin {
        /// Which fileset; NAME follows its latest revision
        #[arg(value_name = "NAME[@N]")]
        pin: Pin,
    },
    /// Take a pin away; what it kept stays until its room is wanted
    Unpin {
        /// Which pin, as `status` shows it
        #[arg(value_name = "NAME[@N]")]
        pin: Pin,
    },
    /// Look now whether files are what they should be: all, those of a fileset, or one pack
    Verify {
        /// Which
        #[arg(value_name = "NAME|sha256:…")]
        what: Option<What>,
    },
}

pub(super) async fn run(
    command: CacheCommand,
    config: &Config,
    output: Output,
) -> anyhow::Result<()> {
    let admin = AdminClient::new(config.data());
    match command {
        CacheCommand::Evict { what } => {
            let evicted = evict(&admin, what).await?;
            Ok(output.result(&evicted)?)
        }
        CacheCommand::List {
            fileset,
            after,
            limit,
        } => {
            let page = format!("after={after}&limit={limit}");
            if let Some(fileset) = fileset {
                let list: PackList = admin.get(&format!("/cache/{fileset}?{page}")).await?;
                return Ok(output.result(&list)?);
            }
            let list: CacheList = admin.get(&format!("/cache?{page}")).await?;
            Ok(output.result(&list)?)
        }
        CacheCommand::Verify { what } => {
            let verified = verify(&admin, what, output).await?;
            Ok(output.result(&verified)?)
        }
        CacheCommand::Pin { pin } => {
            let pinned: Pinned = admin.post("/pins", &PinWish { pin }).await?;
            Ok(output.result(&ShownPin::Set(pinned))?)
        }
        CacheCommand::Unpin { pin } => {
            let pinned: Pinned = admin.post("/pins/remove", &PinWish { pin }).await?;
            Ok(output.result(&ShownPin::Gone(pinned))?)
        }
    }
}

async fn evict(admin: &AdminClient, what: What) -> anyhow::Result<Evicted> {
    let mut done = Evicted::default();
    loop {
        let slice = Slice {
            after: done.next.take(),
            what: Some(what.clone()),
        };
        done.add(admin.post("/cache/evict", &slice).await?);
        if done.next.is_none() {
            return Ok(done);
        }
    }
}

async fn verify(
    admin: &AdminClient,
    what: Option<What>,
    output: Output,
) -> anyhow::Result<Verified> {
    let (mut done, mut told) = (Verified::default(), 0);
    loop {
        let slice = Slice {
            after: done.next.take(),
            what: what.clone(),
        };
        let looked = admin.post_within("/cache/verify", &slice, SLICE_PATIENCE);
        done.add(looked.await?);
        if done.next.is_none() {
            return Ok(done);
        }
        if done.percent >= told + TOLD_PERCENT {
            told = done.percent;
            output.note(format_args!("{told} %, {}", config::Bytes(done.bytes)));
        }
    }
}

/// What became of a pin, for people.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownPin {
    Set(Pinned),
    Gone(Pinned),
}

impl fmt::Display for ShownPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(Pinned {
                changed,
                known,
                pin,
                ..
            }) => {
                let done = if *changed {
                    "pinned"
                } else {
                    "was pinned already:"
                };
                write!(f, "{done} {pin}")?;
                match pin.at {
                    At::Latest => f.write_str(", and what is published of it from now on")?,
                    At::Revision(_) => {}
                }
                if !known {
                    f.write_str(
                        "\nthe origin is not known to have it (yet): see fileset list there",
                    )?;
                }
                Ok(())
            }
            Self::Gone(Pinned {
                changed, pin, pins, ..
            }) => {
                if *changed {
                    return write!(f, "{pin} is pinned no more");
                }
                write!(f, "{pin} was not pinned")?;
                let mut others = pins.iter().filter(|it| it.fileset == pin.fileset);
                match others.next() {
                    Some(other) => write!(f, "; {other} is"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The largest object at the lowest rate that the settings allow.
const SLICE_PATIENCE: Duration = Duration::from_secs(1800);
/// After how much more to say that it goes on.
const TOLD_PERCENT: u8 = 5;
