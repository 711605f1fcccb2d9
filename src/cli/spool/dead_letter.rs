//! `periscope spool dead-letter`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use super::{Database, find_table, permission_hint, resend_failure, runtime};
use crate::base::time::Timestamp;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::config::Config;
use crate::store::dead_letter::{self, Kept, Letters};
use crate::store::resend::Sent;

/// Letters in one request.
const BATCH: usize = 1_000;
/// Letters that are listed as text.
const LISTED: usize = 100;
/// Characters of a reason or a line in the list.
const WIDTH: usize = 60;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Lists the refused rows, and how many there are for each reason
    List {
        /// Only rows of this table
        #[arg(long)]
        table: Option<String>,
        /// All of them, whole, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows refused rows as they were sent, with the whole reason
    Show {
        /// Ids, as `list` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Sends refused rows again, say after the table was mended; removes those that are accepted
    Retry(Choice),
    /// Removes refused rows for good
    Drop {
        #[command(flatten)]
        choice: Choice,
        /// Says that it is meant
        #[arg(long)]
        yes: bool,
    },
}

/// Which letters.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Choice {
    /// Ids, as `list` shows them; all when there is none
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only rows of this table
    #[arg(long)]
    table: Option<String>,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
}

/// A letter as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    time: Timestamp,
    table: &'a str,
    reason: &'a str,
    line: &'a str,
}

impl<'a> Shown<'a> {
    fn of(kept: &'a Kept) -> Self {
        Self {
            id: &kept.id,
            time: kept.letter.time,
            table: &kept.letter.table,
            reason: &kept.letter.reason,
            line: &kept.letter.line,
        }
    }
}

pub(super) fn dead_letter(config: &Config, command: &Command) -> anyhow::Result<Exit> {
    let folder = config.data_dir.join("dead-letter");
    let letters = dead_letter::read(&folder).map_err(|error| folder_failure(&folder, &error))?;
    warn_about_unreadable(&letters);
    match command {
        Command::List { table, json } => list(&letters, table.as_deref(), *json),
        Command::Show { ids } => show(&letters, ids),
        Command::Retry(choice) => retry(config, &folder, &letters, choice),
        Command::Drop { choice, yes } => drop_letters(&folder, &letters, choice, *yes),
    }
}

fn folder_failure(folder: &Path, error: &std::io::Error) -> anyhow::Error {
    let hint = if error.kind() == std::io::ErrorKind::ResourceBusy {
        ": another retry or drop is at work, wait for its end"
    } else {
        permission_hint(error.kind())
    };
    Failure::error(Exit::Failure, format!("{}: {error}{hint}", folder.display()))
}

fn warn_about_unreadable(letters: &Letters) {
    for (file, line) in &letters.unreadable {
        output::error_line(&format!(
            "periscope: {}:{line} is no refused row (cut off by a crash?) and stays as it is",
            file.display()
        ));
    }
}

/// Returns the letters that are meant, or says which id there is not.
fn chosen<'a>(
    letters: &'a Letters,
    ids: &[String],
    table: Option<&str>,
) -> anyhow::Result<Vec<&'a Kept>> {
    let table = table.map(find_table).transpose()?;
    if let Some(unknown) = ids.iter().find(|id| !letters.kept.iter().any(|kept| kept.id == **id)) {
        let message = format!("no refused row {unknown:?}: see `periscope spool dead-letter list`");
        return Err(Failure::error(Exit::Usage, message));
    }
    let is_meant = |kept: &&Kept| {
        (ids.is_empty() || ids.contains(&kept.id))
            && table.is_none_or(|table| table.name == kept.letter.table)
    };
    Ok(letters.kept.iter().filter(is_meant).collect())
}

