//! The program `larder-compare`.

use std::process::ExitCode;

use benches::compare::{self, Args};
use clap::Parser as _;
use mimalloc::MiMalloc;
use service::Output;

// glibc's gives memory back to the system after many a piece of a body, and takes it again for the
// next: what a client costs here should be its own work.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.stage.json);
    match compare::run(args, output) {
        Ok(true) => ExitCode::SUCCESS,
        // What was measured has been printed; that something failed must not go unnoticed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.failure(&error);
            ExitCode::FAILURE
        }
    }
}
