//! See [`fuzz::protocol::check_in`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::check_in_seeds()),
    |data: &[u8]| fuzz::protocol::check_in(data)
);
