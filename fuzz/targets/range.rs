//! See [`fuzz::protocol::range`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::range_seeds()),
    |data: &[u8]| fuzz::protocol::range(data)
);
