//! How bad something is.

use crate::base::words::words;

words! {
    /// How bad it is; decides which channels are told.
    Severity {
        /// Worth knowing, nothing to do.
        Info = "info",
        /// Look at it today.
        Warning = "warning",
        /// Act now.
        Critical = "critical",
    }
}
