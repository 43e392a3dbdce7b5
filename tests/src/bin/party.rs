//! The three programs in one, for tests that kill a real process: `party client pull …`.

use std::process::ExitCode;

use clap::Parser as _;
use service::Output;

#[tokio::main]
async fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args_os().collect();
    // The program's own name goes; the party's stands for it.
    words.remove(0);
    let party = words
        .first()
        .and_then(|word| word.to_str())
        .unwrap_or_default()
        .to_owned();
    let ran = match party.as_str() {
        "booster" => booster::cli::run(booster::cli::Args::parse_from(words)).await,
        "client" => client::cli::run(client::cli::Args::parse_from(words)).await,
        "origin" => origin::cli::run(origin::cli::Args::parse_from(words)).await,
        other => Err(anyhow::anyhow!("there is no party {other:?}")),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Output::new(false).failure(&error);
            ExitCode::FAILURE
        }
    }
}
