//! What measures the others: the load generator, the comparison with other people's servers, and the
//! roll-out. The micro-benchmarks stand beside this folder, in `benches/`; how to run all of it and
//! how to read it is in the README.

pub mod compare;
pub mod fleet;
pub mod load;
pub mod revoked;
pub mod rollout;
pub mod stage;
