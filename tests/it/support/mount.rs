//! A file system of a test's own, to be filled and to be made read-only.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped, also in a panic.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts an empty file system of `bytes` bytes at `path`; panics where that is not allowed.
    pub fn mount(path: &Path, bytes: u64) -> Self {
        Self::mount_with(path, &format!("size={bytes},mode=0700"))
    }

    /// As [`Self::mount`], with options of `mount`.
    pub fn mount_with(path: &Path, options: &str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path.display().to_string()])
            .unwrap_or_else(|error| {
                panic!("this test needs the right to mount (run it as root): {error}")
            });
        Self { path: path.to_owned() }
    }

    /// Makes what is at `path` read-only for everything that is opened from here on, until dropped.
    /// The kernel would refuse that for the file system itself, as long as a file is open for writing.
    pub fn read_only(path: &Path) -> Self {
        let place = path.display().to_string();
        let bound = run("mount", &["--bind", &place, &place])
            .and_then(|()| run("mount", &["-o", "remount,bind,ro", &place]));
        bound.unwrap_or_else(|error| {
            panic!("this test needs the right to mount (run it as root): {error}")
        });
        Self { path: path.to_owned() }
    }

    /// Takes all space that is left; returns how many bytes that were.
    pub fn fill(&self) -> u64 {
        let mut file =
            fs::File::options().create(true).append(true).open(self.path.join("filler")).unwrap();
        let mut taken = 0;
        // The last blocks are smaller than a large write.
        for size in [1 << 20, 4096] {
            let block = vec![0_u8; size];
            loop {
                match file.write(&block) {
                    Ok(0) => break,
                    Ok(written) => taken += u64::try_from(written).unwrap(),
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.path.display()),
                }
            }
        }
        taken
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["-l", &self.path.display().to_string()]) {
            eprintln!("{error}");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
