//! The simulated daemons of `periscope dev`: a process of its own that speaks the real status protocol
//! over HTTP. Nothing here is used by the poll loops.

mod model;
mod serve;

pub use model::{Options, document, names};
pub use serve::serve;
