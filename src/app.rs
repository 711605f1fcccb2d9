//! Builds all parts, starts them, waits, drains. The only file that knows every part.
