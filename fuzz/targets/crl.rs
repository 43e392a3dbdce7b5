//! See [`fuzz::certs::crl`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::certs::crl_seeds()),
    |data: &[u8]| fuzz::certs::crl(data)
);
