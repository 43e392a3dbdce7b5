//! See [`fuzz::statement::timestamp`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::timestamp_seeds()),
    |data: &[u8]| fuzz::statement::timestamp(data)
);
