//! The checks of `[[daemon]]`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{Place, Problems, quoted};
use super::map::{self, PRESETS, Preset};
use super::parts::{self, Part, request};
use super::reader::Section;
use super::secrets::Sources;
use super::sections::{INTERVALS, tag};
use super::values::{self, Fault, Url};
use super::{Collect, Daemon, Source, defaults};
use crate::base::secret::Secret;

/// The words of `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shim,
    Http,
    Websocket,
    Exec,
    File,
    Socket,
    Push,
    /// None of these: nothing is known about the other keys.
    Unknown,
}

const KINDS: [(&str, Kind); 7] = [
    ("shim", Kind::Shim),
    ("http", Kind::Http),
    ("websocket", Kind::Websocket),
    ("exec", Kind::Exec),
    ("file", Kind::File),
    ("socket", Kind::Socket),
    ("push", Kind::Push),
];

/// Keys that only some sources have, with those sources.
const OWN_KEYS: [(&str, &[Kind], &str); 12] = [
    ("url", &[Kind::Http, Kind::Websocket], "\"http\" or \"websocket\""),
    ("user", &[Kind::Http, Kind::Websocket], "\"http\" or \"websocket\""),
    ("password", &[Kind::Http, Kind::Websocket], "\"http\" or \"websocket\""),
    ("token", &[Kind::Http, Kind::Websocket], "\"http\" or \"websocket\""),
    ("subscribe", &[Kind::Websocket], "\"websocket\""),
    ("command", &[Kind::Exec], "\"exec\""),
    ("path", &[Kind::File, Kind::Socket], "\"file\" or \"socket\""),
    ("stale_after", &[Kind::File], "\"file\""),
    ("request", &[Kind::Socket], "\"socket\""),
    ("method", &[Kind::Http], "\"http\""),
    ("body", &[Kind::Http], "\"http\""),
    ("parts", &[Kind::Http], "\"http\""),
];

/// Unless set, a file counts as silent after this many intervals without a change …
const STALE_INTERVALS: u32 = 3;
/// … but not before this time: writers are not as punctual as readers.
const SHORTEST_STALE: Duration = Duration::from_secs(10);

