//! The Grafana that periscope runs, or watches where it runs already.

mod cause;
pub mod live;
mod program;
mod remote;
pub mod task;
