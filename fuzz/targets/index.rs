//! See [`fuzz::content::index`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::content::index_seeds()),
    |data: &[u8]| fuzz::content::index(data)
);
