//! Where `.ci/interop-install` puts what does not come from Debian.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::program::Program;

/// A program of the Python packages that `tests/interop/tools.txt` names.
pub(crate) fn python_tool(name: &str) -> Program {
    let path = home().join("bin").join(name);
    Program::new(&path.display().to_string())
}

/// A folder that one of those packages brings along.
pub(crate) fn python_data(path: &str) -> anyhow::Result<PathBuf> {
    let libraries = home().join("lib");
    let missing = || format!("run .ci/interop-install: there is no {path}");
    for version in fs::read_dir(libraries).with_context(missing)? {
        let folder = version?.path().join("site-packages").join(path);
        if folder.is_dir() {
            return Ok(folder);
        }
    }
    anyhow::bail!(missing())
}

/// The virtual environment.
fn home() -> PathBuf {
    let room = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    room.join("../target/interop/venv")
}
