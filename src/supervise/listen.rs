//! Which addresses the managed server gets: the configured ones, or free ones where that is allowed.
//! Blocking, a few milliseconds.

use std::io;
use std::net::SocketAddr;

use super::cause::Cause;
use super::policy::Kind;
use super::questdb::listen_address;
use crate::base::ports;

/// Where the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) http: SocketAddr,
    pub(super) pg: SocketAddr,
}

/// Returns two free addresses for `questdb.http` and `questdb.pg`. Those of the `last` start are
/// kept where the port is left open, so that a restart changes nothing for others; `may_move` says
/// whether a taken port may be replaced.
///
/// # Errors
/// An address is invalid or taken; the cause names the holder.
pub(super) fn choose(
    http: &str,
    pg: &str,
    last: Option<Addresses>,
    may_move: bool,
) -> Result<Addresses, Cause> {
    let wanted_pg = parse("questdb.pg", pg)?;
    let http = parse("questdb.http", http)?;
    let http = one("questdb.http", http, last.map(|last| last.http), may_move)?;
    let mut pg = one("questdb.pg", wanted_pg, last.map(|last| last.pg), may_move)?;
    // Nobody holds the first one yet: the system may give the same port twice.
    while pg.port() == http.port() && (wanted_pg.port() == 0 || may_move) {
        pg.set_port(0);
        pg = one("questdb.pg", pg, None, may_move)?;
    }
    Ok(Addresses { http, pg })
}

/// Returns the loopback address that `text` names.
///
/// # Errors
/// It is none.
pub fn parse(key: &str, text: &str) -> Result<SocketAddr, Cause> {
    listen_address(key, text).map_err(|error| Cause::new(Kind::Hopeless, error))
}

/// Returns the address to listen on for `key`, which is configured as `wanted`; see [`choose`].
///
/// # Errors
/// It is taken; the cause names the holder.
pub fn one(
    key: &str,
    wanted: SocketAddr,
    last: Option<SocketAddr>,
    may_move: bool,
) -> Result<SocketAddr, Cause> {
    if wanted.port() == 0
        && let Some(address) = last
        && ports::free(address).is_ok()
    {
        return Ok(address);
    }
    let error = match ports::free(wanted) {
        Ok(address) => return Ok(address),
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Err(Cause::new(Kind::Blocked, format!("{key} = {wanted}: {error}")));
    }
    let holder =
        ports::holder(wanted).map_or_else(|| "another program".to_owned(), |h| h.to_string());
    let port = wanted.port();
    let taken = format!("port {port} ({key}) is taken by {holder}");
    if !may_move {
        return Err(Cause::new(Kind::Blocked, format!("{taken}; stop it or set {key}")));
    }
    let mut anywhere = wanted;
    anywhere.set_port(0);
    let free = last.filter(|address| ports::free(*address).is_ok()).map_or_else(
        || ports::free(anywhere).map_err(|error| Cause::new(Kind::Blocked, error.to_string())),
        Ok,
    )?;
    tracing::warn!("{taken}; using port {} instead", free.port());
    Ok(free)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn open_ports_are_kept_over_restarts_and_never_equal() {
        let first = choose("127.0.0.1:0", "localhost:0", None, false).unwrap();
        assert_ne!(first.http.port(), first.pg.port());
        let again = choose("127.0.0.1:0", "localhost:0", Some(first), false).unwrap();
        assert_eq!(first, again);
        let taken = TcpListener::bind(first.http).unwrap();
        let moved = choose("127.0.0.1:0", "localhost:0", Some(first), false).unwrap();
        assert_ne!(moved.http, first.http);
        assert_eq!(moved.pg, first.pg);
        drop(taken);
    }

    #[test]
    fn a_taken_port_is_named_or_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = listener.local_addr().unwrap();
        let refused = choose("127.0.0.1:0", &wanted.to_string(), None, false).unwrap_err();
        let expected = format!("port {} (questdb.pg) is taken by ", wanted.port());
        assert!(refused.reason.starts_with(&expected), "{}", refused.reason);
        assert_eq!(refused.kind, Kind::Blocked);
        let moved = choose("127.0.0.1:0", &wanted.to_string(), None, true).unwrap();
        assert_ne!(moved.pg, wanted);
    }

    #[test]
    fn an_address_outside_of_loopback_is_hopeless() {
        let refused = choose("0.0.0.0:9000", "127.0.0.1:0", None, false).unwrap_err();
        assert_eq!(refused.kind, Kind::Hopeless);
        assert!(refused.reason.starts_with("questdb.http = 0.0.0.0:9000"), "{}", refused.reason);
    }
}
