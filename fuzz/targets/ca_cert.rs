//! See [`fuzz::certs::ca_cert`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::certs::ca_cert_seeds()),
    |data: &[u8]| fuzz::certs::ca_cert(data)
);
