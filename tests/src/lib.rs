//! The whole system on loopback, in good weather and in bad: the testbed, the demo, and what
//! they look at trees with.

pub mod demo;
pub mod desk;
pub mod fixture;
pub mod liar;
pub mod link;
pub mod openapi;
pub mod scrape;
pub mod testbed;
pub mod tree;
