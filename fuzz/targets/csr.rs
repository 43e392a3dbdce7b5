//! See [`fuzz::certs::csr`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::certs::csr_seeds()),
    |data: &[u8]| fuzz::certs::csr(data)
);
