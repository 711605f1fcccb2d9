//! What of all that fires is worth a message: causes, mutes, groups, repeats, flapping. Pure.

pub mod cause;
pub mod mute;
pub mod plan;
#[cfg(test)]
pub(in crate::alert) mod tests;