fn list(letters: &Letters, table: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let meant = chosen(letters, &[], table)?;
    if json {
        let shown: Vec<Shown<'_>> = meant.iter().map(|kept| Shown::of(kept)).collect();
        output::line(&serde_json::to_string_pretty(&shown)?);
        return Ok(Exit::Done);
    }
    if meant.is_empty() {
        output::line("no row was refused");
        return Ok(Exit::Done);
    }
    let mut reasons = BTreeMap::<(&str, &str), usize>::new();
    for kept in &meant {
        let count = reasons.entry((&kept.letter.table, &kept.letter.reason)).or_default();
        *count = count.saturating_add(1);
    }
    let rows: Vec<Vec<String>> = meant
        .iter()
        .rev()
        .take(LISTED)
        .map(|kept| {
            let letter = &kept.letter;
            let (reason, line) = (short(&letter.reason), short(&letter.line));
            vec![kept.id.clone(), letter.time.to_string(), letter.table.clone(), reason, line]
        })
        .collect();
    output::line(&output::table(&["ID", "REFUSED AT", "TABLE", "REASON", "ROW"], &rows));
    if let Some(more) = meant.len().checked_sub(LISTED).filter(|more| *more > 0) {
        output::line(&format!("… and {more} older ones: --json has all"));
    }
    output::line("");
    let mut sums: Vec<_> = reasons.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((table, reason), count) in sums.iter().take(LISTED) {
        output::line(&format!("{count} of {table}: {}", one_line(reason)));
    }
    output::line("after the cause is mended: periscope spool dead-letter retry");
    Ok(Exit::Done)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn short(text: &str) -> String {
    // The server's words begin with the same sentence for every line.
    let text = text.rsplit_once("error in line ").map_or(text, |(_, rest)| rest);
    let text = one_line(text);
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn show(letters: &Letters, ids: &[String]) -> anyhow::Result<Exit> {
    for kept in chosen(letters, ids, None)? {
        output::line(&serde_json::to_string_pretty(&Shown::of(kept))?);
    }
    Ok(Exit::Done)
}

fn drop_letters(
    folder: &Path,
    letters: &Letters,
    choice: &Choice,
    yes: bool,
) -> anyhow::Result<Exit> {
    let meant = chosen(letters, &choice.ids, choice.table.as_deref())?;
    if !yes {
        let message = format!(
            "{} refused rows would be removed for good: add --yes if that is meant",
            meant.len()
        );
        return Err(Failure::error(Exit::Usage, message));
    }
    dead_letter::remove(folder, &meant).map_err(|error| folder_failure(folder, &error))?;
    output::line(&if choice.json {
        serde_json::json!({ "dropped": meant.len() }).to_string()
    } else {
        format!("{} refused rows removed", meant.len())
    });
    Ok(Exit::Done)
}

/// What a retry did.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    accepted: usize,
    refused: Vec<StillRefused>,
    /// Tables that can take no rows, and why.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StillRefused {
    id: String,
    reason: String,
}

fn retry(
    config: &Config,
    folder: &Path,
    letters: &Letters,
    choice: &Choice,
) -> anyhow::Result<Exit> {
    let meant = chosen(letters, &choice.ids, choice.table.as_deref())?;
    if meant.is_empty() {
        output::line(if choice.json { "{}" } else { "no row was refused" });
        return Ok(Exit::Done);
    }
    let mut outcome = Outcome::default();
    let ended = runtime()?.block_on(send(config, folder, &meant, &mut outcome));
    output::line(&if choice.json {
        serde_json::to_string_pretty(&outcome)?
    } else {
        text(&outcome)
    });
    ended?;
    let complete = outcome.refused.is_empty() && outcome.left_out.is_empty();
    Ok(if complete { Exit::Done } else { Exit::Failure })
}

/// Sends the letters `meant` and removes each batch's accepted ones before the next is sent.
async fn send(
    config: &Config,
    folder: &Path,
    meant: &[&Kept],
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let database = Database::of(config).await?;
    let mut by_table = BTreeMap::<&str, Vec<&Kept>>::new();
    for kept in meant {
        by_table.entry(&kept.letter.table).or_default().push(kept);
    }
    for (name, of_table) in by_table {
        if let Some(difference) = database.prepare(find_table(name)?).await? {
            outcome.left_out.push(difference);
            continue;
        }
        let mut resender = database.resender();
        for batch in of_table.chunks(BATCH) {
            let mut sent = Sent::default();
            resender.send(body(batch), &mut sent).await.map_err(|error| resend_failure(&error))?;
            let (accepted, refused) = sorted(batch, &sent);
            outcome.refused.extend(refused);
            outcome.accepted = outcome.accepted.saturating_add(accepted.len());
            let folder: PathBuf = folder.to_owned();
            dead_letter::remove(&folder, &accepted)
                .map_err(|error| folder_failure(&folder, &error))?;
        }
    }
    Ok(())
}

fn body(batch: &[&Kept]) -> Bytes {
    let mut text = String::new();
    for kept in batch {
        text.push_str(&kept.letter.line);
        text.push('\n');
    }
    text.into()
}

/// Tells the letters of a batch that were accepted from those that were refused again. Pure.
fn sorted<'a>(batch: &[&'a Kept], sent: &Sent) -> (Vec<&'a Kept>, Vec<StillRefused>) {
    let reasons: BTreeMap<&str, &str> =
        sent.refused.iter().map(|line| (line.line.as_str(), line.reason.as_str())).collect();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for kept in batch {
        match reasons.get(kept.letter.line.as_str()) {
            None => accepted.push(*kept),
            Some(reason) => {
                let reason = (*reason).to_owned();
                refused.push(StillRefused { id: kept.id.clone(), reason });
            }
        }
    }
    (accepted, refused)
}

