//! The program `larder-load`.

use std::process::ExitCode;

use benches::load::{self, Args};
use clap::Parser as _;
use mimalloc::MiMalloc;
use service::Output;

// glibc's gives memory back to the system after many a piece of a body, and takes it again for the
// next: what a client costs here should be its own work.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
