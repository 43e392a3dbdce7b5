//! Packages of rpm, as rpm itself tells them: its database has had three formats.

use std::path::Path;
use std::time::Duration;

use protocol::{Inventory, Software};

use super::ask::ask;
use super::text::short;

/// The program.
const RPM: &str = "/usr/bin/rpm";
/// Name, version with epoch and release, architecture.
const FORMAT: &str = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n";
/// A cold database of a few thousand packages takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is heard.
const BYTES_MAX: usize = 4 << 20;

/// The packages that rpm knows; none if it is not there.
pub(super) async fn packages() -> Vec<Software> {
    let rpm = Path::new(RPM);
    if !rpm.exists() {
        return Vec::new();
    }
    let said = ask(rpm, &["-qa", "--qf", FORMAT], PATIENCE, BYTES_MAX).await;
    said.map_or_else(Vec::new, |said| parse(&said))
}

fn parse(said: &[u8]) -> Vec<Software> {
    let package = |line: &str| {
        let mut parts = line.split('\t');
        let mut part = || parts.next().map(short);
        let (name, version, arch) = (part()?, part()?, part()?);
        let is_whole = !name.is_empty() && !version.is_empty();
        // Keys that rpm trusts are kept as packages.
        (is_whole && name != "gpg-pubkey").then_some(Software {
            name,
            version,
            arch,
        })
    };
    let text = String::from_utf8_lossy(said);
    let found = text.lines().filter_map(package);
    found.take(Inventory::SOFTWARE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_off_what_it_says() {
        let check = |said: &str, expected: &str| {
            let line = |it: &Software| format!("{} {} {}", it.name, it.version, it.arch);
            let found: Vec<String> = parse(said.as_bytes()).iter().map(line).collect();
            assert_eq!(found.join("; "), expected);
        };
        check(
            "bash\t5.2.15-1.fc38\tx86_64\nbind\t32:9.18-1\tnoarch\ngpg-pubkey\t1-2\t(none)\n",
            "bash 5.2.15-1.fc38 x86_64; bind 32:9.18-1 noarch",
        );
        check("error: cannot open the database\n\t\t\nx\t1\n", "");
        let many = "a\t1\tx\n".repeat(20_000);
        assert_eq!(parse(many.as_bytes()).len(), Inventory::SOFTWARE_MAX);
    }
}
