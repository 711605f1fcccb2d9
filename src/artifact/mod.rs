//! Layer 3: getting the servers that periscope runs as children. Finds what is there, downloads
//! what is not, and installs nothing whose checksum was not proven. Must not start a server.
//!
//! `mvn` and `java -version` are the only programs run here; both are short-lived helpers whose
//! end is waited for, so they need not come from the thread that forks the servers.

pub mod acquired;
mod acquisition;
pub mod download;
pub mod grafana;
pub mod install;
pub mod jar;
pub mod java;
pub mod lock;
pub mod maven;
pub mod progress;
pub mod questdb;
pub mod release;
pub mod unpack;
pub mod verify;

#[cfg(test)]
mod grafana_tests;
#[cfg(test)]
mod tests;
