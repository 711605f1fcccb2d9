//! A Grafana that somebody else runs: what periscope wants to be there, brought over its HTTP API.
//!
//! ```text
//! config, rules ─desired─► objects ─plan (asks, changes nothing)─► steps ─apply─► requests
//! ```
//! A ledger says what periscope has made; only that is ever changed or removed.

pub mod apply;
pub mod compare;
pub mod desired;
pub mod plan;
