//! See [`fuzz::statement::locator`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::locator_seeds()),
    |data: &[u8]| fuzz::statement::locator(data)
);
