//! Small files that are written whole or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Puts `bytes` in the place of `path`, with `mode`: whoever opens it meanwhile sees the old or the new
/// file. They are written to `partial` first, a path in the same folder.
///
/// # Errors
/// As the system says; then `path` is as it was.
pub fn replace(path: &Path, partial: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(partial)?;
    // The mode above is only for a new file: one that a crash left behind keeps its own.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(partial, path)
}
