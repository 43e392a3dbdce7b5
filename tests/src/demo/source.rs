//! What the demo publishes, unless it is told.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::tree;

/// The folder to publish: `named`, or the documentation of the Rust toolchain, or its sysroot.
///
/// # Errors
///
/// Fails if `named` is no folder, or if nothing large enough is at hand.
pub(super) fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        ensure!(named.is_dir(), "{} is not a folder", named.display());
        return Ok(named.to_owned());
    }
    let sysroot = sysroot()?;
    for folder in [
        sysroot.join("share/doc/rust/html"),
        sysroot.join("share/doc"),
        sysroot,
    ] {
        if folder.is_dir() && tree::size(&folder)?.1 >= BYTES_MIN {
            return Ok(folder);
        }
    }
    bail!("there is no toolchain with 100 MB of files; name a folder to publish")
}

/// The root of the Rust toolchain.
///
/// # Errors
///
/// Fails if there is no `rustc` to ask.
pub(super) fn sysroot() -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc).args(["--print", "sysroot"]).output();
    let asked = asked.context("cannot ask rustc for its sysroot")?;
    ensure!(asked.status.success(), "rustc does not tell its sysroot");
    Ok(PathBuf::from(String::from_utf8(asked.stdout)?.trim()))
}

/// Less would show nothing.
const BYTES_MIN: u64 = 100_000_000;
