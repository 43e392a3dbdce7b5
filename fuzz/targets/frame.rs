//! See [`fuzz::content::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::content::frame_seeds()),
    |data: &[u8]| fuzz::content::frame(data)
);
