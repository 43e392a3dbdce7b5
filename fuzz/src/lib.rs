//! What must hold for every parser, whatever bytes it is given.
//!
//! One function for each target. Not crashing is the least: what decodes must encode to the same
//! bytes, so that one thing has one form, and what has been accepted must keep its promises.
//! That memory stays bounded is seen to by the limits that `.ci/run` gives to libFuzzer.

use std::path::Path;
use std::{env, fs};

pub mod certs;
pub mod content;
pub mod protocol;
pub mod statement;

/// Puts `seeds` into the corpus folder that the target was started with, if there is one.
///
/// Seeds are made, not kept: they follow the formats by themselves.
///
/// # Panics
///
/// Panics if they cannot be written.
pub fn plant(seeds: Vec<Vec<u8>>) {
    let Some(folder) = env::args().skip(1).find(|arg| Path::new(arg).is_dir()) else {
        return;
    };
    for (number, seed) in seeds.iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        fs::write(path, seed).expect("a corpus folder can be written to");
    }
}
