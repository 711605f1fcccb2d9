//! Layer 0: nothing about the product. Each file stands alone and uses nothing else of ours.

pub mod backoff;
pub mod embed;
pub mod files;
pub mod health;
pub mod http;
pub mod metrics;
pub mod ports;
pub mod secret;
pub mod tasks;
pub mod time;
pub mod words;
