//! Numbers off a metrics page.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A metrics page, as it was when it was read.
pub(super) struct Page(String);

impl Page {
    pub(super) async fn read(ops: SocketAddr) -> anyhow::Result<Self> {
        let failed = || format!("cannot read the metrics of {ops}");
        let mut stream = TcpStream::connect(ops).await.with_context(failed)?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {ops}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        let mut bounded = stream.take(PAGE_BYTES_MAX);
        bounded
            .read_to_string(&mut page)
            .await
            .with_context(failed)?;
        Ok(Self(page))
    }

    /// The sum of a metric over all its labels that hold `label`; 0 if it is not there yet.
    pub(super) fn sum(&self, name: &str, label: &str) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// What a metric says for each value of the label `by`, added up over all others.
    pub(super) fn each(&self, name: &str, by: &str) -> BTreeMap<String, u64> {
        let mut each = BTreeMap::new();
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|it| it.strip_prefix('{')) else {
                continue;
            };
            let value = rest.split_once(&format!("{by}=\"")).map(|(_, value)| value);
            let value = value.and_then(|value| value.split_once('"'));
            let number = line
                .rsplit(' ')
                .next()
                .and_then(|it| it.parse::<f64>().ok());
            if let (Some((value, _)), Some(number)) = (value, number) {
                *each.entry(value.to_owned()).or_default() += number as u64;
            }
        }
        each
    }
}

/// Waits until pages tell of all that has been. They are brought up to date once a second and do not
/// say when they were, so there is no value to wait for.
pub(super) async fn caught_up() {
    sleep(LAG).await;
}

const PAGE_BYTES_MAX: u64 = 4 << 20;
/// A second, and time to count all.
const LAG: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_name_and_the_label_is_added_up() {
        let page = "# HELP a b\na{kind=\"x\",way=\"in\"} 1\na{kind=\"x\",way=\"out\"} 2.5\n\
                    a{kind=\"y\"} 4\nab{kind=\"x\"} 8\nb 16\n";
        let page = Page(page.to_owned());
        assert_eq!(page.sum("a", "kind=\"x\""), 3.5);
        assert_eq!(page.sum("a", ""), 7.5);
        assert_eq!(page.sum("b", ""), 16.0);
        assert_eq!(page.sum("c", ""), 0.0);
        let each = page.each("a", "kind").into_iter().collect::<Vec<_>>();
        assert_eq!(each, [("x".to_owned(), 3), ("y".to_owned(), 4)]);
    }
}
