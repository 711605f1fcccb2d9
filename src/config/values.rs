//! Texts of settings into values: durations, sizes, addresses, URLs. Pure; errors are what stands
//! after the value in a message, and a hint.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a text is no such value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What stands after the value: "is too short".
    pub(super) message: String,
    /// The next step.
    pub(super) hint: String,
}

fn fault<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { message: message.into(), hint: hint.into() })
}

/// Units of durations, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of sizes, in bytes; names are compared without case.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

const DURATION_HINT: &str = "write a whole number and ms, s, m, h or d, such as \"5s\"";
const SIZE_HINT: &str =
    "write a whole number and B, kB, MB, GB, KiB, MiB or GiB, such as \"256MB\"";

/// Reads a duration: `200ms`, `5s`, `1h30m`, `90d`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return fault("is no duration", DURATION_HINT);
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end).unwrap_or((after, ""));
        let Some(number) = number else { return fault("is no duration", DURATION_HINT) };
        let unit = unit.trim();
        if unit.is_empty() {
            return fault("has no unit", DURATION_HINT);
        }
        let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return fault(format!("has the unknown unit {unit:?}"), DURATION_HINT);
        };
        let part = number.checked_mul(*factor).and_then(|part| total.checked_add(part));
        let Some(sum) = part else { return fault("is too long", DURATION_HINT) };
        total = sum;
        rest = next;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size in bytes: `256MB` (10^6), `1GiB` (2^30).
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let (number, unit) = leading_number(text.trim());
    let Some(number) = number else { return fault("is no size", SIZE_HINT) };
    let unit = unit.trim();
    if unit.is_empty() && number != 0 {
        return fault("has no unit", SIZE_HINT);
    }
    let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    match known {
        Some((_, factor)) => match number.checked_mul(*factor) {
            Some(bytes) => Ok(bytes),
            None => fault("is too large", SIZE_HINT),
        },
        None if unit.is_empty() => Ok(0),
        None => fault(format!("has the unknown unit {unit:?}"), SIZE_HINT),
    }
}

/// Splits the digits off the beginning; `None` when there are none or too many.
fn leading_number(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (digits.parse().ok(), rest)
}

/// Prints a duration the way [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = |(_, factor): &&(&str, u64)| millis != 0 && millis.is_multiple_of(*factor);
    match DURATION_UNITS.iter().rev().find(unit) {
        Some((name, factor)) => format!("{}{name}", millis / factor),
        None => "0s".to_owned(),
    }
}

/// Prints a size the way [`size`] reads it.
pub(super) fn show_size(bytes: u64) -> String {
    let unit = |(_, factor): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*factor);
    let fitting = SIZE_UNITS.iter().filter(unit).max_by_key(|(_, factor)| *factor);
    match fitting {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => "0B".to_owned(),
    }
}

/// Splits `host:port`; the port may be `auto`, which is 0. The host keeps the brackets of IPv6.
pub(super) fn host_port(text: &str) -> Result<(String, u16), Fault> {
    const HINT: &str =
        "write host:port, such as \"127.0.0.1:9000\"; port \"auto\" takes a free one";
    let text = text.trim();
    let Some((host, port)) = text.rsplit_once(':') else { return fault("has no port", HINT) };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid_host = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if !valid_host {
        return fault("has no valid host", HINT);
    }
    let port = match port {
        "auto" => 0,
        digits => match digits.parse() {
            Ok(port) => port,
            Err(_) => return fault(format!("has the port {port:?}, which is none"), HINT),
        },
    };
    Ok((host.to_owned(), port))
}

/// Whether `host` is an IPv4 address or a plain host name.
pub(super) fn is_host_name(host: &str) -> bool {
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // The system's resolver takes 2852039166, 0xa9fea9fe and 127.1 for addresses: such a spelling
    // would go past every check of addresses.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.chars().all(|c| c.is_ascii_digit()) || last.starts_with("0x");
    !numeric && host.len() <= 253 && host.chars().all(plain)
}

/// Reads an address to listen on; `localhost` is 127.0.0.1.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Fault> {
    let (host, port) = host_port(text)?;
    match ip(&host) {
        Some(ip) => Ok(SocketAddr::new(ip, port)),
        None => fault("is no address of this machine", "write an IP address, such as 127.0.0.1"),
    }
}

