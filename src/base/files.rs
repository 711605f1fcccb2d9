//! The file operations of spool and journal behind a small trait, so that faults can be injected.
