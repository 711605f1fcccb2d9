//! Placeholder until the folder's first commit.
