//! The program `larder-origin`.

fn main() {}
