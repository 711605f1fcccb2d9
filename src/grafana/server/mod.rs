//! The Grafana that periscope runs, or watches where it runs already.

mod cause;
mod files;
pub mod live;
mod program;
mod remote;
pub mod task;
