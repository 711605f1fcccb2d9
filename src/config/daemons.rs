//! The checks of `[[daemon]]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{Place, Problems, quoted};
use super::reader::Section;
use super::secrets::Sources;
use super::sections::{INTERVALS, not_used_yet, tag};
use super::values::{self, Fault};
use super::{Collect, Daemon, Source, defaults};
use crate::base::secret::Secret;

/// The words of `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shim,
    Http,
    Push,
    /// Agreed, but not part of this version.
    Later,
}

const KINDS: [(&str, Kind); 7] = [
    ("shim", Kind::Shim),
    ("http", Kind::Http),
    ("websocket", Kind::Later),
    ("exec", Kind::Later),
    ("file", Kind::Later),
    ("socket", Kind::Later),
    ("push", Kind::Push),
];

/// Keys that only [`Kind::Http`] has.
const HTTP_KEYS: [&str; 4] = ["url", "user", "password", "token"];

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
    // After a wrong word nothing is known about the other keys.
    let kind = kind.unwrap_or(if has_source { Kind::Later } else { Kind::Shim });
    let usual = match kind {
        Kind::Push => defaults::PUSH_INTERVAL,
        Kind::Shim | Kind::Http | Kind::Later => collect.interval,
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
        Kind::Http => http(&mut section, sources, problems),
        Kind::Shim => {
            if name.as_ref().is_some_and(|name| name.contains('/')) {
                let hint = "the name of a shim daemon is part of a file name";
                section.refuse("name", "holds a /", hint, problems);
            }
            refuse_http_keys(&mut section, problems);
            Some(Source::Shim)
        }
        Kind::Push => {
            refuse_http_keys(&mut section, problems);
            if section.has("timeout") {
                let hint = "leave it out: interval says how often the daemon pushes";
                section.refuse("timeout", "is for daemons that are polled", hint, problems);
            }
            Some(Source::Push)
        }
        Kind::Later => {
            for key in HTTP_KEYS {
                let _known = section.take(key);
            }
            None
        }
    };
    for key in ["preset", "map", "command", "path"] {
        if section.take(key).is_some() && kind != Kind::Later {
            not_used_yet(&section, key, problems);
        }
    }
    section.finish(problems);
    // Whatever is missing here has been reported; the name counts for the search of duplicates.
    Some(Daemon { name: name?, source: source.unwrap_or(Source::Shim), interval, timeout })
}

fn refuse_http_keys(section: &mut Section<'_>, problems: &mut Problems) {
    for key in HTTP_KEYS {
        if section.take(key).is_some() {
            let hint = "write source = \"http\", or leave the key out";
            section.refuse(key, "is for source = \"http\" only", hint, problems);
        }
    }
}

fn source_kind(text: &str) -> Result<Kind, Fault> {
    let names = || KINDS.iter().map(|(name, _)| *name);
    match KINDS.iter().find(|(name, _)| *name == text) {
        Some((_, Kind::Later)) => Err(Fault {
            message: "is not part of this version yet".to_owned(),
            hint: "use \"shim\", \"http\" or \"push\"".to_owned(),
        }),
        Some((_, kind)) => Ok(*kind),
        None => Err(Fault {
            message: "is not allowed".to_owned(),
            hint: super::check::suggestion(text, names()),
        }),
    }
}

fn http(
    section: &mut Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Source> {
    let authorization = authorization(section, sources, problems);
    let written = section.text("url", problems);
    if !section.has("url") {
        let hint = "write url = \"http://127.0.0.1:8080/status\"";
        section.refuse("url", "is missing", hint, problems);
        return None;
    }
    let text = written?;
    // User part and query are where people put passwords and tokens.
    let before_query = text.split('?').next().unwrap_or_default();
    let shown =
        if values::has_user_info(&text) { "the URL".to_owned() } else { quoted(before_query) };
    let url = match values::url(&text) {
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
    Some(Source::Http { url: format!("{}{}", url.origin(), url.path), authorization })
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
    if has_user != has_password {
        let (there, missing) = if has_user { ("user", "password") } else { ("password", "user") };
        section.refuse(there, format!("there is no {missing}"), "set both or none", problems);
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
