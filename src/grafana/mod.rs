//! Everything that Grafana shows or evaluates, made from tables and rules.

pub mod alerting;
pub mod dashboards;
pub mod yaml;
