//! Layer 3: rows into `QuestDB`, through a durable queue on disk, and back out by SQL.

pub mod encode;
pub mod queue;
pub mod spool;
pub mod text;
pub mod validate;
