//! Layer 4: alerts reach people. A [`message::Message`] is one thing to tell; a channel delivers it
//! or says whether to try again.
//!
//! ```text
//! Message ─layout─► spans, cleaned and cut ─channel─► server ─► Failure?
//! ```
//!
//! Everything in a message may come from a daemon and is hostile: it is cleaned in [`layout`], the
//! only way from a message to text.

pub mod channel;
pub mod layout;
pub mod message;
mod redact;
mod text;
