//! What is learned goes into files: the token alone into one that only its owner reads, the rest into
//! the configuration, with its comments and its order kept.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use toml_edit::{DocumentMut, InlineTable, Item, Table, value};

use crate::base::secret::Secret;

/// Returns the lines of `[notify.telegram]`; `token` is the file of the token if it has to be named.
pub(super) fn lines(chat: i64, token: Option<&Path>) -> String {
    let mut table = Table::new();
    set(&mut table, chat, token);
    format!("[notify.telegram]\n{table}").trim_end().to_owned()
}

/// Writes `token` to `path`, which only its owner may read, whole or not at all.
///
/// # Errors
/// The folder or the file cannot be written.
pub(super) fn token(path: &Path, token: &Secret) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("create {}", folder.display()))?;
    replace(path, format!("{}\n", token.reveal()).as_bytes(), 0o600)
}

/// Writes `chat`, and where the token is, into the configuration file `path`.
///
/// # Errors
/// It cannot be read, understood or written.
pub(super) fn chat(path: &Path, chat: i64, token: Option<&Path>) -> anyhow::Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = &path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    let changed =
        with_chat(&text, chat, token).with_context(|| format!("change {}", path.display()))?;
    replace(path, changed.as_bytes(), mode)
}

/// Returns `text` with the chat in `[notify.telegram]`.
fn with_chat(text: &str, chat: i64, token: Option<&Path>) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let mut implicit = Table::new();
    // `[notify]` alone would be a line that nobody needs.
    implicit.set_implicit(true);
    let notify = document.entry("notify").or_insert(Item::Table(implicit));
    let notify = notify.as_table_like_mut().context("notify is no table")?;
    let telegram = notify.entry("telegram").or_insert(Item::Table(Table::new()));
    let telegram = telegram.as_table_like_mut().context("notify.telegram is no table")?;
    set(telegram, chat, token);
    Ok(document.to_string())
}

fn set(telegram: &mut dyn toml_edit::TableLike, chat: i64, token: Option<&Path>) {
    if let Some(path) = token {
        let mut file = InlineTable::new();
        file.insert("file", path.to_string_lossy().into_owned().into());
        telegram.insert("token", value(file));
    }
    telegram.insert("chat_id", value(chat));
}

/// Puts `bytes` in the place of `path`, whole or not at all, with `mode`.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = path.with_file_name(name);
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write()
        .inspect_err(|_failed| {
            let _gone = std::fs::remove_file(&partial);
        })
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_order_stay_and_only_the_chat_changes() {
        let before = "# mine\n[notify.telegram] # the group\ntoken = { env = \"T\" }\nchat_id = 5 # old\n\n[spool]\nmax_bytes = \"1GiB\"\n";
        let after = with_chat(before, -100, None).unwrap();
        assert_eq!(after, before.replace("chat_id = 5 # old", "chat_id = -100"));
    }

    #[test]
    fn a_missing_section_is_added_with_the_file_of_the_token() {
        let after = with_chat("[node]\nenv = \"prod\"\n", 7, Some(Path::new("/d/t"))).unwrap();
        assert_eq!(
            after,
            "[node]\nenv = \"prod\"\n\n[notify.telegram]\ntoken = { file = \"/d/t\" }\nchat_id = 7\n"
        );
        assert_eq!(
            lines(7, Some(Path::new("/d/t"))),
            "[notify.telegram]\ntoken = { file = \"/d/t\" }\nchat_id = 7"
        );
        assert!(with_chat("notify = 1", 7, None).is_err());
    }

    #[test]
    fn files_are_replaced_whole_and_a_token_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets/telegram-token");
        for text in ["one", "two"] {
            token(&path, &Secret::new(text)).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{text}\n"));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let config = folder.path().join("periscope.toml");
        std::fs::write(&config, "").unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o640)).unwrap();
        chat(&config, 7, None).unwrap();
        assert_eq!(mode(&config), 0o640);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }
}
