//! Reading the metrics page, as an operator's scraper does.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The sum of a metric over all its labels that hold `label`, as the page at `ops` tells it.
///
/// # Errors
///
/// Fails if the page cannot be read, or does not tell it.
pub async fn metric(ops: SocketAddr, name: &str, label: &str) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(ops).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {ops}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream
        .take(PAGE_BYTES_MAX)
        .read_to_string(&mut page)
        .await?;
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let values: Vec<f64> = values.collect();
    anyhow::ensure!(!values.is_empty(), "the page at {ops} has no {name}");
    Some(values.iter().sum::<f64>() as u64).context("a metric is a number")
}

const PAGE_BYTES_MAX: u64 = 4 << 20;
