//! What operators get: the systemd unit judged by systemd's own tools, and the installer.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn periscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_periscope")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns exit code and both outputs of `systemd-analyze`.
fn analyze(arguments: &[&str]) -> (i32, String) {
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap_or_else(|error| {
        panic!("systemd-analyze: {error}; install it: apt-get install systemd")
    });
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

/// systemd reads the unit without a word, and counts little that it is exposed to.
#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() {
    // A user that there is: systemd looks it up.
    let unit = periscope(&["service", "unit", "--user", "root"]);
    assert!(unit.status.success(), "{}", text(&unit.stderr));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("periscope.service");
    fs::write(&path, &unit.stdout).unwrap();
    let path = path.to_str().unwrap();
    let (code, words) = analyze(&["verify", path]);
    assert_eq!((code, words.trim()), (0, ""), "{words}");
    let (code, words) = analyze(&["security", "--offline=true", "--threshold=25", path]);
    assert_eq!(code, 0, "{words}");

    // The check can fail: an unknown key is told, and without hardening it is exposed.
    let bad = text(&unit.stdout).replace("WatchdogSec=30", "WatchdogSeconds=30");
    fs::write(path, bad).unwrap();
    assert!(analyze(&["verify", path]).1.contains("WatchdogSeconds"));
    fs::write(path, "[Service]\nExecStart=/bin/true\n").unwrap();
    assert_ne!(analyze(&["security", "--offline=true", "--threshold=25", path]).0, 0);
}

#[test]
fn nothing_is_installed_in_a_dry_run_and_every_step_is_shown() {
    let output = periscope(&["service", "install", "--dry-run"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["/etc/systemd/system/periscope.service", "daemon-reload", "enable", "restart"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let output = periscope(&["service", "uninstall", "--dry-run"]);
    assert!(text(&output.stdout).contains("disable --now"), "{}", text(&output.stdout));
}

/// A release as the release workflow makes it, with a program that tells its version.
fn release(folder: &Path) -> String {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let name = format!("periscope-{VERSION}-{target}");
    let inside = folder.join(&name);
    fs::create_dir_all(&inside).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_periscope"), inside.join("periscope")).unwrap();
    let archive = format!("{name}.tar.gz");
    let shell =
        format!("tar -czf {archive} {name} && rm -r {name} && sha256sum {archive} >SHA256SUMS");
    let packed = Command::new("sh").args(["-c", &shell]).current_dir(folder).status().unwrap();
    assert!(packed.success());
    archive
}

fn install(from: &str, to: &Path) -> (i32, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install.sh");
    let output = Command::new("sh")
        .arg(script)
        .args(["--version", VERSION, "--from", from, "--to"])
        .arg(to)
        .output()
        .unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_installer_installs_what_has_its_checksum_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("release"), folder.path().join("bin"));
    fs::create_dir_all(&from).unwrap();
    let archive = release(&from);
    let source = from.to_str().unwrap();
    let sums = fs::read_to_string(from.join("SHA256SUMS")).unwrap();
    let nothing = |words: &str, outcome: (i32, String, String)| {
        assert_eq!(outcome.0, 1, "{outcome:?}");
        assert!(outcome.2.contains(words), "{words}: {}", outcome.2);
        assert!(!to.join("periscope").exists(), "{words}");
    };

    fs::write(from.join("SHA256SUMS"), format!("{}{}", "0".repeat(64), &sums[64..])).unwrap();
    nothing("nothing was installed", install(source, &to));
    fs::write(from.join("SHA256SUMS"), "").unwrap();
    nothing("does not name", install(source, &to));
    fs::write(from.join("SHA256SUMS"), format!("{sums}{sums}")).unwrap();
    nothing("does not name", install(source, &to));
    fs::write(from.join("SHA256SUMS"), &sums).unwrap();
    let whole = fs::read(from.join(&archive)).unwrap();
    fs::write(from.join(&archive), &whole[..whole.len() / 2]).unwrap();
    nothing("nothing was installed", install(source, &to));
    fs::remove_file(from.join(&archive)).unwrap();
    nothing("there is no", install(source, &to));
    nothing("is not https", install("http://127.0.0.1:1", &to));

    fs::write(from.join(&archive), whole).unwrap();
    let (code, out, err) = install(source, &to);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("installed periscope {VERSION}")), "{out}");
    // Again, over the first: the upgrade.
    assert_eq!(install(source, &to).0, 0);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "nothing half is left");
}

#[test]
fn the_versions_of_the_files_for_containers_are_those_of_the_manifest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "{dockerfile}");
    assert!(dockerfile.contains(&format!("periscope:{VERSION} .")), "{dockerfile}");
    let compose = text(&periscope(&["compose"]).stdout);
    assert!(compose.contains(&format!("image: periscope:{VERSION}")), "{compose}");
}
