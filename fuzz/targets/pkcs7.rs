//! See [`fuzz::certs::pkcs7`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::certs::pkcs7_seeds()),
    |data: &[u8]| fuzz::certs::pkcs7(data)
);
