//! Layer 2: alert logic without I/O. `assets/alerts.toml` is the only place where a threshold, a
//! duration or the wording of an alert is written; from here it goes to Grafana's files, to the SQL
//! of both readers, to the evaluation in memory and to the messages.
//!
//! ```text
//! alerts.toml + user ─spec─► Spec ─catalog─► Vec<Rule> ─┬─ sql ────► Grafana, fallback
//!                                                      └─ window ─► rows in memory
//! Reading ─machine::step─► State, Transition            text: one wording for all
//! ```

pub mod catalog;
pub mod check;
pub mod condition;
pub mod fields;
pub mod machine;
pub mod problem;
pub mod reference;
pub mod rule;
pub mod spec;
pub mod sql;
pub mod state;
pub mod text;
pub mod user;
pub mod window;
pub mod written;

pub use written::{check_written, of};
