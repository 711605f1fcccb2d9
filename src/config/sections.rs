//! The checks of the sections about periscope itself: one function each, keys in the order of the
//! example file.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Problems, quoted, suggestion};
use super::file::Entry;
use super::reader::{Section, wrong_kind};
use super::secrets::Sources;
use super::values::{self, Fault};
use super::{Collect, Listen, Node, Profile, Retention, Spool, Writer};
use super::{defaults, file::Value};
use crate::model::table::{self, TABLES};

/// Time between polls.
pub(super) const INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
const FLUSH_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const WRITE_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
const REPLAY_WINDOWS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
const DOCUMENTS: RangeInclusive<u64> = (1 << 10)..=(64 << 20);
const SPOOL_SIZES: RangeInclusive<u64> = (1 << 20)..=(1 << 50);
const FREE_SIZES: RangeInclusive<u64> = 0..=(1 << 50);
const BATCHES: RangeInclusive<usize> = 1..=50_000;
const QUEUES: RangeInclusive<usize> = 1_000..=10_000_000;

/// Whether `text` can be a tag of a row: 1 to 255 characters, none of them a control character.
pub(super) fn tag(text: &str) -> Result<String, Fault> {
    let hint = "use 1 to 255 characters, none of them a control character".to_owned();
    let message = if text.chars().any(char::is_control) {
        "holds a control character"
    } else if text.chars().count() > 255 {
        "is longer than 255 characters"
    } else {
        return Ok(text.to_owned());
    };
    Err(Fault { message: message.to_owned(), hint })
}

pub(super) fn node(mut section: Section<'_>, machine: &str, problems: &mut Problems) -> Node {
    let written = section.has("host");
    let host = section.parsed("host", tag, problems);
    let host = host.unwrap_or_else(|| machine.to_owned());
    if !written && (host.trim().is_empty() || tag(&host).is_err()) {
        let message = format!("the machine's name {} cannot be used", quoted(machine));
        section.refuse("host", message, "write [node] host = \"vps-1\"", problems);
    }
    let envs = [("prod", "prod"), ("staging", "staging"), ("dev", "dev")];
    let env = section.choice("env", &envs, problems).unwrap_or(defaults::ENV);
    section.finish(problems);
    Node { host, env: env.to_owned() }
}

