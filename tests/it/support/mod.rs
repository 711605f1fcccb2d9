//! Real programs on free ports in folders of their own, ended even when a test panics.
