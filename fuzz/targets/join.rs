//! See [`fuzz::protocol::join`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::join_seeds()),
    |data: &[u8]| fuzz::protocol::join(data)
);
