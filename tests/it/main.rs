//! The one integration binary: a file per promise, `support/` for the real programs it needs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test may stop at once, with the reason on the screen"
)]

mod alerts;
mod bot;
mod browser;
mod channels;
mod cli;
mod dashboards;
mod deliveries;
mod delivery;
mod doctor;
mod durable;
mod export;
mod grafana_child;
mod grafana_remote;
mod hostile;
mod ingest;
mod latency;
mod layers;
mod nautilus;
mod notify;
mod packaging;
mod pipeline;
mod push;
mod push_client;
mod remote;
mod render;
mod rules;
mod sources;
mod spool_tools;
mod store;
mod supervise_unit;
mod support;
mod takeover;
mod viewer;
mod views;
