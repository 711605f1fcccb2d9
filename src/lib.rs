//! periscope watches trading daemons: it reads their status, stores it in `QuestDB`, and keeps alerting.
//!
//! The library exists so that `tests/` and `benches/` can start the real thing in-process; it is
//! no public API. Layers, lowest first; `tests/it/layers.rs` fails on any arrow that points up:
//!
//! - [`base`]: nothing about the product (time, tasks, HTTP client, secrets, metrics)
//! - [`config`], [`model`]: checked settings; tables, rows, statuses
//! - [`rules`]: pure alert logic
//! - [`artifact`], [`supervise`], [`store`], [`collect`]: getting and running the servers, rows in and out
//! - [`grafana`]: files for Grafana out of tables and rules, and the Grafana that reads them
//! - [`alert`]: rules evaluated, messages sent
//! - [`web`], [`cli`]: what people and programs talk to
//! - [`app`]: builds all parts; the only module that knows every one
//! - [`bench`]: measures parts as `app` joins them
// `unsafe_code` is allowed in exactly one reviewed module: `supervise::spawner`.

pub mod alert;
pub mod app;
pub mod artifact;
pub mod base;
pub mod bench;
pub mod cli;
pub mod collect;
pub mod config;
pub mod doctor;
pub mod grafana;
pub mod model;
pub mod rules;
pub mod store;
pub mod supervise;
pub mod web;
