//! What is printed at the end.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::args::Args;
use super::histogram::Histogram;
use super::worker::Tally;

/// How a load went.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Body bytes received, those of requests that were cut off or failed included.
    pub bytes: u64,
    /// Connections at a time.
    pub connections: u16,
    /// Requests that were under way when the time was up; neither good nor bad.
    pub cut_off: u64,
    /// Connections and requests that failed.
    pub errors: u64,
    /// What the first of them failed of.
    pub first_error: Option<String>,
    /// Gibibytes of bodies a second.
    pub gib_per_second: f64,
    /// Connections that were opened.
    pub handshakes: u64,
    /// The version of HTTP.
    pub http: String,
    /// From sending a request to the last byte of its answer.
    pub latency_ms: Latency,
    /// CPU seconds that the load generator took for itself: on one machine, these are missing to
    /// the server.
    pub own_cpu_seconds: f64,
    /// Requests that were answered in full, with a status of success.
    pub requests: u64,
    /// Those in a second.
    pub requests_per_second: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// CPU seconds of the server, if its process was named.
    pub server_cpu_seconds: Option<f64>,
    /// The same for each gibibyte; none if there were no bytes.
    pub server_cpu_seconds_per_gib: Option<f64>,
    /// Requests at a time on each connection.
    pub streams: u16,
}

/// Within which time so many of a hundred or a thousand requests were done, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of them.
    pub p50: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// All of them.
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let millis = |took: Duration| took.as_secs_f64() * 1000.0;
        Self {
            p50: millis(histogram.quantile(0.5)),
            p99: millis(histogram.quantile(0.99)),
            p999: millis(histogram.quantile(0.999)),
            max: millis(histogram.longest()),
        }
    }
}

impl Summary {
    pub(super) fn new(args: &Args, tally: &Tally, server: Option<Duration>, own: Duration) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let gib = tally.bytes as f64 / f64::from(1 << 30);
        let server = server.map(|server| server.as_secs_f64());
        // A run that was over at once has no rate.
        let rate = |what: f64| if seconds > 0.0 { what / seconds } else { 0.0 };
        Self {
            bytes: tally.bytes,
            connections: args.connections,
            cut_off: tally.cut_off,
            errors: tally.errors,
            first_error: tally.first_error.clone(),
            gib_per_second: rate(gib),
            handshakes: tally.handshakes,
            http: args.http.to_string(),
            latency_ms: Latency::of(&tally.latency),
            own_cpu_seconds: own.as_secs_f64(),
            requests: tally.latency.count(),
            requests_per_second: rate(tally.latency.count() as f64),
            seconds,
            server_cpu_seconds: server,
            server_cpu_seconds_per_gib: server.filter(|_| gib > 0.0).map(|server| server / gib),
            streams: args.streams,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "HTTP/{}, {} connections, {} streams each, {:.1} s, {} handshakes",
            self.http, self.connections, self.streams, self.seconds, self.handshakes
        )?;
        writeln!(
            f,
            "{:.3} GiB/s, {:.0} requests/s ({} requests, {} bytes, {} cut off)",
            self.gib_per_second, self.requests_per_second, self.requests, self.bytes, self.cut_off
        )?;
        let Latency {
            p50,
            p99,
            p999,
            max,
        } = self.latency_ms;
        writeln!(
            f,
            "latency in ms: p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}"
        )?;
        if let Some(server) = self.server_cpu_seconds {
            let per_gib = self.server_cpu_seconds_per_gib;
            let per_gib =
                per_gib.map_or_else(String::new, |per_gib| format!(", {per_gib:.3} s/GiB"));
            writeln!(f, "server CPU: {server:.2} s{per_gib}")?;
        }
        write!(
            f,
            "own CPU: {:.2} s, {} errors",
            self.own_cpu_seconds, self.errors
        )?;
        match &self.first_error {
            Some(error) => write!(f, ", the first: {error}"),
            None => Ok(()),
        }
    }
}
