//! Custom fields: what scripts of the operator's find out. Each program in a folder is run, and the
//! first line that it says is the value of the field of its name.
//!
//! They run as the agent does, mostly as root: so a folder or a program that others may write to is
//! passed over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::Inventory;
use tokio::time::Instant;
use tracing::warn;

use super::ask::ask;
use super::text::short;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long all may take.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(60);
/// What is heard of each: one line counts.
const BYTES_MAX: usize = 4096;

/// A script and the field that it is for.
pub(super) type Script = (String, PathBuf);

/// The scripts in `folder`, by name; none if it is not there.
pub(super) fn scripts(folder: &Path) -> Vec<Script> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    if !is_ours(folder) {
        warn!(folder = %folder.display(), "passed over scripts: others may write to their folder");
        return Vec::new();
    }
    let mut found: Vec<Script> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // `room.sh` is for the field `room`.
            let name = path.file_stem()?.to_str()?.to_owned();
            let known = fs::metadata(&path).ok()?;
            let is_program = known.is_file() && known.mode() & 0o111 != 0;
            (is_program && Inventory::is_field_name(&name)).then_some((name, path))
        })
        .filter(|(_, path)| {
            let is_ours = is_ours(path);
            if !is_ours {
                warn!(script = %path.display(), "passed over a script: others may write to it");
            }
            is_ours
        })
        .collect();
    found.sort();
    found.dedup_by(|(a, _), (b, _)| a == b);
    found.truncate(Inventory::FIELDS_MAX);
    found
}

/// What `scripts` say, one after the other. One that fails or says nothing has no field.
pub(super) async fn answers(scripts: Vec<Script>) -> BTreeMap<String, String> {
    let until = Instant::now() + PATIENCE_WITH_ALL;
    let mut found = BTreeMap::new();
    for (name, path) in scripts {
        let left = until.saturating_duration_since(Instant::now());
        let Some(said) = ask(&path, &[], PATIENCE.min(left), BYTES_MAX).await else {
            warn!(script = %path.display(), "a script for a field failed, or took too long");
            continue;
        };
        let text = String::from_utf8_lossy(&said);
        let value = short(text.lines().next().unwrap_or_default());
        if !value.is_empty() {
            found.insert(name, value);
        }
    }
    found
}

/// Whether nobody but root and us may write to what is at `path`, links followed.
fn is_ours(path: &Path) -> bool {
    let us = rustix::process::geteuid().as_raw();
    fs::metadata(path)
        .is_ok_and(|known| (known.uid() == 0 || known.uid() == us) && known.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn put(folder: &Path, name: &str, mode: u32, text: &str) {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn scripts_say_what_fields_hold() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        put(
            at,
            "room.sh",
            0o755,
            "#!/bin/sh\necho '  3.14 '\necho more\n",
        );
        put(at, "failed", 0o755, "#!/bin/sh\necho no\nexit 1\n");
        put(at, "silent", 0o755, "#!/bin/sh\n");
        put(at, "odd", 0o755, "#!/bin/sh\nprintf 'a\\033[2Jb\\377'\n");
        put(at, "endless", 0o755, "#!/bin/sh\nexec yes\n");
        put(at, "no-program", 0o644, "#!/bin/sh\necho x\n");
        put(at, "Bad Name", 0o755, "#!/bin/sh\necho x\n");
        put(at, "of-others", 0o777, "#!/bin/sh\necho x\n");
        let said = answers(scripts(at)).await;
        let said: Vec<String> = said
            .iter()
            .map(|(name, it)| format!("{name}={it}"))
            .collect();
        assert_eq!(said, ["odd=a[2Jb\u{fffd}", "room=3.14"]);
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(scripts(at), []);
        assert_eq!(scripts(&at.join("nowhere")), []);
    }
}
