//! Publishing: how a folder becomes a revision.
//!
//! Whoever publishes walks, cuts and packs as himself ([`send`]); the origin takes the packs in
//! ([`intake`]), holds the index against them and signs what it found ([`commit`]). They talk in
//! four calls: `begin → have? → packs → commit`. Nothing of a publish is seen before its commit,
//! and what one that was killed has sent, the next one need not send again.

pub(crate) mod check;
pub mod commit;
pub mod intake;
pub mod locate;
pub mod messages;
mod repack;
pub mod send;
pub mod serve;

#[cfg(test)]
mod tests;
