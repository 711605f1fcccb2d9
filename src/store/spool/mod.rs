//! The durable queue on disk: whatever reaches it is delivered exactly once, or counted as lost.
//!
//! [`disk::Spool`] is the queue itself, without threads; [`thread`] owns it and commits for all that
//! wait at once; [`format`] documents the bytes.

pub mod cursor;
pub mod disk;
pub mod flight;
pub mod format;
pub mod gaps;
pub mod open;
pub mod read;
pub mod ring;
pub mod room;
pub mod scan;
pub mod segment;
pub mod thread;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod flips;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