pub(super) fn daemons(
    sections: Vec<Section<'_>>,
    collect: Collect,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Vec<Daemon> {
    let mut seen: Vec<(String, String, Place)> = Vec::new();
    let mut daemons = Vec::new();
    for section in sections {
        let path = section.path().to_owned();
        let place = section.place_of("name").clone();
        let Some(daemon) = daemon(section, collect, sources, problems) else { continue };
        if let Some((_, first, at)) = seen.iter().find(|(name, ..)| *name == daemon.name) {
            let message = format!("{} is also the name of {first} ({at})", quoted(&daemon.name));
            let hint = Some("give every daemon a name of its own".to_owned());
            problems.error(&place, format!("{path}.name"), message, hint);
        }
        seen.push((daemon.name.clone(), path, place));
        daemons.push(daemon);
    }
    daemons
}

/// Reads one entry; `None` when it has no name.
fn daemon(
    mut section: Section<'_>,
    collect: Collect,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Daemon> {
    let has_name = section.has("name");
    let name = section.parsed("name", tag, problems);
    if !has_name {
        section.refuse("name", "is missing", "write name = \"ccxt\"", problems);
    }
    let has_source = section.has("source");
    let kind = section.parsed("source", source_kind, problems);
    let preset = section.choice("preset", &PRESETS, problems);
    let preset = preset.map(|path| Preset::load(path, problems)).unwrap_or_default();
    let kind = kind.unwrap_or(match (has_source, preset.parts.is_empty()) {
        // After a wrong word nothing is known about the other keys.
        (true, _) => Kind::Unknown,
        (false, true) => Kind::Shim,
        (false, false) => Kind::Http,
    });
    if !preset.parts.is_empty() && !matches!(kind, Kind::Http | Kind::Unknown) {
        let hint = "leave the source out, or write source = \"http\"";
        section.refuse("preset", "is for source = \"http\" only", hint, problems);
    }
    let usual = match kind {
        Kind::Push => defaults::PUSH_INTERVAL,
        Kind::Shim
        | Kind::Http
        | Kind::Websocket
        | Kind::Exec
        | Kind::File
        | Kind::Socket
        | Kind::Unknown => collect.interval,
    };
    let interval = section.duration("interval", INTERVALS, problems).unwrap_or(usual);
    let timeout = section.duration("timeout", INTERVALS, problems);
    if timeout.is_some_and(|timeout| timeout > interval) {
        let (shown, most) = (
            timeout.map(values::show_duration).unwrap_or_default(),
            values::show_duration(interval),
        );
        let message = format!("\"{shown}\" is longer than the interval \"{most}\"");
        section.refuse("timeout", message, "a poll ends before the next begins", problems);
    }
    let timeout = timeout.unwrap_or(defaults::poll_timeout(interval));
    let source = match kind {
        Kind::Http => http(&mut section, &preset, sources, problems),
        Kind::Websocket => websocket(&mut section, sources, problems),
        Kind::Exec => exec(&mut section, problems),
        Kind::File => file(&mut section, sources, interval, problems),
        Kind::Socket => socket(&mut section, sources, problems),
        Kind::Shim => {
            if name.as_ref().is_some_and(|name| name.contains('/')) {
                let hint = "the name of a shim daemon is part of a file name";
                section.refuse("name", "holds a /", hint, problems);
            }
            Some(Source::Shim)
        }
        Kind::Push => {
            if section.has("timeout") {
                let hint = "leave it out: interval says how often the daemon pushes";
                section.refuse("timeout", "is for daemons that are polled", hint, problems);
            }
            Some(Source::Push)
        }
        Kind::Unknown => None,
    };
    for (key, kinds, words) in OWN_KEYS {
        if !kinds.contains(&kind) && section.take(key).is_some() && kind != Kind::Unknown {
            let message = format!("is for source = {words} only");
            section.refuse(key, message, "leave the key out, or write another source", problems);
        }
    }
    let own = section.has("map").then(|| map::map(section.section("map", problems), problems));
    let map = preset.with(own);
    section.finish(problems);
    // Whatever is missing here has been reported; the name counts for the search of duplicates.
    Some(Daemon { name: name?, source: source.unwrap_or(Source::Shim), interval, timeout, map })
}

fn source_kind(text: &str) -> Result<Kind, Fault> {
    let names = || KINDS.iter().map(|(name, _)| *name);
    match KINDS.iter().find(|(name, _)| *name == text) {
        Some((_, kind)) => Ok(*kind),
        None => Err(Fault {
            message: "is not allowed".to_owned(),
            hint: super::check::suggestion(text, names()),
        }),
    }
}

fn http(
    section: &mut Section<'_>,
    preset: &Preset,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Source> {
    let authorization = authorization(section, sources, problems);
    let ask = parts::ask(section, problems);
    let parts = own_or_preset_parts(section, preset, problems);
    if !parts.is_empty() && section.has("method") {
        let hint = "write the method of a part: NAME = { path = \"/…\", method = \"POST\" }";
        section.refuse("method", "has no meaning beside parts", hint, problems);
    }
    let hint = if parts.is_empty() {
        "write url = \"http://127.0.0.1:8080/status\""
    } else {
        "write url = \"http://127.0.0.1:8080\""
    };
    let url = url(section, values::url, hint, problems)?;
    let url = format!("{}{}", url.origin(), url.path);
    Some(Source::Http { url, authorization, ask, parts })
}

/// Returns the parts of `[daemon.parts]`, over those of the preset that have other names.
fn own_or_preset_parts(
    section: &mut Section<'_>,
    preset: &Preset,
    problems: &mut Problems,
) -> Vec<Part> {
    let own = parts::parts(section.section("parts", problems), problems);
    let of_preset = preset.parts.iter().filter(|part| own.iter().all(|one| one.name != part.name));
    let mut all: Vec<Part> = of_preset.cloned().collect();
    all.extend(own);
    all
}

fn websocket(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Source> {
    let authorization = authorization(section, sources, problems);
    let subscribe = section.text("subscribe", problems);
    let hint = "write url = \"ws://127.0.0.1:8080/status\"";
    let url = url(section, values::websocket_url, hint, problems)?;
    let url = format!("{}{}", url.origin(), url.path);
    Some(Source::Websocket { url, authorization, subscribe })
}

/// Reads `url`, which must be there.
fn url(
    section: &mut Section<'_>,
    parse: fn(&str) -> Result<Url, Fault>,
    hint: &str,
    problems: &mut Problems,
) -> Option<Url> {
    let written = section.text("url", problems);
    if !section.has("url") {
        section.refuse("url", "is missing", hint, problems);
        return None;
    }
    let text = written?;
    // User part and query are where people put passwords and tokens.
    let before_query = text.split('?').next().unwrap_or_default();
    let shown =
        if values::has_user_info(&text) { "the URL".to_owned() } else { quoted(before_query) };
    let url = match parse(&text) {
        Ok(url) => url,
        Err(Fault { message, hint }) => {
            section.refuse("url", format!("{shown} {message}"), hint, problems);
            return None;
        }
    };
    if values::is_link_local(&url.host) {
        let hint = "use an address of the daemon's own network";
        section.refuse("url", format!("{shown} is a link-local address"), hint, problems);
        return None;
    }
    Some(url)
}

fn exec(section: &mut Section<'_>, problems: &mut Problems) -> Option<Source> {
    const HINT: &str = "write command = [\"/usr/local/bin/bot-status\", \"--json\"]";
    let command = section.texts("command", problems);
    let Some(program) = command.first() else {
        if !section.has("command") {
            section.refuse("command", "is missing", HINT, problems);
        }
        return None;
    };
    if !program.starts_with('/') {
        let message = format!("{} is no absolute path", quoted(program));
        let hint = "name the program by its whole path: no search, no shell";
        section.refuse("command", message, hint, problems);
        return None;
    }
    if command.iter().any(|part| part.contains('\0')) {
        section.refuse("command", "holds a NUL character", HINT, problems);
        return None;
    }
    Some(Source::Exec { command })
}

fn file(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    interval: Duration,
    problems: &mut Problems,
) -> Option<Source> {
    let stale_after = section.duration("stale_after", INTERVALS, problems);
    let usual = interval.saturating_mul(STALE_INTERVALS).max(SHORTEST_STALE);
    let path = path(section, sources, problems)?;
    Some(Source::File { path, stale_after: stale_after.unwrap_or(usual) })
}

fn socket(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Source> {
    let request = section.parsed("request", request, problems);
    let path = path(section, sources, problems)?;
    Some(Source::Socket { path, request: request.unwrap_or_else(|| "/status".to_owned()) })
}

/// Reads `path`, which must be there; what is at it may come later.
fn path(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<PathBuf> {
    if !section.has("path") {
        section.know("path");
        section.refuse("path", "is missing", "write path = \"/run/bot/status\"", problems);
        return None;
    }
    let place = section.place_of("path").clone();
    let text = section.text("path", problems)?;
    Some(sources.folders.of(&place).join(text))
}

/// Reads `user` and `password`, or `token`, into the value of an Authorization header.
fn authorization(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    let user = section.parsed("user", tag, problems);
    let password = section.secret("password", sources, problems);
    let token = section.secret("token", sources, problems);
    let [has_user, has_password, has_token] =
        ["user", "password", "token"].map(|key| section.has(key));
    if has_token && (has_user || has_password) {
        section.refuse("token", "stands beside user or password", "use one of them", problems);
        return None;
    }
    if !section.has_whole_login(problems) {
        return None;
    }
    if let Some(token) = token {
        if token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(Secret::new(format!("Bearer {}", token.reveal())));
        }
        let hint = "a token has no spaces and only ASCII characters";
        section.refuse("token", "cannot stand in a header", hint, problems);
        return None;
    }
    let (user, password) = (user?, password?);
    if user.contains(':') {
        let hint = "basic authentication cannot send such a user";
        section.refuse("user", format!("{} holds a colon", quoted(&user)), hint, problems);
        return None;
    }
    let pair = STANDARD.encode(format!("{user}:{}", password.reveal()));
    Some(Secret::new(format!("Basic {pair}")))
}
