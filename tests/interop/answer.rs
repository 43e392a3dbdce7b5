//! An HTTP answer as curl writes it down.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};

/// Version, status, headers, body.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    headers: BTreeMap<String, String>,
    pub(crate) status: u16,
    pub(crate) version: String,
}

impl Answer {
    /// From the headers that curl dumped, the last block of them if there were interim answers.
    pub(crate) fn parse(dump: &str, body: Vec<u8>) -> anyhow::Result<Self> {
        let dump = dump.replace('\r', "");
        let last = dump.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let mut lines = last.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let version = first.next().unwrap_or_default().to_owned();
        let status = first.next().context("there is no status line")?.parse()?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self {
            body,
            headers,
            status,
            version,
        })
    }

    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Fails unless the status is `wanted`.
    pub(crate) fn must_be(&self, wanted: u16) -> anyhow::Result<()> {
        ensure!(self.status == wanted, "want {wanted}, got {self:?}");
        Ok(())
    }

    /// Fails unless the header `name` is `wanted`.
    pub(crate) fn must_have(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        let has = self.header(name) == wanted;
        ensure!(has, "want {name}: {wanted}, got {self:?}");
        Ok(())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = &self.body[..self.body.len().min(300)];
        f.debug_struct("Answer")
            .field("version", &self.version)
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("bytes", &self.body.len())
            .field("body", &String::from_utf8_lossy(body))
            .finish()
    }
}
