//! A stand-in for Grafana's server, as a configured home: started, asked and ended as the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Returns the path of the Python interpreter.
fn python() -> String {
    let ask = ["-c", "import sys; print(sys.executable)"];
    let output = Command::new("python3").args(ask).output();
    let output = output.unwrap_or_else(|error| panic!("start python3: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A home whose `bin/grafana` is the stand-in.
pub struct StandIn {
    folder: tempfile::TempDir,
}

impl StandIn {
    /// Makes one that behaves well.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-grafana-").tempdir().unwrap();
        let this = Self { folder };
        let bin = this.home().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/grafana_standin.py");
        let body = fs::read_to_string(script).unwrap();
        let body = body.split_once('\n').unwrap().1;
        // The interpreter itself: what `python3` finds may be a script that starts it as a child.
        fs::write(bin.join("grafana"), format!("#!{}\n{body}", python())).unwrap();
        fs::set_permissions(bin.join("grafana"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(this.home().join("VERSION"), "12.4.2\n").unwrap();
        this.behave(&json!({}));
        this
    }

    /// The folder for `grafana.home`.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("grafana-12.4.2")
    }

    /// Says how it behaves from its next start on (`unhealthy`: from now on).
    pub fn behave(&self, behaviour: &Value) {
        let partial = self.folder.path().join("behaviour.part");
        fs::write(&partial, behaviour.to_string()).unwrap();
        fs::rename(partial, self.home().join("behaviour.json")).unwrap();
    }

    /// Requests so far: method, path, Host header.
    pub fn requests(&self) -> String {
        fs::read_to_string(self.home().join("requests.log")).unwrap_or_default()
    }

    /// The environment of the last start.
    pub fn environment(&self) -> Value {
        let text = fs::read_to_string(self.home().join("environment.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}
