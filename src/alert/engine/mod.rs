//! Every rule, always: read (SQL, else the rows in memory), judged, remembered.

pub mod evaluate;
pub mod memory;
pub mod quick;
pub mod read;
pub mod signals;
#[cfg(test)]
mod simulation;
pub mod task;