pub(super) fn listen(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Listen {
    let address = section.parsed("address", values::listen_address, problems);
    let address = address.unwrap_or(defaults::LISTEN);
    let has_token = section.has("token");
    let token = section.secret("token", sources, problems);
    if token.as_ref().is_some_and(|token| !token.reveal().is_ascii()) {
        let hint = "clients send it in a header: use letters, digits and signs of ASCII";
        section.refuse("token", "holds characters outside ASCII", hint, problems);
    }
    if !address.ip().to_canonical().is_loopback() && !has_token {
        section.refuse(
            "address",
            format!("\"{address}\" can be reached by others and there is no token"),
            "set listen.token = { file = \"PATH\" }, or listen on 127.0.0.1",
            problems,
        );
    }
    let mut allowed_hosts = Vec::new();
    for host in section.texts("allowed_hosts", problems) {
        let host = host.to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if values::is_host_name(&host) || bare.parse::<std::net::Ipv6Addr>().is_ok() {
            allowed_hosts.push(host);
        } else {
            let hint = "write names without scheme and port, such as \"status.example.org\"";
            section.refuse(
                "allowed_hosts",
                format!("{} is no name", quoted(&host)),
                hint,
                problems,
            );
        }
    }
    section.finish(problems);
    Listen { address, token, allowed_hosts }
}

pub(super) fn collect(
    mut section: Section<'_>,
    profile: Profile,
    problems: &mut Problems,
) -> Collect {
    let interval = section.duration("interval", INTERVALS, problems);
    let trading_interval = section.duration("trading_interval", INTERVALS, problems);
    let max_document = section.size("max_document", DOCUMENTS, problems);
    let max_document = max_document.and_then(|bytes| usize::try_from(bytes).ok());
    section.finish(problems);
    let interval = interval.unwrap_or(defaults::interval(profile));
    Collect {
        interval,
        trading_interval: trading_interval.unwrap_or(defaults::TRADING_INTERVAL).min(interval),
        max_document: max_document.unwrap_or(defaults::MAX_DOCUMENT),
    }
}

pub(super) fn writer(
    mut section: Section<'_>,
    profile: Profile,
    problems: &mut Problems,
) -> Writer {
    let batch_rows = section.integer("batch_rows", BATCHES, problems);
    let flush_interval = section.duration("flush_interval", FLUSH_INTERVALS, problems);
    let queue_rows = section.integer("queue_rows", QUEUES, problems);
    let timeout = section.duration("timeout", WRITE_TIMEOUTS, problems);
    let writer = Writer {
        batch_rows: batch_rows.unwrap_or(defaults::BATCH_ROWS),
        flush_interval: flush_interval.unwrap_or(defaults::flush_interval(profile)),
        queue_rows: queue_rows.unwrap_or(defaults::QUEUE_ROWS),
        timeout: timeout.unwrap_or(defaults::WRITE_TIMEOUT),
    };
    if writer.queue_rows < writer.batch_rows {
        let (queue, batch) = (writer.queue_rows, writer.batch_rows);
        let message = format!("{queue} rows are fewer than one batch of {batch}");
        section.refuse("queue_rows", message, "raise queue_rows or lower batch_rows", problems);
    }
    section.finish(problems);
    writer
}

pub(super) fn spool(mut section: Section<'_>, problems: &mut Problems) -> Spool {
    let max_bytes = section.size("max_bytes", SPOOL_SIZES, problems);
    let min_free = section.size("min_free", FREE_SIZES, problems);
    let replay_window = section.duration("replay_window", REPLAY_WINDOWS, problems);
    let replay_bytes = section.size("replay_bytes", FREE_SIZES, problems);
    section.finish(problems);
    Spool {
        max_bytes: max_bytes.unwrap_or(defaults::SPOOL_MAX_BYTES),
        min_free: min_free.unwrap_or(defaults::SPOOL_MIN_FREE),
        replay_window: replay_window.unwrap_or(defaults::REPLAY_WINDOW),
        replay_bytes: replay_bytes.unwrap_or(defaults::REPLAY_BYTES),
    }
}

/// Reads `[retention]`, whose keys are `default` and the names of tables.
pub(super) fn retention(section: &Section<'_>, problems: &mut Problems) -> Retention {
    let mut retention = Retention::default();
    for (key, entry) in section.entries() {
        if key != "default" && table::find(key).is_none() {
            let known = TABLES.into_iter().map(|table| table.name).chain(["default"]);
            let hint = suggestion(key, known);
            problems.error(&entry.place, section.path_of(key), "unknown table", Some(hint));
            continue;
        }
        match days(entry) {
            Ok(days) if key == "default" => retention.default_days = Some(days),
            Ok(days) => {
                retention.tables.insert(key.clone(), days);
            }
            Err(Fault { message, hint }) => section.refuse(key, message, hint, problems),
        }
    }
    retention
}

fn days(entry: &Entry) -> Result<u32, Fault> {
    const DAY: Duration = Duration::from_secs(86_400);
    let hint = "write whole days, such as \"90d\"".to_owned();
    let (Value::Text(text) | Value::Word(text)) = &entry.value else {
        return Err(Fault { message: wrong_kind(entry), hint });
    };
    let shown = quoted(text);
    let duration = values::duration(text).map_err(|fault| Fault {
        message: format!("{shown} {}", fault.message),
        hint: fault.hint,
    })?;
    let whole = duration >= DAY && duration.as_secs().is_multiple_of(DAY.as_secs());
    let days = u32::try_from(duration.as_secs() / DAY.as_secs()).ok();
    let days = days.filter(|days| whole && duration.subsec_nanos() == 0 && *days <= 36_500);
    days.ok_or(Fault { message: format!("{shown} is not 1 to 36500 whole days"), hint })
}
