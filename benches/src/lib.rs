//! What measures the others: the load generator, and the comparison with other people's servers.
//! The micro-benchmarks stand beside this folder, in `benches/`; how to run all of it and how to
//! read it is in the README.

pub mod compare;
pub mod load;
