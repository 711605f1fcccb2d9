//! Unpacks a release archive (`.tar.gz`) into a fresh folder. Archives are hostile until proven
//! otherwise: every entry is checked before anything is created, and only plain files and folders
//! are, with modes of our choice.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;
use tokio_util::sync::CancellationToken;

/// What an archive may contain.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Unpacked size of all files, bytes.
    pub bytes: u64,
    /// Number of entries.
    pub entries: usize,
    /// Unpacked size as a multiple of the archive's size.
    pub ratio: u64,
}

impl Limits {
    /// Ample for the servers' archives (about 150 MiB, some hundred files).
    pub const RELEASE: Self = Self { bytes: 2 << 30, entries: 50_000, ratio: 20 };
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Reading or writing failed.
    #[error("unpack {path}: {source}")]
    Io {
        /// The archive or the file being written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The archive holds something that no release holds.
    #[error("refuse the archive: {what} ({entry})")]
    Refused {
        /// What is wrong.
        what: &'static str,
        /// The entry, escaped.
        entry: String,
    },
    /// The caller asked to stop.
    #[error("unpack the archive: stopped")]
    Stopped,
}

/// Unpacks `archive` into `target`, which must not exist, and makes the files durable. Blocking.
///
/// On an error `target` may exist in part; the caller removes it.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(
    archive: &Path,
    target: &Path,
    limits: Limits,
    stop: &CancellationToken,
) -> Result<(), UnpackError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Io { path, source }
    };
    let file = fs::File::open(archive).map_err(io(archive))?;
    let packed = file.metadata().map_err(io(archive))?.len();
    let budget = limits.bytes.min(packed.saturating_mul(limits.ratio).max(1 << 20));
    // Metadata counts too: a header of zeros compresses a thousandfold.
    let unpacked = flate2::read::MultiGzDecoder::new(file).take(budget.saturating_add(1));
    let mut tar = tar::Archive::new(Bounded { inner: unpacked, read: 0, budget });
    fs::DirBuilder::new().mode(0o755).create(target).map_err(io(target))?;
    let mut seen = BTreeSet::new();
    for (count, entry) in tar.entries().map_err(io(archive))?.enumerate() {
        if stop.is_cancelled() {
            return Err(UnpackError::Stopped);
        }
        let mut entry = entry.map_err(|error| too_large_or(error, archive))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |what| UnpackError::Refused { what, entry: name.escape_debug().to_string() };
        if count >= limits.entries {
            return Err(refuse("too many entries"));
        }
        let relative = relative(Path::new(&name)).ok_or_else(|| refuse("path leads outside"))?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let mode = entry.header().mode().map_err(io(archive))?;
        if mode & 0o7000 != 0 {
            return Err(refuse("setuid, setgid or sticky bit"));
        }
        if kind == EntryType::Symlink {
            let points_to = entry.link_name_bytes().unwrap_or_default().into_owned();
            if is_shared_licence(&relative, &String::from_utf8_lossy(&points_to)) {
                continue;
            }
        }
        let path = target.join(&relative);
        if kind == EntryType::Directory {
            create_folder(&path).map_err(io(&path))?;
            continue;
        }
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(refuse("neither a file nor a folder"));
        }
        if relative.as_os_str().is_empty() || !seen.insert(relative) {
            return Err(refuse("the same name twice"));
        }
        if let Some(parent) = path.parent() {
            create_folder(parent).map_err(io(parent))?;
        }
        let executable = mode & 0o100 != 0;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if executable { 0o755 } else { 0o644 })
            .open(&path)
            .map_err(io(&path))?;
        io::copy(&mut entry, &mut file).map_err(|error| too_large_or(error, &path))?;
        file.sync_all().map_err(io(&path))?;
    }
    sync_folders(target).map_err(io(target))
}

