//! The program `larder-fleetsim`.

use std::process::ExitCode;

use benches::fleet::{self, Args};
use clap::Parser as _;
use service::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.stage.json);
    match fleet::run(args, output) {
        Ok(true) => ExitCode::SUCCESS,
        // What was measured has been printed; that a device was not served must not go unnoticed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.failure(&error);
            ExitCode::FAILURE
        }
    }
}
