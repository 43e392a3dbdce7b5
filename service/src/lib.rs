//! How a process lives: owned tasks, the clock, signals, limits, logs, reports of errors, health,
//! metrics, the listener for operators, the admin socket and what a program prints. It knows no
//! protocol.

pub mod clock;
pub mod files;
mod http1;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod ops;
pub mod output;
pub mod pace;
pub mod report;
pub mod run;
pub mod signal;
pub mod tasks;
pub mod unix;

pub use clock::Clock;
pub use files::raise_open_files;
pub use output::Output;
pub use pace::Pace;
pub use report::Report;
pub use run::{Component, run_until_stopped};
pub use signal::stop_requested;
pub use tasks::{Drained, Spawner, Tasks};
/// How a task is asked to stop.
pub use tokio_util::sync::CancellationToken;
