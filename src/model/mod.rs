//! Layer 1: pure data. Tables and rows; statuses and observations of daemons. No I/O, no clock.

pub mod line;
pub mod observation;
pub mod report;
pub mod row;
pub mod server;
pub mod severity;
pub mod status;
pub mod table;
pub mod view;
