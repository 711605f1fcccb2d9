//! The benchmarks of `periscope bench`: every figure with its yardstick in the same run, since only
//! ratios hold on a machine that others use too. Real QuestDB, real disk; rows are counted by SQL.

pub mod children;
pub mod figures;
pub mod fleet;
pub mod latency;
pub mod memory;
pub mod polls;
pub mod rows;
pub mod server;
pub mod spool;
pub mod writer;
