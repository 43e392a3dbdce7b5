//! See [`fuzz::protocol::fault`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::fault_seeds()),
    |data: &[u8]| fuzz::protocol::fault(data)
);
