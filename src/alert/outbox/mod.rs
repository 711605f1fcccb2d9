//! Messages on their way: written down, sent, marked. The decisions are pure; the journal makes them
//! last.

#[cfg(test)]
mod crash;
pub mod deliver;
pub mod journal;
pub mod pick;
pub mod result;
