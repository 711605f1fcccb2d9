//! `periscope check`: every problem of the configuration at once.

use super::Global;
use super::exit::Exit;
use super::output;
use crate::config::Profile;
use crate::config::load::load;

pub(super) fn check(global: &Global) -> anyhow::Result<Exit> {
    match load(&global.request(Profile::Up, false)?) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                output::line(&format!("warning: {warning}"));
            }
            let source = loaded.file.map_or_else(
                || "no file, defaults only".to_owned(),
                |file| file.display().to_string(),
            );
            output::line(&format!("configuration is valid ({source})"));
            Ok(Exit::Done)
        }
        Err(problems) => {
            output::error_line(&problems.to_string());
            Ok(Exit::Config)
        }
    }
}
