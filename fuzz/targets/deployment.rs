//! See [`fuzz::statement::deployment`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::deployment_seeds()),
    |data: &[u8]| fuzz::statement::deployment(data)
);
