//! Virtual environments in `target/`, made when they are not there yet.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the Python of `target/NAME`, in which all of `requirements` is installed and which runs
/// `check`; made if it is not there.
pub fn python(name: &str, requirements: &str, check: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (requirements, venv) = (root.join(requirements), root.join("target").join(name));
    let python = venv.join("bin/python");
    let is_there = || {
        let check = Command::new(&python).args(["-c", check]).stderr(Stdio::null()).status();
        check.is_ok_and(|status| status.success())
    };
    if !is_there() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().unwrap();
        assert!(made.success(), "python3 -m venv does not work: install python3-venv");
        let pip = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements)
            .status()
            .unwrap();
        assert!(pip.success() && is_there(), "pip cannot install {}", requirements.display());
    }
    python
}
