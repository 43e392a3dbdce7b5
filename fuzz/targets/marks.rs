//! See [`fuzz::content::marks`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::content::marks_seeds()),
    |data: &[u8]| fuzz::content::marks(data)
);
