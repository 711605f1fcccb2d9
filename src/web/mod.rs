//! The own listener: status page, probes, metrics, API. It works with everything else down.
//!
//! All that comes from daemons is hostile text here. No handler changes anything by GET, none does
//! work that lasts, and no request can keep the program busy: connections, heads, bodies and writes
//! have limits.

mod alerts;
mod api;
mod guard;
mod page;
mod patience;
mod prometheus;
mod push;
mod question;
mod routes;
mod runbooks;
mod socket;
pub mod task;
#[cfg(test)]
mod tests;
mod viewer;
