//! Why Grafana has ended, in words that lead to the next step.

use std::path::Path;

use crate::supervise::cause::{Cause, Evidence, clean};

/// Whether a line of its log tells of something wrong.
pub(super) fn is_wrong(line: &str) -> bool {
    line.contains("level=error") || line.contains("level=crit") || line.starts_with("Error:")
}

/// Returns what Grafana says of the files that it refuses: it ends with one line for people.
pub(super) fn refusal(evidence: &Evidence<'_>) -> Option<String> {
    let line = evidence.lines.iter().rfind(|line| line.starts_with("Error:"))?;
    evidence.starting.then(|| clean(line.trim_start_matches("Error:").trim()))
}

/// Returns the cause of an end of Grafana with its data in `state`.
pub(super) fn grafana(name: &str, evidence: &Evidence<'_>, state: &Path) -> Cause {
    evidence
        .no_memory(name, "")
        .or_else(|| evidence.outside(name, state))
        .unwrap_or_else(|| evidence.unknown(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::child::Exit;
    use crate::supervise::policy::Kind;

    #[test]
    fn what_it_refuses_is_told_in_its_own_words() {
        let lines =
            ["logger=settings level=info msg=Starting", "Error: ✗ alert rules: no interval"];
        let lines: Vec<String> = lines.map(str::to_owned).into();
        let (exit, starting) = (Exit::Code(1), true);
        let evidence =
            Evidence { exit, errors: &[], lines: &lines, out_of_memory: false, starting };
        assert_eq!(refusal(&evidence).as_deref(), Some("✗ alert rules: no interval"));
        let cause = grafana("grafana", &evidence, Path::new("/"));
        assert_eq!(cause.kind, Kind::Ordinary);
        assert!(cause.reason.starts_with("grafana ended with exit code 1"), "{}", cause.reason);
        let later = Evidence { starting: false, ..evidence };
        assert_eq!(refusal(&later), None);
    }

    #[test]
    fn a_taken_port_is_nobodys_fault() {
        let line = "Error: ✗ *api.HTTPServer run error: listen tcp 127.0.0.1:3000: bind: address \
                    already in use";
        let lines = vec![line.to_owned()];
        let (exit, starting) = (Exit::Code(1), true);
        let evidence =
            Evidence { exit, errors: &[], lines: &lines, out_of_memory: false, starting };
        assert_eq!(grafana("grafana", &evidence, Path::new("/")).kind, Kind::Blocked);
    }
}