/// Returns the IP address that `host` is, brackets or not; `localhost` is 127.0.0.1.
pub(super) fn ip(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether traffic to `host` stays on this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    ip(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// A URL in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// `http`, `https`, `ws` or `wss`.
    pub(super) scheme: String,
    /// Host, IPv6 in brackets.
    pub(super) host: String,
    /// Port, if one is given.
    pub(super) port: Option<u16>,
    /// Path and query, at least `/`.
    pub(super) path: String,
}

impl Url {
    /// Scheme, host and port, no slash at the end.
    pub(super) fn origin(&self) -> String {
        match self.port {
            Some(port) => format!("{}://{}:{port}", self.scheme, self.host),
            None => format!("{}://{}", self.scheme, self.host),
        }
    }
}

/// Reads an http(s) URL.
pub(super) fn url(text: &str) -> Result<Url, Fault> {
    const HINT: &str = "write a URL such as \"http://127.0.0.1:8080/status\"";
    of_scheme(text, ["http", "https"], "only http and https are polled", HINT)
}

/// Reads a ws(s) URL.
pub(super) fn websocket_url(text: &str) -> Result<Url, Fault> {
    const HINT: &str = "write a URL such as \"ws://127.0.0.1:8080/status\"";
    of_scheme(text, ["ws", "wss"], "a WebSocket has ws:// or wss://", HINT)
}

fn of_scheme(text: &str, known: [&str; 2], others: &str, hint: &str) -> Result<Url, Fault> {
    let text = text.trim();
    let Some((scheme, _)) = text.split_once("://") else { return fault("is no URL", hint) };
    let scheme = scheme.to_ascii_lowercase();
    if !known.contains(&scheme.as_str()) {
        return fault(format!("has the scheme {scheme:?}"), others);
    }
    let Ok(uri) = text.parse::<hyper::Uri>() else { return fault("is no URL", hint) };
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return fault("has no host", hint);
    };
    if has_user_info(text) {
        return fault("holds a user or password", "use the keys user and password, or token");
    }
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    if !is_host_name(host) && plain.parse::<std::net::Ipv6Addr>().is_err() {
        return fault("has no valid host", hint);
    }
    let after_host = authority.as_str().strip_prefix(host).unwrap_or_default();
    let port = match after_host.strip_prefix(':') {
        None => None,
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => {
                return fault(format!("has the port {digits:?}, which is none"), hint);
            }
            Ok(port) => Some(port),
        },
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Url { scheme, host: host.to_owned(), port, path })
}

/// Whether the authority of a URL holds a user part, which may be a password.
pub(super) fn has_user_info(text: &str) -> bool {
    let after = text.split_once("://").map_or(text, |(_, after)| after);
    let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// Whether `host` is a link-local address: metadata services of clouds live there.
pub(super) fn is_link_local(host: &str) -> bool {
    match ip(host).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        None => false,
    }
}

/// Reads a version of three numbers.
pub(super) fn version(text: &str) -> Option<[u32; 3]> {
    let mut numbers = text.split('.').map(|part| {
        let digits = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_print_as_they_are_read() {
        let cases = [("200ms", 200), ("5s", 5_000), ("1h30m", 5_400_000), ("90d", 7_776_000_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["5s", "200ms", "15m", "1h", "90d", "1500ms", "0s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for (text, message) in [
            ("5", "has no unit"),
            ("", "is no duration"),
            ("s", "is no duration"),
            ("-5s", "is no duration"),
            ("1.5s", "has the unknown unit \".\""),
            ("5 min", "has the unknown unit \"min\""),
            ("99999999999999999999d", "is no duration"),
            ("999999999999999999d", "is too long"),
        ] {
            assert_eq!(duration(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_print_as_they_are_read() {
        for (text, bytes) in [
            ("256MB", 256_000_000),
            ("1GiB", 1 << 30),
            ("64mib", 64 << 20),
            ("0", 0),
            ("1 kB", 1000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["256MB", "1GiB", "64MiB", "1500kB", "7B", "0B"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        for (text, message) in [
            ("256", "has no unit"),
            ("256M", "has the unknown unit \"M\""),
            ("lots", "is no size"),
            ("99999999TiB", "is too large"),
        ] {
            assert_eq!(size(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn addresses_may_ask_for_a_free_port() {
        assert_eq!(host_port("127.0.0.1:auto"), Ok(("127.0.0.1".to_owned(), 0)));
        assert_eq!(host_port("[::1]:9000"), Ok(("[::1]".to_owned(), 9000)));
        assert_eq!(listen_address("localhost:7480").unwrap().to_string(), "127.0.0.1:7480");
        for bad in ["127.0.0.1", ":80", "a b:80", "::1:80", "h:65536", "h:-1", "http://h:80"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        assert!(is_loopback("127.8.8.8") && is_loopback("[::1]") && is_loopback("LOCALHOST"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example.org"));
    }

    #[test]
    fn urls_are_http_without_a_user_part() {
        let parsed = url("https://Host.example:8443/a?b=c").unwrap();
        assert_eq!(parsed.origin(), "https://Host.example:8443");
        assert_eq!(parsed.path, "/a?b=c");
        assert_eq!(url("http://[::1]/").unwrap().host, "[::1]");
        for (text, message) in [
            ("127.0.0.1:80", "is no URL"),
            ("ftp://h/", "has the scheme \"ftp\""),
            ("http://u:p@h/", "holds a user or password"),
            ("http:///x", "is no URL"),
            ("http://2852039166/", "has no valid host"),
            ("http://0xa9.0xfea9fe/", "has no valid host"),
            ("http://h:0/", "has the port \"0\", which is none"),
        ] {
            assert_eq!(url(text).unwrap_err().message, message, "{text}");
        }
        assert!(is_link_local("169.254.169.254") && is_link_local("[fe80::1]"));
        assert!(is_link_local("[::ffff:169.254.1.1]") && !is_link_local("[fec0::1]"));
    }

    #[test]
    fn versions_have_three_numbers() {
        assert_eq!(version("9.3.4"), Some([9, 3, 4]));
        for bad in ["9.3", "9.3.4.1", "v9.3.4", "9..4", "9.3.x", "9.+3.4"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
