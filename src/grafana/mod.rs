//! Everything that Grafana shows or evaluates, made from tables and rules, and the Grafana that
//! shows it: as a child ([`server`]) or one that runs elsewhere ([`remote`]). What is made is pure, except for
//! the writer of files in [`provision::write`].

pub mod alerting;
pub mod api;
pub mod catalog;
pub mod dashboards;
pub mod expand;
pub mod provision;
pub mod remote;
pub mod server;
pub mod yaml;
