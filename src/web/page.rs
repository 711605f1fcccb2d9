//! The status page, whole on the server: it is complete without JavaScript. Every text that came
//! from outside goes through [`text`].

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::routes::{Answer, answer};
use crate::base::embed;
use crate::base::health::{Entry, Health, Part};
use crate::base::time::Timestamp;
use crate::model::report::{Daemon, Report, Server};

/// Characters of one text that are shown; the whole is in the API.
const LONGEST: usize = 300;

/// Answers `/`.
///
/// `dashboards` are pairs of uid and title.
pub(super) fn page(
    report: &Report,
    now: Timestamp,
    address: SocketAddr,
    dashboards: &[(&str, &str)],
) -> Answer {
    match embed::asset_text("web/status.html") {
        Some(template) => {
            let html = fill(&template, &slots(report, now, address, dashboards));
            answer(StatusCode::OK, "text/html; charset=utf-8", html)
        }
        None => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "page not embedded\n"),
    }
}

/// Puts values into `{{name}}`; values are not searched again.
pub(super) fn fill(template: &str, slots: &[(&str, String)]) -> String {
    let mut html = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        html.push_str(before);
        if let Some((_, value)) = slots.iter().find(|(slot, _)| *slot == name) {
            html.push_str(value);
        }
        rest = after;
    }
    html.push_str(rest);
    html
}

fn slots(
    report: &Report,
    now: Timestamp,
    address: SocketAddr,
    dashboards: &[(&str, &str)],
) -> Vec<(&'static str, String)> {
    let daemons: String = report.daemons.iter().map(|daemon| daemon_row(daemon, now)).collect();
    let parts = report.parts.iter().map(|(part, entry)| part_row(*part, entry, now));
    let no_daemons = if report.daemons.is_empty() { "" } else { "hidden" };
    vec![
        ("host", text(&report.host)),
        ("env", text(&report.env)),
        ("mode", text(&report.mode)),
        ("version", text(&report.version)),
        ("uptime", age(now.since(report.started_at))),
        ("daemons", daemons),
        ("no_daemons", no_daemons.to_owned()),
        ("parts", parts.collect()),
        ("rows", figures(report, now)),
        ("address", address.to_string()),
        ("dashboards", links(dashboards)),
        ("questdb", server(&report.questdb)),
        ("grafana", server(&report.grafana)),
    ]
}

fn links(dashboards: &[(&str, &str)]) -> String {
    let link =
        |(uid, title): &(&str, &str)| format!("<a href=\"/d/{}\">{}</a>", text(uid), text(title));
    dashboards.iter().map(link).collect::<Vec<_>>().join(" · ")
}

fn daemon_row(daemon: &Daemon, now: Timestamp) -> String {
    let status = daemon.status.as_ref();
    let beats: String = daemon
        .beats
        .iter()
        .map(|good| if *good { "<i class=\"good\"></i>" } else { "<i></i>" })
        .collect();
    let answered = daemon.beats.iter().filter(|good| **good).count();
    let of_the_daemon = status.and_then(|status| field(status, "last_error"));
    let error = match (&daemon.poll_error, of_the_daemon) {
        (Some(error), _) => text(error),
        (None, Some(Value::Null) | None) => String::new(),
        (None, Some(error)) => text(&plain(error)),
    };
    let count = |name| match status.and_then(|status| field(status, name)) {
        None | Some(Value::Null) => "–".to_owned(),
        Some(value) => text(&plain(value)),
    };
    format!(
        "<tr><td><bdi>{}</bdi></td>{}\
         <td><div class=\"beats\" title=\"{answered} of {} answered\">{beats}</div></td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td class=\"text\"><bdi>{error}</bdi></td></tr>\n",
        text(&daemon.name),
        state(&daemon.state),
        daemon.beats.len(),
        ago(daemon.last_sample_at, now),
        count("fetch_count"),
        count("error_count"),
        daemon.restarts,
    )
}

/// Returns a field of the daemon's document; the document of the shim wraps it.
fn field<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let wrapped = || status.get("instances")?.get(0)?.get("status")?.get(name);
    status.get(name).or_else(wrapped)
}

/// Returns a value as people read it: text without quotes, all else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn part_row(part: Part, entry: &Entry, now: Timestamp) -> String {
    let (word, words) = match &entry.health {
        Health::Starting { doing } => ("starting", doing.as_str()),
        Health::Ok => ("ok", ""),
        Health::Off => ("off", ""),
        Health::Degraded { reason } => ("degraded", reason.as_str()),
        Health::Down { reason } => ("down", reason.as_str()),
    };
    format!(
        "<tr><td>{}</td>{}<td>{}</td><td class=\"text\"><bdi>{}</bdi></td></tr>\n",
        part_name(part),
        state(word),
        age(now.since(entry.since)),
        text(words)
    )
}

