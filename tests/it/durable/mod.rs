//! The promise of the write path, with the binary, `QuestDB` and the disk as they are: every
//! acknowledged row is stored exactly once, whatever ends, fills up or is changed by a person.

mod backlog;
mod disk;
mod kills;
mod rig;
mod tables;
