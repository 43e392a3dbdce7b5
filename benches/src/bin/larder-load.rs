//! The program `larder-load`.

use std::process::ExitCode;

use benches::load::{self, Args};
use clap::Parser as _;
use service::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.json);
    let done = load::run(args).and_then(|summary| {
        output.result(&summary)?;
        Ok(summary.errors == 0)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // The numbers have been printed; that some requests failed must not go unnoticed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.failure(&error);
            ExitCode::FAILURE
        }
    }
}
