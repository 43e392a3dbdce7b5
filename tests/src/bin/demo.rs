//! The demo: `cargo demo [DIR] [--once] [--json]`.

use std::process::ExitCode;

use clap::Parser as _;
use service::{Output, logs};
use tests::demo::{Args, main as run};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Talk of the three programs would drown the demo's own, and some of what it shows is refusals.
    if let Err(error) = logs::init(logs::Format::Text, "error") {
        Output::new(false).failure(&error.into());
        return ExitCode::FAILURE;
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Output::new(false).failure(&error);
            ExitCode::FAILURE
        }
    }
}
