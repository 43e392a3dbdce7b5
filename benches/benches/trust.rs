//! What a revocation list of a million entries costs: to sign, to load, and in each handshake.
//!
//! `cargo bench -p benches --bench trust`, some ten seconds. Times are CPU time of one thread, so
//! that a busy machine blurs them less; memory is what the kernel counts, in a process of its own
//! that does nothing but load the list. Arguments are criterion's, and are passed over.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::revoked::revoked;
use certs::Role;
use certs::crl::{self, Crl, CrlStore, RevokedCert};
use certs::testing::{Bed, DAY, NOW, identity};
use certs::tls::Expected;
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// The size that is supported.
const ENTRIES: u32 = 1_000_000;
/// Handshakes with each list, by turns.
const HANDSHAKES: usize = 1_500;
/// Processes that load the list.
const LOADS: usize = 5;
/// Tells this program that it is one of them, and where the list lies.
const LOAD_FROM: &str = "LARDER_BENCH_LOAD_FROM";

fn main() -> Result<()> {
    if let Some(folder) = std::env::var_os(LOAD_FROM) {
        return load(Path::new(&folder));
    }
    let (empty, million) = (Bed::new(), Bed::new());
    let entries = revoked(ENTRIES, NOW);
    let (der, signing) = cpu(|| list(&million, &entries));
    say(&format!(
        "sign     {ENTRIES} entries, {} bytes: {} ms of CPU",
        der.len(),
        signing.as_millis()
    ))?;
    loads(&million, &der)?;
    let crl = Crl::verify(&der, million.client.cert_der(), NOW)?;
    ensure!(crl.der() == der, "the list is given back as it came");
    million.trust.crls().install(crl)?;
    handshakes(&empty, &million)
}

fn list(bed: &Bed, entries: &[RevokedCert]) -> Vec<u8> {
    let (from, until) = (crl::backdated(NOW), NOW + 7 * DAY);
    crl::sign(&bed.client, 2, entries, from, until).expect("a list is signed")
}

/// Has other processes load the list, and prints what the best and the worst of them took.
fn loads(bed: &Bed, der: &[u8]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("list.der"), der)?;
    std::fs::write(folder.path().join("issuer.der"), bed.client.cert_der())?;
    let mut runs = Vec::new();
    for _ in 0..LOADS {
        let mut child = Command::new(std::env::current_exe()?);
        let output = child.env(LOAD_FROM, folder.path()).output()?;
        ensure!(output.status.success(), "a load failed: {output:?}");
        let numbers: Vec<u64> = String::from_utf8(output.stdout)?
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        runs.push(<[u64; 3]>::try_from(numbers).map_err(|_| anyhow::anyhow!("no three numbers"))?);
    }
    runs.sort_unstable();
    let peak = runs.iter().map(|run| run[1]).max().unwrap_or(0);
    let kept = runs.iter().map(|run| run[2]).max().unwrap_or(0);
    let (best, worst) = (runs[0][0] as f64 / 1e3, runs[LOADS - 1][0] as f64 / 1e3);
    say(&format!(
        "load     verify, read, install: {best:.0} to {worst:.0} ms of CPU (bound: 200)"
    ))?;
    say(&format!(
        "         memory beyond the bytes read: at most {:.1} MiB, {:.1} MiB kept (bound: 32)",
        peak as f64 / 1024.0,
        kept as f64 / 1024.0
    ))
}

/// In a process of its own: loads the list, and prints microseconds of CPU, KiB of memory at the
/// highest beyond the list's own bytes, and KiB kept.
fn load(folder: &Path) -> Result<()> {
    let der = std::fs::read(folder.join("list.der"))?;
    let issuer = std::fs::read(folder.join("issuer.der"))?;
    let store = CrlStore::new(Duration::ZERO);
    // "5" sets the highest mark back to what is in use now (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = memory("VmRSS:")?;
    let (installed, time) = cpu(|| {
        let crl = Crl::verify(&der, &issuer, NOW).expect("the list is in order");
        store.install(crl)
    });
    ensure!(installed?, "the list is in force");
    let (peak, after) = (memory("VmHWM:")? - before, memory("VmRSS:")? - before);
    say(&format!("{} {peak} {after}", time.as_micros()))
}

/// A figure out of this process's status, in KiB.
fn memory(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(figure
        .context("no such line in /proc/self/status")?
        .trim()
        .parse()?)
}

/// Full mTLS handshakes in memory with an empty list and with the long one, by turns.
fn handshakes(empty: &Bed, million: &Bed) -> Result<()> {
    let (empty, million) = (Door::new(empty), Door::new(million));
    let (mut with_empty, mut with_million) = (Vec::new(), Vec::new());
    for _ in 0..HANDSHAKES {
        with_empty.push(empty.open()?);
        with_million.push(million.open()?);
    }
    let (empty, million) = (median(with_empty), median(with_million));
    say(&format!(
        "handshake, server's CPU, median of {HANDSHAKES}: {:.1} µs with an empty list, {:.1} µs \
         with {ENTRIES} entries, ratio {:.3} (bound: 1.100)",
        empty.as_nanos() as f64 / 1e3,
        million.as_nanos() as f64 / 1e3,
        million.as_secs_f64() / empty.as_secs_f64()
    ))
}

struct Door {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    expected: Expected,
}

impl Door {
    fn new(bed: &Bed) -> Self {
        let booster = identity(Role::Booster, "oslo");
        let own = bed.own(Role::Client, "laptop-7");
        Self {
            server: Arc::new(bed.server(&bed.own(Role::Booster, "oslo"), &[Role::Client])),
            client: Arc::new(bed.connector(&booster, Some(&own))),
            expected: Expected::Exactly(booster),
        }
    }

    /// One handshake; returns what the server's part of it took.
    fn open(&self) -> Result<Duration> {
        let mut server = ServerConnection::new(Arc::clone(&self.server))?;
        let name = self.expected.server_name();
        let mut client = ClientConnection::new(Arc::clone(&self.client), name)?;
        let mut total = Duration::ZERO;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire)?;
            }
            let (answer, time) = cpu(|| serve(&mut server, &wire));
            total += time;
            let answer = answer?;
            let mut answer = answer.as_slice();
            while !answer.is_empty() {
                client.read_tls(&mut answer)?;
                client.process_new_packets()?;
            }
        }
        Ok(total)
    }
}

fn serve(server: &mut ServerConnection, mut wire: &[u8]) -> Result<Vec<u8>> {
    while !wire.is_empty() {
        server.read_tls(&mut wire)?;
        server.process_new_packets()?;
    }
    let mut answer = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut answer)?;
    }
    Ok(answer)
}

/// Runs `work`, and tells how much CPU time this thread took for it.
fn cpu<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    };
    let before = time();
    let result = work();
    (result, time().saturating_sub(before))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
