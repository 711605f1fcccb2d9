//! Layer 3: daemons to rows. Every source gives a document within its limits, the document becomes
//! an observation, the observation becomes rows. A failed poll is an observation too.

pub mod directory;
pub mod host;
pub mod probe;
pub mod process;
pub mod push;
pub mod shim;
pub mod simulate;
pub mod task;

mod discover;
mod exec;
mod fetch;
mod file;
mod gaps;
mod json;
mod mapping;
mod parts;
mod peaks;
mod poll;
mod record;
mod rows;
#[cfg(test)]
mod tests;
mod text;
mod tracker;
mod websocket;
mod wire;
