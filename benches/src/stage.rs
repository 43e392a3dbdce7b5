//! What is the same for every program that plays servers on this machine: its CPUs, its folder, its
//! network, and where our own programs lie.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use service::Output;

/// Where servers are played.
#[derive(Clone, Debug, clap::Args)]
pub struct Stage {
    /// The CPU of the servers that are measured
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u32).range(..1024))]
    pub server_cpu: u32,

    /// The CPU of those who load them, and of everybody else
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u32).range(..1024))]
    pub load_cpu: u32,

    /// Where larder-origin, larder-booster and larder-client lie [default: beside this program]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,

    /// Where everything is kept for the time of the run
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub work: PathBuf,

    /// Stay in the network that there is
    #[arg(long)]
    pub no_namespace: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,

    /// We are in a namespace of our own already
    #[arg(long, hide = true)]
    pub inside: bool,
}

impl Stage {
    /// Whether a namespace has yet to be entered.
    pub(crate) fn is_outside(&self) -> bool {
        !self.inside && !self.no_namespace
    }

    /// Keeps this process to the CPU of those who load, as all threads do that are started later:
    /// what they take shall not be taken from the servers.
    pub(crate) fn keep_to_load_cpu(&self, output: Output) {
        let mut only = CpuSet::new();
        only.set(self.load_cpu as usize);
        if sched_setaffinity(None, &only).is_err() {
            output.note(format_args!(
                "there is no CPU {}: going wherever there is one",
                self.load_cpu
            ));
        }
    }

    /// Where one of our own programs lies.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = match &self.programs {
            Some(folder) => std::path::absolute(folder)?,
            None => std::env::current_exe()?
                .parent()
                .context("cannot find the folder of this program")?
                .to_owned(),
        };
        let program = folder.join(name);
        ensure!(
            program.exists(),
            "cannot find {}: run cargo build --release --bins (or --profile dist)",
            program.display()
        );
        Ok(program)
    }
}
