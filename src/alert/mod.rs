//! Layer 4: alerts reach people, once, whatever is down.
//!
//! ```text
//! engine    every rule, always: SQL, else the rows in memory -> readings -> state machine
//! sender    who tells: Grafana while it evaluates and can notify, else periscope
//! noise     what of all that fires is worth a message: causes, mutes, groups, repeats, flapping
//! outbox    message -> journal (fsync) -> channel -> mark; pauses, order, digest
//! channel   message -> layout (spans, cleaned and cut) -> server -> what to do when it fails
//! book      all that survives a restart; changes only by `Change`s, which the journal has first
//! ```
//!
//! Everything that decides is pure, with the time as a parameter. Everything in a message may come
//! from a daemon and is hostile: it is cleaned in [`layout`], the only way from a message to text.

pub mod book;
pub mod bot;
pub mod canary;
pub mod channel;
pub mod engine;
pub mod grafana;
pub mod history;
pub mod keeper;
pub mod layout;
pub mod message;
pub mod noise;
pub mod outbox;
mod redact;
pub mod sender;
pub mod show;
pub mod silence;
pub mod task;
mod text;
pub mod vitals;
pub mod wording;
