//! Everything that Grafana shows or evaluates, made from tables and rules. Pure, except for the
//! writer of files in [`provision::write`].

pub mod alerting;
pub mod dashboards;
pub mod provision;
pub mod yaml;
