//! What measures the others: the load generator. The micro-benchmarks stand beside this folder, in
//! `benches/`; how to run both and how to read them is in the README.

pub mod load;
