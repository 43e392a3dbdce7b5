//! See [`fuzz::statement::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::manifest_seeds()),
    |data: &[u8]| fuzz::statement::manifest(data)
);
