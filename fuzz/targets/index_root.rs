//! See [`fuzz::content::index_root`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::content::index_root_seeds()),
    |data: &[u8]| fuzz::content::index_root(data)
);