/// The name of a part in the JSON of the report.
const fn part_name(part: Part) -> &'static str {
    match part {
        Part::Questdb => "questdb",
        Part::Grafana => "grafana",
        Part::Schema => "schema",
        Part::Spool => "spool",
        Part::Writer => "writer",
        Part::Collect => "collect",
        Part::Alerts => "alerts",
        Part::Web => "web",
    }
}

/// A cell with a state; it is a class only when it is a plain word.
fn state(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let class = if plain { word } else { "" };
    format!("<td class=\"state {class}\">{}</td>", text(word))
}

fn figures(report: &Report, now: Timestamp) -> String {
    let (spool, writer) = (&report.spool, &report.writer);
    let oldest = Duration::try_from_secs_f64(spool.oldest_age_seconds).unwrap_or_default();
    [
        ("Waiting on disk", format!("{} rows, {}", spool.rows, bytes(spool.bytes))),
        ("Oldest waiting", if spool.rows > 0 { age(oldest) } else { "–".to_owned() }),
        ("On disk since start", format!("{} rows", spool.durable_rows)),
        ("Written to QuestDB since start", format!("{} rows", writer.rows_total)),
        ("Last write", ago(writer.last_write_at, now)),
        ("Refused", format!("{} rows", writer.refused_total)),
        ("Lost", format!("{} rows", spool.lost_rows)),
    ]
    .iter()
    .map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n"))
    .collect()
}

fn server(server: &Server) -> String {
    let mut html = text(&server.state);
    if let Some(version) = &server.version {
        html.push(' ');
        html.push_str(&text(version));
    }
    if let Some(url) = &server.http {
        html.push_str(&format!(" · {}", link(url)));
    }
    if let Some(pg) = &server.pg {
        html.push_str(&format!(" · PostgreSQL wire {}", text(pg)));
    }
    if let Some(pid) = server.pid {
        html.push_str(&format!(" · pid {pid}"));
    }
    html
}

/// A link, if it is one that a browser may follow.
fn link(url: &str) -> String {
    let shown = text(url);
    let web = url.starts_with("http://") || url.starts_with("https://");
    if web && url.chars().count() <= LONGEST {
        format!("<a href=\"{shown}\" rel=\"noreferrer\">{shown}</a>")
    } else {
        shown
    }
}

/// Returns `raw` for HTML, in text and in quoted attributes. Control and direction characters are
/// replaced: they could hide or reorder what stands around them. Long text is cut.
pub(super) fn text(raw: &str) -> String {
    let mut html = String::with_capacity(raw.len().min(LONGEST * 2));
    for (index, c) in raw.chars().enumerate() {
        if index == LONGEST {
            html.push('…');
            break;
        }
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if c.is_control() || is_direction(c) => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

const fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{} ago", age(now.since(time))))
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10).min(4);
    let unit = UNITS.get(usize::try_from(power - 1).unwrap_or(0)).copied().unwrap_or("TiB");
    let tenths = (u128::from(count) * 10) >> (10 * power);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_once() {
        let slots = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(fill("{{a}}-{{b}}-{{c}}-{{", &slots), "{{b}}-x--{{");
    }

    #[test]
    fn every_slot_of_the_template_exists() {
        let template = embed::asset_text("web/status.html").unwrap();
        let report = super::super::tests::report();
        let slots = slots(&report, report.started_at, "127.0.0.1:1".parse().unwrap(), &[]);
        for piece in template.split("{{").skip(1) {
            let name = piece.split("}}").next().unwrap();
            assert!(slots.iter().any(|(slot, _)| *slot == name), "{name}");
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(text("<a href='x\">&"), "&lt;a href=&#39;x&quot;&gt;&amp;");
        assert_eq!(text("a\u{202e}b\u{1b}[31m\n"), "a\u{fffd}b\u{fffd}[31m\u{fffd}");
        assert_eq!(text(&"<".repeat(400)), format!("{}…", "&lt;".repeat(300)));
        assert_eq!(state("\" onload=\"x"), "<td class=\"state \">&quot; onload=&quot;x</td>");
        assert_eq!(link("javascript:alert(1)"), "javascript:alert(1)");
    }

    #[test]
    fn ages_and_sizes_are_short() {
        let ages = [(0, "0 s"), (61, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, shown) in ages {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
        let sizes = [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (1 << 30, "1.0 GiB")];
        for (count, shown) in sizes {
            assert_eq!(bytes(count), shown);
        }
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
