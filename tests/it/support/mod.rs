//! Real programs on free ports in folders of their own, ended even when a test panics.

pub mod alerting_grafana;
pub mod daemon;
pub mod discord;
pub mod faulty;
pub mod fleet;
pub mod gateway;
pub mod grafana;
pub mod grafana_api;
pub mod killable;
pub mod mount;
pub mod periscope;
pub mod proxy;
pub mod pusher;
pub mod questdb;
pub mod receiver;
pub mod scale;
pub mod site;
pub mod smtp;
pub mod store;
pub mod telegram;
pub mod topic;
pub mod venv;
pub mod viewer;
pub mod wait;