fn text(outcome: &Outcome) -> String {
    let mut lines: Vec<String> = outcome
        .refused
        .iter()
        .take(LISTED)
        .map(|refused| format!("refused again: {} {}", refused.id, short(&refused.reason)))
        .collect();
    lines.extend(outcome.left_out.iter().map(|reason| format!("left out: {reason}")));
    lines.push(format!(
        "{} rows accepted and removed from dead-letter, {} refused again",
        outcome.accepted,
        outcome.refused.len()
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dead_letter::Letter;
    use crate::store::resend::Refused;

    fn letters(lines: &[&str]) -> Letters {
        let folder = tempfile::tempdir().unwrap();
        for line in lines {
            let letter = Letter {
                time: Timestamp::from_millis(1_700_000_000_000),
                table: "daemon_metrics".into(),
                reason: "r".into(),
                line: (*line).to_owned(),
            };
            dead_letter::keep(folder.path(), &letter).unwrap();
        }
        dead_letter::read(folder.path()).unwrap()
    }

    #[test]
    fn what_is_refused_again_stays_with_its_new_reason() {
        let letters = letters(&["a", "b", "b", "c"]);
        let batch: Vec<&Kept> = letters.kept.iter().collect();
        assert_eq!(body(&batch), "a\nb\nb\nc\n");
        let again = Refused { line: "b".into(), reason: "new".into() };
        let sent = Sent { written: 2, refused: vec![again.clone(), again] };
        let (accepted, refused) = sorted(&batch, &sent);
        let lines: Vec<&str> = accepted.iter().map(|kept| kept.letter.line.as_str()).collect();
        assert_eq!(lines, ["a", "c"]);
        assert_eq!((refused.len(), refused[0].reason.as_str()), (2, "new"));
    }

    #[test]
    fn letters_are_chosen_by_id_and_table() {
        let letters = letters(&["a", "b"]);
        let ids = [letters.kept[1].id.clone()];
        assert_eq!(chosen(&letters, &ids, None).unwrap(), [&letters.kept[1]]);
        assert_eq!(chosen(&letters, &[], Some("daemon_metrics")).unwrap().len(), 2);
        assert_eq!(chosen(&letters, &[], Some("trading_metrics")).unwrap().len(), 0);
        let error = chosen(&letters, &["x".to_owned()], None).unwrap_err().to_string();
        assert!(error.contains("\"x\""), "{error}");
        assert!(short("a\nerror in line 7: cast").starts_with("7: cast"));
    }
}
