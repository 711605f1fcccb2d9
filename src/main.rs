//! The binary: everything happens in the library.

fn main() -> std::process::ExitCode {
    periscope::cli::main()
}
