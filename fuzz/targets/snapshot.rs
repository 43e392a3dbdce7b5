//! See [`fuzz::statement::snapshot`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::snapshot_seeds()),
    |data: &[u8]| fuzz::statement::snapshot(data)
);
