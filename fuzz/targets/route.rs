//! See [`fuzz::protocol::route`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::route_seeds()),
    |data: &[u8]| fuzz::protocol::route(data)
);
