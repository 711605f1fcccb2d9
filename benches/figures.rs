//! `cargo bench`: every benchmark of `periscope bench`, each with its yardstick in the same run;
//! `cargo bench -- writer spool` runs some of them.

#![expect(clippy::print_stderr, clippy::expect_used, reason = "a tool for the terminal")]

use std::process::{Command, ExitCode};

const ALL: [&str; 6] = ["writer", "spool", "latency", "polls", "fleet", "memory"];

fn main() -> ExitCode {
    // cargo adds --bench.
    let named: Vec<String> =
        std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    // On the disk of the build: a file system in memory would make every sync free.
    let data = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("bench-{}", std::process::id()));
    let mut failed = 0;
    for what in ALL.iter().filter(|what| named.is_empty() || named.iter().any(|name| name == *what))
    {
        eprintln!("\nperiscope bench {what}");
        let status = Command::new(env!("CARGO_BIN_EXE_periscope"))
            .args(["bench", what, "--data-dir"])
            .arg(&data)
            .status()
            .expect("start the binary");
        failed += u32::from(!status.success());
    }
    let _left = std::fs::remove_dir_all(&data);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
