//! See [`fuzz::protocol::hello`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::protocol::hello_seeds()),
    |data: &[u8]| fuzz::protocol::hello(data)
);
