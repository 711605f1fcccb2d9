//! Layer 3: rows into `QuestDB`, through a durable queue on disk, and back out by SQL.

pub mod spool;
