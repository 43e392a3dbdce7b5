//! The program `larder-booster`.

use std::process::ExitCode;

use booster::cli::{self, Args};
use clap::Parser as _;
use config::LoadError;
use mimalloc::MiMalloc;

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

// A request over HTTP/2 costs a tenth less than with glibc's, and glibc keeps what each of its arenas,
// one a thread, once needed (benches/README.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The settings cannot be used (sysexits.h): starting again would not help.
const EX_CONFIG: u8 = 78;
