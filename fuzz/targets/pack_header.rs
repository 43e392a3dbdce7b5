//! See [`fuzz::content::pack_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::content::pack_header_seeds()),
    |data: &[u8]| fuzz::content::pack_header(data)
);
