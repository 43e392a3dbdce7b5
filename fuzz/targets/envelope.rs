//! See [`fuzz::statement::envelope`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::envelope_seeds()),
    |data: &[u8]| fuzz::statement::envelope(data)
);
