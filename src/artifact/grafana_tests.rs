//! The acquisition of Grafana against a loopback server and the disk.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::acquired::AcquireError;
use super::download::Patience;
use super::grafana::{Archive, Installed, Request, Sources, acquire};
use super::progress::Progress;
use super::tests::{Answer, serve};
use super::verify::Sha256;
use crate::base::http::Client;

const NAME: &str = "grafana_0.0.1_7_linux.tar.gz";

struct Place {
    _folder: tempfile::TempDir,
    request: Request,
}

impl Place {
    /// A machine with nothing; the archive that it may ask for has the checksum of `content`.
    fn new(base: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive =
            Archive { version: "0.0.1".to_owned(), name: NAME.to_owned(), sum: Some(sum(content)) };
        let request = Request {
            version: "0.0.1".to_owned(),
            home: None,
            offline: None,
            folder: folder.path().join("artifacts/grafana"),
            sources: Sources {
                releases: base.to_owned(),
                archives: vec![archive],
                patience: Patience {
                    connect: Duration::from_millis(500),
                    head: Duration::from_secs(5),
                    stall: Duration::from_millis(500),
                    whole: Duration::from_secs(20),
                },
            },
        };
        Self { _folder: folder, request }
    }

    async fn acquire(&self) -> Result<Installed, AcquireError> {
        let stop = CancellationToken::new();
        let client = Client::new().unwrap();
        let result = acquire(&self.request, &client, &stop, &|_: Progress| {}).await;
        if result.is_err() {
            assert!(!self.installed().exists(), "half installed");
        }
        result
    }

    fn installed(&self) -> PathBuf {
        self.request.folder.join("grafana-0.0.1")
    }
}

fn sum(content: &[u8]) -> Sha256 {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    Sha256::of_file(file.path()).unwrap()
}

/// A release archive with `program`, and whatever `more` adds.
fn archive(program: &[u8], more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len().try_into().unwrap());
    header.set_mode(0o755);
    header.set_cksum();
    builder.append_data(&mut header, "grafana-0.0.1/bin/grafana", program).unwrap();
    more(&mut builder);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&builder.into_inner().unwrap()).unwrap();
    gzip.finish().unwrap()
}

fn plain(program: &[u8]) -> Vec<u8> {
    archive(program, |_| {})
}

/// Adds a file whose name the builder itself would refuse.
fn outside(builder: &mut tar::Builder<Vec<u8>>) {
    let mut header = tar::Header::new_gnu();
    let name = b"grafana-0.0.1/../../../out";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(1);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
}

fn link(builder: &mut tar::Builder<Vec<u8>>) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    builder.append_link(&mut header, "grafana-0.0.1/conf", "/etc").unwrap();
}

#[tokio::test]
async fn the_pinned_archive_is_installed_and_then_found_in_the_cache() {
    let content = plain(b"the server");
    let (base, asked) =
        serve(vec![("/0.0.1/grafana_0.0.1_7", Answer::Body(content.clone()))]).await;
    let place = Place::new(&base, &content);
    let installed = place.acquire().await.unwrap();
    assert_eq!(installed.source, "official archive");
    assert_eq!(fs::read(installed.program()).unwrap(), b"the server");
    let before = asked.lock().unwrap().len();
    assert_eq!(place.acquire().await.unwrap().source, "cache");
    assert_eq!(asked.lock().unwrap().len(), before, "the second time asks nobody");
    let lock = fs::read_to_string(place.request.folder.join("lock.toml")).unwrap();
    assert!(lock.contains(&sum(&content).to_string()), "{lock}");
}

#[tokio::test]
async fn what_is_not_whole_or_not_the_right_file_is_refused_with_the_reason() {
    let content = plain(b"the server");
    let empty = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar::Builder::new(Vec::new()).into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    };
    let (climbing, linking) = (archive(b"s", outside), archive(b"s", link));
    // (what is pinned, what is answered, what is said)
    let cases = [
        (content.clone(), Answer::Body(plain(b"another server")), "the published one is"),
        (content.clone(), Answer::Half(content.clone()), "broke off after"),
        (content.clone(), Answer::Hang(content.clone()), "nothing more from"),
        (content.clone(), Answer::Status("404 Not Found"), "answers 404"),
        (content.clone(), Answer::Status("500 Oops"), "answers 500"),
        (b"no archive".to_vec(), Answer::Body(b"no archive".to_vec()), "unpack"),
        (empty.clone(), Answer::Body(empty), "no bin/grafana"),
        (climbing.clone(), Answer::Body(climbing), "path leads outside"),
        (linking.clone(), Answer::Body(linking), "neither a file nor a folder"),
    ];
    for (pinned, answer, expected) in cases {
        let (base, _) = serve(vec![("grafana_", answer)]).await;
        let place = Place::new(&base, &pinned);
        let error = place.acquire().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains("set grafana.home"), "the next step is missing: {error}");
        let left = fs::read_dir(place.request.folder.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "something was written outside of its folder");
    }
}

#[tokio::test]
async fn an_unknown_version_asks_nobody_and_says_so() {
    let (base, asked) = serve(Vec::new()).await;
    let mut place = Place::new(&base, b"");
    place.request.version = "99.0.0".to_owned();
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("none is known for version 99.0.0"), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_offline_folder_is_used_and_held_to_the_record() {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut place = Place::new("http://127.0.0.1:1", b"");
    let offline = place._folder.path().join("offline");
    fs::create_dir(&offline).unwrap();
    let file = offline.join(format!("grafana_0.0.1_8_linux_{machine}.tar.gz"));
    fs::write(&file, plain(b"the server")).unwrap();
    place.request.offline = Some(offline);
    let installed = place.acquire().await.unwrap();
    assert_eq!(installed.source, "offline folder");
    // A damaged cache mends itself from there.
    fs::write(installed.program(), "the servex").unwrap();
    assert_eq!(place.acquire().await.unwrap().source, "offline folder");
    fs::remove_dir_all(place.installed()).unwrap();
    fs::write(&file, plain(b"another")).unwrap();
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("recorded in lock.toml"), "{error}");
}

#[tokio::test]
async fn a_stop_ends_a_download_at_once_and_leaves_nothing() {
    let content = plain(b"the server");
    let (base, asked) = serve(vec![("grafana_", Answer::Hang(content.clone()))]).await;
    let mut place = Place::new(&base, &content);
    place.request.sources.patience.stall = Duration::from_secs(60);
    let (client, stop) = (Client::new().unwrap(), CancellationToken::new());
    let stopper = async {
        while asked.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let quiet = |_: Progress| {};
    let start = Instant::now();
    let (result, ()) = tokio::join!(acquire(&place.request, &client, &stop, &quiet), stopper);
    assert!(matches!(result, Err(AcquireError::Stopped)), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(!place.installed().exists());
}

#[tokio::test]
async fn a_configured_home_is_used_as_it_is_or_refused_alone() {
    let mut place = Place::new("http://127.0.0.1:1", b"");
    let home = place._folder.path().join("home");
    fs::create_dir_all(home.join("grafana-12.0.0/bin")).unwrap();
    place.request.home = Some(home.clone());
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.starts_with("grafana.home = ") && error.contains("bin/grafana"), "{error}");
    fs::write(home.join("grafana-12.0.0/bin/grafana"), "").unwrap();
    assert_eq!(place.acquire().await.unwrap().version, "0.0.1");
    fs::write(home.join("grafana-12.0.0/VERSION"), "12.0.0\n").unwrap();
    let installed = place.acquire().await.unwrap();
    assert_eq!((installed.version.as_str(), installed.source), ("12.0.0", "grafana.home"));
}
