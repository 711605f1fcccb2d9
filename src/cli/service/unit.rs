//! The text of the systemd unit. Pure; the template is `assets/service/periscope.service`.

use std::path::{Path, PathBuf};

use crate::base::embed;

/// What differs from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Unit {
    /// The program, absolute.
    pub(in crate::cli) program: PathBuf,
    pub(in crate::cli) config: PathBuf,
    pub(in crate::cli) data_dir: PathBuf,
    /// Who runs it.
    pub(in crate::cli) user: String,
    pub(in crate::cli) group: String,
    /// `questdb.memory`, bytes.
    pub(in crate::cli) heap: u64,
}

impl Unit {
    /// Returns the file.
    ///
    /// # Errors
    /// A value cannot stand in a unit.
    pub(in crate::cli) fn text(&self) -> anyhow::Result<String> {
        let template = embed::asset_text("service/periscope.service").unwrap_or_default();
        let text = template
            .replace("{program}", &quoted(&self.program)?)
            .replace("{config}", &quoted(&self.config)?)
            .replace("{data_dir}", &quoted(&self.data_dir)?)
            .replace("{user}", name(&self.user)?)
            .replace("{group}", name(&self.group)?)
            .replace("{memory_max}", &format!("{}M", memory_max(self.heap)));
        let usual = Path::new("/var/lib/periscope");
        if self.data_dir == usual {
            return Ok(text);
        }
        // Everything else is read-only.
        let allowed = format!("ReadWritePaths={}", quoted(&self.data_dir)?);
        let own = "StateDirectory=periscope\nStateDirectoryMode=0700";
        Ok(text.replace(own, &allowed))
    }
}

/// Returns the limit of memory, MiB: three times the heap (Java takes about as much again outside of
/// it, and the kernel counts pages of mapped files), Grafana, periscope.
fn memory_max(heap: u64) -> u64 {
    (heap.saturating_mul(3) / (1 << 20)).saturating_add(1_024)
}

/// Returns `path` as a word of a unit; `%` begins a specifier there.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().filter(|text| text.starts_with('/'));
    let text = text.filter(|text| !text.contains(['"', '\\', '\'', '$']));
    let text = text.filter(|text| !text.chars().any(char::is_control));
    let text = text.ok_or_else(|| {
        anyhow::anyhow!(
            "{} cannot stand in a unit: use an absolute path without quotes, $ and control characters",
            path.display()
        )
    })?;
    let text = text.replace('%', "%%");
    Ok(if text.contains(' ') { format!("\"{text}\"") } else { text })
}

/// Checks a name of a user or group.
fn name(text: &str) -> anyhow::Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let valid = !text.is_empty() && !text.starts_with('-') && text.chars().all(plain);
    valid.then_some(text).ok_or_else(|| anyhow::anyhow!("{text:?} is no name of a user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit {
            program: "/usr/local/bin/periscope".into(),
            config: "/etc/periscope/periscope.toml".into(),
            data_dir: "/var/lib/periscope".into(),
            user: "periscope".into(),
            group: "periscope".into(),
            heap: 256_000_000,
        }
    }

    #[test]
    fn the_unit_is_as_reviewed() {
        let text = unit().text().unwrap();
        assert!(!text.contains('{') || text.contains("{ credential ="), "{text}");
        for line in [
            "Type=notify",
            "WatchdogSec=30",
            "Restart=always",
            "StartLimitIntervalSec=0",
            "KillMode=mixed",
            "User=periscope",
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "SystemCallFilter=@system-service",
            "MemoryMax=1756M",
            "ExecStart=/usr/local/bin/periscope --config /etc/periscope/periscope.toml \
             --data-dir /var/lib/periscope up",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn another_data_folder_stays_writable_and_hostile_values_are_refused() {
        let elsewhere = Unit { data_dir: "/srv/my data/100%".into(), ..unit() };
        let text = elsewhere.text().unwrap();
        assert!(text.contains("ReadWritePaths=\"/srv/my data/100%%\""), "{text}");
        assert!(!text.contains("\nStateDirectory="), "{text}");
        for user in ["", "-x", "a b", "a\nUser=root"] {
            assert!(Unit { user: user.into(), ..unit() }.text().is_err(), "{user:?}");
        }
        for path in ["relative", "/a\nExecStartPre=/bin/sh", "/a\"b", "/$HOME"] {
            assert!(Unit { program: path.into(), ..unit() }.text().is_err(), "{path:?}");
        }
    }
}
