//! Where and when it was measured, and by which versions.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

use super::peers::Kind;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of it.
    pub processors: usize,
    /// The system.
    pub system: String,
    /// When the run began.
    pub date: String,
    /// Load average of the last minute when the run began.
    pub load_average: f64,
    /// Who was loaded, and which version.
    pub versions: Vec<String>,
}

impl Machine {
    pub(crate) fn look(kinds: &[Kind]) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let names = || info.lines().filter(|line| line.starts_with("model name"));
        let name = names().next().and_then(|line| line.split_once(": "));
        Self {
            processor: name.map_or("unknown", |(_, name)| name).to_owned(),
            processors: names().count(),
            system: said("uname", &["-sr"]),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            load_average: load_average(),
            versions: kinds.iter().flat_map(|kind| kind.versions()).collect(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} x {}, {}, {}, load average {:.1}",
            self.processors, self.processor, self.system, self.date, self.load_average
        )?;
        write!(f, "{}", self.versions.join("; "))
    }
}

/// Runnable processes, averaged over the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|first| first.parse().ok());
    first.unwrap_or(f64::NAN)
}

/// The first line that a program prints, on stdout or else on stderr.
pub(super) fn said(program: &str, args: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(args).output() else {
        return format!("{program}: unknown");
    };
    let text = match output.stdout.is_empty() {
        true => output.stderr,
        false => output.stdout,
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}