/// Returns `path` without `.` parts; `None` when it is absolute or has `..`.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Whether a link is one of those by which Java's runtime images share licence texts
/// (`legal/java.sql/LICENSE -> ../java.base/LICENSE`). No server needs them: they are left out.
fn is_shared_licence(link: &Path, points_to: &str) -> bool {
    let parts: Vec<_> = link.iter().collect();
    let inside_legal = matches!(parts.as_slice(), [_, legal, _, _] if *legal == "legal");
    let module_and_file = points_to.strip_prefix("../").and_then(|rest| rest.split_once('/'));
    inside_legal
        && module_and_file.is_some_and(|(module, file)| {
            ![module, file]
                .iter()
                .any(|part| part.is_empty() || *part == ".." || part.contains('/'))
        })
}

fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Makes the names inside `folder` and all folders below durable.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    fs::File::open(folder)?.sync_all()
}

/// Fails once more than `budget` bytes were read, instead of ending silently.
struct Bounded<R> {
    inner: R,
    read: u64,
    budget: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("unpacked size over the limit")]
struct OverBudget;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if self.read > self.budget { Err(io::Error::other(OverBudget)) } else { Ok(read) }
    }
}

fn too_large_or(error: io::Error, path: &Path) -> UnpackError {
    // `tar` wraps errors of the reader: look for ours at any depth.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        let wrapped = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is::<OverBudget>() || wrapped.is_some_and(|wrapped| wrapped.is::<OverBudget>()) {
            let entry = path.display().to_string();
            return UnpackError::Refused { what: "it grows beyond every release's size", entry };
        }
        cause = inner.source();
    }
    UnpackError::Io { path: path.to_owned(), source: error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry of a crafted archive; header fields are written past `tar`'s own checks.
    struct Crafted {
        name: &'static str,
        kind: EntryType,
        link: &'static str,
        mode: u32,
        content: Vec<u8>,
    }

    fn file(name: &'static str, content: &[u8]) -> Crafted {
        Crafted { name, kind: EntryType::Regular, link: "", mode: 0o644, content: content.to_vec() }
    }

    fn link(name: &'static str, kind: EntryType, to: &'static str) -> Crafted {
        Crafted { name, kind, link: to, mode: 0o777, content: Vec::new() }
    }

    fn archive(folder: &Path, entries: &[Crafted]) -> PathBuf {
        let path = folder.join("crafted.tar.gz");
        let gzip = flate2::write::GzEncoder::new(
            fs::File::create(&path).unwrap(),
            flate2::Compression::best(),
        );
        let mut builder = tar::Builder::new(gzip);
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
            header.as_mut_bytes()[157..157 + entry.link.len()]
                .copy_from_slice(entry.link.as_bytes());
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            header.set_size(entry.content.len().try_into().unwrap());
            header.set_cksum();
            builder.append(&header, entry.content.as_slice()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        path
    }

    fn try_unpack(entries: &[Crafted], limits: Limits) -> (Result<(), UnpackError>, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path(), entries);
        let target = folder.path().join("inside/target");
        fs::create_dir(folder.path().join("inside")).unwrap();
        let result = unpack(&archive, &target, limits, &CancellationToken::new());
        // Whatever happened: nothing but the archive and the target may exist.
        let names = |path: &Path| -> Vec<PathBuf> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let outside: Vec<PathBuf> = names(folder.path())
            .into_iter()
            .chain(names(&folder.path().join("inside")))
            .filter(|path| *path != archive && !path.ends_with("inside") && *path != target)
            .collect();
        (result, outside)
    }

    #[test]
    fn a_release_is_unpacked_and_shared_licences_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let java = Crafted { mode: 0o775, ..file("top/bin/java", b"#!") };
        let licence =
            link("top/legal/java.sql/LICENSE", EntryType::Symlink, "../java.base/LICENSE");
        let dir = Crafted { kind: EntryType::Directory, mode: 0o755, ..file("./top/", b"") };
        let archive = archive(folder.path(), &[dir, java, file("top/questdb.jar", b"PK"), licence]);
        let target = folder.path().join("target");
        unpack(&archive, &target, Limits::RELEASE, &CancellationToken::new()).unwrap();
        assert_eq!(fs::read(target.join("top/questdb.jar")).unwrap(), b"PK");
        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode("top/bin/java"), mode("top/questdb.jar")), (0o755, 0o644));
        assert!(!target.join("top/legal").exists());
    }

    #[test]
    fn hostile_entries_are_refused_and_write_nothing_outside() {
        let cases: Vec<(Crafted, &str)> = vec![
            (file("../evil", b"x"), "path leads outside"),
            (file("top/../../evil", b"x"), "path leads outside"),
            (file("/tmp/periscope-evil", b"x"), "path leads outside"),
            (link("top/a", EntryType::Symlink, "/etc/passwd"), "neither a file"),
            (link("top/legal/a/b", EntryType::Symlink, "../../../../etc"), "neither a file"),
            (link("top/legal/a/b", EntryType::Symlink, "../../x"), "neither a file"),
            (link("top/a", EntryType::Link, "top/b"), "neither a file"),
            (link("top/a", EntryType::Char, ""), "neither a file"),
            (link("top/a", EntryType::Block, ""), "neither a file"),
            (link("top/a", EntryType::Fifo, ""), "neither a file"),
            (Crafted { mode: 0o4755, ..file("top/su", b"x") }, "setuid"),
            (Crafted { mode: 0o2755, ..file("top/sg", b"x") }, "setuid"),
            (file(".", b"x"), "the same name twice"),
        ];
        for (entry, expected) in cases {
            let name = entry.name;
            let (result, outside) = try_unpack(&[entry], Limits::RELEASE);
            let error = result.expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(outside.is_empty(), "{name}: {outside:?}");
            assert!(!Path::new("/tmp/periscope-evil").exists());
        }
    }

    #[test]
    fn a_name_twice_is_refused_in_any_spelling() {
        let (result, _) = try_unpack(&[file("a/b", b"1"), file("a/./b", b"2")], Limits::RELEASE);
        assert!(result.unwrap_err().to_string().contains("the same name twice"));
        // A file where a folder should be: the system refuses it.
        let (result, _) = try_unpack(&[file("a", b"1"), file("a/b", b"2")], Limits::RELEASE);
        assert!(matches!(result, Err(UnpackError::Io { .. })), "{result:?}");
    }

    #[test]
    fn bombs_and_floods_of_entries_are_refused() {
        let zeros = vec![0_u8; 8 << 20];
        let (result, _) = try_unpack(&[file("zeros", &zeros)], Limits::RELEASE);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("grows beyond"), "{error}");
        let many: Vec<Crafted> = ["a", "b", "c"].map(|name| file(name, b"")).into();
        let (result, _) = try_unpack(&many, Limits { entries: 2, ..Limits::RELEASE });
        assert!(result.unwrap_err().to_string().contains("too many entries"));
    }

    #[test]
    fn an_archive_that_is_cut_off_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let noise: Vec<u8> =
            (0..50_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let path = archive(folder.path(), &[file("a", &noise)]);
        let length = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
        let target = folder.path().join("target");
        let result = unpack(&path, &target, Limits::RELEASE, &CancellationToken::new());
        assert!(matches!(result, Err(UnpackError::Io { .. })), "{result:?}");
    }

    proptest::proptest! {
        /// Whatever the bytes are: no panic, and nothing outside the target.
        #[test]
        fn random_archives_never_escape(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.tar.gz");
            let gzip = fs::File::create(&path).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(gzip, flate2::Compression::fast());
            io::Write::write_all(&mut gzip, &bytes).unwrap();
            gzip.finish().unwrap();
            let target = folder.path().join("target");
            drop(unpack(&path, &target, Limits::RELEASE, &CancellationToken::new()));
            assert!(fs::read_dir(folder.path()).unwrap().count() <= 2);
        }
    }
}
