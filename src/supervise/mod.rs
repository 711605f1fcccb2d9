//! Layer 3: runs the servers as children. One thread forks, one owner task per child decides; at
//! most one server is ever on a data root. Must not know what is stored in the server.

pub mod cause;
pub mod child;
mod database;
mod first;
pub mod listen;
pub mod managed;
pub mod orphan;
pub mod output;
pub mod policy;
pub mod program;
pub mod publisher;
pub mod questdb;
pub mod ready;
pub mod remote;
mod root;
pub mod secrets;
pub mod spawner;
pub mod task;
mod training;
