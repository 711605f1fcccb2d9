//! The whole acquisition against a loopback server, a stand-in for `mvn`, and the disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::acquired::AcquireError;
use super::download::{DownloadError, Patience, download};
use super::java::Places;
use super::progress::Progress;
use super::questdb::{Installed, Request, Sources, acquire};
use super::verify::Sha256;
use crate::base::http::Client;

/// What the server does with a path that contains the key.
#[derive(Clone)]
pub(super) enum Answer {
    Body(Vec<u8>),
    /// Promises the body's length, sends half of it and closes.
    Half(Vec<u8>),
    Status(&'static str),
    Redirect(String),
    /// Sends the head and half of the body, then nothing.
    Hang(Vec<u8>),
}

/// Serves the answers of `script`; the asked paths are kept.
pub(super) async fn serve(
    script: Vec<(&'static str, Answer)>,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    crate::base::tasks::spawn_detached(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (script, log) = (script.clone(), Arc::clone(&log));
            crate::base::tasks::spawn_detached(async move {
                let mut request = Vec::new();
                let mut buffer = [0_u8; 4096];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => request.extend_from_slice(&buffer[..read]),
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(path.clone());
                let answer = script.iter().find(|(key, _)| path.contains(key));
                let answer = answer.map(|(_, answer)| answer.clone());
                answer_with(&mut stream, answer.unwrap_or(Answer::Status("404 Not Found"))).await;
            });
        }
    });
    (base, asked)
}

