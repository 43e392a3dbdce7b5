//! See [`fuzz::statement::revision`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::plant(fuzz::statement::revision_seeds()),
    |data: &[u8]| fuzz::statement::revision(data)
);
