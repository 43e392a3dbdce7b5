//! The program `larder-booster`.

use std::process::ExitCode;

use booster::cli::{self, Args};
use clap::Parser as _;
use config::LoadError;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let output = args.output();
    match cli::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            if error.is::<LoadError>() {
                EX_CONFIG.into()
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The settings cannot be used (sysexits.h): starting again would not help.
const EX_CONFIG: u8 = 78;