async fn answer_with(stream: &mut tokio::net::TcpStream, answer: Answer) {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let bytes = match &answer {
        Answer::Body(body) => [head(body.len()).as_bytes(), body].concat(),
        Answer::Half(body) | Answer::Hang(body) => {
            [head(body.len()).as_bytes(), &body[..body.len() / 2]].concat()
        }
        Answer::Status(status) => {
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()
        }
        Answer::Redirect(to) => {
            format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
                .into_bytes()
        }
    };
    drop(stream.write_all(&bytes).await);
    if matches!(answer, Answer::Hang(_)) {
        // Longer than every limit of these tests; ends with the runtime.
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

struct Place {
    folder: tempfile::TempDir,
    request: Request,
}

impl Place {
    /// A machine with Java 17 (a stand-in) and nothing else.
    fn new(base: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let java = folder.path().join("jdk");
        fs::create_dir_all(java.join("bin")).unwrap();
        fs::write(java.join("bin/java"), "").unwrap();
        fs::write(java.join("release"), "JAVA_VERSION=\"17.0.1\"\n").unwrap();
        let request = Request {
            version: "0.0.1".to_owned(),
            home: None,
            offline: None,
            java: Places { java_home: Some(java), ..Places::default() },
            folder: folder.path().join("artifacts"),
            sources: Sources {
                releases: format!("{base}/files"),
                releases_api: format!("{base}/api"),
                mvn: folder.path().join("no-mvn").display().to_string(),
                repository: None,
                patience: Patience {
                    connect: Duration::from_millis(500),
                    head: Duration::from_secs(5),
                    stall: Duration::from_millis(500),
                    whole: Duration::from_secs(20),
                },
            },
        };
        Self { folder, request }
    }

    async fn acquire(&self) -> Result<Installed, AcquireError> {
        let quiet = |_: Progress| {};
        let result =
            acquire(&self.request, &Client::new().unwrap(), &CancellationToken::new(), &quiet)
                .await;
        if result.is_err() {
            assert!(!self.installed().exists(), "half installed");
        }
        result
    }

    fn installed(&self) -> PathBuf {
        self.request.folder.join(format!("questdb-{}", self.request.version))
    }
}

/// A release archive with `jar` as the server.
fn archive(jar: &[u8]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(jar.len().try_into().unwrap());
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "questdb-0.0.1-no-jre-bin/questdb.jar", jar).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

/// GitHub's answer: the digest of `content` for the archive without Java.
fn described(content: &[u8]) -> Answer {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let sum = Sha256::of_file(file.path()).unwrap();
    let asset = |name: &str| format!(r#"{{"name":"{name}","digest":"sha256:{sum}"}}"#);
    let name = asset("questdb-0.0.1-no-jre-bin.tar.gz");
    Answer::Body(format!(r#"{{"assets":[{name}]}}"#).into_bytes())
}

#[tokio::test]
async fn a_release_with_a_published_digest_is_installed_and_then_found_in_the_cache() {
    let content = archive(b"the server");
    let (base, asked) = serve(vec![
        ("/api/0.0.1", described(&content)),
        ("/files/0.0.1/questdb-0.0.1-no-jre", Answer::Redirect("/moved/here".to_owned())),
        ("/moved/here", Answer::Body(content)),
    ])
    .await;
    let place = Place::new(&base);
    let installed = place.acquire().await.unwrap();
    assert_eq!(installed.source, "release archive");
    assert_eq!(fs::read(installed.jar.unwrap()).unwrap(), b"the server");
    let before = asked.lock().unwrap().len();
    assert_eq!(place.acquire().await.unwrap().source, "cache");
    assert_eq!(asked.lock().unwrap().len(), before, "the second time asks nobody");
}

#[tokio::test]
async fn what_is_not_whole_or_not_the_right_file_is_refused_with_the_reason() {
    let content = archive(b"the server");
    let other = archive(b"another server");
    let unpublished = Answer::Body(br#"{"assets":[]}"#.to_vec());
    let cases = [
        (described(&content), Answer::Body(other), "the published one is"),
        (described(&content), Answer::Half(content.clone()), "broke off after"),
        (described(&content), Answer::Hang(content.clone()), "nothing more from"),
        (described(&content), Answer::Status("404 Not Found"), "answers 404"),
        (described(&content), Answer::Status("500 Oops"), "answers 500"),
        (described(b"no archive"), Answer::Body(b"no archive".to_vec()), "unpack"),
        (
            described(&content),
            Answer::Redirect("http://127.0.0.1:9/x".to_owned()),
            "redirects to http://127.0.0.1:9, which is not allowed",
        ),
        (unpublished, Answer::Body(content.clone()), "cannot be verified"),
        (Answer::Status("403 rate limit"), Answer::Body(content.clone()), "answers 403"),
    ];
    for (api, file, expected) in cases {
        let (base, _) = serve(vec![("/api/", api), ("no-jre", file)]).await;
        let error = Place::new(&base).acquire().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains("periscope fetch --from"), "the next step is missing: {error}");
    }
}

#[tokio::test]
async fn a_release_that_changes_between_two_downloads_is_refused() {
    let (first, second) = (archive(b"one"), archive(b"two"));
    let (base, _) =
        serve(vec![("/api/", described(&first)), ("no-jre", Answer::Body(first))]).await;
    let mut place = Place::new(&base);
    place.acquire().await.unwrap();
    fs::remove_dir_all(place.installed()).unwrap();
    // Even the published digest has changed with it: only the record can tell.
    let (base, _) =
        serve(vec![("/api/", described(&second)), ("no-jre", Answer::Body(second))]).await;
    place.request.sources.releases = format!("{base}/files");
    place.request.sources.releases_api = format!("{base}/api");
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("recorded in lock.toml"), "{error}");
}

#[tokio::test]
async fn without_a_network_every_way_is_named_within_the_limit() {
    // A port that nobody listens on, and an address that swallows packets.
    for base in ["http://127.0.0.1:1", "http://192.0.2.1:81"] {
        let start = Instant::now();
        let error = Place::new(base).acquire().await.unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "{base} took {:?}", start.elapsed());
        for way in ["cache: empty", "offline folder: none", "release archive:", "maven: run"] {
            assert!(error.contains(way), "{way} is missing: {error}");
        }
        assert!(error.contains("mvn dependency:get"), "{error}");
    }
}

#[tokio::test]
async fn a_corrupt_jar_in_the_cache_is_replaced_from_the_offline_folder() {
    let mut place = Place::new("http://127.0.0.1:1");
    let offline = place.folder.path().join("offline");
    fs::create_dir(&offline).unwrap();
    fs::write(offline.join("questdb-0.0.1.jar"), "the server").unwrap();
    place.request.offline = Some(offline.clone());
    let installed = place.acquire().await.unwrap();
    assert_eq!(installed.source, "offline folder");
    let jar = installed.jar.unwrap();
    fs::write(&jar, "the servex").unwrap();
    assert_eq!(place.acquire().await.unwrap().source, "offline folder");
    assert_eq!(fs::read(&jar).unwrap(), b"the server");
    // The offline folder is held to the record too.
    fs::remove_dir_all(place.installed()).unwrap();
    fs::write(offline.join("questdb-0.0.1.jar"), "another").unwrap();
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("recorded in lock.toml"), "{error}");
}

#[tokio::test]
async fn the_local_repository_is_used_without_running_maven_only_when_the_checksum_is_known() {
    let mut place = Place::new("http://127.0.0.1:1");
    let repository = place.folder.path().join("repository");
    let jar = super::maven::local_jar(&repository, "0.0.1");
    fs::create_dir_all(jar.parent().unwrap()).unwrap();
    fs::write(&jar, "whatever").unwrap();
    place.request.sources.repository = Some(repository);
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("questdb-0.0.1.jar cannot be verified"), "{error}");
    // Maven itself is trusted at first use.
    let mvn = place.folder.path().join("mvn");
    executable(
        &mvn,
        "for a in \"$@\"; do case $a in -DoutputDirectory=*) cd \"${a#*=}\";; esac; done\nprintf whatever > questdb-0.0.1.jar",
    );
    place.request.sources.mvn = mvn.display().to_string();
    assert_eq!(place.acquire().await.unwrap().source, "maven");
    fs::remove_dir_all(place.installed()).unwrap();
    assert_eq!(place.acquire().await.unwrap().source, "maven's local repository");
}

fn executable(path: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let mut place = Place::new("http://127.0.0.1:1");
    fs::write(place.folder.path().join("file"), "").unwrap();
    place.request.folder = place.folder.path().join("file/artifacts");
    let error = place.acquire().await.unwrap_err();
    assert!(matches!(error, AcquireError::Folder { .. }), "{error}");
    assert!(error.to_string().contains("file/artifacts"), "{error}");
}

#[tokio::test]
async fn a_stop_ends_a_download_at_once_and_leaves_nothing() {
    let content = archive(b"the server");
    let (base, asked) =
        serve(vec![("/api/", described(&content)), ("no-jre", Answer::Hang(content))]).await;
    let mut place = Place::new(&base);
    place.request.sources.patience.stall = Duration::from_secs(60);
    let stop = CancellationToken::new();
    let (client, quiet) = (Client::new().unwrap(), |_: Progress| {});
    let stopper = async {
        while !asked.lock().unwrap().iter().any(|path| path.contains("no-jre")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let start = Instant::now();
    let (result, ()) = tokio::join!(acquire(&place.request, &client, &stop, &quiet), stopper);
    assert!(matches!(result, Err(AcquireError::Stopped)), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!place.installed().exists());
}

#[tokio::test]
async fn no_java_is_named_first_with_its_own_remedy() {
    let mut place = Place::new("http://127.0.0.1:1");
    place.request.java = Places::default();
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("no Java 17 or newer") && error.contains("install Java 17"), "{error}");
}

#[tokio::test]
async fn a_configured_home_is_used_as_it_is_or_refused_alone() {
    let mut place = Place::new("http://127.0.0.1:1");
    let home = place.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    place.request.home = Some(home.clone());
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("holds neither questdb.jar"), "{error}");
    fs::write(home.join("questdb.jar"), "cut off").unwrap();
    let error = place.acquire().await.unwrap_err().to_string();
    assert!(error.contains("the jar is corrupt") && error.contains("questdb.jar"), "{error}");
}

#[tokio::test]
async fn a_disk_that_refuses_is_named_with_the_file() {
    let (base, _) = serve(vec![("file", Answer::Body(vec![1; 1 << 20]))]).await;
    let (client, quiet) = (Client::new().unwrap(), |_: Progress| {});
    let (url, stop) = (format!("{base}/file"), CancellationToken::new());
    let to = Path::new("/proc/periscope-cannot-write-here");
    let result = download(&client, &url, to, 1 << 30, Patience::default(), &stop, &quiet).await;
    let error = result.unwrap_err();
    assert!(matches!(error, DownloadError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("periscope-cannot-write-here"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("large");
    let result = download(&client, &url, &to, 1000, Patience::default(), &stop, &quiet).await;
    assert!(matches!(result, Err(DownloadError::TooLarge { .. })), "{result:?}");
}
