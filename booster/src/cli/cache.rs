//! What can be typed after `larder-booster cache`.

use std::fmt;

use clap::Subcommand;
use serde::Serialize;
use service::Output;
use transport::admin::AdminClient;

use crate::admin::{PinWish, Pinned};
use crate::config::Config;
use crate::pins::{At, Pin};

/// See and change what the running booster keeps.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
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
}

pub(super) async fn run(
    command: CacheCommand,
    config: &Config,
    output: Output,
) -> anyhow::Result<()> {
    let admin = AdminClient::new(config.data());
    match command {
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
