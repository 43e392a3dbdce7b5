//! The signals that ask a process to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears SIGTERM and SIGINT from the moment it is made, each time anew.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Starts to listen. From now on neither signal ends the process by itself.
    ///
    /// # Errors
    ///
    /// Fails if the system does not let us handle signals.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. May be dropped and called again.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for the first SIGTERM or SIGINT.
///
/// # Errors
///
/// Fails if the system does not let us handle signals.
pub async fn stop_requested() -> io::Result<()> {
    Stop::listen()?.requested().await;
    Ok(())
}
