//! Layer 3: rows into `QuestDB`, through a durable queue on disk, and back out by SQL.
//!
//! ```text
//! queue ─► intake (thread: validate, encode) ─► spool (thread: write, one sync) ─► feed
//!          feed ─► deliver: live lane, backlog lane ─► post ─► verdict ─► spool: delivered
//!          control: opens the gate when the server is ready, checks tables, watches the WAL
//! ```

pub mod conditions;
pub mod control;
pub mod dead_letter;
pub mod deliver;
pub mod encode;
pub mod exec;
pub mod feed;
pub mod frame;
pub mod inspect;
pub mod intake;
pub mod post;
pub mod queue;
pub mod read;
pub mod resend;
pub mod schema;
pub mod spool;
pub mod stats;
pub mod tables;
pub mod task;
pub mod text;
pub mod validate;
mod values;
pub mod verdict;
pub mod views;
pub mod wal;
